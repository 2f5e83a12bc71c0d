"""Runs and batches on a real Postgres: lists, triggers, keys, concurrent writers, refusals."""

import asyncio
import itertools
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from runcast.core.batch import NewBatch
from runcast.core.new_run import NewRun
from runcast.core.page import PageKey
from runcast.core.run import Run
from runcast.core.run_filter import RunFilter
from runcast.errors import (
    BackendError,
    ConfigurationError,
    GatewayError,
    IllegalTransition,
    InvalidBody,
    NotFound,
    OneTimeTokenSpent,
    Unprocessable,
)
from runcast.postgres.database import Database
from runcast.postgres.migrate import migrate
from runcast.postgres.run_store import PostgresRunStore
from tests.integration.conftest import Connect
from tests.support.explain import ExplainingDatabase

PAST = datetime(2020, 1, 1, tzinfo=UTC)
FUTURE = datetime(2090, 1, 1, tzinfo=UTC)
KEY = "k" * 64


def new_run(**values: Any) -> NewRun:
    return NewRun(**({"environment_id": "env_a", "task": "task"} | values))


async def create(store: PostgresRunStore, **values: Any) -> Run:
    (triggered,) = await store.create_runs([new_run(**values)])
    return triggered.run


def writes(**values: Any) -> Any:
    """A decision to write the same to every run."""

    def decide(runs: Sequence[Run]) -> Mapping[str, Mapping[str, Any]]:
        return {run.id: values for run in runs}

    return decide


class TestCreate:
    async def test_keeps_all_that_the_trigger_said(self, store: PostgresRunStore) -> None:
        given = new_run(
            id="run_given", payload='"é\\u0000"', payload_type="text/plain", metadata='{"a": 1}',
            tags=("x", "Ünïcode, {\"q\"}"), ttl="1h", trigger_function="triggerAndWait",
            queue="q", concurrency_key="c", priority_ms=5000, machine="micro", region="eu",
            worker_version="1.2", max_attempts=3, max_duration_seconds=1.5, is_test=True,
            idempotency_key=KEY, idempotency_key_expires_at=FUTURE,
            idempotency_key_options='{"key": "mine"}', options='{"lockToVersion": "1.2"}',
        )  # fmt: skip
        (triggered,) = await store.create_runs([given])
        run = triggered.run
        assert not triggered.cached
        for name in NewRun.__dataclass_fields__:
            if name not in ("one_time_token", "request", "debounce"):
                assert getattr(run, name) == getattr(given, name), name
        assert run.queued_at is not None
        assert run.created_at.tzinfo is UTC
        assert (run.depth, run.root_id, run.completed_at) == (0, None, None)
        assert await store.read_run("env_a", "run_given") == run
        assert await store.read_run("env_b", "run_given") is None

    async def test_defaults(self, store: PostgresRunStore) -> None:
        run = await create(store)
        assert run.id.startswith("run_")
        assert (run.queue, run.status, run.metadata) == ("task/task", "PENDING", "{}")

    async def test_delay_in_the_future_makes_it_delayed(self, store: PostgresRunStore) -> None:
        assert (await create(store, delay_until=FUTURE)).status == "DELAYED"
        assert (await create(store, delay_until=PAST)).status == "PENDING"
        assert (await create(store, delay_until=FUTURE, status="EXECUTING")).status == "EXECUTING"

    async def test_answers_in_the_order_asked(self, store: PostgresRunStore) -> None:
        triggered = await store.create_runs([new_run(task=f"t{n}") for n in range(30)])
        assert [each.run.task for each in triggered] == [f"t{n}" for n in range(30)]
        numbers = [each.run.number for each in triggered]
        assert numbers == sorted(numbers)
        assert await store.create_runs([]) == []

    async def test_parent_gives_depth_and_root(self, store: PostgresRunStore) -> None:
        parent = await create(store)
        child = await create(store, parent_id=parent.id)
        grandchild = await create(store, parent_id=child.id)
        assert (child.depth, child.root_id, child.parent_id) == (1, parent.id, parent.id)
        assert (grandchild.depth, grandchild.root_id) == (2, parent.id)
        second = await create(store, parent_id=parent.id)
        children = await store.read_children("env_a", parent.id, limit=10)
        assert [run.id for run in children] == [child.id, second.id]
        assert await store.read_children("env_a", parent.id, limit=1) == [child]
        assert await store.read_children("env_b", parent.id, limit=10) == []

    async def test_unknown_and_foreign_parents_are_not_found(self, store: PostgresRunStore) -> None:
        foreign = await create(store, environment_id="env_b")
        for parent_id in ("run_nobody", foreign.id):
            with pytest.raises(NotFound):
                await store.create_runs([new_run(), new_run(parent_id=parent_id)])
        page = await store.list_runs(RunFilter(environment_id="env_a"), limit=5)
        assert page.runs == ()

    async def test_an_id_is_taken_once(self, store: PostgresRunStore) -> None:
        await create(store, id="run_1")
        for environment_id in ("env_a", "env_b"):
            with pytest.raises(Unprocessable, match="exists already"):
                await create(store, id="run_1", environment_id=environment_id)

    async def test_unknown_environment(self, store: PostgresRunStore) -> None:
        with pytest.raises(NotFound):
            await create(store, environment_id="env_nobody")

    async def test_a_transaction_takes_few_statements_however_many_runs(
        self, store: PostgresRunStore, sql: asyncpg.Connection
    ) -> None:
        items = [new_run(idempotency_key=f"{n:064}", tags=(f"t{n}",)) for n in range(500)]
        assert not any(each.cached for each in await store.create_runs(items))
        assert all(each.cached for each in await store.create_runs(items))
        assert await sql.fetchval("SELECT count(DISTINCT changed_in) FROM runs") == 1


