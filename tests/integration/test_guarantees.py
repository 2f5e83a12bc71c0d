"""
The whole gateway against real followers: what DESIGN.md promises as G1, G2 and G4.

Snapshot then changes without a gap, the last state always, resuming anywhere without a silent hole.
"""

import asyncio
import os
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import asyncpg
import httpx
import pytest

from runcast.core.position import Position, parse_cursor
from runcast.core.tailing import Pace, State
from runcast.postgres import tailer as tailer_module
from tests.support.followers import Feed, Follower, Transport
from tests.support.gateway_app import PATIENCE_SECONDS, GatewayApp, running_app, until
from tests.support.light_follower import LightFollower
from tests.support.oracle import BATCHES, WISHES, Wish, Writers
from tests.support.postgres import RestartablePostgres

SEED = int(os.environ.get("RUNCAST_TEST_SEED") or random.SystemRandom().randrange(1 << 32))
ORACLE_SECONDS = float(os.environ.get("RUNCAST_ORACLE_SECONDS") or 5)

TRANSPORTS: tuple[Transport, ...] = ("header", "query", "socket")

# Small bounds, so that a few runs already need pages, catch-ups and full backlogs.
TIGHT: dict[str, Any] = {
    "snapshot_page_runs": 7,
    "max_backlog_runs": 4,
    "max_concurrent_catch_ups": 3,
    "write_buffer_bytes": 4096,
}

_CUT_OFF = (
    OSError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)


@pytest.fixture
async def app(database_url: str) -> AsyncIterator[GatewayApp]:
    async with running_app(database_url) as app:
        yield app


def feed_of_all(app: GatewayApp) -> Feed:
    return Feed("/realtime/v1/runs", {}, app.key)


def feed_of_tag(app: GatewayApp, tag: str) -> Feed:
    return Feed(f"/realtime/v1/runs?tags={tag}", {"tags": [tag]}, app.key)


def feed_of_run(app: GatewayApp, run_id: str, *, stay: bool = False) -> Feed:
    return Feed(f"/realtime/v1/runs/{run_id}", {"run": run_id}, app.key, stay=stay)


async def revisions(sql: asyncpg.Connection, condition: str = "true") -> dict[str, int]:
    """What a follower of these runs must hold in the end."""
    rows = await sql.fetch(f"SELECT id, version FROM runs WHERE {condition}")
    return {row["id"]: row["version"] for row in rows}


@asynccontextmanager
async def writing(url: str, environment_id: str, *, undoing: bool = True) -> AsyncIterator["Load"]:
    """Keep three writers at work, whatever happens to the server, until the context ends."""
    load = Load(url, environment_id, undoing=undoing)
    async with asyncio.TaskGroup() as group:
        for number in range(3):
            group.create_task(load.run(number))
        try:
            yield load
        finally:
            load.stop()


class Load:
    """
    Writers that insert, change, re-tag and delete runs, each a set of its own.

    ``undoing``: they also begin changes that they roll back.
    """

    def __init__(self, url: str, environment_id: str, *, undoing: bool) -> None:
        self._url = url
        self._undoing = undoing
        self._environment_id = environment_id
        self._wrote = asyncio.Event()
        self._stopped = False
        self.commits = 0

    def stop(self) -> None:
        """Let everyone end what they are doing: nothing is committed after that."""
        self._stopped = True

    async def run(self, number: int) -> None:
        dice = random.Random(f"{SEED} {number}")
        while not self._stopped:
            try:
                connection = await asyncpg.connect(
                    self._url, server_settings={"search_path": "runcast"}
                )
            except _CUT_OFF:
                await asyncio.sleep(0.01)  # there is nothing that would tell when it is back
                continue
            try:
                while not self._stopped:
                    await self._write(connection, f"run_{number}_{dice.randrange(8)}", dice)
                    self.commits += 1
                    self._wrote.set()
            except _CUT_OFF:
                pass
            finally:
                connection.terminate()

    async def wrote(self, count: int) -> None:
        """Wait until so many more transactions were committed."""
        goal = self.commits + count
        async with asyncio.timeout(PATIENCE_SECONDS):
            while self.commits < goal:
                self._wrote.clear()
                await self._wrote.wait()

    async def _write(
        self, connection: asyncpg.Connection, run_id: str, dice: random.Random
    ) -> None:
        tags = [tag for tag in ("x", "y") if dice.random() < 0.7]
        match dice.randrange(6):
            case 0:
                await connection.execute("DELETE FROM runs WHERE id = $1", run_id)
            case 1:
                await connection.execute("UPDATE runs SET tags = $2 WHERE id = $1", run_id, tags)
            case 2 if self._undoing:
                transaction = connection.transaction()
                await transaction.start()
                await connection.execute("UPDATE runs SET attempt_count = 99 WHERE id = $1", run_id)
                await transaction.rollback()
            case _:
                await connection.execute(
                    "INSERT INTO runs (id, environment_id, task, tags) VALUES ($1, $2, 'task', $3)"
                    " ON CONFLICT (id) DO UPDATE SET attempt_count = runs.attempt_count + 1",
                    run_id,
                    self._environment_id,
                    tags,
                )


