"""Streams in Postgres: appends of all streams share a commit, readers share a read."""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from contextvars import Context
from dataclasses import dataclass, field
from datetime import datetime

from runcast.core.chunk import ChunkPage, NewChunks, StoredChunks, StreamName
from runcast.errors import (
    BackendError,
    GatewayError,
    NotFound,
    StreamClosed,
    StreamFull,
)
from runcast.postgres.chunk_reads import ChunkReads
from runcast.postgres.database import Contended, Database, Transaction
from runcast.postgres.presences import Presences
from runcast.postgres.stream_registry import StreamRegistry

logger = logging.getLogger(__name__)

_GROUP_BYTES = 8 * 1024 * 1024  # what one commit may carry
_WAITING_BYTES = 32 * 1024 * 1024  # what may wait for a commit; further appends wait to be taken
_KNOWN_STREAMS = 50_000
_KNOWN_TIPS = 10_000
_KNOWN_WRITERS = 16  # of a stream

_LOCK = """
    SELECT id, next_index, bytes, closed_at IS NOT NULL AS closed, updated_at
    FROM @schema@.streams WHERE id = ANY($1) ORDER BY id FOR NO KEY UPDATE
"""
# A statement of its own, after the lock: it sees what whoever held the lock before has written.
_WRITERS = """
    SELECT stream_id, writer, last_index FROM @schema@.stream_writers
    WHERE stream_id = ANY($1) AND writer = ANY($2)
"""
# Only what goes on where its stream was known to end, and is: streams that were written to since,
# closed or deleted are left out. Whatever is stored moves `updated_at`, also what writers have.
_WRITE = """
    WITH moved AS (
        UPDATE @schema@.streams
        SET next_index = new.first_index + new.count, bytes = streams.bytes + new.size
        FROM unnest($1::bigint[], $2::bigint[], $3::timestamptz[], $4::bigint[], $5::bigint[])
            AS new (id, first_index, updated_at, count, size)
        WHERE streams.id = new.id AND next_index = new.first_index
            AND streams.updated_at = new.updated_at AND closed_at IS NULL
        RETURNING streams.id, new.first_index, streams.updated_at,
            (extract(epoch FROM streams.updated_at) * 1000)::bigint AS appended_at
    ), stored AS (
        INSERT INTO @schema@.chunks (stream_id, index, data, created_at)
        SELECT id, first_index + place - 1, line, to_timestamp(appended_at / 1000.0)
        FROM moved JOIN unnest($1::bigint[], $6::text[]) AS new (id, lines) USING (id),
            string_to_table(lines, E'\\n') WITH ORDINALITY AS lines (line, place)
    ), counted AS (
        INSERT INTO @schema@.stream_writers (stream_id, writer, last_index)
        SELECT new.* FROM moved JOIN unnest($7::bigint[], $8::text[], $9::bigint[])
            AS new (id, writer, last_index) USING (id)
        ON CONFLICT (stream_id, writer) DO UPDATE SET last_index = EXCLUDED.last_index
    )
    SELECT id, updated_at, appended_at FROM moved
"""


@dataclass(slots=True, eq=False)
class _Append:
    """One call of `append`, waiting for its commit."""

    name: StreamName
    stream_id: int
    chunks: NewChunks
    done: asyncio.Future[int]


@dataclass(slots=True)
class _Tip:
    """The end of a stream, as it was seen there, and what comes next."""

    next_index: int
    bytes: int
    closed: bool
    updated_at: datetime
    writers: dict[str, int] = field(default_factory=dict)
    changed_writers: set[str] = field(default_factory=set)
    lines: list[str] = field(default_factory=list)
    count: int = 0
    size: int = 0

    def add(self, chunks: NewChunks, size: int) -> int:
        """Let these come next; returns how many they are."""
        count = chunks.count
        self.lines.append(chunks.lines)
        self.count += count
        self.size += size
        if chunks.writer is not None:
            self.writers[chunks.writer] = chunks.first_index + count - 1
            self.changed_writers.add(chunks.writer)
        return count

    def advance(self, updated_at: datetime, appended_at: int) -> StoredChunks:
        """Go behind what was added: it is stored."""
        lines = "\n".join(self.lines)
        stored = StoredChunks(self.next_index, lines, appended_at, self.count, self.size)
        self.next_index += self.count
        self.bytes += self.size
        self.updated_at = updated_at
        self.changed_writers.clear()
        self.lines.clear()
        self.count = self.size = 0
        return stored


