"""
Which objects there may be, and deleting those that no run has referred to for a while.

    expected ──(unused for a while)──► deleted ──(some days)──► forgotten
       ▲ └──(a run has it)──► nothing is due until the run lets go   │
       └──────────────────(expected again)───────────────────────────┘

Every time from which an object may be unused is a row in `object_checks`; the triggers on runs and
on items of batches add theirs. Whoever takes up an object holds its row, and so does whoever
deletes it: the one who comes later sees what the other did.
"""

import asyncio
import logging
from collections.abc import Collection
from typing import TypeAlias

from runcast.errors import BackendError
from runcast.ports import ObjectStore
from runcast.postgres.database import Database, Row, Transaction

logger = logging.getLogger(__name__)

_Object: TypeAlias = tuple[str, str]  # id of its environment, and name

_PIECE = 20  # checks of one transaction, whose objects are deleted at the same time
_A_ROUND_PIECES = 100
_STORE_TIMEOUT_SECONDS = 10.0  # for which those may wait who want one of them again
# What cannot be looked at or deleted now comes again after this, so that it holds up nothing else.
_PUT_OFF_SECONDS = 300.0
_REMEMBERED_SECONDS = 7 * 86400.0
_A_ROUND_FORGOTTEN = 5_000

_EXPECT = """
    WITH expected AS (
        INSERT INTO @schema@.objects (environment_id, name) VALUES ($1, $2)
        ON CONFLICT (environment_id, name) DO UPDATE SET deleted_at = NULL
        RETURNING environment_id, name
    )
    INSERT INTO @schema@.object_checks (environment_id, name) SELECT * FROM expected"""

_DUE = f"""
    SELECT id, environment_id, name FROM @schema@.object_checks
    WHERE since < now() - make_interval(secs => $1)
    ORDER BY since LIMIT {_PIECE} FOR UPDATE SKIP LOCKED"""

_KNOWN = """
    SELECT environment_id, name, deleted_at IS NOT NULL AS is_deleted
    FROM @schema@.objects JOIN unnest($1::text[], $2::text[]) AS due (environment_id, name)
    USING (environment_id, name)"""

# Those that a run is being given at this moment are held by it, and not waited for.
_LOCK = f"{_KNOWN} FOR UPDATE OF objects SKIP LOCKED"

# To be asked once they are locked: a run that was given one before is seen then.
_UNUSED = """
    SELECT environment_id, name
    FROM unnest($1::text[], $2::text[]) AS due (environment_id, name)
    WHERE NOT EXISTS (
        SELECT FROM @schema@.runs
        WHERE runs.environment_id = due.environment_id AND md5(payload) = md5(name)
            AND payload = name AND payload_type = 'application/store'
    ) AND NOT EXISTS (
        SELECT FROM @schema@.runs
        WHERE runs.environment_id = due.environment_id AND md5(output) = md5(name)
            AND output = name AND output_type = 'application/store'
    ) AND NOT EXISTS (
        SELECT FROM @schema@.batch_items
        WHERE batch_items.environment_id = due.environment_id AND object = name
    ) AND NOT EXISTS (
        SELECT FROM @schema@.object_checks AS later
        WHERE later.environment_id = due.environment_id AND later.name = due.name
            AND since >= now() - make_interval(secs => $3)
    )"""

_DELETED = """
    UPDATE @schema@.objects SET deleted_at = clock_timestamp()
    FROM unnest($1::text[], $2::text[]) AS gone (environment_id, name)
    WHERE objects.environment_id = gone.environment_id AND objects.name = gone.name"""

_DONE = "DELETE FROM @schema@.object_checks WHERE id = ANY($1::bigint[])"

_PUT_OFF = """
    UPDATE @schema@.object_checks SET since = now() - make_interval(secs => $2)
    WHERE id = ANY($1::bigint[])"""

_FORGET = f"""
    DELETE FROM @schema@.objects WHERE ctid IN (
        SELECT ctid FROM @schema@.objects
        WHERE deleted_at < now() - make_interval(secs => $1)
        ORDER BY deleted_at LIMIT {_A_ROUND_FORGOTTEN} FOR UPDATE SKIP LOCKED
    )"""


class PostgresObjectLedger:
    """
    Keeps `runcast.ports.ObjectLedger` in tables; any number of gateways may clean at once.

    ``deleted`` and ``failed`` count what this one did.

    Args:
        unused_seconds: How long an object stays that nothing refers to.
    """

    def __init__(self, database: Database, objects: ObjectStore, *, unused_seconds: float) -> None:
        self._database = database
        self._store = objects
        self._unused_seconds = unused_seconds
        self.deleted = 0
        self.failed = 0

    async def expect(self, environment_id: str, name: str) -> None:
        """Note that an object may be stored from now on."""
        await self._database.fetch(_EXPECT, environment_id, name)

    async def clean(self) -> None:
        """
        Delete objects that nothing has referred to for long; a round is bounded.

        Where the store is away they are deleted in a later round.

        Raises:
            BackendError: The database is away; what was deleted just before is deleted again.
        """
        for _ in range(_A_ROUND_PIECES):
            if not await self._clean_piece():
                break
        await self._database.fetch(_FORGET, _REMEMBERED_SECONDS)

    async def _clean_piece(self) -> bool:
        """Look at what is due for longest; tell whether it is worth to go on."""
        async with self._database.transaction() as transaction:
            checks = await transaction.fetch(_DUE, self._unused_seconds)
            if not checks:
                return False
            due = {_object(row) for row in checks}
            locked = await _ask(transaction, _LOCK, due)
            held = {_object(row) for row in await _ask(transaction, _KNOWN, due)}
            held -= {_object(row) for row in locked}
            present = [_object(row) for row in locked if not row["is_deleted"]]
            rows = await _ask(transaction, _UNUSED, present, self._unused_seconds)
            unused = [_object(row) for row in rows]
            gone = await self._delete(unused)
            await _ask(transaction, _DELETED, gone)
            stay = held | (set(unused) - set(gone))
            await transaction.fetch(_DONE, _ids(checks, due - stay))
            again_after = self._unused_seconds - _PUT_OFF_SECONDS
            await transaction.fetch(_PUT_OFF, _ids(checks, stay), again_after)
        self.deleted += len(gone)
        store_is_away = bool(unused) and not gone
        return not store_is_away

    async def _delete(self, unused: Collection[_Object]) -> list[_Object]:
        """Delete objects from the store; gives those that are gone."""

        async def delete(environment_id: str, name: str) -> BackendError | None:
            try:
                async with asyncio.timeout(_STORE_TIMEOUT_SECONDS):
                    await self._store.delete(environment_id, name)
            except BackendError as error:
                return error
            except TimeoutError:
                return BackendError("The object store does not answer in time.")
            return None

        problems = await asyncio.gather(*(delete(*each) for each in unused))
        failures = [problem for problem in problems if problem is not None]
        if failures:
            self.failed += len(failures)
            logger.warning(
                "%d objects could not be deleted, trying later: %s",
                len(failures),
                failures[0].message,
            )
        return [each for each, problem in zip(unused, problems, strict=True) if problem is None]


async def _ask(
    transaction: Transaction, sql: str, objects: Collection[_Object], *more: object
) -> list[Row]:
    environment_ids = [environment_id for environment_id, _ in objects]
    return await transaction.fetch(sql, environment_ids, [name for _, name in objects], *more)


def _ids(checks: list[Row], objects: Collection[_Object]) -> list[int]:
    return [row["id"] for row in checks if _object(row) in objects]


def _object(row: Row) -> _Object:
    return row["environment_id"], row["name"]
