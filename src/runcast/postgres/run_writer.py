"""Creating and changing runs: idempotency and debounce keys, one-time tokens, row locks."""

import uuid
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from runcast.core.batch import Batch, NewBatch
from runcast.core.lifecycle import CANCELED_ERROR, changes_for_debounce
from runcast.core.new_run import NewRun
from runcast.core.run import Run
from runcast.errors import BackendError, NotFound, OneTimeTokenSpent
from runcast.ports import Decide, Triggered
from runcast.postgres.answered_requests import (
    CHANGE_SECONDS,
    Answered,
    claim_request,
    keep_answer,
)
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
        "debounce_key", "debounce_until", "seed_metadata",
    }
)  # fmt: skip

# A run that ended like this no longer answers for its idempotency key; wire/trigger-wire.md 4.9.
_FAILED = (
    "INTERRUPTED", "COMPLETED_WITH_ERRORS", "SYSTEM_FAILURE", "CRASHED", "TIMED_OUT", "EXPIRED",
)  # fmt: skip

# Others may take and free the same keys at the same time; each round somebody gets ahead.
_ROUNDS = 10

_Key: TypeAlias = tuple[str, str]  # task and idempotency or debounce key

# Columns that are taken over from a `NewRun` as they are.
_GIVEN = (
    "environment_id", "task", "payload", "payload_type", "metadata", "tags", "delay_until", "ttl",
    "parent_id", "trigger_function", "queue", "concurrency_key", "priority_ms", "machine",
    "region", "worker_version", "max_attempts", "max_duration_seconds", "is_test",
    "idempotency_key", "idempotency_key_options", "options",
)  # fmt: skip
_FIRST_GIVEN = 12  # the arguments before it are named in the statement
_INSERT = f"""
    INSERT INTO @schema@.runs (
        id, batch_id, batch_index, root_id, depth, status, idempotency_key_expires_at,
        error, debounce_key, debounce_until, created_at,
        {", ".join(_GIVEN)}
    ) VALUES (
        $1, $2, $3, $4, $5,
        CASE WHEN $6::text = 'PENDING' AND $7::timestamptz > now() THEN 'DELAYED' ELSE $6 END,
        CASE WHEN $8::boolean
            THEN coalesce(${_FIRST_GIVEN + len(_GIVEN)}::timestamptz, now() + interval '30 days')
        END,
        $9, $10, now() + make_interval(secs => $11),
        -- In the order of the batch, for whoever sorts by it.
        now() + coalesce($3::integer, 0) * interval '1 microsecond',
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

# Whoever has a debounce key asks under this lock, so that two do not both find no run.
_LOCK_DEBOUNCE_KEY = """
    SELECT pg_advisory_xact_lock(
        hashtextextended(concat_ws(' ', 'debounce', $1::text, $2::text, $3::text), 0))