class TestIdempotency:
    async def test_same_key_same_run(self, store: PostgresRunStore) -> None:
        first = await create(store, idempotency_key=KEY)
        (again,) = await store.create_runs([new_run(idempotency_key=KEY, payload="other")])
        assert again.cached
        assert again.run == first
        assert first.idempotency_key_expires_at is not None
        assert timedelta(29) < first.idempotency_key_expires_at - first.created_at < timedelta(31)

    async def test_key_belongs_to_task_and_environment(self, store: PostgresRunStore) -> None:
        runs = [
            await create(store, idempotency_key=KEY),
            await create(store, idempotency_key=KEY, task="other"),
            await create(store, idempotency_key=KEY, environment_id="env_b"),
        ]
        assert len({run.id for run in runs}) == 3

    @pytest.mark.parametrize(
        ("status", "cached"),
        [
            ("PENDING", True), ("EXECUTING", True), ("CANCELED", True),
            ("COMPLETED_SUCCESSFULLY", True), ("INTERRUPTED", False),
            ("COMPLETED_WITH_ERRORS", False), ("SYSTEM_FAILURE", False), ("CRASHED", False),
            ("TIMED_OUT", False), ("EXPIRED", False),
        ],
    )  # fmt: skip
    async def test_a_failed_run_no_longer_answers(
        self, store: PostgresRunStore, status: str, cached: bool
    ) -> None:
        first = await create(
            store, idempotency_key=KEY, status=status, idempotency_key_options='{"key": "mine"}'
        )
        (again,) = await store.create_runs([new_run(idempotency_key=KEY)])
        assert again.cached is cached
        assert (again.run.id == first.id) is cached
        old = await store.read_run("env_a", first.id)
        assert old is not None
        assert (old.idempotency_key is not None) is cached
        assert (old.idempotency_key_options is not None) is cached

    async def test_an_expired_key_no_longer_answers(self, store: PostgresRunStore) -> None:
        first = await create(store, idempotency_key=KEY, idempotency_key_expires_at=PAST)
        second = await create(store, idempotency_key=KEY)
        assert first.id != second.id
        assert (await create(store, idempotency_key=KEY)).id == second.id

    async def test_twice_in_one_call(self, store: PostgresRunStore) -> None:
        keyed = new_run(idempotency_key=KEY)
        first, between, second = await store.create_runs([keyed, new_run(), keyed])
        assert (first.cached, between.cached, second.cached) == (False, False, True)
        assert first.run == second.run

    async def test_concurrent_triggers_yield_one_run(
        self, store: PostgresRunStore, sql: asyncpg.Connection
    ) -> None:
        keyed = new_run(idempotency_key=KEY)
        answers = await asyncio.gather(*(store.create_runs([keyed]) for _ in range(25)))
        assert len({each.run.id for (each,) in answers}) == 1
        assert sum(not each.cached for (each,) in answers) == 1
        assert await sql.fetchval("SELECT count(*) FROM runs") == 1

    async def test_concurrent_triggers_of_an_expired_key_yield_one_new_run(
        self, store: PostgresRunStore, sql: asyncpg.Connection
    ) -> None:
        await create(store, idempotency_key=KEY, idempotency_key_expires_at=PAST)
        keyed = new_run(idempotency_key=KEY)
        answers = await asyncio.gather(*(store.create_runs([keyed]) for _ in range(25)))
        assert len({each.run.id for (each,) in answers}) == 1
        assert await sql.fetchval("SELECT count(*) FROM runs") == 2

    async def test_a_trigger_waits_for_one_that_is_not_decided(
        self, store: PostgresRunStore, sql: asyncpg.Connection, connect: Connect
    ) -> None:
        other = await connect()
        for ends, expected in (("rollback", 1), ("commit", 1)):
            await sql.execute("DELETE FROM runs")
            transaction = other.transaction()
            await transaction.start()
            await other.execute(
                "INSERT INTO runs (environment_id, task, idempotency_key)"
                " VALUES ('env_a', 'task', $1)",
                KEY,
            )
            waiting = asyncio.create_task(store.create_runs([new_run(idempotency_key=KEY)]))
            await until_somebody_waits(sql)
            await (transaction.commit() if ends == "commit" else transaction.rollback())
            (triggered,) = await waiting
            assert triggered.cached is (ends == "commit")
            assert await sql.fetchval("SELECT count(*) FROM runs") == expected

    async def test_calls_with_the_same_keys_in_other_orders_agree(
        self, store: PostgresRunStore, sql: asyncpg.Connection
    ) -> None:
        items = [new_run(idempotency_key=f"{n:064}") for n in range(40)]
        orders = [items, items[::-1], items[20:] + items[:20]] * 3
        answers = await asyncio.gather(*(store.create_runs(order) for order in orders))
        for order, answer in zip(orders, answers, strict=True):
            keys = [each.run.idempotency_key for each in answer]
            assert keys == [item.idempotency_key for item in order]
        assert await sql.fetchval("SELECT count(*) FROM runs") == 40


