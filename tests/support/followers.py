"""
Followers: clients that keep what a client would hold, over SSE and over a WebSocket.

They keep runs by id, forget what is gone, remember the cursor only where the protocol gives one,
can lose their connection at any time, and check each message against what may be seen.
"""

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import httpx
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.support.gateway_app import PATIENCE_SECONDS

RunObject = dict[str, Any]

# SSE that resumes with Last-Event-ID, SSE that resumes with ?cursor=, or a WebSocket.
Transport = Literal["header", "query", "socket"]


@dataclass
class Feed:
    """What to follow, for HTTP and for the WebSocket, and who may see what of it."""

    path: str
    asked: dict[str, Any]
    token: str
    shows: Callable[[RunObject], bool] = lambda run: True
    stay: bool = False


@dataclass
class Follower:
    """
    One client. ``runs`` is what it would show; ``revisions`` the newest it was ever sent.

    A connection that ends by itself is not opened again: the test says when, with `start`.
    ``url`` and ``transport`` may be changed between two connections.
    """

    url: str
    feed: Feed
    transport: Transport = "header"
    cursor: str | None = None
    runs: dict[str, RunObject] = field(default_factory=dict)
    revisions: dict[str, int] = field(default_factory=dict)
    up_to_date: bool = False
    ended: str | None = None
    refused: str | None = None
    resets: list[str] = field(default_factory=list)
    received: int = 0
    connections: int = 0
    _reading: "asyncio.Task[None] | None" = None
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _listening: asyncio.Event = field(default_factory=asyncio.Event)

    # -- what a test tells it ---------------------------------------------------------------------

    def start(self) -> None:
        """Connect, from the cursor where there is one."""
        assert self._reading is None or self._reading.done()
        if self.cursor is None:
            self.runs.clear()  # nothing can be continued: what is known may have holes
        self.revisions = {}
        self.up_to_date = False
        self.refused = self.ended = None
        self.connections += 1
        self._listening.set()
        socket = self.transport == "socket"
        self._reading = asyncio.create_task(self._follow_socket() if socket else self._follow_sse())
        self._reading.add_done_callback(lambda _: self._changed.set())

    async def drop(self) -> None:
        """Lose the connection, in the middle of whatever comes."""
        if self._reading is not None and not self._reading.done():
            self._reading.cancel()
        await self.over()

    async def over(self) -> None:
        """Wait until the connection has ended; what went wrong while reading is raised here."""
        if self._reading is not None:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await asyncio.wait({self._reading})
            self._raise_what_failed()

    async def until(self, holds: Callable[["Follower"], bool]) -> None:
        """Wait, bounded, until something is true of what this client holds."""
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                while not holds(self):
                    self._raise_what_failed()
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"did not come true: {self.summary()}") from None

    async def caught_up(self) -> None:
        """Wait until the gateway said so."""
        await self.until(lambda follower: follower.up_to_date)

    def stop_reading(self) -> None:
        """Take nothing from the socket any more, until `go_on_reading`."""
        self._listening.clear()

    def go_on_reading(self) -> None:
        self._listening.set()

    @property
    def connected(self) -> bool:
        return self._reading is not None and not self._reading.done()

    def state(self) -> dict[str, int]:
        """Revisions by run."""
        return {run_id: run["revision"] for run_id, run in self.runs.items()}

    def summary(self) -> str:
        """What to say of this client where something failed; no tokens."""
        shown = sorted(self.state().items())[:40]
        return (
            f"{self.transport} {self.feed.path} connections={self.connections}"
            f" received={self.received} up_to_date={self.up_to_date} ended={self.ended}"
            f" refused={self.refused} resets={self.resets} runs={shown}"
        )

    def _raise_what_failed(self) -> None:
        reading = self._reading
        if reading is not None and reading.done() and not reading.cancelled():
            reading.result()

    # -- what it hears ----------------------------------------------------------------------------

    def _refuse(self, code: str) -> None:
        self.refused = code
        if code in ("not_found", "insufficient_scope"):
            self.runs.clear()
            self.cursor = None
        self._changed.set()

    def _receive(self, event: str, data: dict[str, Any]) -> None:
        if event == "connection":
            return
        self.received += 1
        match event:
            case "run":
                assert self.feed.shows(data), f"was sent {data} on {self.summary()}"
                run_id, revision = data["id"], data["revision"]
                before = self.revisions.get(run_id, 0)
                assert before <= revision, f"{run_id} went back from {before} on {self.summary()}"
                self.revisions[run_id] = revision
                self.runs[run_id] = data
            case "gone":
                assert data["reason"] in ("deleted", "unmatched")
                self.runs.pop(data["id"], None)
            case "up-to-date":
                self.up_to_date = True
            case "reset":
                self.resets.append(data["reason"])
                self.runs.clear()
                self.revisions.clear()
                self.cursor = None
                self.up_to_date = False
            case "end":
                self.ended = data["reason"]
            case "reconnect" | "expired":
                pass
            case _:
                raise AssertionError(f"{event} {data} on {self.summary()}")
        self._changed.set()

    def _remember(self, cursor: str) -> None:
        self.cursor = cursor
        self._changed.set()

    # -- how it hears it --------------------------------------------------------------------------

    async def _follow_sse(self) -> None:
        headers = {"authorization": f"Bearer {self.feed.token}"}
        parameters = {"stay": "true"} if self.feed.stay else {}
        if self.cursor is not None and self.transport == "header":
            headers["last-event-id"] = self.cursor
        elif self.cursor is not None:
            parameters["cursor"] = self.cursor
        try:
            async with (
                httpx.AsyncClient(base_url=self.url, trust_env=False, timeout=None) as client,
                client.stream(
                    "GET",
                    self.feed.path,
                    params=_merged(self.feed.path, parameters),
                    headers=headers,
                ) as response,
            ):
                if response.status_code == 204:
                    self.ended = "finished"
                    self._changed.set()
                elif response.status_code != 200:
                    await response.aread()
                    self._refuse(response.json()["code"])
                else:
                    await self._read(response)
        except httpx.TransportError:
            self._changed.set()  # the connection is gone: that is for the test to judge

    async def _read(self, response: httpx.Response) -> None:
        event, data, cursor = "", "", None
        async for line in response.aiter_lines():
            await self._listening.wait()
            name, _, value = line.partition(": ")
            match name:
                case "event":
                    event = value
                case "data":
                    data = value
                case "id":
                    cursor = value
                case "":
                    # As in a browser: a cursor counts with the end of its event, named or not.
                    if event:
                        self._receive(event, json.loads(data))
                    if cursor is not None:
                        self._remember(cursor)
                    event, data, cursor = "", "", None

    async def _follow_socket(self) -> None:
        command = {"type": "subscribe", "id": "s", "runs": self.feed.asked, "stay": self.feed.stay}
        if self.cursor is not None:
            command["cursor"] = self.cursor
        try:
            async with connect(
                self.url.replace("http", "ws", 1) + "/realtime/v1/ws",
                additional_headers={"authorization": f"Bearer {self.feed.token}"},
                proxy=None,
                max_size=None,
                compression=None,
            ) as socket:
                try:
                    await socket.send(json.dumps(command))
                    async for text in socket:
                        await self._listening.wait()
                        self._take(json.loads(text))
                        if self.ended is not None or self.refused is not None:
                            return
                except asyncio.CancelledError:
                    socket.transport.abort()
                    raise
        except (ConnectionClosed, InvalidStatus, OSError):
            self._changed.set()

    def _take(self, message: dict[str, Any]) -> None:
        match message["type"]:
            case "authenticated" | "pong":
                return
            case "cursor":
                if self.up_to_date:
                    self._remember(message["cursor"])
            case "problem":
                self._refuse(message["problem"]["code"])
            case kind:
                self._receive(kind, message.get(kind, {}))
                if "cursor" in message:
                    self._remember(message["cursor"])


def _merged(path: str, parameters: dict[str, str]) -> dict[str, str] | None:
    """httpx drops the query of a path where it is given parameters: hand over both."""
    given = dict(httpx.URL(path).params)
    return given | parameters or None
