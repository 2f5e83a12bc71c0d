"""The real gateway, `runcast serve`, as a subject: public tokens, cursors, a real Postgres."""

import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import httpx

from benchmarks.harness.failure import BenchmarkError
from benchmarks.harness.generator import Mode, Request
from benchmarks.harness.processes import Child, running
from benchmarks.harness.store import Store
from benchmarks.harness.subject import Contestant, Subject, get, text_frame, upgrade

if TYPE_CHECKING:
    from benchmarks.harness.bench import Bench

UP_TO_DATE = "up-to-date"
TAG = "bench"
RUN = "run_bench0"

_TOKENS = 100  # distinct ones among the subscribers, as of so many users
_RUNS_FEED = f"/realtime/v1/runs?tags={TAG}&skipColumns=payload"
_OFFICIAL = "x-trigger-electric-version: 1.0.0-beta.1\r\nx-trigger-api-version: 2025-07-16\r\n"


@dataclass(frozen=True)
class Gateway:
    """A running gateway."""

    port: int
    child: Child
    store: Store

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pids(self) -> list[int]:
        return self.child.pids

    async def metric(self, name: str) -> float:
        """The value of a metric without labels."""
        async with httpx.AsyncClient(trust_env=False) as client:
            text = (await client.get(f"{self.url}/metrics")).text
        for line in text.splitlines():
            if line.startswith(f"{name} "):
                return float(line.split()[1])
        raise BenchmarkError(f"The gateway has no metric {name}.")


@asynccontextmanager
async def serving(bench: "Bench", store: Store, **settings: str) -> AsyncIterator[Gateway]:
    """
    Run `runcast serve` on the server's cores.

    Heartbeats are 5 minutes apart so that a short measurement has either none or, where it is long
    enough, all of them; `idle` has a figure for what they cost. Settings are environment variables
    without their prefix, in any case: ``transport="portable"``.
    """
    chosen = {"heartbeat_seconds": "300", **settings}
    environment = {f"RUNCAST_{name.upper()}": value for name, value in chosen.items()}
    command = [sys.executable, "-m", "runcast", "serve", "--port", "0"]
    async with running(
        command,
        folder=bench.folder,
        cores=bench.layout.server,
        environment={
            "DATABASE_URL": store.url,
            "RUNCAST_OBJECTS_DIR": str(bench.folder / "objects"),
            **environment,
        },
        errors_with_output=True,
    ) as child:
        yield Gateway(await child.port("runcast serve"), child, store)


def gateway(
    name: str,
    mode: Mode,
    *,
    requests: Callable[[Store], Sequence[Request]],
    publish: Callable[[Store, int, int], Awaitable[None]] | None = None,
    bystanders: Callable[[Store], Sequence[Request]] | None = None,
    settings: Mapping[str, str] | None = None,
) -> Contestant:
    """
    The gateway as a contestant.

    Args:
        requests: Of its subscribers.
        publish: Given the store, a stamp and bytes of padding; changes the watched run if None.
        bystanders: Subscribers, one for each request, who get none of the messages.
        settings: As for `serving`.
    """

    @asynccontextmanager
    async def start(bench: "Bench", size: int) -> AsyncIterator[Subject]:
        store = await bench.store()
        padding = max(0, size - await bench.smallest_event())

        async def publish_one(stamp: int) -> None:
            await (publish or _touch)(store, stamp, padding)

        async with serving(bench, store, **(settings or {})) as running_gateway:
            yield Subject(
                port=running_gateway.port,
                pids=running_gateway.pids,
                mode=mode,
                requests=requests(store),
                publish=publish_one,
                ready=None if mode == "poll" else UP_TO_DATE,
                bystanders=bystanders(store) if bystanders else (),
            )

    return Contestant(name, start)


async def _touch(store: Store, stamp: int, padding: int) -> None:
    await store.touch(RUN, stamp, padding)


def sse_gateway(name: str = "runcast", **settings: str) -> Contestant:
    """Subscribers of one tag over SSE, each with a public token."""
    return gateway(name, "sse", requests=feed_requests, settings=settings)


def websocket_gateway(name: str = "runcast") -> Contestant:
    """Subscribers of one tag, one for each WebSocket, each with a public token."""
    return gateway(name, "websocket", requests=socket_requests)


def poll_gateway(name: str) -> Contestant:
    """Official clients that poll the shape of one tag."""
    return gateway(name, "poll", requests=poll_requests)


def bearer(store: Store, number: int = 0, scope: str = f"read:tags:{TAG}") -> str:
    """The header line of a public token."""
    return f"Authorization: Bearer {store.token(scope, number=number)}\r\n"


def feed_requests(store: Store, tag: str = TAG, more: str = "") -> list[Request]:
    """SSE of a tag, with so many tokens."""
    path = f"/realtime/v1/runs?tags={tag}&skipColumns=payload{more}"
    scope = f"read:tags:{tag}"
    return [Request(get(path, bearer(store, number, scope))) for number in range(_TOKENS)]


def socket_requests(store: Store) -> list[Request]:
    """A WebSocket that subscribes to the benchmark's tag."""
    subscribe = {
        "type": "subscribe",
        "id": "feed",
        "runs": {"tags": [TAG]},
        "skipColumns": ["payload"],
    }
    return [
        Request(
            upgrade("/realtime/v1/ws", bearer(store, number)),
            text_frame(json.dumps(subscribe).encode()),
        )
        for number in range(_TOKENS)
    ]


def poll_requests(store: Store) -> list[Request]:
    """The shape of the benchmark's tag: the snapshot, then live polls for ever."""
    path = f"/realtime/v1/runs?tags={TAG}&skipColumns=payload&offset="
    again = "{offset}&handle={handle}&cursor={cursor}&live=true"
    return [
        Request(
            get(path + "-1", _OFFICIAL + bearer(store, number)),
            get(path + again, _OFFICIAL + bearer(store, number)),
        )
        for number in range(_TOKENS)
    ]
