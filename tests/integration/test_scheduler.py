"""What happens by time: when it happens, that it happens once, whoever goes away."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import asyncpg
import httpx
import orjson
import pytest

from runcast.core.batch import NewBatch
from runcast.core.new_run import NewRun
from runcast.core.run import Run
from runcast.core.timespan import parse_duration
from runcast.errors import InvalidParameter
from runcast.postgres.database import Database
from runcast.postgres.run_store import PostgresRunStore
from runcast.postgres.scheduler import Scheduler
from tests.support.eventually import eventually
from tests.support.gateway_app import PATIENCE_SECONDS, running_app, until
from tests.support.postgres import RestartablePostgres

MOVES = """
    CREATE TABLE moves (id text, status text);
    CREATE FUNCTION note_move() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO runcast.moves VALUES (NEW.id, NEW.status);
        RETURN NULL;
    END $$;
    CREATE TRIGGER z_note AFTER UPDATE ON runs FOR EACH ROW
        WHEN (NEW.status <> OLD.status) EXECUTE FUNCTION note_move()"""


@asynccontextmanager
async def scheduling(url: str, recheck_seconds: float = 300.0) -> AsyncIterator[Scheduler]:
    """Run a scheduler over a pool of its own; it looks by itself later than any test lasts."""
    database = Database(url)
    await database.open()
    batches = PostgresRunStore(database)
    scheduler = Scheduler(url, database, batches, schema="runcast", recheck_seconds=recheck_seconds)
    running = asyncio.create_task(scheduler.run())
    try:
        yield scheduler
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await database.close()


async def asleep(sql: asyncpg.Connection, count: int = 1) -> None:
    """Wait until so many schedulers listen and have nothing to do."""

    async def idle() -> bool:
        found = await sql.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'runcast scheduler'"
            " AND datname = current_database() AND state = 'idle' AND query LIKE '%extract(epoch%'"
        )
        return bool(found == count)

    await eventually(idle)


async def insert(sql: asyncpg.Connection, **columns: Any) -> str:
    """Insert a run; values that begin with ``now()`` are SQL."""
    columns = {"environment_id": "env_a", "task": "t"} | columns
    values = [
        value if str(value).startswith("now()") else f"'{value}'" for value in columns.values()
    ]
    run_id: str = await sql.fetchval(
        f"INSERT INTO runs ({', '.join(columns)}) VALUES ({', '.join(values)}) RETURNING id"
    )
    return run_id


async def in_status(store: PostgresRunStore, run_id: str, status: str) -> Run:
    """Wait until a run has this status."""

    async def reached() -> bool:
        run = await store.read_run("env_a", run_id)
        return run is not None and run.status == status

    await eventually(reached)
    run = await store.read_run("env_a", run_id)
    assert run is not None
    return run


class TestDelay:
    async def test_a_delayed_run_is_queued_at_its_time_and_not_before(
        self, database_url: str, store: PostgresRunStore, sql: asyncpg.Connection
    ) -> None:
        async with scheduling(database_url):
            await asleep(sql)
            run_id = await insert(sql, status="DELAYED", delay_until="now() + interval '0.3 s'")
            run = await in_status(store, run_id, "PENDING")
        assert run.queued_at is not None
        assert run.delay_until is not None
        assert run.queued_at >= run.delay_until
        assert run.error is None

    async def test_what_was_due_while_nobody_looked_is_done_at_the_start(
        self, database_url: str, store: PostgresRunStore, sql: asyncpg.Connection
    ) -> None:
        run_id = await insert(sql, status="DELAYED", delay_until="now() - interval '1 h'")
        async with scheduling(database_url):
            await in_status(store, run_id, "PENDING")

    async def test_a_time_that_is_moved_forward_wakes_a_sleeping_scheduler(
        self, database_url: str, store: PostgresRunStore, sql: asyncpg.Connection
    ) -> None:
        run_id = await insert(sql, status="DELAYED", delay_until="now() + interval '1 d'")
        async with scheduling(database_url):
            await asleep(sql)
            await sql.execute("UPDATE runs SET delay_until = now() WHERE id = $1", run_id)
            await in_status(store, run_id, "PENDING")

    async def test_a_time_that_is_moved_back_is_waited_for(
        self, database_url: str, store: PostgresRunStore, sql: asyncpg.Connection
    ) -> None:
        later = await insert(sql, status="DELAYED", delay_until="now() + interval '0.2 s'")
        witness = await insert(sql, status="DELAYED", delay_until="now() + interval '0.4 s'")
        await sql.execute("UPDATE runs SET delay_until = now() + '1 h' WHERE id = $1", later)
        async with scheduling(database_url):
            await in_status(store, witness, "PENDING")
            assert (await in_status(store, later, "DELAYED")).queued_at is None

    async def test_what_no_message_told_of_is_found_by_looking_again(
        self, database_url: str, store: PostgresRunStore, sql: asyncpg.Connection
    ) -> None:
        async with scheduling(database_url, recheck_seconds=0.2):
            await asleep(sql)
            await sql.execute("ALTER TABLE runs DISABLE TRIGGER b_after_change")
            run_id = await insert(sql, status="DELAYED", delay_until="now()")
            await in_status(store, run_id, "PENDING")

    async def test_a_run_that_somebody_holds_is_done_when_it_is_free(
        self, database_url: str, store: PostgresRunStore, sql: asyncpg.Connection
    ) -> None:
        held = await insert(sql, status="DELAYED", delay_until="now() + interval '1 d'")
        async with sql.transaction():
            await sql.execute("UPDATE runs SET delay_until = now() WHERE id = $1", held)
            async with scheduling(database_url):
                other = await _insert_elsewhere(database_url)
                await in_status(store, other, "PENDING")
        async with scheduling(database_url):
            await in_status(store, held, "PENDING")


async def _insert_elsewhere(url: str) -> str:
    connection = await asyncpg.connect(url, server_settings={"search_path": "runcast"})
    try:
        return await insert(connection, status="DELAYED", delay_until="now()")
    finally:
        await connection.close()


class TestWaiting:
    async def test_a_run_goes_on_when_what_it_waits_for_is_out_of_time(
        self, database_url: str, store: PostgresRunStore, sql: asyncpg.Connection
    ) -> None:
        async with scheduling(database_url):
            await asleep(sql)
            run_id = await insert(
                sql,
                status="WAITING_TO_RESUME",
                started_at="now()",
                waits_for="w",
                waits_until="now() + interval '0.3 s'",
            )
            for_ever = await insert(sql, status="WAITING_TO_RESUME", waits_for="w")
            run = await in_status(store, run_id, "EXECUTING")
            assert run.error is None
            await in_status(store, for_ever, "WAITING_TO_RESUME")
        waits = await sql.fetch("SELECT id FROM runs WHERE waits_for = 'w'")
        assert [row["id"] for row in waits] == [for_ever]

    async def test_it_stays_as_its_worker_says(
        self, database_url: str, store: PostgresRunStore, sql: asyncpg.Connection
    ) -> None:
        waits = {"waits_for": "w", "waits_until": "now() + interval '1 h'"}
        run_id = await insert(sql, status="WAITING_TO_RESUME", **waits)
        await sql.execute("UPDATE runs SET status = 'PAUSED' WHERE id = $1", run_id)
        await sql.execute("UPDATE runs SET status = 'WAITING_TO_RESUME' WHERE id = $1", run_id)
        row = await sql.fetchrow("SELECT waits_for, waits_until, due_at FROM runs")
        assert row is not None
        assert tuple(row) == (None, None, None)


class TestTimeToLive:
    async def test_a_run_that_does_not_start_in_time_expires(
        self, database_url: str, store: PostgresRunStore, sql: asyncpg.Connection
    ) -> None:
        async with scheduling(database_url):
            run_id = await insert(sql, ttl="1s")
            run = await in_status(store, run_id, "EXPIRED")
        assert run.queued_at is not None
        assert run.completed_at is not None
        assert run.completed_at - run.queued_at >= timedelta(seconds=1)
        assert run.expired_at == run.completed_at
        assert run.error is not None
        error = orjson.loads(run.error)
        assert error["type"] == "STRING_ERROR"
        assert "1s" in error["raw"]

    async def test_it_counts_from_when_the_run_was_queued(
        self, database_url: str, store: PostgresRunStore, sql: asyncpg.Connection
    ) -> None:
        async with scheduling(database_url):
            run_id = await insert(
                sql, status="DELAYED", delay_until="now() + interval '0.5 s'", ttl="1s"
            )
            run = await in_status(store, run_id, "EXPIRED")
        assert run.queued_at is not None
        assert run.expired_at is not None
        assert run.queued_at - run.created_at >= timedelta(seconds=0.5)
        assert run.expired_at - run.queued_at >= timedelta(seconds=1)

    @pytest.mark.parametrize(
        ("columns", "waits"),
        [
            ({"status": "PENDING"}, True),
            ({"status": "PENDING_VERSION"}, True),
            ({"status": "WAITING_FOR_DEPLOY"}, True),
            ({"status": "PENDING", "started_at": "now()"}, False),
            ({"status": "DEQUEUED"}, False),
            ({"status": "EXECUTING"}, False),
            ({"status": "WAITING_TO_RESUME"}, False),
            ({"status": "CANCELED"}, False),
            ({"status": "PENDING", "ttl": "soon"}, False),
        ],
    )
    async def test_only_what_waits_to_start_expires(
        self, sql: asyncpg.Connection, columns: dict[str, str], waits: bool
    ) -> None:
        run_id = await insert(sql, **({"ttl": "1s"} | columns))
        due = await sql.fetchval("SELECT due_at FROM runs WHERE id = $1", run_id)
        assert (due is not None) == waits

    async def test_a_run_that_is_taken_in_time_does_not_expire(
        self, sql: asyncpg.Connection
    ) -> None:
        run_id = await insert(sql, ttl="1h")
        for status, waits in [("DEQUEUED", False), ("PENDING", True), ("EXECUTING", False)]:
            await sql.execute("UPDATE runs SET status = $2 WHERE id = $1", run_id, status)
            due = await sql.fetchval("SELECT due_at FROM runs WHERE id = $1", run_id)
            assert (due is not None) == waits, status

    @pytest.mark.parametrize(
        "text",
        [
            "1s",
            "10m",
            "1h30m",
            "2hr",
            "1w2d3hr4m5s",
            "0s",
            "9" * 60 + "s",
            "",
            "1",
            "h",
            "1x",
            "1h ",
        ],
    )
    async def test_the_database_reads_durations_as_the_gateway_does(
        self, sql: asyncpg.Connection, text: str
    ) -> None:
        try:
            expected: float | None = parse_duration(text)
        except InvalidParameter:
            expected = None
        found = await sql.fetchval("SELECT extract(epoch FROM duration_of($1))", text)
        if len(text) > 50:
            assert found == 1e11  # bounded, where the gateway refuses
        else:
            assert (None if found is None else float(found)) == expected


class TestRefusals:
    @pytest.fixture
    async def trap(self, sql: asyncpg.Connection) -> None:
        """Somebody's own rule: runs and batches of this name stay as they are."""
        await sql.execute("""
            CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN RAISE EXCEPTION 'not this one'; END $$;
            CREATE TRIGGER trap BEFORE UPDATE ON runs FOR EACH ROW
                WHEN (OLD.id LIKE 'run_bad%') EXECUTE FUNCTION refuse_change();
            CREATE TRIGGER trap BEFORE UPDATE ON batches FOR EACH ROW
                WHEN (OLD.id LIKE 'batch_bad%') EXECUTE FUNCTION refuse_change()""")

    async def test_runs_that_cannot_be_changed_hinder_no_other(
        self, trap: None, database_url: str, store: PostgresRunStore, sql: asyncpg.Connection
    ) -> None:
        # More than a round takes, and due before all others.
        await sql.execute(
            "INSERT INTO runs (id, environment_id, task, status, delay_until)"
            " SELECT 'run_bad' || n, 'env_a', 't', 'DELAYED', now() - interval '1 h'"
            " FROM generate_series(1, 250) AS n"
        )
        good = await insert(sql, status="DELAYED", delay_until="now() - interval '1 s'")
        async with scheduling(database_url) as scheduler:
            await in_status(store, good, "PENDING")
            await asleep(sql)
            # What comes later is done as if they were not there.
            later = await insert(sql, status="DELAYED", delay_until="now() + interval '0.2 s'")
            await in_status(store, later, "PENDING")
            counts = scheduler.counts

            async def counted() -> bool:
                return counts.done["queued"] == 2 and counts.late_seconds > 3600

            await eventually(counted)
            assert counts.refused == 250

    async def test_batches_that_cannot_be_changed_hinder_no_other(
        self, trap: None, database_url: str, store: PostgresRunStore, sql: asyncpg.Connection
    ) -> None:
        for name in ("batch_bad1", "batch_good"):
            await store.open_batch(NewBatch(environment_id="env_a", id=name), 1)
            item = NewRun(environment_id="env_a", task="t", batch_index=0)
            await store.add_items("env_a", name, [item])
        await sql.execute("ALTER TABLE batches DISABLE TRIGGER trap")
        for name in ("batch_bad1", "batch_good"):
            await store.seal_batch("env_a", name)
        await sql.execute(
            "INSERT INTO batches (id, environment_id, run_count, due_at)"
            " VALUES ('batch_bad2', 'env_a', 1, now()), ('batch_late', 'env_a', 1, now())"
        )
        await sql.execute("UPDATE batches SET due_at = now() - interval '1 s'")
        await sql.execute("ALTER TABLE batches ENABLE TRIGGER trap")
        async with scheduling(database_url) as scheduler:

            async def done() -> bool:
                return scheduler.counts.rounds > 0

            await eventually(done)
        rows = await sql.fetch("SELECT id, status FROM batches")
        statuses = {row["id"]: row["status"] for row in rows}
        assert statuses["batch_late"] == "ABORTED"
        assert statuses["batch_bad2"] == "PENDING"
        found = await sql.fetch("SELECT batch_id FROM runs")
        assert [row["batch_id"] for row in found] == ["batch_good"]
        assert scheduler.counts.refused == 2

    async def test_a_row_that_may_be_changed_again_is(
        self,
        trap: None,
        database_url: str,
        store: PostgresRunStore,
        sql: asyncpg.Connection,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr("runcast.postgres.scheduler._REFUSED_SECONDS", 0.2)
        run_id = await insert(sql, id="run_bad", status="DELAYED", delay_until="now()")
        async with scheduling(database_url, recheck_seconds=0.1) as scheduler:

            async def refused() -> bool:
                return scheduler.counts.refused > 1

            await eventually(refused)
            await sql.execute("DROP TRIGGER trap ON runs")
            await in_status(store, run_id, "PENDING")


class TestManyGateways:
    async def test_two_schedulers_move_each_run_once(
        self, database_url: str, sql: asyncpg.Connection
    ) -> None:
        await sql.execute(MOVES)
        async with scheduling(database_url), scheduling(database_url):
            await asleep(sql, 2)
            await sql.execute(
                "INSERT INTO runs (environment_id, task, status, delay_until)"
                " SELECT 'env_a', 't', 'DELAYED', now() + n * interval '1 ms'"
                " FROM generate_series(1, 600) AS n"
            )

            async def all_moved() -> bool:
                left = await sql.fetchval("SELECT count(*) FROM runs WHERE status = 'DELAYED'")
                return bool(left == 0)

            await eventually(all_moved)
        moves = await sql.fetch("SELECT id, count(*) AS times FROM moves GROUP BY id")
        assert len(moves) == 600
        assert {row["times"] for row in moves} == {1}

    async def test_a_lost_connection_is_made_again(
        self, database_url: str, store: PostgresRunStore, sql: asyncpg.Connection
    ) -> None:
        async with scheduling(database_url):
            await asleep(sql)
            ended = await sql.fetchval(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
                " WHERE application_name = 'runcast scheduler' AND datname = current_database()"
            )
            assert ended == 1
            run_id = await insert(sql, status="DELAYED", delay_until="now() + interval '0.1 s'")
            await in_status(store, run_id, "PENDING")

    async def test_a_killed_postgres_delays_nothing_for_longer_than_it_is_away(
        self, restartable_postgres: RestartablePostgres
    ) -> None:
        url = restartable_postgres.url
        database = Database(url)
        await database.open()
        store = PostgresRunStore(database)
        sql = await asyncpg.connect(url, server_settings={"search_path": "runcast"})
        await sql.execute("INSERT INTO environments (id, slug, name) VALUES ('env_a', 'a', 'A')")
        async with scheduling(url), scheduling(url):
            await asleep(sql, 2)
            runs = [
                await insert(sql, status="DELAYED", delay_until=f"now() + interval '{n} s'")
                for n in (0.5, 1, 3)
            ]
            sql.terminate()
            await restartable_postgres.kill()
            for run_id in runs:
                run = await in_status(store, run_id, "PENDING")
                assert run.queued_at is not None
                assert run.delay_until is not None
                assert run.queued_at >= run.delay_until
        await database.close()


class TestBatches:
    async def sealed(self, store: PostgresRunStore, count: int) -> str:
        """A batch whose gateway went away when it had just been sealed."""
        batch = await store.open_batch(NewBatch(environment_id="env_a"), count)
        items = [
            NewRun(environment_id="env_a", task="t", batch_index=index, payload=str(index))
            for index in range(count)
        ]
        assert await store.add_items("env_a", batch.id, items[::-1]) == count
        assert (await store.seal_batch("env_a", batch.id)).sealed
        return batch.id

    async def test_what_a_gateway_left_behind_is_finished_by_another(
        self, database_url: str, store: PostgresRunStore, sql: asyncpg.Connection
    ) -> None:
        batch_id = await self.sealed(store, 120)
        assert await store.create_next_runs(batch_id)  # the first piece, before it was killed
        half = await store.read_batch("env_a", batch_id)
        assert half is not None
        assert 0 < len(half.run_ids) < 120
        async with scheduling(database_url), scheduling(database_url):
            await asleep(sql, 2)
            await sql.execute("UPDATE batches SET due_at = now() WHERE id = $1", batch_id)

            async def finished() -> bool:
                return bool(
                    await sql.fetchval("SELECT due_at IS NULL FROM batches WHERE id = $1", batch_id)
                )

            await eventually(finished)
        rows = await sql.fetch("SELECT payload, batch_index FROM runs ORDER BY number")
        assert [row["payload"] for row in rows] == [str(index) for index in range(120)]
        assert [row["batch_index"] for row in rows] == list(range(120))
        assert await sql.fetchval("SELECT count(*) FROM batch_items") == 0

    async def test_a_batch_is_not_complete_before_it_has_its_runs(
        self, store: PostgresRunStore, sql: asyncpg.Connection
    ) -> None:
        batch_id = await self.sealed(store, 60)
        await store.create_next_runs(batch_id)
        await sql.execute("UPDATE runs SET status = 'COMPLETED_SUCCESSFULLY'")
        batch = await store.read_batch("env_a", batch_id)
        assert batch is not None
        assert batch.status == "PROCESSING"
        while await store.create_next_runs(batch_id):
            pass
        await sql.execute("UPDATE runs SET status = 'COMPLETED_SUCCESSFULLY'")
        batch = await store.read_batch("env_a", batch_id)
        assert batch is not None
        assert batch.status == "COMPLETED"

    async def test_a_batch_in_other_hands_is_left_to_them(
        self, store: PostgresRunStore, sql: asyncpg.Connection
    ) -> None:
        batch_id = await self.sealed(store, 3)
        async with sql.transaction():
            await sql.execute("SELECT FROM batches WHERE id = $1 FOR NO KEY UPDATE", batch_id)
            assert not await store.create_next_runs(batch_id)
        assert await sql.fetchval("SELECT count(*) FROM runs") == 0
        assert not await store.create_next_runs(batch_id)
        assert await sql.fetchval("SELECT count(*) FROM runs") == 3
        assert not await store.create_next_runs(batch_id)
        assert await sql.fetchval("SELECT count(*) FROM runs") == 3

    async def test_an_item_that_cannot_be_a_run_fails_alone(
        self, store: PostgresRunStore, sql: asyncpg.Connection
    ) -> None:
        batch = await store.open_batch(NewBatch(environment_id="env_a"), 3)
        items = [
            NewRun(environment_id="env_a", task="t", batch_index=index, parent_id=parent)
            for index, parent in enumerate([None, "run_gone", None])
        ]
        await store.add_items("env_a", batch.id, items)
        await store.seal_batch("env_a", batch.id)
        while await store.create_next_runs(batch.id):
            pass
        rows = await sql.fetch("SELECT status, error FROM runs ORDER BY batch_index")
        assert [row["status"] for row in rows] == ["PENDING", "SYSTEM_FAILURE", "PENDING"]
        assert orjson.loads(rows[1]["error"])["code"] == "BATCH_ITEM_COULD_NOT_TRIGGER"

    async def test_a_batch_whose_items_never_came_is_given_up(
        self, database_url: str, store: PostgresRunStore, sql: asyncpg.Connection
    ) -> None:
        batch = await store.open_batch(NewBatch(environment_id="env_a"), 2)
        item = NewRun(environment_id="env_a", task="t", batch_index=0)
        await store.add_items("env_a", batch.id, [item])
        async with scheduling(database_url):
            await asleep(sql)
            await sql.execute("UPDATE batches SET due_at = now() WHERE id = $1", batch.id)

            async def given_up() -> bool:
                found = await store.read_batch("env_a", batch.id)
                return found is not None and found.status == "ABORTED"

            await eventually(given_up)
        assert await sql.fetchval("SELECT count(*) FROM batch_items") == 0
        assert await store.add_items("env_a", batch.id, [item]) is None
        assert (await store.seal_batch("env_a", batch.id)).missing


async def test_only_times_that_are_near_send_a_message(
    database_url: str, sql: asyncpg.Connection
) -> None:
    told: list[str] = []
    heard = asyncio.Event()

    def hear(*message: Any) -> None:
        told.append(message[-1])
        heard.set()

    listener = await asyncpg.connect(database_url)
    await listener.add_listener("runcast_due", hear)
    await insert(sql, status="DELAYED", delay_until="now() + interval '1 h'")
    await insert(sql, ttl="10m")
    plain = await insert(sql)
    await sql.execute("UPDATE runs SET metadata = '{\"a\": 1}' WHERE id = $1", plain)
    near = await insert(sql, status="DELAYED", delay_until="now() + interval '10 s'")
    due = await sql.fetchval("SELECT due_at FROM runs WHERE id = $1", near)
    await heard.wait()
    assert told == [str(round(due.timestamp() * 1000))]
    await listener.close()


async def test_gateways_do_what_is_due_and_their_followers_see_it(database_url: str) -> None:
    async with (
        running_app(database_url) as one,
        running_app(database_url) as two,
        httpx.AsyncClient(base_url=one.url, headers=one.bearer, trust_env=False) as client,
        httpx.AsyncClient(base_url=two.url, headers=two.bearer, trust_env=False) as other,
    ):
        body = {"options": {"delay": "1s", "ttl": "1s"}}
        answer = await client.post("/api/v1/tasks/hello/trigger", json=body)
        run_id = answer.json()["id"]
        seen: list[str] = []
        async with (
            asyncio.timeout(PATIENCE_SECONDS),
            other.stream("GET", f"/realtime/v1/runs/{run_id}", timeout=None) as feed,
        ):
            async for line in feed.aiter_lines():
                if line.startswith("data: ") and '"status"' in line:
                    seen.append(re.findall(r'"status":"(\w+)"', line)[0])
                    if seen[-1] == "EXPIRED":
                        break
        done = [each.gateway._scheduler.counts.done for each in (one, two)]
        await until(lambda: sum(each["expired"] for each in done) == 1)  # once it was answered
        metrics = [(await each.get("/metrics")).text for each in (client, other)]
    for kind in ("queued", "expired"):  # by one gateway or the other
        assert f'runcast_schedule_done_total{{kind="{kind}"}} 1.0' in "".join(metrics)
    # How many of them there were depends on when the feed began, and when it was looked.
    assert seen == [each for each in ("DELAYED", "QUEUED", "EXPIRED") if each in seen]
