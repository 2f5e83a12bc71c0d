"""Creating and changing runs: idempotency keys, one-time tokens, row locks."""

import uuid
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeAlias

from runcast.core.batch import Batch, NewBatch
from runcast.core.new_run import NewRun
from runcast.core.run import Run
from runcast.errors import BackendError, NotFound, OneTimeTokenSpent
from runcast.ports import Decide, Triggered
from runcast.postgres.database import Database, Row, Transaction
from runcast.postgres.rows import run_columns, to_run

# What may change in a run's life; all else is fixed when it is created, or kept by triggers.
CHANGEABLE = frozenset(
    {
        "status", "queued_at", "delay_until", "started_at", "completed_at", "expired_at", "ttl",
        "payload", "payload_type", "output", "output_type", "metadata", "metadata_type", "error",
        "tags", "realtime_streams", "queue", "concurrency_key", "priority_ms", "machine",
        "region", "worker_version", "attempt_count", "max_attempts", "max_duration_seconds",
        "usage_duration_ms", "cost_in_cents", "base_cost_in_cents", "idempotency_key",
        "idempotency_key_expires_at", "idempotency_key_options", "options",
    }
)  # fmt: skip

# A run that ended like this no longer answers for its idempotency key; wire/trigger-wire.md 4.9.
_FAILED = (
    "INTERRUPTED", "COMPLETED_WITH_ERRORS", "SYSTEM_FAILURE", "CRASHED", "TIMED_OUT", "EXPIRED",
)  # fmt: skip

# Others may take and free the same keys at the same time; each round somebody gets ahead.
_ROUNDS = 10

_Key: TypeAlias = tuple[str, str]  # task and idempotency key

# Columns that are taken over from a `NewRun` as they are.
_GIVEN = (
    "environment_id", "task", "payload", "payload_type", "metadata", "tags", "delay_until", "ttl",
    "parent_id", "trigger_function", "queue", "concurrency_key", "priority_ms", "machine",
    "region", "worker_version", "max_attempts", "max_duration_seconds", "is_test",
    "idempotency_key", "idempotency_key_options", "options",
)  # fmt: skip
_FIRST_GIVEN = 9  # the arguments before it are named in the statement
_INSERT = f"""
    INSERT INTO @schema@.runs (
        id, batch_id, batch_index, root_id, depth, status, idempotency_key_expires_at,
        {", ".join(_GIVEN)}
    ) VALUES (
        $1, $2, $3, $4, $5,
        CASE WHEN $6::text = 'PENDING' AND $7::timestamptz > now() THEN 'DELAYED' ELSE $6 END,
        CASE WHEN $8::boolean
            THEN coalesce(${_FIRST_GIVEN + len(_GIVEN)}::timestamptz, now() + interval '30 days')
        END,
        {", ".join(f"${number}" for number in range(_FIRST_GIVEN, _FIRST_GIVEN + len(_GIVEN)))}
    )
    ON CONFLICT (environment_id, task, idempotency_key) WHERE idempotency_key IS NOT NULL
    DO NOTHING
    RETURNING {run_columns()}"""

_FORGET_KEYS = """
    UPDATE @schema@.runs SET idempotency_key = NULL, idempotency_key_expires_at = NULL,
        idempotency_key_options = NULL
    FROM unnest($2::text[], $3::text[]) AS asked (task, key)
    WHERE runs.environment_id = $1 AND runs.task = asked.task
        AND runs.idempotency_key = asked.key
        AND (runs.idempotency_key_expires_at <= now() OR runs.status = ANY($4::text[]))"""

_READ_KEYS = f"""
    SELECT {run_columns()}
    FROM unnest($2::text[], $3::text[]) AS asked (task, key)
    JOIN @schema@.runs ON runs.environment_id = $1 AND runs.task = asked.task
        AND runs.idempotency_key = asked.key"""

_SPEND = """
    INSERT INTO @schema@.spent_tokens (environment_id, token)
    SELECT * FROM unnest($1::text[], $2::text[])
    ON CONFLICT DO NOTHING RETURNING token"""