"""
_LOCK_DEBOUNCED = f"""
    SELECT {run_columns()}, debounce_until FROM @schema@.runs
    WHERE environment_id = $1 AND task = $2 AND debounce_key = $3 FOR NO KEY UPDATE"""
_FREE_DEBOUNCE_KEY = """
    UPDATE @schema@.runs SET debounce_key = NULL, debounce_until = NULL WHERE id = $1"""

# Locked, so that a parent that is being cancelled either sees its new child or is seen cancelled.
_READ_PARENTS = """
    SELECT id, root_id, depth, status FROM @schema@.runs
    WHERE environment_id = $1 AND id = ANY($2::text[]) ORDER BY id FOR SHARE"""

_RESET_KEY = """
    UPDATE @schema@.runs SET idempotency_key = NULL, idempotency_key_expires_at = NULL,
        idempotency_key_options = NULL
    WHERE environment_id = $1 AND task = $2 AND idempotency_key = $3 RETURNING id"""

_SPEND = """
    INSERT INTO @schema@.spent_tokens (environment_id, token)
    SELECT * FROM unnest($1::text[], $2::text[])
    ON CONFLICT DO NOTHING RETURNING token"""

_READ_RUN = f"""
    SELECT {run_columns()} FROM @schema@.runs WHERE environment_id = $1 AND id = $2"""

_LOCK = f"""
    SELECT {run_columns()} FROM @schema@.runs
    WHERE environment_id = $1 AND id = ANY($2::text[])
    ORDER BY id FOR NO KEY UPDATE"""

_FORGET_BATCH_KEY = """
    UPDATE @schema@.batches SET idempotency_key = NULL, idempotency_key_expires_at = NULL
    WHERE environment_id = $1 AND idempotency_scope = $2 AND idempotency_key = $3
        AND idempotency_key_expires_at <= now()"""

# How long a streamed batch waits for its items.
_COLLECT_SECONDS = 24 * 3600.0

_INSERT_BATCH = """
    INSERT INTO @schema@.batches (
        id, environment_id, run_count, idempotency_key, idempotency_key_expires_at,
        idempotency_scope, options, status, due_at
    ) VALUES (
        $1, $2, $3, $4,
        CASE WHEN $4::text IS NOT NULL
            THEN coalesce($5::timestamptz, now() + interval '24 hours')
        END,
        $6, $7,
        CASE WHEN $8::double precision IS NULL THEN 'PROCESSING' ELSE 'PENDING' END,
        now() + make_interval(secs => $8)
    )
    ON CONFLICT (environment_id, idempotency_scope, idempotency_key) DO NOTHING RETURNING id"""

_READ_BATCH_KEY = """
    SELECT id FROM @schema@.batches
    WHERE environment_id = $1 AND idempotency_scope = $2 AND idempotency_key = $3"""

_INSERT_REUSED = """
    INSERT INTO @schema@.batch_reused_runs (batch_id, batch_index, run_id)
    SELECT $1, * FROM unnest($2::integer[], $3::text[])"""

# A batch is complete once its runs are, and all of them were created: nothing is due then.
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
        Create runs in one transaction, honouring their keys and one-time tokens.

        A run found by its idempotency key needs no token: its token is neither looked at nor
        spent. A trigger that joins the delayed run of its debounce key spends its token. A
        request that was answered before gets the same answer again. Below a cancelled parent a
        run is cancelled from the start.

        Raises:
            OneTimeTokenSpent: The token was used before; nothing was created.
            NotFound: A parent run does not exist in the environment.
        """

        async def work() -> list[Triggered]:
            async with self._database.transaction() as transaction:
                return await create_runs_within(transaction, new_runs)

        return await self._database.retrying(work)

    async def update_runs(
        self,
        environment_id: str,
        run_ids: Sequence[str],
        decide: Decide,
        *,
        request: str | None = None,
    ) -> list[Run]:
        """
        Lock the runs, ask ``decide`` what to write, write it, and return the rows as they are then.

        Atomic against concurrent writers; locks are taken in id order. A deadlock with others
        starts it anew, so ``decide`` may be asked again. ``request`` names the request that asks
        for this, if it is to have its effect only once: when it is sent again nothing is written.
        """

        async def work() -> list[Run]:
            async with self._database.transaction() as transaction:
                rows = await transaction.fetch(_LOCK, environment_id, list(run_ids))
                runs = {row["id"]: to_run(row) for row in rows}
                asked = [run_id for run_id in dict.fromkeys(run_ids) if run_id in runs]
                if asked and request is not None:
                    answered = await claim_request(
                        transaction, environment_id, request, asked[0], seconds=CHANGE_SECONDS
                    )
                    if answered is not None:
                        return [runs[run_id] for run_id in asked]
                changes = decide([runs[run_id] for run_id in asked])
                assert changes.keys() <= runs.keys(), "only locked runs can be written"
                runs |= await _write(transaction, changes)
                return [runs[run_id] for run_id in asked]

        return await self._database.retrying(work)

    async def reset_idempotency_key(self, environment_id: str, task: str, key: str) -> bool:
        """Let a key stand for no run any more; tell whether it stood for one."""
        return bool(await self._database.fetch(_RESET_KEY, environment_id, task, key))

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


