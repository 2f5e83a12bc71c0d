"""Newer tokens for connections of other gateways, by rows that the gateways tell each other of."""

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable
from typing import TypeAlias

import asyncpg

from runcast.auth.grant import Grant
from runcast.errors import BackendError
from runcast.ports import Renewals
from runcast.postgres.database import Database

logger = logging.getLogger(__name__)

Row: TypeAlias = "asyncpg.Record"

_WAIT_SECONDS = 2.0
_A_READ = 100
_ASK = """
    WITH asked AS (
        INSERT INTO @schema@.renewals (id, gateway, asked_by, connection_id, allowed)
        VALUES ($1, $2, $3, $4, $5::jsonb)
    )
    SELECT pg_notify('@schema@_renewals', $2)"""
_ANSWER = """
    WITH answered AS (
        UPDATE @schema@.renewals SET outcome = $2 WHERE id = $1 RETURNING asked_by
    )
    SELECT pg_notify('@schema@_renewals', asked_by) FROM answered"""
# What is old nobody waits for any more: a newer token may be in force meanwhile.
_READ = f"""
    (SELECT id, connection_id, allowed, outcome FROM @schema@.renewals
    WHERE gateway = $1 AND outcome IS NULL AND id <> ALL($2)
        AND created_at > clock_timestamp() - make_interval(secs => $4)
    ORDER BY created_at LIMIT {_A_READ})
    UNION ALL
    SELECT id, connection_id, allowed, outcome FROM @schema@.renewals
    WHERE id = ANY($3) AND outcome IS NOT NULL"""


class PostgresRenewals(Renewals):
    """
    Asks other gateways, and does what they ask for.

    Attributes:
        on_asked: Renews a connection of this gateway; gives the outcome.

    Args:
        gateway: The id of this gateway.
    """

    def __init__(self, database: Database, *, schema: str, gateway: str) -> None:
        self.channel = f"{schema}_renewals"
        self.on_asked: Callable[[str, Grant], Awaitable[str | None]] | None = None
        self._database = database
        self._schema = schema
        self._gateway = gateway
        self._waiting: dict[str, asyncio.Future[str]] = {}
        self._doing: dict[str, asyncio.Task[None]] = {}
        self._told = False

    async def forward(self, gateway: str, connection_id: str, grant: Grant) -> str | None:
        """Let another gateway renew a connection; None: it has not answered."""
        request_id = secrets.token_hex(16)
        answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._waiting[request_id] = answer
        try:
            async with asyncio.timeout(_WAIT_SECONDS):
                await self._database.fetch(
                    _ASK, request_id, gateway, self._gateway, connection_id, grant.to_json()
                )
                return await answer
        except TimeoutError:
            return None
        finally:
            del self._waiting[request_id]

    def tell(self, gateway: object) -> bool:
        """Hear that a gateway has something to read; tells whether it is this one."""
        self._told = self._told or gateway == self._gateway
        return gateway == self._gateway

    async def read(self, connection: "asyncpg.Connection[Row]", *, anew: bool) -> None:
        """Read what is asked of us and what we are answered, if there can be something."""
        if not (anew or self._told or self._waiting):
            return
        self._told = False
        rows = await connection.fetch(
            _READ.replace("@schema@", self._schema),
            self._gateway,
            list(self._doing),
            list(self._waiting),
            _WAIT_SECONDS,
        )
        for row in rows:
            if row["outcome"] is None:
                self._do(row["id"], row["connection_id"], Grant.from_json(row["allowed"]))
            elif (answer := self._waiting.get(row["id"])) and not answer.done():
                answer.set_result(row["outcome"])

    def _do(self, request_id: str, connection_id: str, grant: Grant) -> None:
        task = asyncio.create_task(self._renew(request_id, connection_id, grant))
        self._doing[request_id] = task
        task.add_done_callback(lambda _: self._doing.pop(request_id))

    async def _renew(self, request_id: str, connection_id: str, grant: Grant) -> None:
        assert self.on_asked is not None
        try:
            outcome = await self.on_asked(connection_id, grant)
            await self._database.fetch(_ANSWER, request_id, outcome)
        except BackendError as error:
            logger.warning("a renewed token could not be confirmed: %s", error.message)