async def until_somebody_waits(sql: asyncpg.Connection) -> None:
    for _ in range(3000):
        if await sql.fetchval(
            "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            " AND datname = current_database())"
        ):
            return
        await asyncio.sleep(0.01)
    raise AssertionError("nobody waits for a lock")


class TestOneTimeTokens:
    async def test_used_once(self, store: PostgresRunStore, sql: asyncpg.Connection) -> None:
        await create(store, one_time_token="t1")
        with pytest.raises(OneTimeTokenSpent):
            await store.create_runs([new_run(), new_run(one_time_token="t1")])
        assert await sql.fetchval("SELECT count(*) FROM runs") == 1
        await create(store, one_time_token="t1", environment_id="env_b")

    async def test_runs_and_batches_share_them(self, store: PostgresRunStore) -> None:
        await create(store, one_time_token="t1")
        await store.create_batch(new_batch(one_time_token="t2"), [new_run()])
        with pytest.raises(OneTimeTokenSpent):
            await store.create_batch(new_batch(one_time_token="t1"), [new_run()])
        with pytest.raises(OneTimeTokenSpent):
            await create(store, one_time_token="t2")
        with pytest.raises(OneTimeTokenSpent):
            await store.create_batch(new_batch(one_time_token="t3"), [new_run(one_time_token="t3")])
        await create(store, one_time_token="t3")

    async def test_a_cached_answer_spends_nothing(self, store: PostgresRunStore) -> None:
        run = await create(store, idempotency_key=KEY, one_time_token="t1")
        for token in ("t1", "t2"):
            again = await create(store, idempotency_key=KEY, one_time_token=token)
            assert again.id == run.id
        await create(store, one_time_token="t2")

    async def test_a_refused_trigger_spends_nothing(self, store: PostgresRunStore) -> None:
        with pytest.raises(Unprocessable):
            await create(store, one_time_token="t1", tags=("x",) * 2)
        await create(store, one_time_token="t1")

    async def test_concurrent_uses_create_one_run(
        self, store: PostgresRunStore, sql: asyncpg.Connection
    ) -> None:
        answers = await asyncio.gather(
            *(create(store, one_time_token="t1") for _ in range(12)), return_exceptions=True
        )
        assert sum(isinstance(answer, OneTimeTokenSpent) for answer in answers) == 11
        assert await sql.fetchval("SELECT count(*) FROM runs") == 1


def new_batch(**values: Any) -> NewBatch:
    return NewBatch(**({"environment_id": "env_a"} | values))


class TestBatches:
    async def test_completes_with_its_last_run(self, store: PostgresRunStore) -> None:
        items = [new_run(task=f"t{n}") for n in range(3)]
        batch = await store.create_batch(new_batch(options='{"a": 1}'), items)
        assert (batch.status, batch.run_count, batch.cached) == ("PROCESSING", 3, False)
        runs = await store.read_runs("env_a", batch.run_ids)
        assert [run.task for run in runs] == ["t0", "t1", "t2"]
        assert [run.batch_index for run in runs] == [0, 1, 2]
        await store.update_runs("env_a", batch.run_ids[:2], writes(status="CANCELED"))
        assert await store.read_batch("env_a", batch.id) == batch
        last = await store.update_runs("env_a", batch.run_ids, writes(status="CRASHED"))
        done = await store.read_batch("env_a", batch.id)
        assert done is not None
        assert done.status == "COMPLETED"
        assert done.updated_at == max(run.completed_at for run in last if run.completed_at)
        assert await store.read_batch("env_b", batch.id) is None
        assert await store.read_batch("env_a", "batch_nobody") is None

    async def test_items_answered_by_their_keys_keep_their_place(
        self, store: PostgresRunStore
    ) -> None:
        old = await create(store, idempotency_key=KEY)
        keyed, twice = new_run(idempotency_key=KEY), new_run(idempotency_key="j" * 64)
        batch = await store.create_batch(new_batch(), [twice, keyed, new_run(), twice])
        assert batch.run_ids[1] == old.id
        assert batch.run_ids[0] == batch.run_ids[3]
        assert await store.read_batch("env_a", batch.id) == batch
        await store.update_runs(
            "env_a", [batch.run_ids[0], batch.run_ids[2]], writes(status="CANCELED")
        )
        assert await store.read_batch("env_a", batch.id) == batch
        await store.update_runs("env_a", [old.id], writes(status="CANCELED"))
        done = await store.read_batch("env_a", batch.id)
        assert done is not None
        assert done.status == "COMPLETED"

    async def test_same_key_same_batch(
        self, store: PostgresRunStore, sql: asyncpg.Connection
    ) -> None:
        keyed = new_batch(idempotency_key=KEY)
        batches = await asyncio.gather(
            *(store.create_batch(keyed, [new_run(), new_run()]) for _ in range(8))
        )
        assert len({batch.id for batch in batches}) == 1
        assert sum(not batch.cached for batch in batches) == 1
        assert await sql.fetchval("SELECT count(*) FROM runs") == 2
        expiry = await sql.fetchval("SELECT idempotency_key_expires_at - created_at FROM batches")
        assert expiry == timedelta(hours=24)
        await sql.execute("UPDATE batches SET idempotency_key_expires_at = now()")
        again = await store.create_batch(keyed, [new_run()])
        assert not again.cached
        assert again.id != batches[0].id

    async def test_nothing_stays_of_a_batch_that_is_refused(
        self, store: PostgresRunStore, sql: asyncpg.Connection
    ) -> None:
        with pytest.raises(Unprocessable):
            await store.create_batch(new_batch(), [new_run(), new_run(tags=("",))])
        assert await sql.fetchval("SELECT count(*) FROM batches") == 0
        assert await sql.fetchval("SELECT count(*) FROM runs") == 0

    async def test_batches_made_by_plain_sql_are_read_too(
        self, store: PostgresRunStore, sql: asyncpg.Connection
    ) -> None:
        await sql.execute("""
            INSERT INTO batches (id, environment_id, run_count) VALUES ('b', 'env_a', 2);
            INSERT INTO runs (id, environment_id, task, batch_id, batch_index, status)
            VALUES ('r2', 'env_a', 't', 'b', 1, 'CANCELED'), ('r1', 'env_a', 't', 'b', 0, 'PENDING')
        """)
        batch = await store.read_batch("env_a", "b")
        assert batch is not None
        assert (batch.status, batch.run_ids) == ("PENDING", ("r1", "r2"))
        await sql.execute("UPDATE runs SET status = 'CANCELED' WHERE id = 'r1'")
        batch = await store.read_batch("env_a", "b")
        assert batch is not None
        assert batch.status == "COMPLETED"