_LOCK = f"""
    SELECT {run_columns()} FROM @schema@.runs
    WHERE environment_id = $1 AND id = ANY($2::text[])
    ORDER BY id FOR NO KEY UPDATE"""

_FORGET_BATCH_KEY = """
    UPDATE @schema@.batches SET idempotency_key = NULL, idempotency_key_expires_at = NULL
    WHERE environment_id = $1 AND idempotency_key = $2 AND idempotency_key_expires_at <= now()"""

_INSERT_BATCH = """
    INSERT INTO @schema@.batches (
        id, environment_id, status, run_count, idempotency_key, idempotency_key_expires_at, options
    ) VALUES (
        $1, $2, 'PROCESSING', $3, $4,
        CASE WHEN $4::text IS NOT NULL
            THEN coalesce($5::timestamptz, now() + interval '24 hours')
        END,
        $6
    )
    ON CONFLICT (environment_id, idempotency_key) DO NOTHING RETURNING id"""

_READ_BATCH_KEY = """
    SELECT id FROM @schema@.batches WHERE environment_id = $1 AND idempotency_key = $2"""

_INSERT_REUSED = """
    INSERT INTO @schema@.batch_reused_runs (batch_id, batch_index, run_id)
    SELECT $1, * FROM unnest($2::integer[], $3::text[])"""

# A batch is complete once its runs are: all that its trigger promised, if it was sealed.
_READ_BATCH = """
    WITH items AS MATERIALIZED (
        SELECT batch_index, id AS run_id FROM @schema@.runs
        WHERE environment_id = $1 AND batch_id = $2
        UNION ALL
        SELECT batch_index, run_id FROM @schema@.batch_reused_runs WHERE batch_id = $2
    ), progress AS (
        SELECT count(*) AS found, count(*) FILTER (WHERE runs.completed_at IS NULL) AS open,
            max(runs.completed_at) AS completed_at
        FROM items JOIN @schema@.runs ON runs.id = items.run_id
    )
    SELECT batches.*, progress.*,
        ARRAY(SELECT run_id FROM items ORDER BY batch_index, run_id) AS run_ids
    FROM @schema@.batches, progress WHERE environment_id = $1 AND id = $2"""


