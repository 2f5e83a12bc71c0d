"""
Deleting what is kept for a time: streams, departures, spent tokens, answers, waitpoints, objects,
and rate limits that are as if nobody had made a request.
"""

import asyncio
import logging
import random

from runcast.errors import BackendError
from runcast.postgres.database import Database
from runcast.postgres.object_ledger import PostgresObjectLedger
from runcast.postgres.stream_registry import StreamRegistry

logger = logging.getLogger(__name__)

_ROUND_SECONDS = 60.0
_A_ROUND = 5_000  # rows of a kind at most, so that no round is long
_DEPARTURES_SECONDS = 7 * 86400.0
# Tokens live for 30 days at most; one that was spent must be remembered for longer.
_SPENT_TOKENS_SECONDS = 31 * 86400.0

# A position that did not see the newest deleted departure cannot be continued any more.
_PRUNE_DEPARTURES = f"""
    WITH gone AS (
        DELETE FROM @schema@.departures WHERE ctid IN (
            SELECT ctid FROM @schema@.departures
            WHERE departed_at < now() - make_interval(secs => $1)
            ORDER BY departed_at LIMIT {_A_ROUND} FOR UPDATE SKIP LOCKED
        ) RETURNING changed_in
    )
    UPDATE @schema@.following
    SET horizon = greatest(horizon, (SELECT changed_in FROM gone ORDER BY 1 DESC LIMIT 1))
    WHERE EXISTS (SELECT FROM gone)
"""
_PRUNE_TOKENS = f"""
    DELETE FROM @schema@.spent_tokens WHERE ctid IN (
        SELECT ctid FROM @schema@.spent_tokens
        WHERE spent_at < now() - make_interval(secs => $1)
        ORDER BY spent_at LIMIT {_A_ROUND} FOR UPDATE SKIP LOCKED
    )
"""
# Thousands may come every second, so that a round takes several steps.
_ANSWERS_STEPS = 100
_PRUNE_ANSWERS = f"""
    WITH gone AS (
        DELETE FROM @schema@.answered_requests WHERE ctid IN (
            SELECT ctid FROM @schema@.answered_requests WHERE good_until < now()
            ORDER BY good_until LIMIT {_A_ROUND} FOR UPDATE SKIP LOCKED
        ) RETURNING 1
    )
    SELECT count(*) FROM gone
"""
# Waitpoints that are over, whether completed or timed out.
_WAITPOINTS_SECONDS = 30 * 86400.0
_PRUNE_WAITPOINTS = f"""
    DELETE FROM @schema@.waitpoints WHERE ctid IN (
        SELECT ctid FROM @schema@.waitpoints
        WHERE coalesce(completed_at, timeout_at) < now() - make_interval(secs => $1)
        ORDER BY coalesce(completed_at, timeout_at) LIMIT {_A_ROUND} FOR UPDATE SKIP LOCKED
    )
"""
_PRUNE_RATE_LIMITS = f"""
    DELETE FROM @schema@.rate_limits WHERE ctid IN (
        SELECT ctid FROM @schema@.rate_limits WHERE full_at < now()
        LIMIT {_A_ROUND} FOR UPDATE SKIP LOCKED
    )
"""


class Janitor:
    """Deletes a little every minute; any number of gateways may do so at once."""

    def __init__(
        self,
        database: Database,
        streams: StreamRegistry,
        ledger: PostgresObjectLedger,
        *,
        stream_retention_seconds: float,
    ) -> None:
        self._database = database
        self._streams = streams
        self._ledger = ledger
        self._stream_retention_seconds = stream_retention_seconds

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            await asyncio.sleep(random.uniform(0.5, 1.5) * _ROUND_SECONDS)
            try:
                await self.clean()
            except BackendError as error:
                logger.warning("old rows could not be deleted, trying later: %s", error.message)

    async def clean(self) -> None:
        """Do one round."""
        await self._streams.prune(older_than_seconds=self._stream_retention_seconds)
        await self._database.fetch(_PRUNE_DEPARTURES, _DEPARTURES_SECONDS)
        await self._database.fetch(_PRUNE_TOKENS, _SPENT_TOKENS_SECONDS)
        await self._prune_answers()
        await self._database.fetch(_PRUNE_WAITPOINTS, _WAITPOINTS_SECONDS)
        await self._database.fetch(_PRUNE_RATE_LIMITS)
        await self._ledger.clean()

    async def _prune_answers(self) -> None:
        for _ in range(_ANSWERS_STEPS):
            (row,) = await self._database.fetch(_PRUNE_ANSWERS)
            if row["count"] < _A_ROUND:
                return
