"""The pool of connections, when Postgres does not answer any more."""

import asyncio

import psutil
import pytest

from runcast.postgres.database import Database
from tests.support.gateway_app import until


async def test_who_gives_up_while_nothing_answers_is_not_told_of_an_error(
    database_url: str,
) -> None:
    """A regression: the command of a WebSocket that was lost meanwhile went on, and wrote to it."""
    database = Database(database_url)
    await database.open()
    [[pid]] = await database.fetch("SELECT pg_backend_pid()")
    backend = psutil.Process(pid)
    database._acquire_timeout = 0.05  # so long a connection is waited for that is given back, too
    backend.suspend()
    try:
        asked = asyncio.create_task(database.fetch("SELECT 2"))
        await until(lambda: database.figures["busy"] == 1)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
    finally:
        backend.resume()
    database._acquire_timeout = 10
    assert [row[0] for row in await database.fetch("SELECT 3")] == [3]
    await database.close()
