"""Waitpoints in Postgres."""

import uuid
from datetime import datetime

from runcast.core.page import PageKey
from runcast.core.waitpoint import NewWaitpoint, Waitpoint, WaitpointFilter
from runcast.ports import WaitpointPage, WaitpointStore
from runcast.postgres.answered_requests import Answered, claim_request, keep_answer
from runcast.postgres.database import Contended, Database, Row, Transaction
from runcast.postgres.run_query import NEWEST_FIRST, OLDEST_FIRST, RunQuery

_COLUMNS = (
    "id, environment_id, created_at, timeout_at, completed_at, tags, idempotency_key, "
    "idempotency_key_expires_at, output, output_type"
)
_READ = f"SELECT {_COLUMNS} FROM @schema@.waitpoints WHERE id = $1"
_OF_KEY = "environment_id = $1 AND md5(idempotency_key) = md5($2)"
_STATUS = """CASE WHEN completed_at IS NOT NULL THEN 'COMPLETED'
    WHEN timeout_at <= {} THEN 'TIMED_OUT' ELSE 'WAITING' END"""


class PostgresWaitpointStore(WaitpointStore):
    """All times come from the caller, so that one clock decides what is over."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, new: NewWaitpoint, *, now: datetime) -> tuple[Waitpoint, bool]:
        """Create a waitpoint, or find that of its idempotency key; tells whether it was found."""
        return await self._database.retrying(lambda: self._create(new, now))

    async def read(self, waitpoint_id: str) -> Waitpoint | None:
        """A waitpoint of whichever environment; None: there is none."""
        rows = await self._database.fetch(_READ, waitpoint_id)
        return _waitpoint(rows[0]) if rows else None

    async def list_page(
        self,
        wanted: WaitpointFilter,
        *,
        older_than: PageKey | None,
        newer_than: PageKey | None,
        limit: int,
        now: datetime,
    ) -> WaitpointPage:
        """One page, newest first."""
        query = _query(wanted, now)
        if older_than is not None:
            query.older_than(older_than)
        if newer_than is not None:
            query.newer_than(newer_than)
        rows = await self._database.fetch(
            f"SELECT {_COLUMNS} FROM @schema@.waitpoints WHERE {query.condition}"
            f" ORDER BY {OLDEST_FIRST if newer_than else NEWEST_FIRST} LIMIT {limit + 1}",
            *query.arguments,
        )
        found = [_waitpoint(row) for row in rows[:limit]]
        beyond = len(rows) > limit
        if newer_than is not None:
            found.reverse()
        if not found:
            return WaitpointPage((), None, None)
        oldest, newest = (PageKey(each.created_at, each.id) for each in (found[-1], found[0]))
        return WaitpointPage(
            tuple(found),
            older=oldest if beyond or newer_than else None,
            newer=newest if (beyond if newer_than else older_than) else None,
        )

    async def complete(
        self, waitpoint_id: str, output: str | None, output_type: str, *, now: datetime
    ) -> bool:
        """Complete a waitpoint that is still waited for; tells whether it was."""
        rows = await self._database.fetch(
            """UPDATE @schema@.waitpoints SET completed_at = $4, output = $2, output_type = $3
            WHERE id = $1 AND completed_at IS NULL AND (timeout_at IS NULL OR timeout_at > $4)
            RETURNING id""",
            waitpoint_id,
            output,
            output_type,
            now,
        )
        return bool(rows)

    async def _create(self, new: NewWaitpoint, now: datetime) -> tuple[Waitpoint, bool]:
        waitpoint_id = f"waitpoint_{uuid.uuid4().hex}"
        async with self._database.transaction() as transaction:
            if new.request is not None and (
                answer := await claim_request(
                    transaction, new.environment_id, new.request, waitpoint_id
                )
            ):
                rows = await transaction.fetch(_READ, answer.id)
                if rows:  # else nobody knows that waitpoint any more, and another one is created
                    return _waitpoint(rows[0]), answer.cached
            if new.idempotency_key is not None:
                # Keys that are over are good for a new one.
                await transaction.fetch(
                    f"UPDATE @schema@.waitpoints SET idempotency_key = NULL"
                    f" WHERE {_OF_KEY} AND idempotency_key_expires_at <= $3",
                    new.environment_id,
                    new.idempotency_key,
                    now,
                )
            rows = await self._insert(transaction, waitpoint_id, new, now)
            if rows:
                return _waitpoint(rows[0]), False
            rows = await transaction.fetch(
                f"SELECT {_COLUMNS} FROM @schema@.waitpoints WHERE {_OF_KEY}",
                new.environment_id,
                new.idempotency_key,
            )
            if not rows:  # it gave up its key just now
                raise Contended("Others want the same wait token at once; try again.")
            if new.request is not None:
                answer = Answered(rows[0]["id"], cached=True)
                await keep_answer(transaction, new.environment_id, new.request, answer)
            return _waitpoint(rows[0]), True

    async def _insert(
        self, transaction: Transaction, waitpoint_id: str, new: NewWaitpoint, now: datetime
    ) -> list[Row]:
        return await transaction.fetch(
            f"""INSERT INTO @schema@.waitpoints (id, environment_id, created_at, timeout_at, tags,
                idempotency_key, idempotency_key_expires_at)
            VALUES ($1, $2, $3, $4, $5, $6, $7)
            ON CONFLICT (environment_id, md5(idempotency_key)) WHERE idempotency_key IS NOT NULL
            DO NOTHING RETURNING {_COLUMNS}""",
            waitpoint_id,
            new.environment_id,
            now,
            new.timeout_at,
            new.tags,
            new.idempotency_key,
            new.idempotency_key_expires_at,
        )


def _query(wanted: WaitpointFilter, now: datetime) -> RunQuery:
    query = RunQuery()
    query.bound("environment_id = {}", wanted.environment_id)
    if wanted.created_from is not None:
        query.bound("created_at >= {}", wanted.created_from)
    if wanted.created_to is not None:
        query.bound("created_at <= {}", wanted.created_to)
    if wanted.idempotency_key is not None:
        query.narrow("md5(idempotency_key) = md5({})", wanted.idempotency_key)
    if wanted.tags:
        query.narrow("tags && {}::text[]", wanted.tags)
    if wanted.statuses:
        status = _STATUS.format(f"{query.argument(now)}::timestamptz")
        query.narrow(f"{status} = ANY({{}}::text[])", wanted.statuses)
    return query


def _waitpoint(row: Row) -> Waitpoint:
    return Waitpoint(**{**row, "tags": tuple(row["tags"])})
