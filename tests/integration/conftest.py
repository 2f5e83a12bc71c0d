"""Open stores on a database of the test's own, and plain connections beside them."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import asyncpg
import pytest

from runcast.postgres.database import Database
from runcast.postgres.run_store import PostgresRunStore

Connect = Callable[[], Awaitable["asyncpg.Connection[asyncpg.Record]"]]


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = Database(database_url)
    await database.open()
    yield database
    await database.close()


@pytest.fixture
async def connect(database_url: str) -> AsyncIterator[Connect]:
    """Open plain connections that find our tables; they are closed after the test."""
    async with AsyncExitStack() as stack:

        async def connect() -> "asyncpg.Connection[asyncpg.Record]":
            connection = await asyncpg.connect(
                database_url, server_settings={"search_path": "runcast"}
            )
            stack.push_async_callback(connection.close)
            return connection

        yield connect


@pytest.fixture
async def sql(connect: Connect) -> "asyncpg.Connection[asyncpg.Record]":
    """One plain connection, on a database with the environments `env_a` and `env_b`."""
    connection = await connect()
    await connection.execute(
        "INSERT INTO environments (id, slug, name) VALUES ('env_a', 'a', 'A'), ('env_b', 'b', 'B')"
    )
    return connection


@pytest.fixture
async def store(database: Database, sql: object) -> PostgresRunStore:
    return PostgresRunStore(database)