@dataclass(slots=True)
class _Written:
    """What became of a group, if it is committed."""

    results: dict[_Append, int | GatewayError]
    stored: dict[int, StoredChunks]
    tips: dict[int, _Tip]


class PostgresChunkLog:
    """
    Streams of chunks, durable before they are acknowledged.

    Group commit: while one transaction commits, what arrives gathers for the next, so that an idle
    log answers at once and a busy one commits hundreds of appends together. Where streams go on as
    this gateway left them that is one statement; otherwise they are locked and looked at first.

    Args:
        max_streams: Streams a run may have.
        max_stream_bytes: Bytes a stream may have.
        lease_seconds: How long `hold_open` holds.
    """

    def __init__(
        self,
        database: Database,
        *,
        max_streams: int,
        max_stream_bytes: int,
        lease_seconds: float = 10.0,
    ) -> None:
        self._database = database
        self._registry = StreamRegistry(database, max_streams=max_streams)
        self._max_stream_bytes = max_stream_bytes
        self._presences = Presences(database, lease_seconds=lease_seconds)
        self.on_append: Callable[[StreamName, StoredChunks], None] = lambda name, stored: None
        self._ids: OrderedDict[StreamName, int] = OrderedDict()
        self._tips: dict[int, _Tip] = {}
        self._reads = ChunkReads(database)
        self._waiting: list[_Append] = []
        self._waiting_bytes = 0
        self._room = asyncio.Condition()
        self._committing: asyncio.Task[None] | None = None

    # -- writing --------------------------------------------------------------------------------

    async def register(self, name: StreamName) -> None:
        """
        Make a stream known, also on its run's row unless it takes input.

        Raises:
            NotFound: There is no such run.
            TooManyStreams: The run has as many streams as it may.
        """
        self._ids[name] = await self._registry.register(name)
        while len(self._ids) > _KNOWN_STREAMS:
            self._ids.popitem(last=False)

    async def append(self, name: StreamName, chunks: NewChunks) -> int:
        """
        Store chunks, in order, and return how many were new; they are durable then.

        Raises:
            NotFound: The run is gone.
            StreamClosed: The stream was closed.
            StreamFull: It has as many bytes as it may; nothing of this call was stored.
            BackendError: Whether they are stored is not known; append them again.
        """
        try:
            return await self._append(name, chunks)
        except NotFound:
            # Not the run may be gone, but the stream: deleted for its age since it was known.
            self._ids.pop(name, None)
            return await self._append(name, chunks)

    async def _append(self, name: StreamName, chunks: NewChunks) -> int:
        stream_id = await self._stream_id(name)
        if self._waiting_bytes >= _WAITING_BYTES:
            async with self._room:
                await self._room.wait_for(lambda: self._waiting_bytes < _WAITING_BYTES)
        self._waiting_bytes += len(chunks.lines)
        done: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Append(name, stream_id, chunks, done))
        if self._committing is None:
            self._committing = asyncio.create_task(self._commit_all(), context=Context())
        return await done

    async def last_index(self, name: StreamName, writer: str) -> int:
        """The highest index that is stored of a writer; -1 if none is."""
        rows = await self._database.fetch(
            """SELECT last_index FROM @schema@.stream_writers
            JOIN @schema@.streams ON streams.id = stream_id
            WHERE run_id = $1 AND key = $2 AND writer = $3""",
            name.run_id,
            name.key,
            writer,
        )
        return int(rows[0]["last_index"]) if rows else -1

    async def hold_open(self, name: StreamName, presence: str, *, connected: bool) -> None:
        """
        Say that a connection of a writer is open, which holds for the lease, or that it ended.

        ``presence`` names the connection, not the writer: a writer's old connection may be found
        dead long after its new one came. Its end touches the stream, so that readers look whether
        that is over.
        """
        stream_id = await self._stream_id(name)
        if connected:
            await self._presences.hold(stream_id, presence)
        else:
            await self._presences.end(stream_id, presence)

    async def close(self, name: StreamName) -> None:
        """Let no more chunks come; closing again changes nothing."""
        await self._database.fetch(
            """UPDATE @schema@.streams SET closed_at = now()
            WHERE run_id = $1 AND key = $2 AND closed_at IS NULL""",
            name.run_id,
            name.key,
        )

    def follow(self, name: StreamName) -> None:
        """Nothing to do: the changefeed tells of all streams."""

    def unfollow(self, name: StreamName) -> None:
        """Nothing to do."""

    # -- reading --------------------------------------------------------------------------------

    async def read(
        self, name: StreamName, offset: int, *, max_chunks: int, max_bytes: int
    ) -> ChunkPage:
        """
        Read chunks from an offset on, and how far the stream is; empty if there is no stream.

        A page holds at least one chunk if there is one, otherwise no more than ``max_bytes``.
        """
        return await self._reads.read(name, offset, max_chunks=max_chunks, max_bytes=max_bytes)

    # -- group commit ---------------------------------------------------------------------------

    async def _commit_all(self) -> None:
        try:
            while self._waiting:
                group = self._take_group()
                try:
                    await self._commit(group)
                except GatewayError as error:
                    _settle(group, error)
                except Exception:
                    logger.exception("chunks could not be stored")
                    _settle(group, BackendError("The chunks could not be stored; try again."))
                finally:
                    async with self._room:
                        self._waiting_bytes -= sum(len(append.chunks.lines) for append in group)
                        self._room.notify_all()
                await asyncio.sleep(0)  # whoever was answered may have gathered more meanwhile
        finally:
            self._committing = None
            _settle(self._waiting, BackendError("The gateway stopped; append the chunks again."))
            self._waiting = []

    def _take_group(self) -> list[_Append]:
        size = count = 0
        for append in self._waiting:
            size += len(append.chunks.lines)
            if count and size > _GROUP_BYTES:
                break
            count += 1
        group, self._waiting = self._waiting[:count], self._waiting[count:]
        return group

    async def _commit(self, group: list[_Append]) -> None:
        """Store a group; what cannot be stored does not hinder the others."""
        left = group
        if (tips := self._recall(group)) is not None:
            with suppress(Contended):  # locks are taken in order then
                written = await self._write(self._database, group, tips)
                self._tell(written, [each for each in group if each.stream_id in written.stored])
                left = [each for each in group if each.stream_id not in written.stored]
        if left:
            self._tell(await self._database.retrying(lambda: self._lock_and_write(left)), left)

    def _recall(self, group: list[_Append]) -> dict[int, _Tip] | None:
        """The ends of a group's streams as they were last seen; None: some have to be looked at."""
        tips: dict[int, _Tip] = {}
        for append in group:
            tip, writer = self._tips.get(append.stream_id), append.chunks.writer
            if tip is None or (writer is not None and writer not in tip.writers):
                return None
            tips[append.stream_id] = tip
        for stream_id in tips:
            del self._tips[stream_id]  # until it is known what became of them
        return tips

    async def _lock_and_write(self, group: list[_Append]) -> _Written:
        async with self._database.transaction() as transaction:
            tips = await self._lock(transaction, group)
            return await self._write(transaction, group, tips)

    async def _lock(self, transaction: Transaction, group: list[_Append]) -> dict[int, _Tip]:
        ids = sorted({append.stream_id for append in group})
        tips = {
            row["id"]: _Tip(row["next_index"], row["bytes"], row["closed"], row["updated_at"])
            for row in await transaction.fetch(_LOCK, ids)
        }
        for stream_id, tip in tips.items():
            known = self._tips.get(stream_id)
            if known is not None and known.updated_at == tip.updated_at:
                tip.writers |= known.writers
        writers = {append.chunks.writer for append in group} - {None}
        if writers:
            for row in await transaction.fetch(_WRITERS, ids, list(writers)):
                tips[row["stream_id"]].writers[row["writer"]] = row["last_index"]
        return tips

    def _place(self, append: _Append, tip: _Tip | None) -> int | GatewayError:
        """Give the new chunks of an append their offsets."""
        if tip is None:
            return NotFound("The run of this stream does not exist any more.")
        fresh = append.chunks.after(tip.writers.get(append.chunks.writer or "", -1))
        if fresh is None:
            return 0
        if tip.closed:
            return StreamClosed("The stream was closed; nothing can be appended.")
        size = fresh.size
        if tip.bytes + tip.size + size > self._max_stream_bytes:
            return StreamFull(
                f"A stream holds at most {self._max_stream_bytes} bytes; begin another one."
            )
        return tip.add(fresh, size)

    async def _write(
        self, door: Database | Transaction, group: list[_Append], tips: dict[int, _Tip]
    ) -> _Written:
        """Go on at the tips, where they are still the ends of their streams: only there."""
        results = {append: self._place(append, tips.get(append.stream_id)) for append in group}
        moved = {stream_id: tip for stream_id, tip in tips.items() if tip.lines}
        writers = [
            (stream_id, writer, tip.writers[writer])
            for stream_id, tip in moved.items()
            for writer in tip.changed_writers
        ]
        rows = moved and await door.fetch(
            _WRITE,
            list(moved),
            [tip.next_index for tip in moved.values()],
            [tip.updated_at for tip in moved.values()],
            [tip.count for tip in moved.values()],
            [tip.size for tip in moved.values()],
            ["\n".join(tip.lines) for tip in moved.values()],
            [stream_id for stream_id, _, _ in writers],
            [writer for _, writer, _ in writers],
            [last_index for _, _, last_index in writers],
        )
        stored = {
            row["id"]: tips[row["id"]].advance(row["updated_at"], row["appended_at"])
            for row in rows or ()
        }
        return _Written(results, stored, tips)

    def _tell(self, written: _Written, appends: Sequence[_Append]) -> None:
        """Answer these appends, which are durable or refused, and let readers have the chunks."""
        for append in appends:
            result = written.results[append]
            if append.done.done():
                continue
            if isinstance(result, GatewayError):
                append.done.set_exception(result)
            else:
                append.done.set_result(result)
        for name, stream_id in {append.name: append.stream_id for append in appends}.items():
            if stream_id in written.stored:
                self._remember(stream_id, written.tips[stream_id])
                self.on_append(name, written.stored[stream_id])

    def _remember(self, stream_id: int, tip: _Tip) -> None:
        self._tips.pop(stream_id, None)
        if len(tip.writers) <= _KNOWN_WRITERS:
            self._tips[stream_id] = tip
        while len(self._tips) > _KNOWN_TIPS:
            del self._tips[next(iter(self._tips))]  # whose last chunk is the oldest

    # -- names ----------------------------------------------------------------------------------

    async def _stream_id(self, name: StreamName) -> int:
        stream_id = self._ids.get(name)
        if stream_id is None:
            await self.register(name)
            stream_id = self._ids[name]
        self._ids.move_to_end(name)
        return stream_id


def _settle(appends: Sequence[_Append], error: GatewayError) -> None:
    for append in appends:
        if not append.done.done():
            append.done.set_exception(error)