async def all_hold_the_truth(app: GatewayApp, followers: list[Follower]) -> None:
    """Wait until each of these followers of all runs, or of a tag, holds what the database does."""
    for follower in followers:
        tags = follower.feed.asked.get("tags")
        condition = f"tags @> '{{{tags[0]}}}'" if tags else "true"
        expected = await revisions(app.sql, condition)
        await follower.until(
            lambda follower, expected=expected: follower.state() == expected  # type: ignore[misc]
        )


class TestSnapshotThenChanges:
    @pytest.mark.parametrize("transport", TRANSPORTS)
    async def test_a_transaction_that_was_open_at_the_snapshot_is_not_missed(
        self, app: GatewayApp, database_url: str, transport: Transport
    ) -> None:
        held = await asyncpg.connect(database_url, server_settings={"search_path": "runcast"})
        try:
            await app.insert(id="run_1")
            transaction = held.transaction()
            await transaction.start()
            await held.execute(
                "INSERT INTO runs (id, environment_id, task) VALUES ('held', $1, 'task')",
                app.environment_id,
            )
            await held.execute("UPDATE runs SET attempt_count = 1 WHERE id = 'run_1'")
            follower = Follower(app.url, feed_of_all(app), transport)
            follower.start()
            await follower.caught_up()
            assert set(follower.runs) == {"run_1"}
            for number in range(50):
                await app.insert(id=f"other_{number}")
            await follower.until(lambda follower: len(follower.runs) == 51)
            resumed = Follower(app.url, follower.feed, transport, cursor=follower.cursor)
            resumed.runs.update(follower.runs)
            await transaction.commit()
            resumed.start()
            for each in (follower, resumed):
                await each.until(lambda each: "held" in each.runs)
                await each.until(lambda each: each.runs["run_1"]["attemptCount"] == 1)
                assert each.state() == await revisions(app.sql)
                await each.drop()
        finally:
            await held.close()

    async def test_subscribing_again_and_again_while_writers_run(
        self, app: GatewayApp, database_url: str
    ) -> None:
        followers: list[Follower] = []
        async with writing(database_url, app.environment_id) as load:
            for number in range(40):
                follower = Follower(app.url, feed_of_tag(app, "x"), TRANSPORTS[number % 3])
                follower.start()
                followers.append(follower)
                await load.wrote(3)
        await all_hold_the_truth(app, followers)

    async def test_a_snapshot_of_many_pages_while_runs_change(self, database_url: str) -> None:
        async with running_app(database_url, **TIGHT) as app:
            await app.sql.execute(
                "INSERT INTO runs (environment_id, task, tags)"
                " SELECT $1, 'bulk', '{x}' FROM generate_series(1, 500)",
                app.environment_id,
            )
            followers = []
            async with writing(database_url, app.environment_id) as load:
                for transport in TRANSPORTS * 2:
                    follower = Follower(app.url, feed_of_tag(app, "x"), transport)
                    follower.start()
                    followers.append(follower)
                    await load.wrote(5)
                    await app.sql.execute(
                        "UPDATE runs SET tags = CASE WHEN random() < 0.5 THEN '{x}' ELSE '{}' END"
                        "::text[] WHERE id IN (SELECT id FROM runs WHERE task = 'bulk' LIMIT 50)"
                    )
            await all_hold_the_truth(app, followers)