class TestUpdate:
    async def test_increments_of_many_writers_all_count(self, store: PostgresRunStore) -> None:
        runs = [await create(store), await create(store)]

        def add_one(found: Sequence[Run]) -> Mapping[str, Mapping[str, Any]]:
            return {run.id: {"attempt_count": run.attempt_count + 1} for run in found}

        ids = [run.id for run in runs]
        await asyncio.gather(
            *(store.update_runs("env_a", order, add_one) for order in [ids, ids[::-1]] * 20)
        )
        counted = await store.read_runs("env_a", ids)
        assert [run.attempt_count for run in counted] == [40, 40]

    async def test_rows_come_in_the_order_asked_and_unknown_ones_are_left_out(
        self, store: PostgresRunStore
    ) -> None:
        foreign = await create(store, environment_id="env_b")
        ids = [(await create(store)).id for _ in range(4)]
        asked = [ids[2], "run_nobody", ids[0], foreign.id, ids[3], ids[0]]
        seen: list[str] = []

        def decide(runs: Sequence[Run]) -> Mapping[str, Mapping[str, Any]]:
            seen.extend(run.id for run in runs)
            return {ids[0]: {"status": "EXECUTING"}, ids[3]: {}}

        after = await store.update_runs("env_a", asked, decide)
        assert seen == [ids[2], ids[0], ids[3]]
        assert [run.id for run in after] == seen
        assert [run.status for run in after] == ["PENDING", "EXECUTING", "PENDING"]
        assert after == await store.read_runs("env_a", seen)

    async def test_nothing_to_write_changes_nothing(self, store: PostgresRunStore) -> None:
        run = await create(store)
        assert await store.update_runs("env_a", [run.id], writes()) == [run]
        assert await store.update_runs("env_a", [run.id], lambda runs: {}) == [run]
        assert await store.update_runs("env_a", [], lambda runs: {}) == []

    async def test_what_decide_raises_undoes_everything(self, store: PostgresRunStore) -> None:
        run = await create(store)

        def refuse(runs: Sequence[Run]) -> Mapping[str, Mapping[str, Any]]:
            raise IllegalTransition("No.")

        with pytest.raises(IllegalTransition):
            await store.update_runs("env_a", [run.id], refuse)
        assert await store.read_run("env_a", run.id) == run

    async def test_json_and_array_columns(self, store: PostgresRunStore) -> None:
        run = await create(store)
        (after,) = await store.update_runs(
            "env_a",
            [run.id],
            writes(
                metadata='{"a": [1, "é"]}', error='{"type": "STRING_ERROR"}', options='{"b": 2}',
                tags=("x",), realtime_streams=("s",), output='"text"', status="CRASHED",
            ),
        )  # fmt: skip
        assert (after.metadata, after.error) == ('{"a": [1, "é"]}', '{"type": "STRING_ERROR"}')
        assert (after.tags, after.realtime_streams) == (("x",), ("s",))
        assert after.finished
        assert after.version > run.version

    async def test_only_known_columns_can_change(self, store: PostgresRunStore) -> None:
        run = await create(store)
        for column in ("task", "id", "environment_id", "version", "x = 1; --"):
            with pytest.raises(AssertionError):
                await store.update_runs("env_a", [run.id], writes(**{column: "x"}))

    async def test_a_deadlock_is_tried_again(
        self, store: PostgresRunStore, sql: asyncpg.Connection
    ) -> None:
        """An outsider locks in the other order, and has waited for less time than we have."""
        await create(store, id="run_a")
        await create(store, id="run_b")
        outsider = sql.transaction()
        await outsider.start()
        await sql.execute("SET LOCAL deadlock_timeout = '60s'")  # so that ours is given up
        await sql.execute("UPDATE runs SET attempt_count = 7 WHERE id = 'run_b'")
        ours = asyncio.create_task(
            store.update_runs("env_a", ["run_a", "run_b"], writes(concurrency_key="ours"))
        )
        await until_somebody_waits(sql)
        await sql.execute("UPDATE runs SET attempt_count = 7 WHERE id = 'run_a'")
        await outsider.commit()
        assert [(run.attempt_count, run.concurrency_key) for run in await ours] == [(7, "ours")] * 2

    async def test_streams_may_be_made_while_a_run_is_locked(
        self, store: PostgresRunStore, sql: asyncpg.Connection, connect: Connect
    ) -> None:
        await create(store, id="run_a")
        await create(store, id="run_b")
        other = await connect()
        async with sql.transaction():
            await sql.execute("UPDATE runs SET attempt_count = 1 WHERE id = 'run_b'")
            ours = asyncio.create_task(
                store.update_runs("env_a", ["run_b", "run_a"], writes(ttl="1h"))
            )
            await until_somebody_waits(sql)  # run_a is locked by now: ids are locked in order
            await other.execute("SET statement_timeout = '5s'")
            await other.execute("INSERT INTO streams (run_id, key) VALUES ('run_a', 'log')")
        assert [run.ttl for run in await ours] == ["1h", "1h"]


