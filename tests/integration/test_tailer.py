"""The tailer against a real Postgres: every committed change arrives, whatever commits when."""

import asyncio
import contextlib
import logging
import os
import random
import re
from collections.abc import AsyncIterator, Iterator
from typing import ClassVar

import asyncpg
import pytest

from runcast.core.position import Position
from runcast.core.relaying import Role
from runcast.core.tailing import Pace, State
from runcast.postgres import tailer as tailer_module
from runcast.postgres.changefeed import KEYS_A_READ
from runcast.postgres.embedded import start_embedded
from runcast.postgres.migrate import migrate
from runcast.postgres.tailer import PostgresTailer
from tests.integration.conftest import Connect
from tests.support.postgres import RestartablePostgres, temporary_folder
from tests.support.recording_sink import PATIENCE_SECONDS, Following, following
from tests.support.relayed import Relayed, leader_and_follower

# Only a bell can wake a tailer of this pace: what it misses never arrives, and the test fails.
BELL_ALONE = Pace(recheck=3600, armed=7200)

SEED = int(os.environ.get("RUNCAST_TEST_SEED") or random.SystemRandom().randrange(1 << 32))


@pytest.fixture(params=["tailer", "follower"])
async def feed(
    database_url: str, sql: object, request: pytest.FixtureRequest
) -> AsyncIterator[Following]:
    """A tailer that reads, or one that takes what another one reads: nobody sees a difference."""
    if request.param == "tailer":
        async with following(database_url) as feed:
            yield feed
        return
    redis_url = request.getfixturevalue("redis_url")
    async with leader_and_follower(database_url, redis_url) as (leader, follower):
        yield follower
        assert leader.machine.role is Role.LEADING
        assert follower.machine.fallbacks.keys() <= {"too_large"}


async def insert(connection: asyncpg.Connection, *run_ids: str, tags: tuple[str, ...] = ()) -> None:
    await connection.executemany(
        "INSERT INTO runs (id, environment_id, task, tags) VALUES ($1, 'env_a', 'task', $2)",
        [(run_id, tags) for run_id in run_ids],
    )


async def here(connection: asyncpg.Connection) -> Position:
    row = await connection.fetchrow("SELECT runcast.database_name(), pg_current_snapshot()::text")
    assert row is not None
    return Position.from_snapshot(*row)


async def is_armed(connection: asyncpg.Connection) -> bool:
    """Tell whether writers ring."""
    sql = "SELECT last_value > extract(epoch FROM clock_timestamp()) * 1000 FROM runcast.bell"
    return bool(await connection.fetchval(sql))


