"""Streams in Redis: what is new is decided there, and calls of all streams go together."""

import asyncio
import logging
import secrets
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextvars import Context
from dataclasses import dataclass, field
from typing import Any

from runcast.core.chunk import (
    Chunk,
    ChunkPage,
    NewChunks,
    StoredChunks,
    StreamMove,
    StreamName,
    StreamState,
)
from runcast.errors import (
    BackendError,
    GatewayError,
    NotFound,
    StreamClosed,
    StreamFull,
    StreamLost,
)
from runcast.ports import Clock, StreamRegistrar
from runcast.redis import stream_scripts as scripts
from runcast.redis.courier import Courier
from runcast.redis.server import RedisServer
from runcast.redis.stream_keys import StreamKeys
from runcast.redis.stream_news import StreamNews

logger = logging.getLogger(__name__)

# What one call may carry: while Redis runs it, it does nothing else.
_GROUP_BYTES = 1024 * 1024
_GROUP_CHUNKS = 2000
_WAITING_BYTES = 32 * 1024 * 1024  # what may wait to be sent; further appends wait to be taken
_KNOWN_STREAMS = 50_000
_RENEWALS = 4  # of a stream's registration, while it is kept
_LONGEST_RENEWAL_SECONDS = 3600.0
_MAX_OFFSET = 1 << 53  # what Lua can count to
_CLOSED, _FULL = -1, -2


@dataclass(slots=True, eq=False)
class _Append:
    """One call of `append`, waiting for its answer."""

    chunks: NewChunks
    done: asyncio.Future[int]


@dataclass(slots=True)
class _Known:
    """What this gateway knows of a stream that it writes to."""

    renewed_at: float
    used_at: float
    generation: int = 0
    next_index: int = 0


@dataclass(slots=True)
class _Queue:
    """The appends of one stream; one call of them is under way at a time."""

    waiting: list[_Append] = field(default_factory=list)
    writing: asyncio.Task[None] | None = None