class TestLastState:
    @pytest.mark.parametrize("tier", ["auto", "portable"])
    @pytest.mark.parametrize("transport", ["header", "socket"])
    async def test_a_reader_that_pauses_gets_the_newest_states_and_the_terminal_one(
        self, database_url: str, tier: str, transport: Transport
    ) -> None:
        async with running_app(database_url, transport=tier, max_backlog_runs=4) as app:
            names = [await app.insert(id=f"run_{number}", tags=["x"]) for number in range(12)]
            feeds = [feed_of_tag(app, "x"), feed_of_run(app, names[0])]
            followers = [Follower(app.url, feed, transport) for feed in feeds]
            for follower in followers:
                follower.start()
                await follower.caught_up()
                follower.stop_reading()
            for number in range(20):
                await app.sql.execute(
                    "UPDATE runs SET metadata = jsonb_build_object('n', $1::int, 'pad', $2::text)",
                    number,
                    "x" * 60_000,
                )
            await app.sql.execute("UPDATE runs SET metadata = '{}', status = 'CANCELED'")
            expected = await revisions(app.sql)
            for follower in followers:
                follower.go_on_reading()
            await followers[1].until(lambda follower: follower.ended == "finished")
            await followers[0].until(lambda follower: follower.state() == expected)
            assert {run["status"] for run in followers[0].runs.values()} == {"CANCELED"}
            # Some were skipped: that is what keeps memory bounded.
            assert followers[0].received < 20 * len(names)