class TestDescendants:
    async def test_unfinished_ones_below_finished_ones(self, store: PostgresRunStore) -> None:
        root = await create(store)
        done = await create(store, parent_id=root.id, status="CRASHED")
        below = await create(store, parent_id=done.id)
        direct = await create(store, parent_id=root.id)
        found = await store.read_descendant_ids("env_a", root.id)
        assert set(found) == {below.id, direct.id}
        assert await store.read_descendant_ids("env_a", below.id) == []
        assert await store.read_descendant_ids("env_b", root.id) == []

    async def test_a_circle_ends(self, store: PostgresRunStore, sql: asyncpg.Connection) -> None:
        await sql.execute("""
            INSERT INTO runs (id, environment_id, task, parent_id)
            VALUES ('a', 'env_a', 't', 'c'), ('b', 'env_a', 't', 'a'), ('c', 'env_a', 't', 'b')
        """)
        assert set(await store.read_descendant_ids("env_a", "a")) == {"b", "c"}


class TestList:
    @pytest.fixture
    async def runs(self, sql: asyncpg.Connection) -> None:
        await sql.execute("""
            INSERT INTO batches (id, environment_id, run_count) VALUES ('batch_1', 'env_a', 2);
            INSERT INTO runs (id, environment_id, task, status, tags, worker_version, queue,
                machine, region, batch_id, is_test, options, created_at, payload)
            SELECT 'run_' || n, 'env_a', 'task-' || n % 3,
                CASE WHEN n % 4 = 0 THEN 'CANCELED' ELSE 'PENDING' END,
                CASE WHEN n % 5 = 0 THEN '{x,y}' WHEN n % 5 = 1 THEN '{x}' ELSE '{}' END::text[],
                'v' || n % 2, CASE WHEN n = 7 THEN 'q' END, CASE WHEN n = 8 THEN 'micro' END,
                CASE WHEN n = 9 THEN 'eu' END, CASE WHEN n IN (3, 4) THEN 'batch_1' END, n = 5,
                CASE WHEN n = 6 THEN '{"scheduleId": "s", "bulkActionId": "b"}'
                    ELSE '{}' END::jsonb,
                '2026-01-01Z'::timestamptz + n / 2 * interval '1s', 'secret'
            FROM generate_series(0, 9) AS n;
            INSERT INTO runs (id, environment_id, task, tags)
            VALUES ('foreign', 'env_b', 't', '{x}');
        """)

    @pytest.mark.parametrize(
        ("condition", "expected"),
        [
            ({}, "9876543210"),
            ({"tasks": ("task-1",)}, "741"),
            ({"tasks": ("task-1", "task-2")}, "875421"),
            ({"statuses": ("CANCELED",)}, "840"),
            ({"statuses": ("CANCELED", "PENDING")}, "9876543210"),
            ({"tags": ("x",)}, "6510"),
            ({"tags": ("x", "y")}, "6510"),
            ({"tags": ("y", "z")}, "50"),
            ({"tags": ("z",)}, ""),
            ({"tags": ("x",), "statuses": ("CANCELED",)}, "0"),
            ({"tags": ("x",), "tasks": ("task-1", "task-2")}, "51"),
            ({"versions": ("v1",)}, "97531"),
            ({"queues": ("q", "task/task-0")}, "97630"),
            ({"machines": ("micro",)}, "8"),
            ({"regions": ("eu", "us")}, "9"),
            ({"batch_id": "batch_1"}, "43"),
            ({"batch_id": "batch_1", "tags": ("x",)}, ""),
            ({"is_test": True}, "5"),
            ({"is_test": False}, "987643210"),
            ({"schedule_id": "s"}, "6"),
            ({"bulk_action_id": "b"}, "6"),
            ({"created_from": datetime(2026, 1, 1, 0, 0, 3, tzinfo=UTC)}, "9876"),
            ({"created_to": datetime(2026, 1, 1, 0, 0, 1, tzinfo=UTC)}, "3210"),
            (
                {
                    "created_from": datetime(2026, 1, 1, 0, 0, 1, tzinfo=UTC),
                    "created_to": datetime(2026, 1, 1, 0, 0, 1, tzinfo=UTC),
                },
                "32",
            ),
        ],
    )
    @pytest.mark.usefixtures("runs")
    async def test_each_filter_in_both_directions(
        self, store: PostgresRunStore, condition: dict[str, Any], expected: str
    ) -> None:
        run_filter = RunFilter(environment_id="env_a", **condition)
        for limit in (1, 2, 3, 20):
            pages = [await store.list_runs(run_filter, limit=limit)]
            assert pages[0].newer is None
            while (older := pages[-1].older) is not None:
                pages.append(await store.list_runs(run_filter, older_than=older, limit=limit))
                assert pages[-1].newer is not None
            assert "".join(run.id[4:] for page in pages for run in page.runs) == expected
            assert all(0 < len(page.runs) <= limit for page in pages[1:])
            # And back again, over the same pages.
            page = pages[-1]
            back = list(reversed(page.runs))
            while (newer := page.newer) is not None:
                page = await store.list_runs(run_filter, newer_than=newer, limit=limit)
                assert page.older is not None
                back.extend(reversed(page.runs))
            assert "".join(run.id[4:] for run in back) == expected[::-1]

    @pytest.mark.usefixtures("runs")
    async def test_a_key_between_runs_tells_what_lies_on_each_side(
        self, store: PostgresRunStore, sql: asyncpg.Connection
    ) -> None:
        run_filter = RunFilter(environment_id="env_a")
        page = await store.list_runs(run_filter, limit=3)
        assert page.older is not None
        await sql.execute("DELETE FROM runs WHERE id IN ('run_9', 'run_8', 'run_7')")
        after = await store.list_runs(run_filter, older_than=page.older, limit=3)
        assert [run.id for run in after.runs] == ["run_6", "run_5", "run_4"]
        assert after.newer is None
        nothing = await store.list_runs(run_filter, older_than=PageKey(PAST, "x"), limit=3)
        assert (nothing.runs, nothing.older, nothing.newer) == ((), None, None)

    @pytest.mark.usefixtures("runs")
    async def test_packets_are_left_out(self, store: PostgresRunStore) -> None:
        page = await store.list_runs(RunFilter(environment_id="env_a"), limit=1)
        assert page.runs[0].payload is None

    async def test_rare_statuses_in_a_large_table(
        self, store: PostgresRunStore, sql: asyncpg.Connection, database_url: str
    ) -> None:
        await sql.execute("""
            INSERT INTO runs (id, environment_id, task, created_at, status)
            SELECT 'run_' || n, 'env_a', 'task', '2026-01-01Z'::timestamptz + n * interval '1s',
                CASE WHEN n % 5000 = 1 THEN 'CRASHED' WHEN n IN (7, 9) THEN 'EXECUTING'
                    WHEN n % 10 = 3 THEN 'COMPLETED_WITH_ERRORS' ELSE 'COMPLETED_SUCCESSFULLY' END
            FROM generate_series(1, 20000) AS n
        """)
        await sql.execute("VACUUM ANALYZE")
        expected = {
            ("CRASHED",): ["run_15001", "run_10001", "run_5001", "run_1"],
            ("EXECUTING", "PENDING"): ["run_9", "run_7"],
            ("EXECUTING", "CRASHED"): [
                *("run_15001", "run_10001", "run_5001", "run_9", "run_7", "run_1")
            ],
            ("EXPIRED",): [],
            ("COMPLETED_WITH_ERRORS",): [f"run_{n}" for n in range(19993, 19893, -10)],
            ("COMPLETED_SUCCESSFULLY", "EXPIRED"): [
                f"run_{n}" for n in range(20000, 19988, -1) if n % 10 != 3
            ][:10],
        }
        explaining = ExplainingDatabase(database_url)
        await explaining.open()
        try:
            watched = PostgresRunStore(explaining)
            for statuses, ids in expected.items():
                run_filter = RunFilter(environment_id="env_a", statuses=statuses)
                page = await watched.list_runs(run_filter, limit=10)
                assert [run.id for run in page.runs] == ids, statuses
            assert len(explaining.seen) >= len(expected)
            assert explaining.tables_read_whole() == set()
        finally:
            await explaining.close()

    async def test_tags_both_rare_and_common_in_a_large_table(
        self, store: PostgresRunStore, sql: asyncpg.Connection, database_url: str
    ) -> None:
        await sql.execute("""
            INSERT INTO runs (id, environment_id, task, created_at, tags)
            SELECT 'run_' || n, 'env_a', 'task-' || n % 50,
                '2026-01-01Z'::timestamptz + n * interval '1s',
                ARRAY['all'] || CASE WHEN n % 5000 = 1 THEN '{rare}' ELSE '{}' END::text[]
                    || CASE WHEN n <= 3000 THEN '{old}' ELSE '{}' END::text[]
            FROM generate_series(1, 20000) AS n
        """)
        await sql.execute("VACUUM ANALYZE")
        expected = {
            "all": [f"run_{n}" for n in range(20000, 19990, -1)],
            "rare": ["run_15001", "run_10001", "run_5001", "run_1"],
            "old": [f"run_{n}" for n in range(3000, 2990, -1)],
            "nothing": [],
        }
        explaining = ExplainingDatabase(database_url)
        await explaining.open()
        try:
            watched = PostgresRunStore(explaining)
            for tag, ids in expected.items():
                run_filter = RunFilter(environment_id="env_a", tags=(tag,))
                page = await watched.list_runs(run_filter, limit=10)
                assert [run.id for run in page.runs] == ids, tag
            for condition in ({}, {"tasks": ("task-1",)}, {"tasks": ("task-1", "task-2")}):
                run_filter = RunFilter(environment_id="env_a", **condition)
                page = await watched.list_runs(run_filter, limit=10)
                await watched.list_runs(run_filter, older_than=page.older, limit=10)
                await watched.list_runs(run_filter, newer_than=page.older, limit=10)
            assert len(explaining.seen) > 10
            assert explaining.tables_read_whole() == set()
        finally:
            await explaining.close()


