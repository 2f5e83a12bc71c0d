"""
Deleting what is kept for a time: streams, departures, spent tokens, revocations, renewals, answers,
waitpoints, objects, places of gateways that are gone, and rate limits that are as if nobody had
made a request.
"""

import asyncio
import functools
import logging
import random
from collections.abc import Awaitable, Callable

from runcast.errors import BackendError
from runcast.postgres.database import Database
from runcast.postgres.object_ledger import PostgresObjectLedger
from runcast.postgres.stream_registry import StreamRegistry

logger = logging.getLogger(__name__)

_ROUND_SECONDS = 60.0
# Thousands of a kind may come every second, so that a round takes several steps; none is long.
_A_STEP = 5_000
_A_STEP_STREAMS = 100  # with all of their chunks
_STEPS = 100
_DEPARTURES_SECONDS = 7 * 86400.0
# Tokens live for 30 days at most; one that was spent must be remembered for longer.
_SPENT_TOKENS_SECONDS = 31 * 86400.0
_RENEWALS_SECONDS = 60.0
_WAITPOINTS_SECONDS = 30 * 86400.0


def _prune(table: str, condition: str, order: str, gives: str = "1") -> str:
    return f"""
        DELETE FROM @schema@.{table} WHERE ctid IN (
            SELECT ctid FROM @schema@.{table} WHERE {condition}
            ORDER BY {order} LIMIT {_A_STEP} FOR UPDATE SKIP LOCKED
        ) RETURNING {gives}"""


_OLD = "{} < now() - make_interval(secs => $1)"
# Waitpoints that are over, whether completed or timed out.
_OVER = "coalesce(completed_at, timeout_at)"

# A position that did not see the newest deleted departure cannot be continued any more.
_PRUNE_DEPARTURES = f"""
    WITH gone AS ({_prune("departures", _OLD.format("departed_at"), "departed_at", "changed_in")}
    ), moved AS (
        UPDATE @schema@.following
        SET horizon = greatest(horizon, (SELECT changed_in FROM gone ORDER BY 1 DESC LIMIT 1))
        WHERE EXISTS (SELECT FROM gone)
    )
    SELECT FROM gone"""
_PRUNES: tuple[tuple[str, tuple[float, ...]], ...] = (
    (_PRUNE_DEPARTURES, (_DEPARTURES_SECONDS,)),
    (_prune("spent_tokens", _OLD.format("spent_at"), "spent_at"), (_SPENT_TOKENS_SECONDS,)),
    (_prune("answered_requests", "good_until < now()", "good_until"), ()),
    (_prune("waitpoints", _OLD.format(_OVER), _OVER), (_WAITPOINTS_SECONDS,)),
    (_prune("revocations", "kept_until < now()", "kept_until"), ()),
    (_prune("renewals", _OLD.format("created_at"), "created_at"), (_RENEWALS_SECONDS,)),
    (_prune("rate_limits", "full_at < now()", "full_at"), ()),
    (_prune("connection_places", "held_until < now()", "held_until"), ()),
)


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
        await _in_steps(self._prune_streams, _A_STEP_STREAMS)
        for sql, arguments in _PRUNES:
            await _in_steps(functools.partial(self._prune, sql, arguments), _A_STEP)
        await self._ledger.clean()

    async def _prune_streams(self) -> int:
        return await self._streams.prune(
            older_than_seconds=self._stream_retention_seconds, limit=_A_STEP_STREAMS
        )

    async def _prune(self, sql: str, arguments: tuple[float, ...]) -> int:
        return len(await self._database.fetch(sql, *arguments))


async def _in_steps(prune: Callable[[], Awaitable[int]], step: int) -> None:
    """Delete step by step, for as long as there is enough for one."""
    for _ in range(_STEPS):
        if await prune() < step:
            return
