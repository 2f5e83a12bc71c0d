"""Waitpoints in Postgres."""

import uuid
from datetime import datetime

from runcast.core.page import PageKey
from runcast.core.status import may_move
from runcast.core.waitpoint import AwaitedInput, NewWaitpoint, Waitpoint, WaitpointFilter
from runcast.errors import IllegalTransition, NotFound
from runcast.ports import WaitpointPage, WaitpointStore
from runcast.postgres.answered_requests import Answered, claim_request, keep_answer
from runcast.postgres.database import Contended, Database, Row, Transaction
from runcast.postgres.run_query import NEWEST_FIRST, OLDEST_FIRST, RunQuery

_COLUMNS = (
    "id, environment_id, kind, created_at, timeout_at, completed_at, tags, idempotency_key, "
    "idempotency_key_expires_at, output, output_type, run_id, input_key, input_offset"
)
_READ = f"SELECT {_COLUMNS} FROM @schema@.waitpoints WHERE id = $1"
_OF_KEY = """environment_id = $1 AND md5(idempotency_key) = md5($2) AND kind = $3
    AND coalesce(run_id, '') = $4"""
_COMPLETE = """
    UPDATE @schema@.waitpoints SET completed_at = $4, output = $2, output_type = $3
    WHERE id = $1 AND completed_at IS NULL AND (timeout_at IS NULL OR timeout_at > $4)
    RETURNING id"""
_RESUME = """
    UPDATE @schema@.runs SET status = 'EXECUTING'
    WHERE waits_for = $1 AND status = 'WAITING_TO_RESUME'"""
_LOCK_RUN = """
    SELECT status FROM @schema@.runs WHERE environment_id = $1 AND id = $2 FOR NO KEY UPDATE"""
_LET_WAIT = """
    UPDATE @schema@.runs SET status = 'WAITING_TO_RESUME', started_at = coalesce(started_at, $2),
        waits_for = $3, waits_until = $4
    WHERE id = $1"""
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
        """
        Complete a waitpoint that is still waited for; tells whether it was.

        Runs that wait for it execute again.
        """

        async def work() -> bool:
            async with self._database.transaction() as transaction:
                rows = await transaction.fetch(_COMPLETE, waitpoint_id, output, output_type, now)
                if rows:
                    await transaction.fetch(_RESUME, waitpoint_id)
                return bool(rows)

        return await self._database.retrying(work)

    async def read_awaiting(self, run_id: str, key: str, *, now: datetime) -> list[Waitpoint]:
        """The waitpoints that input of a run under a key may complete."""
        rows = await self._database.fetch(
            f"""SELECT {_COLUMNS} FROM @schema@.waitpoints
            WHERE run_id = $1 AND input_key = $2 AND completed_at IS NULL
                AND (timeout_at IS NULL OR timeout_at > $3)""",
            run_id,
            key,
            now,
        )
        return [_waitpoint(row) for row in rows]

    async def let_wait(
        self, environment_id: str, run_id: str, waitpoint_id: str, *, now: datetime
    ) -> None:
        """
        Let a run wait for a waitpoint, unless that is over.

        Raises:
            NotFound: There is no such run or waitpoint in the environment.
            IllegalTransition: The run is finished.
        """

        async def work() -> None:
            async with self._database.transaction() as transaction:
                # Shared until the end: who completes it waits, and then sees who waits for it.
                rows = await transaction.fetch(f"{_READ} FOR SHARE", waitpoint_id)
                if not rows or rows[0]["environment_id"] != environment_id:
                    raise NotFound("There is no waitpoint with this id in this environment.")
                waitpoint = _waitpoint(rows[0])
                rows = await transaction.fetch(_LOCK_RUN, environment_id, run_id)
                if not rows:
                    raise NotFound("There is no run with this id in this environment.")
                if not may_move(rows[0]["status"], "WAITING_TO_RESUME"):
                    raise IllegalTransition(
                        f"The run is finished ({rows[0]['status']}) and waits for nothing any more."
                    )
                if waitpoint.status(now) == "WAITING":
                    await transaction.fetch(
                        _LET_WAIT, run_id, now, waitpoint_id, waitpoint.timeout_at
                    )

        await self._database.retrying(work)

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
                    f" WHERE {_OF_KEY} AND idempotency_key_expires_at <= $5",
                    *_key(new),
                    now,
                )
            rows = await self._insert(transaction, waitpoint_id, new, now)
            if rows:
                return _waitpoint(rows[0]), False
            rows = await transaction.fetch(
                f"SELECT {_COLUMNS} FROM @schema@.waitpoints WHERE {_OF_KEY}",
                *_key(new),
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
        awaited = new.awaited
        return await transaction.fetch(
            f"""INSERT INTO @schema@.waitpoints (id, environment_id, kind, created_at, timeout_at,
                tags, idempotency_key, idempotency_key_expires_at, run_id, input_key, input_offset)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
            ON CONFLICT (environment_id, kind, coalesce(run_id, ''), md5(idempotency_key))
                WHERE idempotency_key IS NOT NULL
            DO NOTHING RETURNING {_COLUMNS}""",
            waitpoint_id,
            new.environment_id,
            new.kind,
            now,
            new.timeout_at,
            new.tags,
            new.idempotency_key,
            new.idempotency_key_expires_at,
            *((awaited.run_id, awaited.key, awaited.offset) if awaited else (None, None, None)),
        )


def _query(wanted: WaitpointFilter, now: datetime) -> RunQuery:
    query = RunQuery()
    query.bound("environment_id = {}", wanted.environment_id)
    query.bound("kind = {}", "token")
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


def _key(new: NewWaitpoint) -> tuple[str, str | None, str, str]:
    run_id = new.awaited.run_id if new.awaited else ""
    return new.environment_id, new.idempotency_key, new.kind, run_id


def _waitpoint(row: Row) -> Waitpoint:
    fields = {**row, "tags": tuple(row["tags"])}
    run_id, key, offset = (fields.pop(name) for name in ("run_id", "input_key", "input_offset"))
    awaited = AwaitedInput(run_id, key, offset) if key is not None else None
    return Waitpoint(**fields, awaited=awaited)