async def create_runs_within(
    transaction: Transaction, new_runs: Sequence[NewRun], batch_id: str | None = None
) -> list[Triggered]:
    """
    Create runs as `RunWriter.create_runs` does, as a part of a transaction.

    In a batch each has its ``batch_index``, or else its place in the sequence.
    """
    if not new_runs:
        return []
    environment_id = new_runs[0].environment_id
    assert all(new_run.environment_id == environment_id for new_run in new_runs)
    ids = [new_run.id or f"run_{uuid.uuid4().hex}" for new_run in new_runs]
    triggered = await _read_answers(transaction, new_runs, ids)
    answered = frozenset(triggered)
    joined: set[int] = set()  # triggers that pushed a run
    await _lock_debounce_keys(transaction, new_runs)
    parents = await _read_parents(transaction, environment_id, new_runs)
    for _ in range(_ROUNDS):
        open_items = [index for index in range(len(new_runs)) if index not in triggered]
        if not open_items:
            break
        found = await _read_keys(transaction, environment_id, [new_runs[i] for i in open_items])
        inserts: dict[str, tuple[int, tuple[object, ...]]] = {}
        taken: set[tuple[str, _Key]] = set()
        # In the order of keys, so that calls with the same ones wait for each other in a line.
        for index in sorted(open_items, key=lambda index: _key(new_runs[index]) or ("", "")):
            new_run = new_runs[index]
            takes = _takes(new_run)
            if (key := _key(new_run)) in found:
                triggered[index] = Triggered(found[key], cached=True)
            elif not takes & taken:  # the second of a key finds the first next round
                if (run := await _join_debounced(transaction, new_run)) is not None:
                    triggered[index] = Triggered(run, cached=True)
                    joined.add(index)
                    continue
                taken |= takes
                parent = parents.get(new_run.parent_id or "")
                inserts[ids[index]] = (index, _row(new_run, ids[index], parent, batch_id, index))
        rows = await transaction.fetch_many(_INSERT, [row for _, row in inserts.values()])
        for row in rows:
            triggered[inserts[row["id"]][0]] = Triggered(to_run(row), cached=False)
    else:
        raise BackendError("Too many triggers use the same idempotency key at once; try again.")
    effective = [
        new_runs[index]
        for index, answer in triggered.items()
        if index not in answered and (not answer.cached or index in joined)
    ]
    await _spend(transaction, environment_id, [new_run.one_time_token for new_run in effective])
    for index, new_run in enumerate(new_runs):
        answer = Answered(triggered[index].run.id, triggered[index].cached)
        claimed = index in answered or answer == Answered(ids[index], cached=False)
        if new_run.request is not None and not claimed:
            await keep_answer(transaction, environment_id, new_run.request, answer)
    return [triggered[index] for index in range(len(new_runs))]


def _row(
    new_run: NewRun, run_id: str, parent: Row | None, batch_id: str | None, index: int
) -> tuple[object, ...]:
    canceled = parent is not None and parent["status"] == "CANCELED"
    debounce = new_run.debounce
    return (
        run_id,
        batch_id,
        index if batch_id is not None and new_run.batch_index is None else new_run.batch_index,
        (parent["root_id"] or parent["id"]) if parent else None,
        parent["depth"] + 1 if parent else 0,
        "CANCELED" if canceled else new_run.status,
        new_run.delay_until,
        new_run.idempotency_key is not None,
        CANCELED_ERROR if canceled else new_run.error,
        debounce.key if debounce else None,
        debounce.max_delay_seconds if debounce else None,
        *(getattr(new_run, column) for column in _GIVEN),
        new_run.idempotency_key_expires_at,
    )


def _key(new_run: NewRun) -> _Key | None:
    return (new_run.task, new_run.idempotency_key) if new_run.idempotency_key is not None else None


def _debounce_key(new_run: NewRun) -> _Key | None:
    return (new_run.task, new_run.debounce.key) if new_run.debounce is not None else None


def _takes(new_run: NewRun) -> set[tuple[str, _Key]]:
    """What only one of several new runs can have."""
    keys = (("idempotency", _key(new_run)), ("debounce", _debounce_key(new_run)))
    return {(kind, key) for kind, key in keys if key is not None}


async def _read_answers(
    transaction: Transaction, new_runs: Sequence[NewRun], ids: Sequence[str]
) -> dict[int, Triggered]:
    """What requests were answered with before, by the place of their run; claims the others."""
    answers: dict[int, Triggered] = {}
    for index, new_run in enumerate(new_runs):
        if new_run.request is None:
            continue
        environment_id = new_run.environment_id
        answer = await claim_request(transaction, environment_id, new_run.request, ids[index])
        rows = answer and await transaction.fetch(_READ_RUN, environment_id, answer.id)
        if answer and rows:  # else nobody knows that run any more, and another one is created
            answers[index] = Triggered(to_run(rows[0]), answer.cached)
    return answers


async def _lock_debounce_keys(transaction: Transaction, new_runs: Sequence[NewRun]) -> None:
    keys = {key for new_run in new_runs if (key := _debounce_key(new_run)) is not None}
    for key in sorted(keys):
        await transaction.fetch(_LOCK_DEBOUNCE_KEY, new_runs[0].environment_id, *key)