class RedisChunkLog:
    """
    Streams of chunks in Redis, acknowledged when Redis has answered.

    What survives a crash of Redis is what its persistence says; what is gone is noticed: writers
    get `StreamLost`, and readers see another generation.

    Args:
        registrar: Knows the runs, counts their streams and shows them to followers of the runs.
        max_stream_bytes: Bytes a stream may have.
        retention_seconds: How long a stream is kept after its last write.
        lease_seconds: How long `hold_open` holds.
    """

    def __init__(
        self,
        server: RedisServer,
        registrar: StreamRegistrar,
        clock: Clock,
        *,
        prefix: str = "runcast:",
        max_stream_bytes: int,
        retention_seconds: float,
        lease_seconds: float = 10.0,
    ) -> None:
        self._server = server
        self._registrar = registrar
        self._clock = clock
        self._keys = StreamKeys(prefix)
        self._max_stream_bytes = max_stream_bytes
        self._retention_seconds = retention_seconds
        self._lease_seconds = lease_seconds
        self._lasting = int(1000 * max(retention_seconds, lease_seconds))
        self.on_append: Callable[[StreamName, StoredChunks], None] = lambda name, stored: None
        self.writes = Courier(server)
        self.reads = Courier(server)
        self.news = StreamNews(server, self.reads, self._keys)
        self.lost = 0
        self._known: OrderedDict[StreamName, _Known] = OrderedDict()
        self._queues: dict[StreamName, _Queue] = {}
        self._waiting_bytes = 0
        self._room = asyncio.Condition()
        self._dropping: set[asyncio.Task[None]] = set()

    @property
    def figures(self) -> dict[str, float]:
        """Numbers by name, for the metrics."""
        both = (self.writes, self.reads)
        return {
            "reachable": float(self._server.answers),
            "calls": sum(courier.calls for courier in both),
            "round_trips": sum(courier.round_trips for courier in both),
            "failures": sum(courier.failures for courier in both),
            "lost": self.lost,
            "reconnects": self.news.reconnects,
            "misses": self.news.misses,
        }

    async def close_connections(self) -> None:
        """Fail what waits, and stop."""
        await self.writes.close()
        await self.reads.close()
        pending = {
            queue.writing for queue in self._queues.values() if queue.writing
        } | self._dropping
        if pending:
            await asyncio.wait(pending)

    # -- writing --------------------------------------------------------------------------------

    async def register(self, name: StreamName) -> None:
        """
        Make a stream known, also on its run's row unless it takes input.

        Raises:
            NotFound: There is no such run.
            TooManyStreams: The run has as many streams as it may.
        """
        await self._admit(name)

    async def append(self, name: StreamName, chunks: NewChunks) -> int:
        """
        Store chunks, in order, and return how many were new; they are in Redis then.

        Raises:
            NotFound: The run is gone.
            StreamClosed: The stream was closed.
            StreamFull: It has as many bytes as it may; nothing of this call was stored.
            StreamLost: What was stored before is gone, and nothing of this call was stored.
            BackendError: Whether they are stored is not known; append them again.
        """
        await self._admit(name)
        async with self._room:
            await self._room.wait_for(lambda: self._waiting_bytes < _WAITING_BYTES)
            self._waiting_bytes += len(chunks.lines)
        queue = self._queues.setdefault(name, _Queue())
        done: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        queue.waiting.append(_Append(chunks, done))
        if queue.writing is None:
            queue.writing = asyncio.create_task(self._write(name, queue), context=Context())
        return await done

    async def last_index(self, name: StreamName, writer: str) -> int:
        """The highest index that is stored of a writer; -1 if none is."""
        return int(await self.reads.call(scripts.LAST, [self._keys.head(name)], [writer]))

    async def hold_open(self, name: StreamName, presence: str, *, connected: bool) -> None:
        """
        Say that a connection of a writer is open, which holds for the lease, or that it ended.

        Its end is told to readers, so that they look whether the stream is over.
        """
        await self._admit(name)
        milliseconds = int(1000 * self._lease_seconds) if connected else 0
        await self.writes.call(
            scripts.HOLD, self._keys.all_of(name), [presence, milliseconds, self._lasting]
        )

    async def close(self, name: StreamName) -> None:
        """Let no more chunks come; closing again changes nothing."""
        try:
            await self._admit(name)
        except NotFound:
            return
        await self.writes.call(
            scripts.CLOSE, self._keys.all_of(name), [_new_generation(), self._lasting]
        )

    def follow(self, name: StreamName) -> None:
        """Let the hub be told of what happens to a stream; what happened before, it reads."""
        self.news.follow(name)

    def unfollow(self, name: StreamName) -> None:
        """Nobody here reads the stream any more."""
        self.news.unfollow(name)

    def runs_deleted(self, run_ids: Sequence[str]) -> None:
        """Forget the streams of runs that are gone, here and in Redis."""
        gone = set(run_ids)
        for name in [name for name in self._known if name.run_id in gone]:
            del self._known[name]
        task = asyncio.create_task(self._drop(run_ids))
        self._dropping.add(task)
        task.add_done_callback(self._dropping.discard)

    # -- reading --------------------------------------------------------------------------------

    async def read(
        self, name: StreamName, offset: int, *, max_chunks: int, max_bytes: int
    ) -> ChunkPage:
        """
        Read chunks from an offset on, and how far the stream is; empty if there is no stream.

        A page holds at least one chunk if there is one, otherwise no more than ``max_bytes``.
        """
        answer = await self.reads.call(
            scripts.READ,
            self._keys.all_of(name),
            [min(offset, _MAX_OFFSET), max_chunks, max_bytes],
            size=max_bytes,
        )
        generation, first, reached, closed, holders, *rest = answer
        begin = max(offset, first)
        chunks = tuple(
            Chunk(index, text.decode(), time)
            for index, (time, text) in enumerate(zip(rest[::2], rest[1::2], strict=True), begin)
        )
        state = StreamState(first, reached, bool(closed), bool(holders), generation)
        return ChunkPage(chunks, state)

    # -- one stream's appends -------------------------------------------------------------------

    async def _write(self, name: StreamName, queue: _Queue) -> None:
        group: list[_Append] = []
        try:
            while queue.waiting:
                group = self._take_group(queue)
                try:
                    await self._store(name, group)
                except GatewayError as error:
                    _fail(group, error)
                    self.news.doubt(name)
                except Exception:
                    logger.exception("chunks could not be stored")
                    _fail(group, BackendError("The chunks could not be stored; try again."))
                    self.news.doubt(name)
                finally:
                    async with self._room:
                        self._waiting_bytes -= sum(len(append.chunks.lines) for append in group)
                        self._room.notify_all()
        finally:
            queue.writing = None
            self._queues.pop(name, None)
            _fail(
                [*group, *queue.waiting],
                BackendError("The gateway stopped; append the chunks again."),
            )

    def _take_group(self, queue: _Queue) -> list[_Append]:
        size = chunks = count = 0
        for append in queue.waiting:
            size += len(append.chunks.lines)
            chunks += append.chunks.count
            if count and (size > _GROUP_BYTES or chunks > _GROUP_CHUNKS):
                break
            count += 1
        group, queue.waiting = queue.waiting[:count], queue.waiting[count:]
        return group

    async def _store(self, name: StreamName, group: list[_Append]) -> None:
        if name not in self._known:  # forgotten while this waited, perhaps with its run
            await self._admit(name)
        known = self._known[name]
        generation, reached = known.generation, known.next_index
        if self._clock.now() - known.used_at >= self._retention_seconds:
            generation = reached = 0  # old enough to be deleted, not lost
        arguments: list[Any] = [
            generation,
            reached,
            _new_generation(),
            self._max_stream_bytes,
            self._lasting,
            self.news.gateway,
        ]
        for append in group:
            chunks = append.chunks
            texts = chunks.lines.split("\n")
            arguments += chunks.writer or "", chunks.first_index, len(texts), *texts
        answer = await self.writes.call(
            scripts.APPEND,
            self._keys.all_of(name),
            arguments,
            size=sum(len(append.chunks.lines) for append in group),
        )
        if len(answer) == 1:
            await self._lose(name, group)
            return
        if answer[0]:
            known.generation, known.next_index = answer[0], answer[1]
            known.used_at = self._clock.now()
        self._tell(name, group, answer, sure=generation == answer[0])

    def _tell(
        self, name: StreamName, group: list[_Append], answer: list[Any], *, sure: bool
    ) -> None:
        """Hand out what Redis answered: to the writers, and to those here who read along."""
        _, reached, time, *results = answer
        fresh: list[NewChunks] = []
        for append, (count, last_index) in zip(group, results, strict=True):
            if count < 0:
                _fail([append], self._refusal(count))
                continue
            if (new := append.chunks.after(last_index)) is not None:
                fresh.append(new)
            if not append.done.done():
                append.done.set_result(count)
        if not fresh:
            return
        if not sure:
            self.news.look(name)  # first: who reads may have another generation
        count = sum(chunks.count for chunks in fresh)
        lines = "\n".join(chunks.lines for chunks in fresh)
        size = sum(chunks.size for chunks in fresh)
        self.on_append(name, StoredChunks(reached - count, lines, time, count, size))
        self.news.tell(StreamMove(name, reached, False))

    def _refusal(self, code: int) -> GatewayError:
        if code == _CLOSED:
            return StreamClosed("The stream was closed; nothing can be appended.")
        assert code == _FULL
        return StreamFull(
            f"A stream holds at most {self._max_stream_bytes} bytes; begin another one."
        )

    async def _lose(self, name: StreamName, group: list[_Append]) -> None:
        """What was stored is gone with its run, or with a server that kept it badly."""
        self._known.pop(name, None)
        error: GatewayError = StreamLost(
            "Redis lost what was stored of the stream; ask how far it is, and send again."
        )
        try:
            await self._register(name)
            self.lost += 1
            logger.warning("a stream was lost in Redis, and begins anew")
        except GatewayError as failure:
            error = failure
        _fail(group, error)
        self.news.look(name)

    # -- names ----------------------------------------------------------------------------------

    async def _admit(self, name: StreamName) -> None:
        """Make sure that the stream is registered, and stays so while it is written to."""
        known = self._known.get(name)
        if known is None:
            await self._register(name)
            return
        self._known.move_to_end(name)
        renewal = min(self._retention_seconds / _RENEWALS, _LONGEST_RENEWAL_SECONDS)
        if self._clock.now() - known.renewed_at > renewal:
            try:
                await self._register(name)
            except NotFound:
                self._known.pop(name, None)
                raise
            except BackendError as error:
                # The runs' database is away; what is known holds until it is back.
                logger.warning("a stream's registration waits: %s", error.message)

    async def _register(self, name: StreamName) -> None:
        await self._registrar.register(name, renew=True)
        now = self._clock.now()
        known = self._known.setdefault(name, _Known(now, now))
        known.renewed_at = now
        self._known.move_to_end(name)
        while len(self._known) > _KNOWN_STREAMS:
            self._known.popitem(last=False)

    async def _drop(self, run_ids: Sequence[str]) -> None:
        for run_id in run_ids:
            try:
                await self.writes.call(scripts.DROP, [self._keys.run(run_id)], [])
            except BackendError as error:
                logger.warning("streams of a deleted run stay until they expire: %s", error.message)


def _new_generation() -> int:
    return secrets.randbits(52) | 1


def _fail(appends: Sequence[_Append], error: GatewayError) -> None:
    for append in appends:
        if not append.done.done():
            append.done.set_exception(error)