class TestRefusals:
    """Every rule of the triggers, as the gateway's caller and as plain SQL meets it."""

    @pytest.mark.parametrize(
        ("assignment", "problem"),
        [
            ("id = 'other'", "never change"),
            ("environment_id = 'env_b'", "never change"),
            ("task = 'other'", "never change"),
            ("created_at = now()", "never change"),
            ("batch_id = 'batch_1'", "never change"),
            ("status = 'NOPE'", "'NOPE' is not a run status"),
            ("status = 'COMPLETED'", "'COMPLETED' is not a run status"),
            ("completed_at = now()", "cannot have completed_at"),
            ("tags = array_fill('x'::text, '{11}')", "at most 10 tags, not 11"),
            ("tags = '{x,x}'", "distinct texts of 1 to 128"),
            ("tags = ARRAY['']", "distinct texts of 1 to 128"),
            ("tags = ARRAY[NULL]::text[]", "distinct texts of 1 to 128"),
            ("tags = ARRAY[repeat('x', 129)]", "distinct texts of 1 to 128"),
            ("tags = '{{x,y},{z,u}}'", "distinct texts of 1 to 128"),
            ("metadata = '[]'", "metadata is a JSON object, not array"),
            ("metadata = 'null'", "metadata is a JSON object, not null"),
            (
                "metadata = jsonb_build_object('a', repeat('x', 4194304))",
                "metadata is larger than 4 MiB",
            ),
            ("payload = repeat('x', 16777217)", "at most 16 MiB"),
            ("output = repeat('x', 16777217)", "at most 16 MiB"),
            ("error = '\"text\"'", "error is a JSON object, not string"),
            ("started_at = 'infinity'", "between the years 1970 and 9998"),
            ("delay_until = '-infinity'", "between the years 1970 and 9998"),
            ("queued_at = '0044-03-15 BC'", "between the years 1970 and 9998"),
        ],
    )
    async def test_plain_sql_is_told_what_is_wrong_and_what_to_do(
        self, store: PostgresRunStore, sql: asyncpg.Connection, assignment: str, problem: str
    ) -> None:
        await sql.execute(
            "INSERT INTO batches (id, environment_id, run_count) VALUES ('batch_1', 'env_a', 1)"
        )
        run = await create(store)
        with pytest.raises(asyncpg.CheckViolationError, match=problem) as caught:
            await sql.execute(f"UPDATE runs SET {assignment}")
        assert caught.value.hint
        assert await store.read_run("env_a", run.id) == run

    async def test_truncate_is_refused(self, store: PostgresRunStore, sql: object) -> None:
        assert isinstance(sql, asyncpg.Connection)
        await create(store)
        with pytest.raises(asyncpg.CheckViolationError, match="cannot be truncated"):
            await sql.execute("TRUNCATE runs CASCADE")

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ({"status": "NOPE"}, "'NOPE' is not a run status. The raw statuses are listed"),
            ({"tags": tuple("abcdefghijk")}, "A run has at most 10 tags, not 11. Drop some tags."),
            ({"metadata": "[]"}, "Metadata is a JSON object, not array. Wrap the value"),
            ({"payload": "x" * 16777217}, "Payload and output hold at most 16 MiB each."),
        ],
    )
    async def test_callers_get_message_and_hint(
        self, store: PostgresRunStore, values: dict[str, Any], message: str
    ) -> None:
        with pytest.raises(Unprocessable) as caught:
            await create(store, **values)
        assert message in caught.value.message

    @pytest.mark.parametrize(
        ("values", "kind"),
        [
            ({"id": "no spaces"}, Unprocessable),
            ({"task": ""}, Unprocessable),
            ({"options": "[]"}, Unprocessable),
            ({"payload_type": None}, Unprocessable),
            ({"idempotency_key": "".join(chr(200 + n % 9000) for n in range(9000))}, Unprocessable),
            ({"payload": "a\0b"}, InvalidBody),
            ({"tags": ("a\0b",)}, InvalidBody),
            ({"payload": "\ud800"}, InvalidBody),
            ({"metadata": '{"a": "\\u0000"}'}, InvalidBody),
            ({"metadata": '{"a": "\\ud800"}'}, InvalidBody),
            ({"metadata": "{"}, InvalidBody),
            ({"priority_ms": 2**63}, InvalidBody),
        ],
    )
    async def test_what_cannot_be_stored_is_the_callers_mistake(
        self, store: PostgresRunStore, values: dict[str, Any], kind: type[GatewayError]
    ) -> None:
        with pytest.raises(kind) as caught:
            await create(store, **values)
        assert "DETAIL" not in caught.value.message
        assert len(caught.value.message) < 200

    async def test_reading_what_cannot_be_stored(self, store: PostgresRunStore) -> None:
        with pytest.raises(InvalidBody):
            await store.read_run("env_a", "run\0")