async def _join_debounced(transaction: Transaction, new_run: NewRun) -> Run | None:
    """Push the delayed run that stands for a debounce key; None: there is none to be pushed."""
    debounce = new_run.debounce
    if debounce is None:
        return None
    rows = await transaction.fetch(
        _LOCK_DEBOUNCED, new_run.environment_id, new_run.task, debounce.key
    )
    if not rows:
        return None
    run = to_run(rows[0])
    changes = changes_for_debounce(run, rows[0]["debounce_until"], new_run)
    if changes is None:
        await transaction.fetch(_FREE_DEBOUNCE_KEY, run.id)
        return None
    return (await _write(transaction, {run.id: changes})).get(run.id, run)


async def _read_parents(
    transaction: Transaction, environment_id: str, new_runs: Sequence[NewRun]
) -> Mapping[str, Row]:
    wanted = {new_run.parent_id for new_run in new_runs if new_run.parent_id is not None}
    if not wanted:
        return {}
    rows = await transaction.fetch(_READ_PARENTS, environment_id, list(wanted))
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
    batch_id, found = await insert_batch(transaction, new_batch, run_count=len(new_runs))
    if found is None:
        await fill_batch(transaction, batch_id, new_runs)
    return found or await read_batch_within(transaction, environment_id, batch_id)


async def insert_batch(
    transaction: Transaction, new_batch: NewBatch, *, run_count: int, streamed: bool = False
) -> tuple[str, Batch | None]:
    """
    Insert a batch without runs, and spend its one-time token.

    Returns:
        Its id, and the batch if it was there before, by its key or because it is asked for again.
    """
    environment_id, key = new_batch.environment_id, new_batch.idempotency_key
    batch_id = new_batch.id or f"batch_{uuid.uuid4().hex}"
    if new_batch.request is not None:
        answer = await claim_request(transaction, environment_id, new_batch.request, batch_id)
        if answer is not None:
            return answer.id, await read_batch_within(
                transaction, environment_id, answer.id, cached=answer.cached
            )
    for _ in range(_ROUNDS):
        scope = new_batch.idempotency_scope
        if key is not None:
            await transaction.fetch(_FORGET_BATCH_KEY, environment_id, scope, key)
        rows = await transaction.fetch(
            _INSERT_BATCH,
            *(batch_id, environment_id, run_count, key, new_batch.idempotency_key_expires_at),
            *(scope, new_batch.options, _COLLECT_SECONDS if streamed else None),
        )
        if rows:
            break
        if found := await transaction.fetch(_READ_BATCH_KEY, environment_id, scope, key):
            batch_id = found[0]["id"]
            if new_batch.request is not None:
                answer = Answered(batch_id, cached=True)
                await keep_answer(transaction, environment_id, new_batch.request, answer)
            return batch_id, await read_batch_within(
                transaction, environment_id, batch_id, cached=True
            )
    else:
        raise BackendError("Too many batches use the same idempotency key at once; try again.")
    await _spend(transaction, environment_id, [new_batch.one_time_token])
    return batch_id, None


async def fill_batch(transaction: Transaction, batch_id: str, new_runs: Sequence[NewRun]) -> None:
    """Create runs of a batch; items whose keys stand for older runs get those."""
    triggered = await create_runs_within(transaction, new_runs, batch_id)
    reused = [
        (index if new_run.batch_index is None else new_run.batch_index, each.run.id)
        for index, (new_run, each) in enumerate(zip(new_runs, triggered, strict=True))
        if each.cached
    ]
    if reused:
        indexes, run_ids = [index for index, _ in reused], [run_id for _, run_id in reused]
        await transaction.fetch(_INSERT_REUSED, batch_id, indexes, run_ids)


async def read_batch_within(
    transaction: Transaction, environment_id: str, batch_id: str, *, cached: bool = False
) -> Batch:
    """The batch as this transaction sees it; it must be there."""
    rows = await transaction.fetch(_READ_BATCH, environment_id, batch_id)
    return _to_batch(rows[0], cached=cached)


def _to_batch(row: Row, *, cached: bool = False) -> Batch:
    status, updated_at = row["status"], row["updated_at"]
    sealed = (status == "PROCESSING" and row["due_at"] is None) or (
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
        row["options"],
    )
