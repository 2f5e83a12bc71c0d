"""Appends of several gateways to one Postgres: one statement where it can be, and none lost."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest

from runcast.core.chunk import NewChunks, StreamName
from runcast.errors import StreamClosed, StreamFull, Unprocessable
from runcast.postgres.chunk_log import PostgresChunkLog
from runcast.postgres.database import Database, Row, Transaction

NAME = StreamName("run_1", "llm")
MAX_STREAM_BYTES = 10_000


class CountingDatabase(Database):
    """Counts statements that stand alone, and transactions."""

    statements = transactions = 0

    async def fetch(self, sql: str, *arguments: Any) -> list[Row]:
        self.statements += 1
        return await super().fetch(sql, *arguments)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        self.transactions += 1
        async with super().transaction() as transaction:
            yield transaction


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[CountingDatabase]:
    database = CountingDatabase(database_url)
    await database.open()
    await database.fetch(
        "INSERT INTO @schema@.environments (id, slug, name) VALUES ('env_a', 'a', 'A')"
    )
    await database.fetch(
        "INSERT INTO @schema@.runs (id, environment_id, task) VALUES ('run_1', 'env_a', 't')"
    )
    yield database
    await database.close()


def log_of(database: Database) -> PostgresChunkLog:
    """The log of one more gateway."""
    return PostgresChunkLog(database, max_streams=3, max_stream_bytes=MAX_STREAM_BYTES)


def sent(*texts: str, writer: str = "w", first: int = 0) -> NewChunks:
    return NewChunks("\n".join(texts), writer, first)


async def texts(log: PostgresChunkLog) -> list[str]:
    page = await log.read(NAME, 0, max_chunks=10_000, max_bytes=1 << 20)
    assert [chunk.index for chunk in page.chunks] == list(range(page.state.next_index))
    return [chunk.text for chunk in page.chunks]


async def test_a_stream_that_goes_on_takes_one_statement(database: CountingDatabase) -> None:
    log = log_of(database)
    await log.append(NAME, sent("0"))
    database.statements = database.transactions = 0
    for index in range(1, 6):
        assert await log.append(NAME, sent(str(index), first=index)) == 1
    assert (database.statements, database.transactions) == (5, 0)
    assert await texts(log) == [str(index) for index in range(6)]


async def test_what_another_gateway_stored_is_seen(database: CountingDatabase) -> None:
    here, there = log_of(database), log_of(database)
    await here.append(NAME, sent("0"))
    assert await there.append(NAME, sent("0", "1", "2")) == 2
    assert await here.append(NAME, sent("1", "2", "3", first=1)) == 1
    assert await there.append(NAME, sent("3", first=3)) == 0
    assert await texts(here) == ["0", "1", "2", "3"]


async def test_a_stream_that_was_closed_elsewhere_takes_nothing(
    database: CountingDatabase,
) -> None:
    here, there = log_of(database), log_of(database)
    await here.append(NAME, sent("0"))
    await there.close(NAME)
    with pytest.raises(StreamClosed):
        await here.append(NAME, sent("1", first=1))
    assert await here.append(NAME, sent("0")) == 0


async def test_a_stream_that_began_anew_elsewhere_takes_what_is_sent_again(
    database: CountingDatabase,
) -> None:
    here, there = log_of(database), log_of(database)
    await here.append(NAME, sent("0", "1"))
    await database.fetch("DELETE FROM @schema@.streams")
    assert await here.append(NAME, sent("1", first=1)) == 1
    await database.fetch("DELETE FROM @schema@.streams")
    await there.append(NAME, sent("a", writer="v"))
    assert await here.append(NAME, sent("0", "1")) == 2
    assert await texts(here) == ["a", "0", "1"]


async def test_what_others_stored_counts_against_the_limit(database: CountingDatabase) -> None:
    here, there = log_of(database), log_of(database)
    await here.append(NAME, sent("0"))
    await there.append(NAME, sent("x" * (MAX_STREAM_BYTES - 2), writer="v"))
    with pytest.raises(StreamFull):
        await here.append(NAME, sent("10", first=1))
    assert await here.append(NAME, sent("1", first=1)) == 1


async def test_writers_that_change_their_gateways_double_and_lose_nothing(
    database: CountingDatabase,
) -> None:
    chance = random.Random(11)
    logs = [log_of(database) for _ in range(3)]

    async def write(writer: str) -> None:
        reached = 0
        while reached < 60:
            again = chance.randint(0, min(2, reached))
            lines = [f"{writer}{n}" for n in range(reached - again, reached + 3)]
            log = chance.choice(logs)
            new = await log.append(NAME, sent(*lines, writer=writer, first=reached - again))
            assert new == 3
            reached += 3

    await asyncio.gather(*(write(writer) for writer in "abcd"))
    found = await texts(logs[0])
    for writer in "abcd":
        assert [text for text in found if text[0] == writer] == [f"{writer}{n}" for n in range(60)]


async def test_gateways_that_write_the_same_streams_do_not_hinder_each_other(
    database: CountingDatabase,
) -> None:
    names = [StreamName("run_1", key) for key in "abc"]
    logs = [log_of(database) for _ in range(2)]

    async def write(log: PostgresChunkLog, order: list[StreamName]) -> None:
        for number in range(20):
            await asyncio.gather(*(log.append(name, NewChunks(str(number))) for name in order))

    await asyncio.gather(write(logs[0], names), write(logs[1], names[::-1]))
    for name in names:
        page = await logs[0].read(name, 0, max_chunks=100, max_bytes=1 << 20)
        assert sorted(int(chunk.text) for chunk in page.chunks) == sorted([*range(20)] * 2)


async def test_an_append_that_failed_is_looked_at_before_the_next(
    database: CountingDatabase, database_url: str
) -> None:
    log = log_of(database)
    await log.append(NAME, sent("0"))
    sql = await asyncpg.connect(database_url)
    await sql.execute("ALTER TABLE runcast.chunks ADD CHECK (data <> 'refused')")
    with pytest.raises(Unprocessable, match="rule"):
        await log.append(NAME, sent("1", "refused", first=1))
    assert await log.append(NAME, sent("1", "2", first=1)) == 2
    assert await texts(log) == ["0", "1", "2"]
    await sql.close()