class TestTracking:
    """What the triggers keep about each change."""

    async def test_progress_writes_no_index_of_runs(
        self, store: PostgresRunStore, sql: asyncpg.Connection
    ) -> None:
        await create(store)
        async with sql.transaction():
            for step in range(3):
                await sql.execute(f"UPDATE runs SET metadata = '{{\"step\": {step}}}'")
            row = await sql.fetchrow(
                "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_xact_user_tables"
                " WHERE relid = 'runs'::regclass"
            )
        assert row is not None
        assert tuple(row) == (3, 3)

    async def test_each_run_has_one_place_among_the_changes(
        self, store: PostgresRunStore, sql: asyncpg.Connection
    ) -> None:
        kept, gone, twice = [(await create(store)).id for _ in range(3)]
        await sql.execute("UPDATE runs SET tags = '{x}' WHERE id = $1", kept)
        await sql.execute("DELETE FROM runs WHERE id = $1", gone)
        async with sql.transaction():
            await sql.execute("UPDATE runs SET priority_ms = 1 WHERE id = $1", twice)
            await sql.execute("UPDATE runs SET priority_ms = 2 WHERE id = $1", twice)
        assert await _places(sql) == await _numbers(sql)

    async def test_a_run_that_came_past_the_triggers_gets_its_place_with_the_next_change(
        self, store: PostgresRunStore, sql: asyncpg.Connection
    ) -> None:
        await create(store)
        await sql.execute("TRUNCATE run_changes")
        await sql.execute("UPDATE runs SET priority_ms = 1")
        assert await _places(sql) == await _numbers(sql)


