"""Reads of many streams: those that wait while others are read share the next statement."""

import asyncio
from collections import deque
from contextvars import Context
from dataclasses import dataclass

from runcast.core.chunk import Chunk, ChunkPage, StreamName, StreamState
from runcast.errors import BackendError, GatewayError
from runcast.postgres.database import Database, Row

_AT_ONCE = 4  # statements; so many reads are not held up by each other
_GROUP_READS = 64
_GROUP_BYTES = 8 * 1024 * 1024

_READ = """
    WITH asked AS (
        SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[], $5::bigint[])
            WITH ORDINALITY AS asked (run_id, key, first, max_chunks, max_bytes, place)
    )
    SELECT asked.place, state.*, page.*
    FROM asked JOIN LATERAL (
        SELECT id, first_index, next_index, closed_at IS NOT NULL AS closed,
            EXISTS (SELECT FROM @schema@.stream_writers
                    WHERE stream_id = streams.id AND open_until > now()) AS has_open_writers
        FROM @schema@.streams WHERE run_id = asked.run_id AND key = asked.key
    ) AS state ON true LEFT JOIN LATERAL (
        SELECT weighed.index, chunks.data,
            (extract(epoch FROM weighed.created_at) * 1000)::bigint AS appended_at
        FROM (
            SELECT index, created_at, sum(size) OVER (ORDER BY index) AS bytes,
                row_number() OVER (ORDER BY index) AS place
            FROM (
                SELECT index, created_at, octet_length(data) AS size FROM @schema@.chunks
                WHERE stream_id = state.id AND index >= asked.first AND index < state.next_index
                ORDER BY index LIMIT asked.max_chunks
            ) AS next
        ) AS weighed
        JOIN @schema@.chunks ON stream_id = state.id AND chunks.index = weighed.index
        WHERE weighed.bytes <= asked.max_bytes OR weighed.place = 1
    ) AS page ON true
    ORDER BY asked.place, page.index
"""


@dataclass(slots=True, eq=False)
class _Asked:
    """One read that waits for its turn."""

    name: StreamName
    offset: int
    max_chunks: int
    max_bytes: int
    page: asyncio.Future[ChunkPage]


class ChunkReads:
    """Reads at once where little is to be read, and together where much is."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: deque[_Asked] = deque()
        self._reading: set[asyncio.Task[None]] = set()

    async def read(
        self, name: StreamName, offset: int, *, max_chunks: int, max_bytes: int
    ) -> ChunkPage:
        """As `ChunkLog.read`."""
        page: asyncio.Future[ChunkPage] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Asked(name, offset, max_chunks, max_bytes, page))
        if len(self._reading) < _AT_ONCE:
            reading = asyncio.create_task(self._read_on(), context=Context())
            self._reading.add(reading)
            reading.add_done_callback(self._reading.discard)
        return await page

    async def _read_on(self) -> None:
        while group := self._take_group():
            try:
                pages = await self._read_group(group)
            except GatewayError as error:
                _fail(group, error)
            except BaseException:
                _fail(group, BackendError("The stream could not be read; try again."))
                raise
            else:
                for asked, page in zip(group, pages, strict=True):
                    if not asked.page.done():
                        asked.page.set_result(page)

    def _take_group(self) -> list[_Asked]:
        group: list[_Asked] = []
        size = 0
        while self._waiting and len(group) < _GROUP_READS:
            size += self._waiting[0].max_bytes
            if group and size > _GROUP_BYTES:
                break
            asked = self._waiting.popleft()
            if not asked.page.done():  # whoever asked may have left
                group.append(asked)
        return group

    async def _read_group(self, group: list[_Asked]) -> list[ChunkPage]:
        rows = await self._database.fetch(
            _READ,
            [asked.name.run_id for asked in group],
            [asked.name.key for asked in group],
            [asked.offset for asked in group],
            [asked.max_chunks for asked in group],
            [asked.max_bytes for asked in group],
        )
        found: dict[int, list[Row]] = {}
        for row in rows:
            found.setdefault(row["place"], []).append(row)
        return [_page(found.get(place, [])) for place in range(1, len(group) + 1)]


def _page(rows: list[Row]) -> ChunkPage:
    if not rows:
        return ChunkPage((), StreamState())
    first = rows[0]
    state = StreamState(
        first["first_index"],
        first["next_index"],
        first["closed"],
        first["has_open_writers"],
        first["id"],
    )
    chunks = [
        Chunk(row["index"], row["data"], row["appended_at"])
        for row in rows
        if row["index"] is not None
    ]
    return ChunkPage(chunks, state)


def _fail(group: list[_Asked], error: GatewayError) -> None:
    for asked in group:
        if not asked.page.done():
            asked.page.set_exception(error)
