"""Connections to a database that may go away at any moment."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

# What a statement may end with when its server or its connection is under attack.
CUT_OFF = (
    OSError,
    TimeoutError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)
_SECONDS = 5.0


@asynccontextmanager
async def connect(url: str, **settings: str) -> AsyncIterator[asyncpg.Connection]:
    """
    A connection on which no statement waits for long.

    Raises:
        CUT_OFF: The server is away.
    """
    async with asyncio.timeout(_SECONDS):
        sql = await asyncpg.connect(url, command_timeout=_SECONDS, server_settings=settings)
    try:
        yield sql
    finally:
        sql.terminate()
