"""
What happens by time: delayed runs become due, queued ones expire, waiting ones go on, batches are
finished or given up.

Every row that waits for a time says so in its `due_at`. The scheduler sleeps until the earliest of
them; the database tells it when an earlier one appears. Any number of gateways may do this at once:
each row is taken by one of them, under its lock. A row that the database refuses to change, by
somebody's own trigger or constraint, hinders no other: it is left for a while and tried again.
"""

import asyncio
import contextlib
import logging
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import asyncpg

from runcast.errors import GatewayError
from runcast.postgres.database import Database
from runcast.postgres.listening import LOST, Row, listening
from runcast.postgres.streamed_batches import StreamedBatches

logger = logging.getLogger(__name__)

# The database tells of times within the next 60 seconds; others are found by looking again.
_RECHECK_SECONDS = 30.0
_TAKEN_SECONDS = 0.1  # what is due and locked by others is looked at again after this
_A_ROUND_RUNS = 200
_A_ROUND_BATCHES = 5
_REFUSED_SECONDS = 60.0  # what the database refused is tried again after this
_MAX_REFUSED = 10_000
_ANSWER_SECONDS = 10.0
_RETRY_SECONDS = (0.05, 3.0)

# What the database says of itself or of other transactions, not of the rows in a statement.
_NOT_OF_A_ROW = (
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.TransactionRollbackError,
    asyncpg.PostgresSystemError,
)
# What became of a run, by the status that it has then.
_KINDS = {"PENDING": "queued", "EXECUTING": "resumed", "EXPIRED": "expired"}

