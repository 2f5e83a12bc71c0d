"""Reads of many streams at once, from a real Postgres: few statements, and each reader its own."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from runcast.core.chunk import ChunkPage, NewChunks, StreamName
from runcast.errors import BackendError
from runcast.postgres.chunk_log import PostgresChunkLog
from runcast.postgres.chunk_reads import ChunkReads
from runcast.postgres.database import Database, Row

STREAMS = 200


class CountingDatabase(Database):
    """Counts statements, and can be made to fail."""

    statements = 0
    fails = False

    async def fetch(self, sql: str, *arguments: Any) -> list[Row]:
        self.statements += 1
        if self.fails:
            raise BackendError("Away.")
        return await super().fetch(sql, *arguments)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[CountingDatabase]:
    sql = await asyncpg.connect(database_url)
    await sql.execute(
        "INSERT INTO runcast.environments (id, slug, name) VALUES ('env_a', 'a', 'A')"
    )
    await sql.execute(
        """INSERT INTO runcast.runs (id, environment_id, task)
        SELECT 'run_' || number, 'env_a', 'task' FROM generate_series(0, $1) AS number""",
        STREAMS - 1,
    )
    await sql.close()
    database = CountingDatabase(database_url, max_connections=4)
    await database.open()
    log = PostgresChunkLog(database, max_streams=10, max_stream_bytes=1_000_000)
    await asyncio.gather(*(log.register(name(number)) for number in range(STREAMS)))
    await asyncio.gather(
        *(
            log.append(name(number), NewChunks("\n".join(lines)))
            for number in range(STREAMS)
            if (lines := written(number))
        )
    )
    database.statements = 0
    yield database
    await database.close()


def name(number: int) -> StreamName:
    return StreamName(f"run_{number}", "llm")


def written(number: int) -> list[str]:
    return [f"{number}.{index}" for index in range(number % 7)]


def texts(page: ChunkPage) -> list[str]:
    return [chunk.text for chunk in page.chunks]


async def read(reads: ChunkReads, number: int, offset: int = 0, **limits: int) -> ChunkPage:
    limits = {"max_chunks": 100, "max_bytes": 10_000} | limits
    return await reads.read(name(number), offset, **limits)


async def test_many_streams_are_read_with_few_statements(database: CountingDatabase) -> None:
    reads = ChunkReads(database)
    pages = await asyncio.gather(*(read(reads, number) for number in range(STREAMS)))
    for number, page in enumerate(pages):
        assert texts(page) == written(number)
        assert page.state.next_index == number % 7
    assert database.statements <= 10


async def test_each_has_its_own_bounds(database: CountingDatabase) -> None:
    reads = ChunkReads(database)
    asked = [(6, 0, 100, 10_000), (6, 2, 100, 10_000), (6, 0, 2, 10_000), (6, 0, 100, 7)] * 5
    asked += [(6, 0, 100, 1), (6, 6, 100, 10_000), (6, 99, 100, 10_000), (6, 0, 0, 10_000)]
    pages = await asyncio.gather(
        *(
            read(reads, number, offset, max_chunks=chunks, max_bytes=size)
            for number, offset, chunks, size in asked
        )
    )
    every = written(6)
    expected = [every, every[2:], every[:2], every[:2]] * 5 + [every[:1], [], [], []]
    assert [texts(page) for page in pages] == expected
    assert {page.state.next_index for page in pages} == {6}


async def test_a_stream_that_is_not_there_is_empty_beside_others(
    database: CountingDatabase,
) -> None:
    reads = ChunkReads(database)
    asked = [read(reads, number) for number in (1, STREAMS, 2, STREAMS + 1, 3)]
    assert [len(page.chunks) for page in await asyncio.gather(*asked)] == [1, 0, 2, 0, 3]


async def test_who_leaves_takes_nothing_from_the_others(database: CountingDatabase) -> None:
    reads = ChunkReads(database)
    tasks = [asyncio.create_task(read(reads, number)) for number in range(50)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    pages = await asyncio.gather(*tasks, return_exceptions=True)
    for number, page in enumerate(pages):
        if number % 2:
            assert isinstance(page, ChunkPage)
            assert len(page.chunks) == number % 7
        else:
            assert isinstance(page, asyncio.CancelledError)


async def test_a_failure_is_told_to_all_who_wait_and_then_it_goes_on(
    database: CountingDatabase,
) -> None:
    reads = ChunkReads(database)
    database.fails = True
    failed = await asyncio.gather(
        *(read(reads, number) for number in range(20)), return_exceptions=True
    )
    assert {type(each) for each in failed} == {BackendError}
    database.fails = False
    assert len((await read(reads, 6)).chunks) == 6
