"""A hub over runs and streams in memory, and clients whose connections are moved by hand."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from runcast.core.chunk import ChunkPage, NewChunks, StreamName
from runcast.core.limits import Limits
from runcast.core.socket_format import SocketFormat
from runcast.core.stream_format import StreamSocketFormat
from runcast.core.stream_subscription import StreamSubscription
from runcast.errors import BackendError
from runcast.hub.connection import Connection
from runcast.hub.hub import Hub
from runcast.hub.stream_reader import StreamReader
from runcast.testing import ManualClock, MemoryChunkLog, MemoryRunReader
from runcast.web.stream_reading import run_key
from tests.support.grants import make_grant
from tests.support.runs import CREATED_AT, make_run

NAME = StreamName("run_1", "llm")
ENVIRONMENT = "env_1"
_TURNS = 40


class Hold:
    """A read whose answer is on its way until `release`; it is of the time when it was asked."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self._released = asyncio.Event()

    def release(self) -> None:
        self._released.set()

    async def wait(self) -> None:
        self.reached.set()
        await self._released.wait()


class ScriptedLog(MemoryChunkLog):
    """A log whose reads can be counted, held up, and made to fail."""

    reads = 0
    chunks_read = 0
    failures: list[Exception]
    _holds: list[Hold]

    def hold_next_read(self) -> Hold:
        hold = Hold()
        self._holds.append(hold)
        return hold

    async def read(
        self, name: StreamName, offset: int, *, max_chunks: int, max_bytes: int
    ) -> ChunkPage:
        self.reads += 1
        if self.failures:
            raise self.failures.pop()
        page = await super().read(name, offset, max_chunks=max_chunks, max_bytes=max_bytes)
        self.chunks_read += len(page.chunks)
        if self._holds:
            await self._holds.pop(0).wait()
        return page


class HandOutlet:
    """An outlet that a test opens and shuts; keeps what is written, as a socket's buffer would."""

    tier = "portable"

    def __init__(self) -> None:
        self.connection: Connection | None = None
        self.writable = True
        self.write_count = 0
        self.pings = 0
        self.written = b""
        self.ended: str | None = None
        self.on_write: Callable[[], None] = lambda: None

    @property
    def unsent(self) -> int:
        return 0 if self.writable else len(self.written)

    def write(self, data: bytes) -> None:
        assert self.ended is None, "nothing is written behind the end"
        self.write_count += 1
        self.written += data
        self.on_write()

    def ping(self) -> None:
        self.pings += 1

    def finish(self, code: int, reason: str) -> None:
        self.ended = f"{code} {reason}".strip()
        self._gone()

    def abort(self) -> None:
        self.ended = self.ended or "aborted"
        self._gone()

    def set_writable(self, writable: bool) -> None:
        self.writable = writable
        if self.connection is not None:
            self.connection.outlet_writable(writable)

    def leave(self) -> None:
        """The client is gone."""
        self.ended = "left"
        self._gone()

    def _gone(self) -> None:
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.outlet_closed()


class Client:
    """One reader of the stream, on a connection of its own, with the messages of a WebSocket."""

    def __init__(self, connection: Connection, outlet: HandOutlet, reader: StreamReader) -> None:
        self.connection = connection
        self.outlet = outlet
        self.reader = reader

    @property
    def messages(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.outlet.written.splitlines()]

    @property
    def events(self) -> list[str]:
        """What came beside parts."""
        shown = []
        for message in self.messages:
            kind = message["type"]
            data = message.get(kind, {})
            if kind != "parts":
                shown.append(f"{kind} {data.get('reason', data.get('code', ''))}".strip())
        return shown

    @property
    def parts(self) -> list[Any]:
        """All parts, whose offsets have to follow each other."""
        found: list[Any] = []
        expected: int | None = None
        for message in self.messages:
            if message["type"] == "reset":
                expected, found = None, []
            if message["type"] == "parts":
                assert expected in (None, message["offset"]), f"{expected}: {message}"
                expected = message["offset"] + len(message["parts"])
                assert message["cursor"].endswith(f"-{expected - 1}")
                found += message["parts"]
        return found