# Which rows: $1 are the only ones, if it is not null, and $2 are left out.
_WANTED = "due_at <= now() AND ($1::text[] IS NULL OR id = ANY($1)) AND id <> ALL($2::text[])"

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
        SELECT id AS due_id, due_at AS since FROM @schema@.runs WHERE {_WANTED}
        ORDER BY due_at LIMIT {_A_ROUND_RUNS} FOR NO KEY UPDATE SKIP LOCKED
    ) AS due WHERE id = due_id
    RETURNING status, extract(epoch FROM now() - since)::double precision AS late"""
_DUE_RUNS = f"""
    SELECT id FROM @schema@.runs WHERE {_WANTED} ORDER BY due_at LIMIT {_A_ROUND_RUNS}"""

_GIVE_UP_BATCHES = f"""
    WITH late AS (
        SELECT id FROM @schema@.batches WHERE {_WANTED} AND status = 'PENDING'
        ORDER BY due_at LIMIT {_A_ROUND_BATCHES} FOR NO KEY UPDATE SKIP LOCKED
    ), dropped AS (
        DELETE FROM @schema@.batch_items USING late WHERE batch_id = late.id
    )
    UPDATE @schema@.batches SET status = 'ABORTED', updated_at = now(), due_at = NULL
    FROM late WHERE batches.id = late.id RETURNING batches.id"""

_LATE_BATCHES = f"""
    SELECT id FROM @schema@.batches WHERE {_WANTED} AND status = 'PENDING'
    ORDER BY due_at LIMIT {_A_ROUND_BATCHES}"""
_SEALED_BATCHES = f"""
    SELECT id FROM @schema@.batches WHERE {_WANTED} AND status = 'PROCESSING'
    ORDER BY due_at LIMIT {_A_ROUND_BATCHES}"""

# Milliseconds of Unix time, as in the messages. What was refused is late, but nothing to wake for.
_EARLIEST = """(extract(epoch FROM least(
            (SELECT due_at FROM @schema@.runs WHERE due_at IS NOT NULL {0}
             ORDER BY due_at LIMIT 1),
            (SELECT due_at FROM @schema@.batches WHERE due_at IS NOT NULL {0}
             ORDER BY due_at LIMIT 1)
        )) * 1000)::bigint"""
_NEXT = f"""
    SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint AS now,
        {_EARLIEST.format("AND id <> ALL($1::text[])")} AS due,
        {_EARLIEST.format("")} AS oldest"""


@dataclass(slots=True)
class ScheduleCounts:
    """
    What happened since the start; read by the metrics.

    ``done`` is by kind, ``late_seconds`` is how long the oldest item was due in the last round.
    """

    rounds: int = 0
    done: Counter[str] = field(default_factory=Counter)
    refused: int = 0
    late_seconds: float = 0.0


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
        self.counts = ScheduleCounts()
        self._refused: dict[str, float] = {}  # ids, and when they are tried again
        self._refusal = ""  # the last one, in words
        self._late_seconds = 0.0  # of the oldest item in this round
        self._wake = asyncio.Event()
        self._planned = float("inf")  # when it will wake, in milliseconds of the database's time

    async def run(self) -> None:
        """Work until cancelled."""
        delay = _RETRY_SECONDS[0]
        while True:
            try:
                async with listening(
                    self._url,
                    {f"{self._schema}_due": self._told},
                    name="scheduler",
                    answer_seconds=_ANSWER_SECONDS,
                    on_lost=self._wake.set,
                ) as connection:
                    while not connection.is_closed():
                        await self._round(connection)
                        delay = _RETRY_SECONDS[0]
            except (*LOST, GatewayError) as error:
                logger.warning("the scheduler lost the database: %s", type(error).__name__)
            await asyncio.sleep(random.uniform(0.5, 1.0) * delay)
            delay = min(delay * 2, _RETRY_SECONDS[1])

    async def do_due(self) -> int:
        """
        Do some of what is due now, and tell how much that was.

        0: nothing is left, but for what others hold and what the database refuses.
        """
        before = self.counts.done.total()
        for row in await self._change(_MOVE_RUNS, _DUE_RUNS):
            self.counts.done[_KINDS[row["status"]]] += 1
            self._late_seconds = max(self._late_seconds, row["late"])
        given_up = await self._change(_GIVE_UP_BATCHES, _LATE_BATCHES)
        self.counts.done["batch_given_up"] += len(given_up)
        for row in await self._database.fetch(_SEALED_BATCHES, None, self._left_out()):
            await self._fill(row["id"])
        return self.counts.done.total() - before

    async def _fill(self, batch_id: str) -> None:
        """Create the runs of a batch, until it has all: this gateway has taken it over."""
        try:
            while await self._batches.create_next_runs(batch_id):
                self.counts.done["batch_piece"] += 1
        except GatewayError as error:
            self._refuse(batch_id, error)

    async def _change(self, change: str, due: str) -> list[Row]:
        """Change some of the rows that are due: all at once, or else one after the other."""
        try:
            return await self._database.fetch(change, None, self._left_out())
        except GatewayError as error:
            if not _of_a_row(error):
                raise
        changed: list[Row] = []
        for row in await self._database.fetch(due, None, self._left_out()):
            try:
                changed += await self._database.fetch(change, [row["id"]], [])
            except GatewayError as error:
                self._refuse(row["id"], error)
        return changed

    def _refuse(self, row_id: str, error: GatewayError) -> None:
        """Leave a row for a while that the database does not let us change."""
        if not _of_a_row(error):
            raise error
        self.counts.refused += 1
        self._refusal = f"{row_id}: {error.message}"
        self._refused[row_id] = asyncio.get_running_loop().time() + _REFUSED_SECONDS
        while len(self._refused) > _MAX_REFUSED:
            self._refused.pop(next(iter(self._refused)))

    def _left_out(self) -> Sequence[str]:
        now = asyncio.get_running_loop().time()
        self._refused = {row_id: again for row_id, again in self._refused.items() if again > now}
        return list(self._refused)

    async def _round(self, connection: "asyncpg.Connection[Row]") -> None:
        """Do all that is due, then sleep until more is."""
        self._wake.clear()
        self._planned = float("inf")  # whatever is told from now on wakes
        self._late_seconds = 0.0
        refused_before = self.counts.refused
        while await self.do_due():
            pass
        if refused := self.counts.refused - refused_before:
            logger.warning("due, but not to be changed: %d rows, as %s", refused, self._refusal)
        row = await connection.fetchrow(_NEXT.replace("@schema@", self._schema), self._left_out())
        assert row is not None, "a SELECT without FROM has one row"
        if row["oldest"] is not None:
            self._late_seconds = max(self._late_seconds, (row["now"] - row["oldest"]) / 1000)
        self.counts.late_seconds = self._late_seconds
        self.counts.rounds += 1
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


def _of_a_row(error: GatewayError) -> bool:
    """Whether it was about a row: others may be changed nevertheless."""
    cause = error.__cause__
    return isinstance(cause, asyncpg.PostgresError) and not isinstance(cause, _NOT_OF_A_ROW)