class TestResume:
    @pytest.mark.parametrize("tier", ["auto", "portable"])
    async def test_at_random_moments_over_every_transport(
        self, database_url: str, tier: str
    ) -> None:
        dice = random.Random(SEED)
        async with running_app(database_url, transport=tier, **TIGHT) as app:
            followers = [
                Follower(app.url, feed)
                for feed in (feed_of_all(app), feed_of_tag(app, "x"), feed_of_tag(app, "y"))
            ]
            async with writing(database_url, app.environment_id) as load:
                for _ in range(60):
                    follower = dice.choice(followers)
                    await follower.drop()
                    await load.wrote(dice.choice((0, 1, 10)))
                    follower.transport = dice.choice(TRANSPORTS)
                    follower.start()
                    if dice.random() < 0.7:
                        heard = follower.received + dice.randrange(1, 6)
                        await follower.until(
                            lambda follower, heard=heard: follower.received >= heard  # type: ignore[misc]
                        )
            for follower in followers:
                if not follower.connected:
                    follower.start()
            await all_hold_the_truth(app, followers)
            assert sum(follower.connections for follower in followers) > 30
            assert all(not follower.resets for follower in followers)

    async def test_a_cursor_of_sse_continues_on_a_websocket_and_on_another_gateway(
        self, app: GatewayApp, database_url: str
    ) -> None:
        await app.insert(id="kept", tags=["x"])
        await app.insert(id="left", tags=["x"])
        follower = Follower(app.url, feed_of_tag(app, "x"))
        follower.start()
        await follower.caught_up()
        await follower.drop()
        await app.update("left", tags=["y"])
        await app.insert(id="came", tags=["x"])
        follower.transport = "socket"
        follower.start()
        await follower.caught_up()
        assert set(follower.runs) == {"kept", "came"}
        await follower.drop()
        received = follower.received
        await app.delete("kept")
        async with running_app(database_url, transport="portable") as other:
            follower.url, follower.transport = other.url, "query"
            follower.start()
            await follower.caught_up()
            assert set(follower.runs) == {"came"}
            assert follower.received <= received + 3  # a continuation, not a snapshot
            assert follower.resets == []

    async def test_the_end_of_a_run_that_nobody_was_there_to_see(self, app: GatewayApp) -> None:
        for transport in TRANSPORTS:
            run_id = await app.insert()
            follower = Follower(app.url, feed_of_run(app, run_id), transport)
            follower.start()
            await follower.caught_up()
            await follower.drop()
            await app.finish(run_id, output="1")
            follower.start()
            await follower.until(lambda follower: follower.ended == "finished")
            assert follower.runs[run_id]["output"] == 1
            await follower.over()
            heard = follower.received
            follower.start()  # what a browser does, and what has to stop it
            await follower.until(lambda follower: follower.ended == "finished")
            assert follower.received - heard <= 2
            assert set(follower.runs) == {run_id}

    @pytest.mark.parametrize(
        "cursor", ["x", "AAAA", "!", "AQ", "A" * 70_000, "0_0", "%00", "AQEBAQ=="]
    )
    async def test_garbage_is_refused(self, app: GatewayApp, cursor: str) -> None:
        run_id = await app.insert()
        async with httpx.AsyncClient(
            base_url=app.url, headers=app.bearer, trust_env=False
        ) as client:
            for path in ("/realtime/v1/runs", f"/realtime/v1/runs/{run_id}"):
                answers = [await client.get(path, headers={"last-event-id": cursor})]
                if len(cursor) < 1000:
                    answers.append(await client.get(path, params={"cursor": cursor}))
                for answer in answers:
                    if answer.status_code != 431:
                        assert answer.status_code == 400
                        assert answer.json()["code"] == "invalid_cursor"
        follower = Follower(app.url, feed_of_all(app), "socket", cursor=cursor[:1000])
        follower.start()
        await follower.until(lambda follower: follower.refused == "invalid_cursor")

    @pytest.mark.parametrize("transport", TRANSPORTS)
    async def test_what_cannot_be_continued_is_reset_and_begins_again(
        self, app: GatewayApp, transport: Transport
    ) -> None:
        for number in range(5):
            await app.insert(id=f"run_{number}")
        await app.delete("run_4")
        first = Follower(app.url, feed_of_all(app), transport)
        first.start()
        await first.caught_up()
        await first.drop()
        assert first.cursor is not None
        here = parse_cursor(first.cursor)
        old = replace(here, xmax=here.xmax - 1, in_flight=())
        cases: list[tuple[str, Position]] = [
            ("other_database", replace(here, database=here.database ^ 1)),
            ("ahead", replace(here, xmax=here.xmax + 100_000)),
            ("too_old", old),
        ]
        await app.sql.execute("UPDATE following SET horizon = $1", here.xmax - 1)
        for reason, position in cases:
            follower = Follower(app.url, first.feed, transport, cursor=position.cursor())
            follower.runs["run_4"] = {"id": "run_4", "revision": 1}
            follower.start()
            await follower.caught_up()
            assert follower.resets == [reason]
            assert follower.state() == await revisions(app.sql)
            await app.update("run_0", attempt_count=follower.runs["run_0"]["attemptCount"] + 1)
            expected = await revisions(app.sql)
            await follower.until(
                lambda follower, expected=expected: follower.state() == expected  # type: ignore[misc]
            )
            await follower.drop()
        # What is recent enough still continues.
        first.start()
        await first.caught_up()
        assert first.resets == []
        assert first.state() == await revisions(app.sql)

    async def test_more_departures_than_are_told_one_by_one(
        self, app: GatewayApp, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("runcast.postgres.feed_reader.MAX_DEPARTURES", 10)
        for number in range(12):
            await app.insert(id=f"run_{number}")
        follower = Follower(app.url, feed_of_all(app))
        follower.start()
        await follower.caught_up()
        await follower.drop()
        await app.sql.execute("DELETE FROM runs WHERE id <> 'run_7'")
        follower.start()
        await follower.caught_up()
        assert follower.resets == ["too_many_departures"]
        assert set(follower.runs) == {"run_7"}


@pytest.mark.chaos
class TestLostDatabase:
    """Followers notice a delay and nothing else."""

    async def _followers(self, app: GatewayApp) -> list[Follower]:
        followers = [
            Follower(app.url, feed, transport)
            for transport in TRANSPORTS
            for feed in (feed_of_all(app), feed_of_tag(app, "x"))
        ]
        for follower in followers:
            follower.start()
            await follower.caught_up()
        return followers

    async def test_the_tailer_is_terminated_again_and_again(
        self, app: GatewayApp, database_url: str
    ) -> None:
        followers = await self._followers(app)
        async with writing(database_url, app.environment_id) as load:
            for _ in range(8):
                await load.wrote(40)
                await app.sql.fetch(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE application_name LIKE 'runcast%' AND datname = current_database()"
                )
        await all_hold_the_truth(app, followers)
        self._noticed_nothing(followers)
        assert app.gateway.tailer.counts.reconnects > 0

    async def test_killed_and_restarted_under_load(
        self, restartable_postgres: RestartablePostgres
    ) -> None:
        url = restartable_postgres.url
        async with running_app(url) as app:
            followers = await self._followers(app)
            joined = Follower(app.url, feed_of_all(app), "socket")
            # Numbers of what was undone may be forgotten by a crash, and then it may say `reset`.
            async with writing(url, app.environment_id, undoing=False) as load:
                for _ in range(2):
                    await load.wrote(100)
                    killing = asyncio.create_task(restartable_postgres.kill())
                    if not joined.connected:
                        joined.start()  # it comes while there is nothing to read from
                    await killing
                await load.wrote(100)
                if not joined.connected:
                    joined.start()
            await self._truth_of(url, [*followers, joined], app)
            self._noticed_nothing(followers)

    async def test_paused_for_longer_than_an_answer_may_take(
        self, restartable_postgres: RestartablePostgres, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(tailer_module, "_ANSWER_SECONDS", 0.3)
        url = restartable_postgres.url
        async with running_app(url) as app:
            followers = await self._followers(app)
            async with writing(url, app.environment_id) as load:
                await load.wrote(100)
                await restartable_postgres.pause()
                lost = app.gateway.tailer.counts.reconnects
                await until(lambda: app.gateway.tailer.counts.reconnects > lost + 1)
                await restartable_postgres.resume()
                await load.wrote(100)
            await self._truth_of(url, followers, app)
            self._noticed_nothing(followers)

    async def test_a_cursor_with_numbers_that_a_crash_forgot(
        self, restartable_postgres: RestartablePostgres
    ) -> None:
        """
        Transactions that end without effect leave no trace on disk at once. After a crash their
        numbers are given out again, to transactions that do change runs.
        """
        url = restartable_postgres.url
        # Reads go on for seconds after a change, and nothing is armed (a write) in this time.
        async with running_app(url, pace=Pace(unwatched=10, empty_reads=9)) as app:
            run_id = await app.insert()
            live = Follower(app.url, feed_of_all(app))
            away = Follower(app.url, feed_of_all(app), "socket")
            live.start()
            await live.caught_up()
            await app.update(run_id, attempt_count=1)
            await live.until(lambda live: live.runs[run_id]["attemptCount"] == 1)
            await _forgettable(app.sql)
            assert live.cursor is not None
            seen = parse_cursor(live.cursor).xmax
            await until(lambda: app.gateway.hub.position.xmax > seen + 40)
            away.start()
            await away.caught_up()
            assert away.cursor is not None
            before = parse_cursor(away.cursor)
            await away.drop()
            await restartable_postgres.kill()
            await _change_under_old_numbers(url, before)
            away.start()
            for follower in (away, live):
                await follower.until(lambda each: each.runs[run_id]["attemptCount"] == 2)

    async def test_a_subscriber_whose_snapshot_saw_numbers_that_a_crash_forgot(
        self, restartable_postgres: RestartablePostgres
    ) -> None:
        url = restartable_postgres.url
        async with running_app(url, pace=Pace(recheck=3600, armed=7200)) as app:
            run_id = await app.insert()
            await until(lambda: app.gateway.tailer.state is State.SLEEPING)
            await _forgettable(app.sql)
            live = Follower(app.url, feed_of_all(app))
            live.start()
            await live.caught_up()
            assert live.cursor is not None
            before = parse_cursor(live.cursor)
            await restartable_postgres.kill()
            await _change_under_old_numbers(url, before)
            await live.until(lambda each: each.runs[run_id]["attemptCount"] == 2)

    async def _truth_of(self, url: str, followers: list[Follower], app: GatewayApp) -> None:
        app.sql = await asyncpg.connect(url, server_settings={"search_path": "runcast"})
        try:
            await all_hold_the_truth(app, followers)
        finally:
            await app.sql.close()

    def _noticed_nothing(self, followers: list[Follower]) -> None:
        for follower in followers:
            assert follower.connected
            assert follower.connections == 1
            assert follower.resets == []


async def _forgettable(sql: asyncpg.Connection) -> None:
    """Use up numbers of transactions, and keep the server from writing them down for a while."""
    await sql.execute("ALTER SYSTEM SET wal_writer_delay = '10s'")
    await sql.execute("SELECT pg_reload_conf()")
    for _ in range(50):
        await sql.execute("BEGIN; SELECT pg_current_xact_id(); ROLLBACK")


async def _change_under_old_numbers(url: str, before: Position) -> None:
    """Change all runs in a transaction that ``before`` takes for seen, and go beyond it."""
    sql = await asyncpg.connect(url, server_settings={"search_path": "runcast"})
    try:
        changed_in = await sql.fetchval(
            "UPDATE runs SET attempt_count = 2 RETURNING changed_in::text::bigint"
        )
        if not before.sees(changed_in):
            pytest.skip("the server had written the numbers down before it was killed")
        for _ in range(60):
            await sql.execute("SELECT pg_current_xact_id()")
    finally:
        await sql.close()


@pytest.mark.timeout(180 + ORACLE_SECONDS)
class TestOracle:
    async def test_random_writers_and_followers_that_come_and_go(
        self, database_url: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with capsys.disabled():
            print(f" [oracle seed {SEED}]", end="")  # noqa: T201 - to run it again
        async with (
            running_app(database_url, transport="auto", **TIGHT) as app,
            running_app(database_url, transport="portable", **TIGHT) as other,
        ):
            for batch in BATCHES:
                await app.sql.execute(
                    "INSERT INTO batches (id, environment_id, run_count) VALUES ($1, $2, 0)",
                    batch,
                    app.environment_id,
                )
            followers = {wish: Follower(app.url, wish.feed(app)) for wish in WISHES}
            writers = Writers(database_url, app.environment_id, SEED)
            async with asyncio.TaskGroup() as group:
                asyncio.get_running_loop().call_later(ORACLE_SECONDS, writers.stop)
                for number in range(6):
                    group.create_task(writers.run(number, patient=number < 2))
                for number, follower in enumerate(followers.values()):
                    dice = random.Random(f"{SEED} follower {number}")
                    group.create_task(_come_and_go(follower, (app.url, other.url), writers, dice))
            for wish, follower in followers.items():
                await _settle(follower, wish, app)
            connections = sum(follower.connections for follower in followers.values())
            assert connections > len(followers), "nobody came back"
            assert all(not follower.resets for follower in followers.values())
            assert app.gateway.tailer.misses == other.gateway.tailer.misses == 0
            for follower in followers.values():
                await follower.drop()


async def _come_and_go(
    follower: Follower, urls: tuple[str, str], writers: Writers, dice: random.Random
) -> None:
    """Connect to any gateway over any transport, read, pause, and lose the connection."""
    while not writers.are_over():
        follower.url, follower.transport = dice.choice(urls), dice.choice(TRANSPORTS)
        follower.start()
        for _ in range(dice.randrange(1, 4)):
            await writers.moved(dice.randrange(1, 60))
            if dice.random() < 0.3:
                follower.stop_reading()
                await writers.moved(dice.randrange(1, 40))
                follower.go_on_reading()
        if writers.are_over():
            return
        await follower.drop()


async def _settle(follower: Follower, wish: Wish, app: GatewayApp) -> None:
    """Wait until a follower holds what the database says of its wish."""
    if not follower.connected or not follower.up_to_date:
        await follower.drop()  # it may have been refused before the last write
        follower.start()
    expected = await wish.expected(app.sql, app.environment_id)

    def holds(follower: Follower) -> bool:
        answered = follower.up_to_date or (follower.refused is not None and not expected)
        return answered and follower.state() == expected

    try:
        await follower.until(holds)
    except AssertionError as error:
        raise AssertionError(f"seed {SEED}, {wish}: {expected} expected; {error}") from error


@pytest.mark.slow
class TestMany:
    COUNT = 1000

    async def test_subscribers_of_one_run(self, app: GatewayApp) -> None:
        run_id = await app.insert()
        followers = await self._followers(app, [run_id] * self.COUNT)
        for number in range(5):
            await app.update(run_id, attempt_count=number)
        await app.finish(run_id, output="1")
        last = await app.sql.fetchval("SELECT version FROM runs")
        for follower in followers:
            await follower.over()
            assert (follower.revisions[run_id], follower.ended) == (last, "finished")
        await app.deserted()

    async def test_subscribers_of_a_run_each(self, app: GatewayApp) -> None:
        rows = await app.sql.fetch(
            "INSERT INTO runs (environment_id, task) SELECT $1, 'task'"
            " FROM generate_series(1, $2::int) RETURNING id",
            app.environment_id,
            self.COUNT,
        )
        followers = await self._followers(app, [row["id"] for row in rows])
        dice = random.Random(SEED)
        for row in dice.sample(rows, 300):
            await app.update(row["id"], attempt_count=1)
        await app.sql.execute("UPDATE runs SET attempt_count = 2")
        await app.sql.execute("UPDATE runs SET status = 'COMPLETED_SUCCESSFULLY'")
        last = await revisions(app.sql)
        for follower in followers:
            await follower.over()
            assert follower.run_id is not None
            assert follower.revisions == {follower.run_id: last[follower.run_id]}
            assert follower.ended == "finished"
        await app.deserted()

    async def _followers(self, app: GatewayApp, run_ids: list[str]) -> list[LightFollower]:
        followers = [LightFollower(app.port, app.key, run_id=run_id) for run_id in run_ids]
        for start in range(0, len(followers), 100):
            await asyncio.gather(*(each.connect() for each in followers[start : start + 100]))
        return followers
