"""
What happens by time: delayed runs become due, queued ones expire, waiting ones go on, batches are
finished or given up.

Every row that waits for a time says so in its `due_at`. The scheduler sleeps until the earliest of
them; the database tells it when an earlier one appears. Any number of gateways may do this at once:
each row is taken by one of them, under its lock.
"""

import asyncio
import contextlib
import logging
import random
from collections.abc import AsyncIterator
from typing import TypeAlias

import asyncpg

from runcast.errors import GatewayError
from runcast.postgres.database import Database
from runcast.postgres.streamed_batches import StreamedBatches

logger = logging.getLogger(__name__)

Row: TypeAlias = "asyncpg.Record"

# The database tells of times within the next 60 seconds; others are found by looking again.
_RECHECK_SECONDS = 30.0
_TAKEN_SECONDS = 0.1  # what is due and locked by others is looked at again after this
_A_ROUND_RUNS = 200
_A_ROUND_BATCHES = 5
_ANSWER_SECONDS = 10.0
_CLOSE_SECONDS = 1.0
_RETRY_SECONDS = (0.05, 3.0)
_LOST = (
    OSError,
    TimeoutError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    GatewayError,
)

# The triggers fill in the times that go with a status.
_MOVE_RUNS = f"""
    UPDATE @schema@.runs SET
        status = CASE status
            WHEN 'DELAYED' THEN 'PENDING'
            WHEN 'WAITING_TO_RESUME' THEN 'EXECUTING'
            ELSE 'EXPIRED' END,
        error = CASE WHEN status IN ('DELAYED', 'WAITING_TO_RESUME') THEN error
            ELSE jsonb_build_object('type', 'STRING_ERROR', 'raw', format(
                'The run expired: it did not start within its time to live (%s).', ttl
            )) END
    FROM (
        SELECT id AS due_id FROM @schema@.runs WHERE due_at <= now()
        ORDER BY due_at LIMIT {_A_ROUND_RUNS} FOR NO KEY UPDATE SKIP LOCKED
    ) AS due WHERE id = due_id RETURNING id"""

_GIVE_UP_BATCHES = f"""
    WITH late AS (
        SELECT id FROM @schema@.batches WHERE due_at <= now() AND status = 'PENDING'
        ORDER BY due_at LIMIT {_A_ROUND_BATCHES} FOR NO KEY UPDATE SKIP LOCKED
    ), dropped AS (
        DELETE FROM @schema@.batch_items USING late WHERE batch_id = late.id
    )
    UPDATE @schema@.batches SET status = 'ABORTED', updated_at = now(), due_at = NULL
    FROM late WHERE batches.id = late.id RETURNING batches.id"""

_DUE_BATCHES = f"""
    SELECT id FROM @schema@.batches WHERE due_at <= now() AND status = 'PROCESSING'
    ORDER BY due_at LIMIT {_A_ROUND_BATCHES}"""

# Milliseconds of Unix time, as in the messages.
_NEXT = """
    SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint AS now,
        (extract(epoch FROM least(
            (SELECT min(due_at) FROM @schema@.runs WHERE due_at IS NOT NULL),
            (SELECT min(due_at) FROM @schema@.batches WHERE due_at IS NOT NULL)
        )) * 1000)::bigint AS due"""


class Scheduler:
    """
    Does what is due, when it is due.

    Survives whatever happens to the connection or the server: it connects again for as long as it
    takes.
    """

    def __init__(
        self,
        url: str,
        database: Database,
        batches: StreamedBatches,
        *,
        schema: str,
        recheck_seconds: float = _RECHECK_SECONDS,
    ) -> None:
        self._url = url
        self._database = database
        self._batches = batches
        self._schema = schema
        self._recheck_seconds = recheck_seconds
        self._wake = asyncio.Event()
        self._planned = float("inf")  # when it will wake, in milliseconds of the database's time

    async def run(self) -> None:
        """Work until cancelled."""
        delay = _RETRY_SECONDS[0]
        while True:
            try:
                async with self._listening() as connection:
                    while not connection.is_closed():
                        await self._round(connection)
                        delay = _RETRY_SECONDS[0]
            except _LOST as error:
                logger.warning("the scheduler lost the database: %s", type(error).__name__)
            await asyncio.sleep(random.uniform(0.5, 1.0) * delay)
            delay = min(delay * 2, _RETRY_SECONDS[1])

    async def do_due(self) -> int:
        """Do some of what is due now, and tell how many rows that were; 0: nothing is left."""
        moved = len(await self._database.fetch(_MOVE_RUNS))
        moved += len(await self._database.fetch(_GIVE_UP_BATCHES))
        for row in await self._database.fetch(_DUE_BATCHES):
            # Until it is done: this gateway has taken the batch over.
            while await self._batches.create_next_runs(row["id"]):
                moved += 1
        return moved

    async def _round(self, connection: "asyncpg.Connection[Row]") -> None:
        """Do all that is due, then sleep until more is."""
        self._wake.clear()
        self._planned = float("inf")  # whatever is told from now on wakes
        while await self.do_due():
            pass
        row = await connection.fetchrow(_NEXT.replace("@schema@", self._schema))
        assert row is not None, "a SELECT without FROM has one row"
        seconds = self._recheck_seconds
        if row["due"] is not None:
            until_due = (row["due"] - row["now"]) / 1000
            seconds = min(seconds, until_due + 0.001 if until_due > 0 else _TAKEN_SECONDS)
        self._planned = row["now"] + seconds * 1000
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()

    def _told(self, _connection: object, _pid: int, _channel: str, payload: object) -> None:
        if isinstance(payload, str) and payload.isdecimal() and int(payload) > self._planned:
            return
        self._wake.set()

    @contextlib.asynccontextmanager
    async def _listening(self) -> AsyncIterator["asyncpg.Connection[Row]"]:
        connection = await asyncpg.connect(
            self._url,
            timeout=_ANSWER_SECONDS,
            command_timeout=_ANSWER_SECONDS,
            server_settings={"application_name": "runcast scheduler", "jit": "off"},
        )
        try:
            connection.add_termination_listener(lambda _: self._wake.set())
            # Before the first look: what is told in between is seen by it.
            await connection.add_listener(f"{self._schema}_due", self._told)
            yield connection
        finally:
            with contextlib.suppress(*_LOST):
                await connection.close(timeout=_CLOSE_SECONDS)