class RunWriter:
    """Writes runs and batches, each call in one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create_runs(self, new_runs: Sequence[NewRun]) -> list[Triggered]:
        """
        Create runs in one transaction, honouring idempotency keys and one-time tokens.

        A run found by its key needs no token: its token is neither looked at nor spent.

        Raises:
            OneTimeTokenSpent: The token was used before; nothing was created.
            NotFound: A parent run does not exist in the environment.
        """

        async def work() -> list[Triggered]:
            async with self._database.transaction() as transaction:
                return await _create_runs(transaction, new_runs)

        return await self._database.retrying(work)

    async def update_runs(
        self, environment_id: str, run_ids: Sequence[str], decide: Decide
    ) -> list[Run]:
        """
        Lock the runs, ask ``decide`` what to write, write it, and return the rows as they are then.

        Atomic against concurrent writers; locks are taken in id order. A deadlock with others
        starts it anew, so ``decide`` may be asked again.
        """

        async def work() -> list[Run]:
            async with self._database.transaction() as transaction:
                rows = await transaction.fetch(_LOCK, environment_id, list(run_ids))
                runs = {row["id"]: to_run(row) for row in rows}
                asked = [run_id for run_id in dict.fromkeys(run_ids) if run_id in runs]
                changes = decide([runs[run_id] for run_id in asked])
                assert changes.keys() <= runs.keys(), "only locked runs can be written"
                runs |= await _write(transaction, changes)
                return [runs[run_id] for run_id in asked]

        return await self._database.retrying(work)

    async def create_batch(self, new_batch: NewBatch, new_runs: Sequence[NewRun]) -> Batch:
        """
        Create a batch and its runs in one transaction (see `create_runs`).

        A batch found by its key is returned as it is: no run is created, no token spent. An item
        whose own key stands for an older run has that run's id in the batch.
        """

        async def work() -> Batch:
            async with self._database.transaction() as transaction:
                return await _create_batch(transaction, new_batch, new_runs)

        return await self._database.retrying(work)

    async def read_batch(self, environment_id: str, batch_id: str) -> Batch | None:
        """The batch with the ids of its runs, or None."""
        rows = await self._database.fetch(_READ_BATCH, environment_id, batch_id)
        return _to_batch(rows[0]) if rows else None


async def _create_runs(
    transaction: Transaction, new_runs: Sequence[NewRun], batch_id: str | None = None
) -> list[Triggered]:
    if not new_runs:
        return []
    environment_id = new_runs[0].environment_id
    assert all(new_run.environment_id == environment_id for new_run in new_runs)
    parents = await _read_parents(transaction, environment_id, new_runs)
    triggered: dict[int, Triggered] = {}
    for _ in range(_ROUNDS):
        open_items = [index for index in range(len(new_runs)) if index not in triggered]
        if not open_items:
            break
        found = await _read_keys(transaction, environment_id, [new_runs[i] for i in open_items])
        inserts: dict[str, tuple[int, tuple[object, ...]]] = {}
        taken: set[_Key] = set()
        # In the order of keys, so that calls with the same ones wait for each other in a line.
        for index in sorted(open_items, key=lambda index: _key(new_runs[index]) or ("", "")):
            new_run = new_runs[index]
            key = _key(new_run)
            if key in found:
                triggered[index] = Triggered(found[key], cached=True)
            elif key is None or key not in taken:  # the second of a key finds the first next round
                if key is not None:
                    taken.add(key)
                run_id = new_run.id or f"run_{uuid.uuid4().hex}"
                parent = parents.get(new_run.parent_id or "")
                inserts[run_id] = (index, _row(new_run, run_id, parent, batch_id, index))
        rows = await transaction.fetch_many(_INSERT, [row for _, row in inserts.values()])
        for row in rows:
            triggered[inserts[row["id"]][0]] = Triggered(to_run(row), cached=False)
    else:
        raise BackendError("Too many triggers use the same idempotency key at once; try again.")
    created = [new_runs[index] for index, answer in triggered.items() if not answer.cached]
    await _spend(transaction, environment_id, [new_run.one_time_token for new_run in created])
    return [triggered[index] for index in range(len(new_runs))]


def _row(
    new_run: NewRun, run_id: str, parent: Row | None, batch_id: str | None, index: int
) -> tuple[object, ...]:
    return (
        run_id,
        batch_id,
        new_run.batch_index if batch_id is None else index,
        (parent["root_id"] or parent["id"]) if parent else None,
        parent["depth"] + 1 if parent else 0,
        new_run.status,
        new_run.delay_until,
        new_run.idempotency_key is not None,
        *(getattr(new_run, column) for column in _GIVEN),
        new_run.idempotency_key_expires_at,
    )


def _key(new_run: NewRun) -> _Key | None:
    return (new_run.task, new_run.idempotency_key) if new_run.idempotency_key is not None else None


async def _read_parents(
    transaction: Transaction, environment_id: str, new_runs: Sequence[NewRun]
) -> Mapping[str, Row]:
    wanted = {new_run.parent_id for new_run in new_runs if new_run.parent_id is not None}
    if not wanted:
        return {}
    rows = await transaction.fetch(
        "SELECT id, root_id, depth FROM @schema@.runs"
        " WHERE environment_id = $1 AND id = ANY($2::text[])",
        environment_id,
        list(wanted),
    )
    parents = {row["id"]: row for row in rows}
    if len(parents) < len(wanted):
        raise NotFound("The parent run does not exist; name a run of this environment.")
    return parents


async def _read_keys(
    transaction: Transaction, environment_id: str, new_runs: Iterable[NewRun]
) -> dict[_Key | None, Run]:
    """The runs that idempotency keys stand for, once those that do no longer are forgotten."""
    keys = sorted({key for new_run in new_runs if (key := _key(new_run)) is not None})
    if not keys:
        return {}
    tasks, hashes = [task for task, _ in keys], [key for _, key in keys]
    await transaction.fetch(_FORGET_KEYS, environment_id, tasks, hashes, _FAILED)
    rows = await transaction.fetch(_READ_KEYS, environment_id, tasks, hashes)
    return {(row["task"], row["idempotency_key"]): to_run(row) for row in rows}


async def _spend(
    transaction: Transaction, environment_id: str, tokens: Iterable[str | None]
) -> None:
    """Spend one-time tokens; a concurrent use waits here until the first one has committed."""
    given = sorted(token for token in tokens if token is not None)
    if not given:
        return
    spent = await transaction.fetch(_SPEND, [environment_id] * len(given), given)
    if len(spent) < len(given):
        raise OneTimeTokenSpent("This one-time token was used before: ask for a new one.")


async def _write(
    transaction: Transaction, changes: Mapping[str, Mapping[str, Any]]
) -> dict[str, Run]:
    """Update locked runs, those that change the same columns together."""
    groups: dict[tuple[str, ...], list[tuple[object, ...]]] = defaultdict(list)
    for run_id, values in changes.items():
        columns = tuple(sorted(values))
        assert CHANGEABLE.issuperset(columns), f"{set(columns) - CHANGEABLE} cannot be changed"
        if columns:
            groups[columns].append((run_id, *(values[column] for column in columns)))
    written: dict[str, Run] = {}
    for columns, arguments in groups.items():
        assigned = ", ".join(f"{column} = ${n}" for n, column in enumerate(columns, start=2))
        sql = f"UPDATE @schema@.runs SET {assigned} WHERE id = $1 RETURNING {run_columns()}"
        rows = await transaction.fetch_many(sql, arguments)
        written |= {row["id"]: to_run(row) for row in rows}
    return written


async def _create_batch(
    transaction: Transaction, new_batch: NewBatch, new_runs: Sequence[NewRun]
) -> Batch:
    environment_id = new_batch.environment_id
    assert all(new_run.environment_id == environment_id for new_run in new_runs)
    batch_id = new_batch.id or f"batch_{uuid.uuid4().hex}"
    key = new_batch.idempotency_key
    for _ in range(_ROUNDS):
        if key is not None:
            await transaction.fetch(_FORGET_BATCH_KEY, environment_id, key)
        if await _insert_batch(transaction, new_batch, batch_id, len(new_runs)):
            break
        if found := await transaction.fetch(_READ_BATCH_KEY, environment_id, key):
            return await _read_batch(transaction, environment_id, found[0]["id"], cached=True)
    else:
        raise BackendError("Too many batches use the same idempotency key at once; try again.")
    triggered = await _create_runs(transaction, new_runs, batch_id)
    reused = [(index, each.run.id) for index, each in enumerate(triggered) if each.cached]
    if reused:
        indexes, run_ids = [index for index, _ in reused], [run_id for _, run_id in reused]
        await transaction.fetch(_INSERT_REUSED, batch_id, indexes, run_ids)
    await _spend(transaction, environment_id, [new_batch.one_time_token])
    return await _read_batch(transaction, environment_id, batch_id)


async def _insert_batch(
    transaction: Transaction, new_batch: NewBatch, batch_id: str, run_count: int
) -> bool:
    expires_at: datetime | None = new_batch.idempotency_key_expires_at
    rows = await transaction.fetch(
        _INSERT_BATCH,
        *(batch_id, new_batch.environment_id, run_count),
        *(new_batch.idempotency_key, expires_at, new_batch.options),
    )
    return bool(rows)


async def _read_batch(
    transaction: Transaction, environment_id: str, batch_id: str, *, cached: bool = False
) -> Batch:
    rows = await transaction.fetch(_READ_BATCH, environment_id, batch_id)
    return _to_batch(rows[0], cached=cached)


def _to_batch(row: Row, *, cached: bool = False) -> Batch:
    status, updated_at = row["status"], row["updated_at"]
    sealed = status == "PROCESSING" or (
        status == "PENDING" and 0 < row["run_count"] <= row["found"]
    )
    if sealed and row["open"] == 0:
        status, updated_at = "COMPLETED", max(updated_at, row["completed_at"] or updated_at)
    return Batch(
        row["environment_id"],
        row["id"],
        status,
        row["created_at"],
        updated_at,
        row["run_count"],
        row["idempotency_key"],
        tuple(row["run_ids"]),
        cached,
    )