class Silencing(PostgresTailer):
    """Tailers of which is counted how often they silenced the bell."""

    count = 0

    async def _disarm(self, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        await super()._disarm(connection)
        Silencing.count += not await is_armed(connection)


def reads_of_runs(feed: Following) -> int:
    """How often rows of runs were read in a statement of their own."""
    return feed.tailer.queries["changefeed runs"].buckets[-1][1]


def attempt_counts(feed: Following, run_id: str) -> list[int]:
    return [change.run.attempt_count for change in feed.sink.changes_of(run_id) if change.run]


class TestCommits:
    async def test_the_time_of_a_change_is_that_of_its_commit_and_not_of_its_writing(
        self, feed: Following, connect: Connect
    ) -> None:
        slow, quick = [await connect() for _ in range(2)]
        await insert(slow, "run_slow")
        await feed.sink.has("run_slow")
        loop = asyncio.get_running_loop()
        began = loop.time()
        async with slow.transaction():
            await slow.execute("UPDATE runs SET metadata = '{\"x\": 1}' WHERE id = 'run_slow'")
            count, last = 0, began
            while last < began + 0.5:
                count, last = count + 1, loop.time()
                await insert(quick, f"run_{count}")
                await feed.sink.has(f"run_{count}")
        committed = loop.time()
        await feed.sink.until(lambda: len(feed.sink.changes_of("run_slow")) == 2)
        [at_first, at_last] = [change.since for change in feed.sink.changes_of("run_slow")]
        assert at_first is not None
        assert at_last is not None
        assert at_first < began + 0.1, "never too late, but for what the clocks can tell"
        assert at_last < committed + 0.1
        if type(feed.tailer) is PostgresTailer:  # who follows another does not know when it read
            assert at_last > last - 0.1, "what was inserted last was read without the change"

    async def test_commits_in_the_other_order_than_begun(
        self, feed: Following, connect: Connect
    ) -> None:
        first, second, third = [await connect() for _ in range(3)]
        transactions = [each.transaction() for each in (first, second, third)]
        for number, connection in enumerate((first, second, third)):
            await transactions[number].start()
            await insert(connection, f"run_{number}")
        for number in (2, 1, 0):
            await transactions[number].commit()
            await feed.sink.has(f"run_{number}")
            assert set(feed.sink.runs) == {f"run_{each}" for each in range(number, 3)}
        assert feed.tailer.misses == 0

    async def test_a_transaction_held_open_delays_nobody_and_is_not_missed(
        self, feed: Following, sql: asyncpg.Connection, connect: Connect
    ) -> None:
        held = await connect()
        transaction = held.transaction()
        await transaction.start()
        await insert(held, "held")
        for number in range(300):
            await insert(sql, f"run_{number}")
        await feed.sink.has(*(f"run_{number}" for number in range(300)))
        # To tell it again would be right as well, but who read it again and again would be slow.
        if not isinstance(feed, Relayed):
            assert feed.sink.told_again == 0
        assert "held" not in feed.sink.runs
        await transaction.commit()
        await feed.sink.has("held")
        assert len(feed.sink.changes_of("held")) == 1
        assert feed.tailer.misses == 0

    async def test_what_is_rolled_back_is_never_told(
        self, feed: Following, sql: asyncpg.Connection
    ) -> None:
        await insert(sql, "run_1")
        await feed.sink.has("run_1")
        transaction = sql.transaction()
        await transaction.start()
        await insert(sql, "undone")
        await sql.execute("UPDATE runs SET attempt_count = 1")
        await sql.execute("DELETE FROM runs WHERE id = 'run_1'")
        await transaction.rollback()
        with pytest.raises(asyncpg.CheckViolationError):
            await sql.execute("UPDATE runs SET attempt_count = -1")
        await feed.sink.passed(await here(sql))
        assert len(feed.sink.changes) == 1

    async def test_savepoints_kept_and_undone(
        self, feed: Following, sql: asyncpg.Connection
    ) -> None:
        async with sql.transaction():
            await insert(sql, "kept")
            undone = sql.transaction()
            await undone.start()
            await insert(sql, "undone")
            await sql.execute("UPDATE runs SET attempt_count = 9")
            await undone.rollback()
            async with sql.transaction():
                await insert(sql, "inside")
                async with sql.transaction():
                    await insert(sql, "deeper")
            undone = sql.transaction()
            await undone.start()
            await sql.execute("DELETE FROM runs")
            await undone.rollback()
        await feed.sink.passed(await here(sql))
        assert set(feed.sink.runs) == {"kept", "inside", "deeper"}
        assert len(feed.sink.changes) == 3
        assert attempt_counts(feed, "kept") == [0]

    async def test_all_of_a_transaction_comes_in_one_window(
        self, feed: Following, sql: asyncpg.Connection
    ) -> None:
        async with sql.transaction():
            await insert(sql, "run_1", "run_2")
            await sql.execute("UPDATE runs SET attempt_count = 1")
            await sql.execute("UPDATE runs SET attempt_count = 2")
        await feed.sink.has("run_1", "run_2")
        assert attempt_counts(feed, "run_1") == attempt_counts(feed, "run_2") == [2]
        assert [count for count, _ in feed.sink.windows if count] == [2]

    async def test_states_between_two_reads_may_be_skipped_but_not_the_newest(
        self, feed: Following, sql: asyncpg.Connection
    ) -> None:
        await insert(sql, "run_1")
        await feed.sink.has("run_1")
        for number in range(1, 501):
            await sql.execute("UPDATE runs SET attempt_count = $1", number)
        await feed.sink.until(lambda: feed.sink.runs["run_1"].attempt_count == 500)
        seen = attempt_counts(feed, "run_1")
        assert seen == sorted(seen)
        assert seen[-1] == 500

    async def test_what_somebody_waits_for_is_not_read_less_often(
        self, database_url: str, sql: asyncpg.Connection
    ) -> None:
        pace = Pace(unwatched=3600, empty_reads=1000)
        async with following(database_url, pace=pace) as feed:
            for number in range(30):
                await insert(sql, f"run_{number}")
                await feed.sink.has(f"run_{number}")

    async def test_a_statement_that_changes_more_runs_than_are_read_at_once(
        self, feed: Following, sql: asyncpg.Connection
    ) -> None:
        count = 2 * KEYS_A_READ + 500
        await sql.execute(
            "INSERT INTO runs (id, environment_id, task)"
            " SELECT 'run_' || n, 'env_a', 'task' FROM generate_series(1, $1::int) AS n",
            count,
        )
        await feed.sink.until(lambda: len(feed.sink.runs) == count)
        before = feed.sink.position
        inserted = len(feed.sink.changes)
        assert inserted == count
        await sql.execute("UPDATE runs SET attempt_count = 1")
        updated = await here(sql)
        await feed.sink.until(lambda: len(feed.sink.changes) == inserted + count)
        await feed.sink.passed(updated)
        assert all(run.attempt_count == 1 for run in feed.sink.runs.values())
        assert len(feed.sink.changes) == inserted + count
        # Nobody may resume from beyond the window before all of it was handed over.
        assert before is not None
        handed = 0
        for changes, position in feed.sink.windows:
            handed += changes
            if inserted < handed < inserted + count:
                assert not position.covers(updated)
        assert feed.tailer.counts.changes == 2 * count

    async def test_large_windows_tell_of_departures_and_of_held_transactions(
        self,
        feed: Following,
        sql: asyncpg.Connection,
        connect: Connect,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(tailer_module, "KEYS_A_READ", 7)
        monkeypatch.setattr(tailer_module, "_RUNS_A_READ", 3)
        names = [f"run_{number}" for number in range(50)]
        held = await connect()
        async with held.transaction():
            await insert(held, *(f"held_{number}" for number in range(50)))
            async with sql.transaction():
                await insert(sql, *names, tags=("x",))
            await feed.sink.has(*names)
        await feed.sink.until(lambda: len(feed.sink.runs) == 100)
        async with sql.transaction():
            await sql.execute("UPDATE runs SET tags = '{}' WHERE id LIKE 'run_1%'")
            await sql.execute("DELETE FROM runs WHERE id LIKE 'run_2%'")
            await sql.execute("DELETE FROM runs WHERE id LIKE 'run_3%'")
            await insert(sql, "run_3", tags=("y",))
        await feed.sink.passed(await here(sql))
        rows = await sql.fetch("SELECT id, version FROM runs")
        assert {run.id: run.version for run in feed.sink.runs.values()} == {
            row["id"]: row["version"] for row in rows
        }
        departed = {
            departure.facets.id for change in feed.sink.changes for departure in change.departures
        }
        assert departed == {name for name in names if name[4] in "123"}


class TestDepartures:
    async def test_a_deleted_run_leaves_the_facts_it_was_known_by(
        self, feed: Following, sql: asyncpg.Connection
    ) -> None:
        await insert(sql, "run_1", tags=("x", "y"))
        await feed.sink.has("run_1")
        known = feed.sink.runs["run_1"]
        await sql.execute("DELETE FROM runs")
        await feed.sink.until(lambda: not feed.sink.runs)
        (departure,) = feed.sink.changes[-1].departures
        assert departure.deleted
        assert departure.facets == known.facets
        assert departure.version > known.version

    async def test_a_run_that_came_and_went_unseen_is_gone(
        self, feed: Following, sql: asyncpg.Connection
    ) -> None:
        async with sql.transaction():
            await insert(sql, "run_1")
            await sql.execute("DELETE FROM runs")
        await feed.sink.until(lambda: bool(feed.sink.changes))
        (change,) = feed.sink.changes
        assert change.run is None
        assert change.departures[0].deleted

    @pytest.mark.parametrize("together", [True, False])
    async def test_deleted_and_inserted_again_under_the_same_id(
        self, feed: Following, sql: asyncpg.Connection, together: bool
    ) -> None:
        await insert(sql, "run_1", tags=("x",))
        await feed.sink.has("run_1")
        before = feed.sink.runs["run_1"]
        async with sql.transaction() if together else contextlib.AsyncExitStack():
            await sql.execute("DELETE FROM runs")
            await insert(sql, "run_1", tags=("y",))
        await feed.sink.until(lambda: feed.sink.runs.get("run_1", before).tags == ("y",))
        assert feed.sink.runs["run_1"].version > before.version
        departures = [departure for change in feed.sink.changes for departure in change.departures]
        assert [departure.facets.tags for departure in departures] == [("x",)]
        assert before.version < departures[0].version < feed.sink.runs["run_1"].version

    async def test_a_tag_that_is_removed_and_comes_back(
        self, feed: Following, sql: asyncpg.Connection
    ) -> None:
        await insert(sql, "run_1", tags=("x", "y"))
        await feed.sink.has("run_1")
        await sql.execute("UPDATE runs SET tags = '{y}'")
        await feed.sink.until(lambda: feed.sink.runs["run_1"].tags == ("y",))
        (departure,) = feed.sink.changes[-1].departures
        assert (departure.facets.tags, departure.deleted) == (("x", "y"), False)
        await sql.execute("UPDATE runs SET tags = '{y,x}'")
        await feed.sink.until(lambda: feed.sink.runs["run_1"].tags == ("y", "x"))
        assert not feed.sink.changes[-1].departures
        async with sql.transaction():
            await sql.execute("UPDATE runs SET tags = '{}'")
            await sql.execute("UPDATE runs SET tags = '{x}'")
        await feed.sink.until(lambda: feed.sink.runs["run_1"].tags == ("x",))
        (departure,) = feed.sink.changes[-1].departures
        assert departure.facets.tags == ("y", "x")

    @pytest.mark.parametrize(
        ("asked", "payload", "output"),
        [
            ([{"payload", "output"}], '"in"', '"out"'),
            ([{"output"}], None, '"out"'),
            ([{"payload"}], '"in"', None),
            ([set()], None, None),
            # Somebody comes after the keys were found, and another one while the row was read.
            ([set(), {"output"}], None, '"out"'),
            ([set(), set(), {"output"}], None, '"out"'),
            ([set(), {"output"}, {"payload"}], '"in"', '"out"'),
            ([{"payload", "output"}, set()], None, None),
        ],
    )
    async def test_of_large_columns_those_are_read_that_are_wanted(
        self,
        database_url: str,
        sql: asyncpg.Connection,
        asked: list[set[str]],
        payload: str | None,
        output: str | None,
    ) -> None:
        async with following(database_url) as feed:
            feed.sink.columns = [frozenset(each) for each in asked]
            await sql.execute(
                """INSERT INTO runs (id, environment_id, task, payload, output, metadata)
                VALUES ('run_1', 'env_a', 'task', '"in"', '"out"', '{"n": 1}')"""
            )
            await feed.sink.has("run_1")
            run = feed.sink.runs["run_1"]
        assert (run.payload, run.output, run.metadata) == (payload, output, '{"n": 1}')

    async def test_only_wanted_runs_are_read(
        self, database_url: str, sql: asyncpg.Connection
    ) -> None:
        async with following(database_url, wanted={"run_2"}) as feed:
            await insert(sql, "run_1", "run_2", "run_3")
            await sql.execute("DELETE FROM runs WHERE id <> 'run_2'")
            await feed.sink.passed(await here(sql))
            assert {change.facets.id for change in feed.sink.changes} == {"run_2"}


class TestPlans:
    @pytest.mark.parametrize("analyzed", [False, True])
    async def test_every_read_is_by_an_index_whatever_the_planner_knows(
        self, database_url: str, sql: asyncpg.Connection, analyzed: bool
    ) -> None:
        class Explained(PostgresTailer):
            plans: ClassVar[list[str]] = []

            async def _begin(self, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
                for number, sql in enumerate((self._window_sql, self._window_with_rows_sql)):
                    await connection.execute(f"PREPARE read_{number} (xid8, xid8[]) AS {sql}")
                    rows = await connection.fetch(f"EXPLAIN EXECUTE read_{number} ('3', '{{}}')")
                    self.plans.append("\n".join(row[0] for row in rows))
                await super()._begin(connection)

        await sql.execute(
            """
            INSERT INTO runs (id, environment_id, task)
            SELECT 'run_' || number, 'env_a', 'task' FROM generate_series(1, 2000) AS number
            """
        )
        if analyzed:  # all of it is of one transaction, and so may each one be that is asked for
            await sql.execute("ANALYZE")
        async with following(database_url, kind=Explained):
            pass
        assert len(Explained.plans) == 2
        for plan in Explained.plans:
            indexes = re.findall(r"Index (?:Only )?Scan (?:using|on) (\w+)", plan)
            assert set(indexes) == {
                "departures_changed",
                "run_changes_pkey",
                "runs_pkey",
                "streams_changed",
            }
            for condition in (">= $1", "= ANY ($2)"):  # parameters: the plan is for any position
                assert plan.count(f"Index Cond: (changed_in {condition})") == 3
            assert "Seq Scan" not in plan


class TestRowsAlong:
    async def test_a_run_that_is_followed_comes_with_its_key(
        self, database_url: str, sql: asyncpg.Connection
    ) -> None:
        async with following(database_url) as feed:
            await insert(sql, "run_1", tags=("x",))
            await feed.sink.has("run_1")
            read = reads_of_runs(feed)
            assert read > 0
            await sql.execute("UPDATE runs SET output = '1', tags = '{}' WHERE id = 'run_1'")
            await feed.sink.until(lambda: feed.sink.runs["run_1"].output == "1")
            assert feed.sink.changes[-1].departures[0].facets.tags == ("x",)
            async with sql.transaction():
                await sql.execute("DELETE FROM runs WHERE id = 'run_1'")
                await insert(sql, "run_1", "run_2")
            await feed.sink.has("run_2")
            assert feed.sink.runs["run_1"].output is None
            assert feed.sink.changes_of("run_1")[-1].departures[0].deleted
            assert reads_of_runs(feed) == read
            rows = await sql.fetch("SELECT * FROM runs")
            for row in rows:
                run = feed.sink.runs[row["id"]]
                assert {
                    name: getattr(run, name) for name in ("created_at", "metadata", "tags")
                } == {
                    "created_at": row["created_at"],
                    "metadata": row["metadata"],
                    "tags": tuple(row["tags"]),
                }

    @pytest.mark.parametrize(
        "change",
        [
            "UPDATE runs SET payload = repeat('x', 10000)",
            "INSERT INTO runs (id, environment_id, task)"
            " SELECT 'run_' || n, 'env_a', 'task' FROM generate_series(2, 30) AS n",
        ],
        ids=["large", "many"],
    )
    async def test_what_would_be_much_is_read_where_it_is_wanted(
        self, database_url: str, sql: asyncpg.Connection, change: str
    ) -> None:
        async with following(database_url, wanted={"run_1", "run_30"}) as feed:
            await insert(sql, "run_1")
            await feed.sink.has("run_1")
            read = reads_of_runs(feed)
            await sql.execute(change)
            await feed.sink.passed(await here(sql))
            assert reads_of_runs(feed) == read + 1
            assert len(feed.sink.changes) == 2


class TestBell:
    async def test_a_write_wakes_a_sleeper(
        self, database_url: str, sql: asyncpg.Connection
    ) -> None:
        async with following(database_url, pace=BELL_ALONE) as feed:
            for number in range(20):
                await feed.asleep()
                await insert(sql, f"run_{number}")
                await feed.sink.has(f"run_{number}")
            await feed.asleep()
            await sql.execute("UPDATE runs SET attempt_count = 1 WHERE id = 'run_7'")
            await feed.sink.until(lambda: feed.sink.runs["run_7"].attempt_count == 1)
            await feed.asleep()
            await sql.execute("DELETE FROM runs WHERE id = 'run_7'")
            await feed.sink.until(lambda: "run_7" not in feed.sink.runs)
            assert feed.tailer.misses == 0

    async def test_it_rings_in_an_old_snapshot_as_well(
        self, database_url: str, sql: asyncpg.Connection, connect: Connect
    ) -> None:
        old = await connect()
        async with old.transaction(isolation="repeatable_read"):
            await old.fetch("SELECT FROM runs")  # the snapshot is taken before anybody sleeps
            async with following(database_url, pace=BELL_ALONE) as feed:
                await feed.asleep()
                await insert(old, "run_1")
                await old.execute("COMMIT")
                await feed.sink.has("run_1")
                await old.execute("BEGIN")

    async def test_a_transaction_that_looked_before_the_arming_and_commits_after(
        self, database_url: str, sql: asyncpg.Connection, connect: Connect
    ) -> None:
        held = await connect()
        async with held.transaction():
            await insert(held, "held")  # nobody sleeps yet: it will not ring
            assert await sql.fetchval("SELECT last_value FROM bell") == 0
            async with following(database_url, pace=BELL_ALONE) as feed:
                await feed.sink.until(lambda: feed.tailer.state is State.WATCHING)
                await insert(sql, "run_1")
                await feed.sink.has("run_1")
                await feed.sink.until(lambda: feed.tailer.state is State.WATCHING)
                read = feed.tailer.counts.reads
                await feed.sink.until(lambda: feed.tailer.counts.reads > read + 3)
                assert feed.tailer.state is State.WATCHING
                await held.execute("COMMIT")
                await feed.sink.has("held")
                await feed.asleep()
                await held.execute("BEGIN")
                assert feed.tailer.misses == 0

    async def test_bursts_of_writers_while_it_is_being_armed(
        self, database_url: str, sql: asyncpg.Connection, connect: Connect
    ) -> None:
        """
        Writers look at the bell around each arming, and commit before and after it.

        The bell is disarmed just before it is armed, as if it had lapsed, so that no earlier arming
        helps. A change that was missed would never arrive.
        """
        dice = random.Random(SEED)
        pace = Pace(
            busy=0.001, empty_reads=2, watch=0.001, watch_longest=0.01, recheck=3600, armed=7200
        )

        class Disarmed(PostgresTailer):
            armings = 0

            async def _arm(self, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
                Disarmed.armings += 1
                await connection.execute("SELECT setval('runcast.bell', 0)")
                await asyncio.sleep(dice.uniform(0, 0.003))
                await super()._arm(connection)

        async def write(connection: asyncpg.Connection, run_id: str) -> None:
            await asyncio.sleep(dice.uniform(0, 0.01))
            async with connection.transaction():
                await insert(connection, run_id)
                await asyncio.sleep(dice.choice((0, 0, dice.uniform(0, 0.015))))

        writers = [await connect() for _ in range(4)]
        async with following(database_url, pace=pace, kind=Disarmed) as feed:
            for number in range(1000):
                if Disarmed.armings >= 100:
                    break
                names = [f"run_{number}_{each}" for each in range(len(writers))]
                await asyncio.gather(*map(write, writers, names))
                await feed.sink.has(*names)
            else:
                raise AssertionError("the writers hardly met an arming")
            assert feed.tailer.misses == 0

    async def test_no_notification_is_sent_to_a_busy_tailer(
        self, database_url: str, sql: asyncpg.Connection, connect: Connect
    ) -> None:
        rings = 0
        marks: asyncio.Queue[str] = asyncio.Queue()

        def ring(_connection: object, _pid: int, _channel: str, payload: object) -> None:
            nonlocal rings
            if payload:
                marks.put_nowait(str(payload))
            else:
                rings += 1

        listener = await connect()
        await listener.add_listener("runcast_bell", ring)

        class Arming(PostgresTailer):
            count = 0

            async def _arm(self, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
                await super()._arm(connection)
                Arming.count += 1

        # It takes more than half a second without any change to get this one to sleep again.
        pace = Pace(quick=0.04, unwatched=3, recheck=3600, armed=7200)
        async with following(database_url, pace=pace, kind=Arming) as feed:
            await feed.asleep()
            number, armed = 0, -1
            while armed < Arming.count:  # again if it fell asleep, as where the machine is busy
                armed = Arming.count
                while await is_armed(sql):
                    await insert(sql, f"run_{number}")  # one that comes alone does not wake it
                    await feed.sink.has(f"run_{number}")
                    number, armed = number + 1, Arming.count
                await sql.execute("NOTIFY runcast_bell, 'awake'")
                assert await marks.get() == "awake"
                assert rings > 0
                rings = 0
                for _ in range(200):
                    await insert(sql, f"run_{number}")
                    number += 1
                await feed.sink.has(*(f"run_{each}" for each in range(number)))
                await sql.execute("NOTIFY runcast_bell, 'end'")
                assert await marks.get() == "end"
            assert rings == 0

    async def test_who_wakes_does_not_silence_it_for_another_sleeper(
        self, database_url: str, sql: asyncpg.Connection
    ) -> None:
        count = Silencing.count
        soon_awake = Pace(lone=3600, recheck=3600, armed=7200)
        always_asleep = Pace(lone=0, recheck=3600, armed=7200)
        async with following(database_url, pace=soon_awake, kind=Silencing) as one:
            async with following(database_url, pace=always_asleep) as other:
                for number in range(10):
                    await one.asleep()
                    await other.asleep()
                    await insert(sql, f"run_{number}")
                    await one.sink.has(f"run_{number}")
                    await other.sink.has(f"run_{number}")
                assert Silencing.count == count
            while Silencing.count == count:  # the other one is gone, and needs no bell any more
                await one.asleep()
                number += 1
                await insert(sql, f"run_{number}")
                await one.sink.has(f"run_{number}")

    async def test_bursts_of_writers_while_many_fall_asleep_and_wake(
        self, database_url: str, sql: asyncpg.Connection, connect: Connect
    ) -> None:
        """What a sleeper is not rung for, because another one silenced the bell, never arrives."""
        dice = random.Random(SEED)
        pace = Pace(quick=0.0005, empty_reads=2, watch=0.001, lone=9, recheck=3600, armed=7200)

        async with contextlib.AsyncExitStack() as stack:
            feeds = [
                await stack.enter_async_context(following(database_url, pace=pace, kind=Silencing))
                for _ in range(3)
            ]
            number = 0
            enough = Silencing.count + 20
            while Silencing.count < enough:
                for _ in range(dice.randint(1, 3)):
                    number += 1
                    await insert(sql, f"run_{number}")
                for feed in feeds:
                    await feed.sink.has(f"run_{number}")
                await asyncio.sleep(dice.uniform(0, 0.005))
            assert all(feed.tailer.misses == 0 for feed in feeds)

    async def test_two_tailers_share_it(self, database_url: str, sql: asyncpg.Connection) -> None:
        async with (
            following(database_url, pace=BELL_ALONE) as first,
            following(database_url, pace=BELL_ALONE) as second,
        ):
            for number in range(10):
                await first.asleep()
                await second.asleep()
                await insert(sql, f"run_{number}")
                await first.sink.has(f"run_{number}")
                await second.sink.has(f"run_{number}")

    async def test_sleepers_set_it_again_before_it_lapses(
        self, database_url: str, sql: asyncpg.Connection
    ) -> None:
        pace = Pace(recheck=0.05, armed=60)
        async with following(database_url, pace=pace) as feed:
            await feed.asleep()
            armed_until = await sql.fetchval("SELECT last_value FROM bell")
            reads = feed.tailer.counts.reads
            await feed.sink.until(lambda: feed.tailer.counts.reads > reads + 3)
            assert await sql.fetchval("SELECT last_value FROM bell") > armed_until
            assert feed.tailer.state is State.SLEEPING

    async def test_a_lapse_is_noticed_and_who_wrote_in_it_is_waited_for(
        self, database_url: str, sql: asyncpg.Connection, connect: Connect
    ) -> None:
        held = await connect()
        async with following(database_url, pace=Pace(recheck=0.3, armed=60)) as feed:
            await feed.asleep()
            # All at once: a sleeper that looks in between sets the bell again.
            await held.execute(
                "BEGIN; SELECT setval('bell', 0);"
                " INSERT INTO runs (id, environment_id, task) VALUES ('held', 'env_a', 'task')"
            )
            await feed.sink.until(lambda: feed.tailer.state is State.WATCHING)
            await held.execute("COMMIT")
            await feed.sink.has("held")
            assert feed.tailer.misses == 0

    async def test_a_change_that_no_trigger_saw_is_found_and_counted(
        self, database_url: str, sql: asyncpg.Connection
    ) -> None:
        async with following(database_url, pace=Pace(recheck=0.05)) as feed:
            await feed.asleep()
            await sql.execute("ALTER TABLE runs DISABLE TRIGGER d_ring")
            await insert(sql, "run_1")
            await feed.sink.has("run_1")
            await feed.sink.until(lambda: feed.tailer.misses == 1)


@pytest.fixture
def preparing_server() -> Iterator[str]:
    """A server that allows prepared transactions."""
    settings = {"max_prepared_transactions": "5", "fsync": "off"}
    with temporary_folder() as folder, start_embedded(folder, settings=settings) as server:
        yield server.url


class TestPreparedTransactions:
    async def test_they_arrive_when_they_are_committed(self, preparing_server: str) -> None:
        sql = await asyncpg.connect(preparing_server, server_settings={"search_path": "runcast"})
        try:
            await migrate(sql)
            await sql.execute(
                "INSERT INTO environments (id, slug, name) VALUES ('env_a', 'a', 'A')"
            )
            async with following(preparing_server, pace=BELL_ALONE) as feed:
                for name in ("kept", "undone"):
                    await sql.execute("BEGIN")
                    await insert(sql, name)
                    await sql.execute(f"PREPARE TRANSACTION '{name}'")
                await insert(sql, "run_1")
                await feed.sink.has("run_1")
                assert set(feed.sink.runs) == {"run_1"}
                await sql.execute("ROLLBACK PREPARED 'undone'")
                await sql.execute("COMMIT PREPARED 'kept'")
                await feed.sink.has("kept")
                await feed.asleep()
                assert set(feed.sink.runs) == {"run_1", "kept"}
        finally:
            await sql.close()


_CUT_OFF = (
    OSError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)


class Writer:
    """Inserts runs one after the other, whatever happens to its connection or to the server."""

    def __init__(self, url: str, name: str) -> None:
        self._url = url
        self._name = name
        self._wrote = asyncio.Event()
        self.committed: list[str] = []

    async def run(self) -> None:
        while True:
            with contextlib.suppress(*_CUT_OFF):
                connection = await asyncpg.connect(
                    self._url, server_settings={"search_path": "runcast"}
                )
                try:
                    while True:
                        run_id = f"{self._name}_{len(self.committed)}"
                        await connection.execute(
                            "INSERT INTO runs (id, environment_id, task)"
                            " VALUES ($1, 'env_a', 'task') ON CONFLICT DO NOTHING",
                            run_id,
                        )
                        self.committed.append(run_id)
                        self._wrote.set()
                finally:
                    connection.terminate()
            await asyncio.sleep(0.01)

    async def wrote(self, count: int) -> None:
        """Wait until so many more were committed."""
        goal = len(self.committed) + count
        async with asyncio.timeout(PATIENCE_SECONDS):
            while len(self.committed) < goal:
                self._wrote.clear()
                await self._wrote.wait()


@contextlib.asynccontextmanager
async def writing(url: str, count: int = 3) -> AsyncIterator[list[Writer]]:
    """Keep so many writers at work, in the environment `env_a`."""
    writers = [Writer(url, f"writer_{number}") for number in range(count)]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(writer.run()) for writer in writers]
        yield writers
        for task in tasks:
            task.cancel()


@pytest.mark.chaos
class TestLostConnections:
    async def test_terminated_again_and_again_under_load(
        self, database_url: str, sql: asyncpg.Connection
    ) -> None:
        async with following(database_url) as feed, writing(database_url) as writers:
            for number in range(1, 11):
                await writers[0].wrote(20)
                await feed.sink.has(writers[0].committed[-1])
                ended = await sql.fetchval(
                    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
                    " WHERE application_name = 'runcast tailer' AND datname = current_database()"
                )
                assert ended >= 1  # one that was ended before may still be going
                await feed.sink.until(lambda number=number: feed.tailer.counts.reconnects >= number)  # type: ignore[misc]
            await writers[0].wrote(20)
            committed = {run_id for writer in writers for run_id in writer.committed}
            await feed.sink.has(*committed)
            assert feed.sink.restarts == []

    async def test_what_comes_while_a_sleeper_reconnects_is_read(
        self, database_url: str, sql: asyncpg.Connection
    ) -> None:
        async with following(database_url, pace=BELL_ALONE) as feed:
            for number in range(10):
                await feed.asleep()
                async with sql.transaction():
                    await sql.fetch(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                        " WHERE application_name = 'runcast tailer'"
                        " AND datname = current_database()"
                    )
                    await insert(sql, f"run_{number}")
                await feed.sink.has(f"run_{number}")

    async def test_killed_server_under_load(
        self, restartable_postgres: RestartablePostgres
    ) -> None:
        url = restartable_postgres.url
        await add_environment(url)
        async with following(url) as feed, writing(url) as writers:
            for _ in range(2):
                await writers[0].wrote(50)
                await restartable_postgres.kill()
            await writers[0].wrote(50)
            committed = {run_id for writer in writers for run_id in writer.committed}
            await feed.sink.has(*committed)
            assert feed.tailer.counts.reconnects >= 2

    async def test_server_paused_for_longer_than_an_answer_may_take(
        self,
        restartable_postgres: RestartablePostgres,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(tailer_module, "_ANSWER_SECONDS", 0.3)
        given_up = asyncio.Event()

        class Watched(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                given_up.set()

        watched = Watched(logging.WARNING)
        url = restartable_postgres.url
        await add_environment(url)
        async with following(url) as feed, writing(url) as writers:
            await writers[0].wrote(50)
            await restartable_postgres.pause()
            given_up.clear()
            tailer_module.logger.addHandler(watched)
            async with asyncio.timeout(PATIENCE_SECONDS):
                await given_up.wait()
            tailer_module.logger.removeHandler(watched)
            await restartable_postgres.resume()
            await writers[0].wrote(50)
            committed = {run_id for writer in writers for run_id in writer.committed}
            await feed.sink.has(*committed)
            assert feed.sink.restarts == []
            assert feed.tailer.counts.reconnects >= 1


async def add_environment(url: str) -> None:
    connection = await asyncpg.connect(url, server_settings={"search_path": "runcast"})
    await connection.execute("INSERT INTO environments (id, slug, name) VALUES ('env_a', 'a', 'A')")
    await connection.close()
