"""The pool of connections, when Postgres does not answer any more."""

import asyncio
import gc

import psutil
import pytest

from runcast.errors import BackendError
from runcast.postgres.database import Database
from tests.support.gateway_app import PATIENCE_SECONDS, until


async def test_who_gives_up_while_nothing_answers_is_not_told_of_an_error(
    database_url: str, caplog: pytest.LogCaptureFixture
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
        await asyncio.sleep(0)  # it begins to give the connection back
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        await until(lambda: database.figures["busy"] == 0)
    finally:
        backend.resume()
    gc.collect()
    assert caplog.messages == []  # such as of a task whose exception nobody looked at
    database._acquire_timeout = 10
    assert [row[0] for row in await database.fetch("SELECT 3")] == [3]
    await database.close()


async def test_who_is_cut_off_waits_for_nothing_any_more(database_url: str) -> None:
    """A regression, found by chaos: the ROLLBACK of a server that hung was waited for."""
    database = Database(database_url)
    await database.open()

    async def work() -> None:
        async with database.transaction() as transaction:
            [[pid]] = await transaction.fetch("SELECT pg_backend_pid()")
            began.set_result(psutil.Process(pid))
            await transaction.fetch("SELECT pg_sleep(3600)")

    began: asyncio.Future[psutil.Process] = asyncio.get_running_loop().create_future()
    working = asyncio.create_task(work())
    backend = await began
    backend.suspend()
    try:
        working.cancel()
        await asyncio.sleep(0)  # it begins to roll back
        database.terminate()
        with pytest.raises((BackendError, asyncio.CancelledError)):
            async with asyncio.timeout(PATIENCE_SECONDS):  # less than a statement may take
                await working
    finally:
        backend.resume()
    await database.close()


async def test_who_is_cut_off_when_the_pool_closes_is_told_that_the_database_is_gone(
    database_url: str,
) -> None:
    """A regression: there was no pool any more to give the connection back to."""
    database = Database(database_url)
    await database.open()

    async def work() -> None:
        async with database.transaction() as transaction:
            database._acquire_timeout = 0.05
            await database.close()
            await transaction.fetch("SELECT 1")

    with pytest.raises(BackendError):
        await work()
