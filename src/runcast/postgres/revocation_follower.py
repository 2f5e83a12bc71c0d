"""What gateways hear of each other's tokens, on a connection of its own: revocations, renewals."""

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable

import asyncpg

from runcast.auth.revocation import RevocationBook
from runcast.core.position import Position
from runcast.ports import Clock
from runcast.postgres.listening import LOST, Row, listening
from runcast.postgres.renewals import PostgresRenewals
from runcast.postgres.revocations import REVOCATION_COLUMNS, to_revocation

logger = logging.getLogger(__name__)

_RECHECK_SECONDS = 1.0
_FORGET_SECONDS = 60.0
# A database that takes longer is given up and connected to anew, with twice the patience.
_ANSWER_SECONDS = (3.0, 10.0)
_RETRY_SECONDS = (0.05, 1.0)

# What became visible since a snapshot, as the tailer asks for it.
_READ = f"""
    SELECT here.snapshot, found.* FROM (SELECT pg_current_snapshot()::text AS snapshot) AS here
    LEFT JOIN (
        SELECT {REVOCATION_COLUMNS} FROM @schema@.revocations WHERE changed_in >= $1
        UNION ALL
        SELECT {REVOCATION_COLUMNS} FROM @schema@.revocations WHERE changed_in = ANY($2)
    ) AS found ON true"""


class RevocationFollower:
    """
    Reads all revocations, then each new one when it is told of it, or within a second.

    Survives whatever happens to the connection or the server: it connects again for as long as it
    takes, and reads all again. By the way it reads what there is to renew.

    Args:
        on_revoked: Called when grants that were good may not be any more.
    """

    def __init__(
        self,
        url: str,
        *,
        schema: str,
        clock: Clock,
        book: RevocationBook,
        on_revoked: Callable[[], None],
        renewals: PostgresRenewals,
    ) -> None:
        self._url = url
        self._schema = schema
        self._clock = clock
        self._book = book
        self._on_revoked = on_revoked
        self._renewals = renewals
        self._wake = asyncio.Event()
        self._began = asyncio.Event()
        self._forget_at = 0.0
        book.read_at = float("-inf")  # nobody is let in before the first read

    async def started(self) -> None:
        """Wait until the revocations were read."""
        await self._began.wait()

    async def run(self) -> None:
        """Follow until cancelled."""
        delay, patience = _RETRY_SECONDS[0], _ANSWER_SECONDS[0]
        while True:
            try:
                async with listening(
                    self._url,
                    {
                        f"{self._schema}_revoked": lambda *_: self._wake.set(),
                        self._renewals.channel: self._hear_of_renewal,
                    },
                    name="revocations",
                    answer_seconds=patience,
                    on_lost=self._wake.set,
                ) as connection:
                    position = await self._read(connection, None)
                    await self._renewals.read(connection, anew=True)
                    delay, patience = _RETRY_SECONDS[0], _ANSWER_SECONDS[0]
                    while not connection.is_closed():
                        await self._sleep()
                        position = await self._read(connection, position)
                        await self._renewals.read(connection, anew=False)
            except LOST as error:
                logger.warning("revocations cannot be read, trying again: %s", type(error).__name__)
            await asyncio.sleep(random.uniform(0.5, 1.0) * delay)
            delay = min(delay * 2, _RETRY_SECONDS[1])
            patience = min(patience * 2, _ANSWER_SECONDS[1])

    async def _sleep(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_RECHECK_SECONDS):
                await self._wake.wait()

    async def _read(
        self, connection: "asyncpg.Connection[Row]", before: Position | None
    ) -> Position:
        """Read what is new, or all there is."""
        self._wake.clear()
        asked_at = self._clock.now()
        since, in_flight = (0, ()) if before is None else (before.xmax, before.in_flight)
        rows = await connection.fetch(_READ.replace("@schema@", self._schema), since, in_flight)
        if before is None:
            self._book.begin_anew()
        found = [to_revocation(row) for row in rows if row["id"] is not None]
        hits = self._book.receive(found, asked_at)
        self._book.read_at = asked_at
        self._began.set()
        if self._book.receive_time(asked_at) or hits:
            self._on_revoked()
        if asked_at >= self._forget_at:
            self._book.forget_expired(asked_at)
            self._forget_at = asked_at + _FORGET_SECONDS
        return Position.from_snapshot(0, rows[0]["snapshot"])

    def _hear_of_renewal(
        self, _connection: object, _pid: int, _channel: str, gateway: object
    ) -> None:
        if self._renewals.tell(gateway):
            self._wake.set()