async def _places(sql: asyncpg.Connection) -> list[asyncpg.Record]:
    return await sql.fetch("SELECT run_id AS id, changed_in FROM run_changes ORDER BY 1")


async def _numbers(sql: asyncpg.Connection) -> list[asyncpg.Record]:
    return await sql.fetch("SELECT id, changed_in FROM runs ORDER BY 1")


class TestDatabase:
    async def test_an_unreachable_database_is_a_backend_error(self) -> None:
        database = Database("postgresql://joe:hunter2@127.0.0.1:1/nowhere")
        await database.open()
        with pytest.raises(BackendError) as caught:
            await database.fetch("SELECT 1")
        assert "hunter2" not in caught.value.message
        await database.close()

    async def test_an_invalid_url_is_a_configuration_error(self) -> None:
        database = Database("mysql://joe:hunter2@somewhere/db")
        with pytest.raises(ConfigurationError) as caught:
            await open_and_use(database)
        assert "hunter2" not in caught.value.message
        await database.close()

    async def test_a_database_that_is_not_migrated_says_so(self, empty_database_url: str) -> None:
        database = Database(empty_database_url)
        await database.open()
        with pytest.raises(BackendError, match="runcast migrate"):
            await PostgresRunStore(database).read_run("env_a", "run_1")
        await database.close()

    async def test_limits_of_time(self, database_url: str) -> None:
        database = Database(
            database_url, max_connections=1, acquire_timeout_seconds=0.2,
            statement_timeout_seconds=0.2,
        )  # fmt: skip
        await database.open()
        with pytest.raises(BackendError, match="too long"):
            await database.fetch("SELECT pg_sleep(30)")
        async with database.transaction():
            with pytest.raises(BackendError, match="in time"):
                await database.fetch("SELECT 1")
        (row,) = await database.fetch("SHOW application_name")
        assert row[0] == "runcast"
        await database.close()
        await database.close()

    async def test_survives_the_loss_of_its_connections(
        self, store: PostgresRunStore, sql: asyncpg.Connection
    ) -> None:
        await create(store, id="run_1")
        await sql.fetch(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = 'runcast' AND datname = current_database()"
        )
        for attempt in itertools.count():
            assert attempt < 3
            try:
                assert await store.read_run("env_a", "run_1") is not None
                break
            except BackendError:
                continue

    async def test_another_schema(self, empty_database_url: str) -> None:
        connection = await asyncpg.connect(empty_database_url)
        await migrate(connection, schema="elsewhere")
        await connection.execute(
            "INSERT INTO elsewhere.environments (id, slug, name) VALUES ('env_a', 'a', 'A')"
        )
        await connection.close()
        database = Database(empty_database_url, schema="elsewhere")
        await database.open()
        store = PostgresRunStore(database)
        run = await create(store, idempotency_key=KEY)
        assert (await store.list_runs(RunFilter(environment_id="env_a"), limit=1)).runs == (run,)
        await database.close()
        with pytest.raises(ConfigurationError):
            Database(empty_database_url, schema='x"; DROP')


async def open_and_use(database: Database) -> None:
    await database.open()
    await database.fetch("SELECT 1")