class StreamHub:
    """A hub, a run `run_1` and its stream `llm`."""

    def __init__(self, **limits: Any) -> None:
        self.limits = Limits(**limits)
        self.clock = ManualClock()
        self.runs = MemoryRunReader()
        self.run = make_run(environment_id=ENVIRONMENT, id=NAME.run_id, tags=("a",))
        self.runs.write(self.run)
        self.log = ScriptedLog(self.clock, lease_seconds=self.limits.stream_lease_seconds)
        self.log.failures, self.log._holds = [], []
        self.hub = Hub(self.runs, self.log, self.clock, self.limits)
        self.hub.reads.longest_pause = 0  # no time passes here in which a crowd could wait
        self.log.on_move = lambda move: self.hub.streams_moved([move])
        self.hub.begin(self.runs.position)
        self.count = 0

    # -- the world ------------------------------------------------------------------------------

    async def append(self, *texts: str) -> None:
        """Append chunks; without texts one with its number, as JSON."""
        texts = texts or (str(self.count),)
        self.count += len(texts)
        await self.log.append(NAME, NewChunks("\n".join(texts)))

    async def append_many(self, count: int) -> None:
        await self.append(*map(str, range(self.count, self.count + count)))

    def change(self, *, told: bool = True, **changes: Any) -> None:
        """Change the run; the changefeed tells of it, or is past it already."""
        self.run = replace(self.run, **changes)
        self._commit(lambda: self.runs.write(self.run), told=told)

    def finish(self, *, told: bool = True) -> None:
        self.change(told=told, status="COMPLETED_SUCCESSFULLY", completed_at=CREATED_AT)

    def delete(self, *, told: bool = True) -> None:
        self._commit(lambda: self.runs.delete(self.run.id), told=told)

    def _commit(self, write: Callable[[], None], *, told: bool) -> None:
        before = self.runs.position
        write()
        here = self.runs.position
        self.hub.publish(self.runs.changes(before, here) if told else (), here)

    def tell_appends(self, *, and_moves: bool = True) -> None:
        """Let the hub hear of what is appended at once, before the changefeed tells."""
        self.log.on_append = self.hub.chunks_appended
        if not and_moves:
            self.log.on_move = lambda move: None

    # -- readers --------------------------------------------------------------------------------

    def read(
        self,
        offset: int | None = 0,
        *,
        scopes: str = "read:runs:run_1",
        single: bool = False,
        run_over: bool = False,
        expires_in: float | None = None,
        timeout_seconds: float | None = None,
        writable: bool = True,
    ) -> Client:
        """Open a connection and read the stream on it."""
        expires_at = None if expires_in is None else self.clock.now() + expires_in
        grant = make_grant(scopes.split(), environment_id=ENVIRONMENT, expires_at=expires_at)
        outlet = HandOutlet()
        outlet.writable = writable
        connection = Connection(
            self.hub,
            outlet,
            kind="sse" if single else "websocket",
            form=SocketFormat("", frozenset()),
            grant=grant,
        )
        outlet.connection = connection
        self.hub.connect(connection)
        machine = StreamSubscription(offset=offset)
        machine.run_over = run_over
        reader = StreamReader(
            connection,
            "s",
            self.hub.tail_of(NAME),
            machine,
            StreamSocketFormat("s"),
            run_key(grant, NAME.run_id),
            timeout_seconds=timeout_seconds,
        )
        connection.add(reader)
        return Client(connection, outlet, reader)

    async def live(self, offset: int | None = 0, **options: Any) -> Client:
        """A reader that has all there is."""
        client = self.read(offset, **options)
        await calm()
        assert client.events == ["up-to-date"]
        return client


async def calm() -> None:
    """Let everything go on that does not wait for time."""
    for _ in range(_TURNS):
        await asyncio.sleep(0)


def away() -> BackendError:
    return BackendError("The database cannot be reached; try again.")
