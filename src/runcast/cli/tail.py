"""`runcast tail`: follow runs in the terminal, through the same event stream as a browser."""

import asyncio
import json
import random
from typing import Annotated, Any
from urllib.parse import quote

import httpx
import typer
from rich.console import Console

from runcast.cli.console import is_terminal, result, say
from runcast.cli.events import Event, EventReader
from runcast.cli.gateway_api import DEFAULT_URL, client, raise_if_refused, unreachable
from runcast.cli.loop import run
from runcast.cli.run_line import run_line
from runcast.errors import ConfigurationError, ExpiredToken, GatewayError, InvalidParameter

_BACK_OFF_SECONDS = (0.5, 15.0)
# Heartbeats come every 15 seconds unless set otherwise; a silent line is then a dead one.
_SILENCE_SECONDS = 60.0
_RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504})


def tail(
    run_id: Annotated[str | None, typer.Argument(metavar="[RUN]", help="Id of one run.")] = None,
    tag: Annotated[
        list[str] | None, typer.Option(help="Runs with this tag; repeated: with all of them.")
    ] = None,
    task: Annotated[str | None, typer.Option(help="Runs of this task.")] = None,
    batch: Annotated[str | None, typer.Option(help="Runs of this batch.")] = None,
    since: Annotated[
        str | None, typer.Option(help="Runs created since: 1h, 7d, or a date with a zone.")
    ] = None,
    stay: Annotated[
        bool, typer.Option("--stay", help="Go on when the one run is finished.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help='Print {"event": …, "data": …} lines.')
    ] = False,
    url: Annotated[str, typer.Option(envvar="RUNCAST_URL", help="The gateway.")] = DEFAULT_URL,
    token: Annotated[
        str | None,
        typer.Option(
            envvar=["RUNCAST_TOKEN", "RUNCAST_SECRET_KEY"],
            help="Public access token or secret key; a variable keeps it out of process lists.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """
    Follow runs: one line each time one changes. Without RUN and options: every run.

    Ends when the one run is finished; reconnects, and misses nothing, until then.
    """
    if not token:
        raise ConfigurationError(
            "Give a token: RUNCAST_TOKEN, or the secret key in RUNCAST_SECRET_KEY, or --token."
        )
    if ((run_id or batch) and (tag or task)) or (run_id and batch):
        raise InvalidParameter("Follow a RUN, or a --batch, or runs by --tag and --task.")
    parameters = {"tags": ",".join(tag or ()), "task": task, "createdAt": since}
    if stay:
        parameters["stay"] = "true"
    feed = Tail(_path(run_id, batch), parameters, as_json=as_json)
    run(feed.follow(url, token))


def _path(run_id: str | None, batch: str | None) -> str:
    if run_id:
        return f"/realtime/v1/runs/{quote(run_id, safe='')}"
    return f"/realtime/v1/batches/{quote(batch, safe='')}" if batch else "/realtime/v1/runs"


class Tail:
    """One feed, followed over as many connections as it takes, from cursor to cursor."""

    def __init__(self, path: str, parameters: dict[str, str | None], *, as_json: bool) -> None:
        self._path = path
        self._parameters = {name: value for name, value in parameters.items() if value}
        self._as_json = as_json
        self._console = Console(highlight=False, soft_wrap=not is_terminal())
        self._cursor: str | None = None
        self._ended = False
        self._delay = _BACK_OFF_SECONDS[0]

    async def follow(self, url: str, token: str) -> None:
        """
        Print changes until the feed ends.

        Raises:
            GatewayError: The gateway refuses, or what answers is none.
        """
        async with client(url, token) as http:
            while not self._ended:
                try:
                    await self._read_response(http)
                except (
                    httpx.InvalidURL,
                    httpx.UnsupportedProtocol,
                    httpx.LocalProtocolError,
                ) as error:
                    raise unreachable(http, error) from error
                except httpx.TransportError as error:
                    say(f"{unreachable(http, error).message} Trying again.")
                if not self._ended:
                    await asyncio.sleep(self._delay * random.uniform(0.5, 1.0))
                    self._delay = min(2 * self._delay, _BACK_OFF_SECONDS[1])

    async def _read_response(self, http: httpx.AsyncClient) -> None:
        headers = {"accept": "text/event-stream"}
        if self._cursor is not None:
            headers["last-event-id"] = self._cursor
        timeout = httpx.Timeout(15.0, read=_SILENCE_SECONDS)
        async with http.stream(
            "GET", self._path, params=self._parameters, headers=headers, timeout=timeout
        ) as response:
            if response.status_code == 204:  # the run was finished at our cursor
                self._ended = True
            elif response.status_code in _RETRIED:
                say(f"the gateway answered {response.status_code}; trying again")
            elif response.is_error:
                await response.aread()
                raise_if_refused(response)
            else:
                await self._read_events(response)

    async def _read_events(self, response: httpx.Response) -> None:
        reader = EventReader(self._cursor)
        async for chunk in response.aiter_bytes():
            for event in reader.receive(chunk):
                self._receive(event)
            self._cursor = reader.cursor

    def _receive(self, event: Event) -> None:
        data: dict[str, Any] = json.loads(event.data)
        match event.name:
            case "run" | "gone":
                self._delay = _BACK_OFF_SECONDS[0]
                self._print(event, data)
            case "up-to-date":
                self._delay = _BACK_OFF_SECONDS[0]
                say("-- up to date")
            case "reset":
                say(f"-- from the beginning: {data['message']}")
            case "reconnect":
                self._delay = data["delayMs"] / 1000
                say("-- the gateway is going away; reconnecting")
            case "end":
                self._ended = True
                say(f"-- {data['reason']}")
            case "expired":
                raise ExpiredToken(f"{data['message']} `runcast token` mints one.")
            case "problem":
                raise GatewayError(data["message"])

    def _print(self, event: Event, data: dict[str, Any]) -> None:
        if self._as_json:
            result(json.dumps({"event": event.name, "data": data}, ensure_ascii=False))
        elif event.name == "run":
            self._console.print(run_line(data))
        else:
            say(f"-- gone: {data['id']} ({data['reason']})")
