"""Snapshots, and what changed since one: nothing missed or invented, whatever commits when."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import asyncpg
import pytest

from runcast.core.page import ChangePage, PageKey, SnapshotPart
from runcast.core.position import Position
from runcast.core.run import RunChange
from runcast.core.selector import Selector
from runcast.errors import InvalidBody, PositionLost
from runcast.hub import gathering
from runcast.hub.shared_reads import SharedReads
from runcast.postgres import feed_reader
from runcast.postgres.database import Database
from runcast.postgres.run_store import PostgresRunStore
from tests.integration.conftest import Connect
from tests.support.explain import ExplainingDatabase
from tests.support.snapshots import read_snapshot

EVERYTHING = Selector("env_a")
TAGGED = Selector("env_a", tags=("x",))


async def here(store: PostgresRunStore) -> Position:
    return (await read_snapshot(store, EVERYTHING, limit=1)).position


async def insert(connection: asyncpg.Connection, run_id: str, *tags: str) -> None:
    await connection.execute(
        "INSERT INTO runs (id, environment_id, task, tags) VALUES ($1, 'env_a', 'task', $2)",
        run_id,
        tags,
    )


async def changes_since(
    store: PostgresRunStore, since: Position, selector: Selector = EVERYTHING
) -> tuple[dict[str, RunChange], Position]:
    """All pages of what changed, by run, and the position to go on from."""
    page = await store.read_changes(selector, since=since, after=None, limit=2)
    first = page.position
    changes = list(page.changes)
    while page.next is not None:
        page = await store.read_changes(selector, since=since, after=page.next, limit=2)
        changes.extend(page.changes)
    return {change.facets.id: change for change in changes}, first


async def snapshot_ids(
    store: PostgresRunStore, selector: Selector, *, limit: int = 100
) -> list[str]:
    ids: list[str] = []
    after: PageKey | None = None
    while True:
        page = await read_snapshot(store, selector, after=after, limit=limit)
        assert len(page.changes) <= limit
        ids.extend(change.facets.id for change in page.changes)
        after = page.next
        if after is None:
            return ids


class TestSnapshot:
    async def test_has_a_position_also_when_nothing_matches(self, store: PostgresRunStore) -> None:
        page = await read_snapshot(store, EVERYTHING)
        assert page.changes == ()
        assert page.next is None
        assert page.position.xmax > 0

    @pytest.mark.parametrize("limit", [1, 2, 3, 7, 8])
    async def test_pages_are_newest_first_and_neither_skip_nor_repeat(
        self, store: PostgresRunStore, sql: asyncpg.Connection, limit: int
    ) -> None:
        # One statement: all seven are of the same moment, so that only the id orders them.
        await sql.execute(
            "INSERT INTO runs (id, environment_id, task, tags)"
            " SELECT 'run_' || n, 'env_a', 't', '{x}' FROM generate_series(1, 6) AS n"
        )
        await insert(sql, "run_newest", "x", "y")
        expected = ["run_newest", "run_6", "run_5", "run_4", "run_3", "run_2", "run_1"]
        assert await snapshot_ids(store, EVERYTHING, limit=limit) == expected
        assert await snapshot_ids(store, TAGGED, limit=limit) == expected

    async def test_selectors_match_as_in_core(
        self, store: PostgresRunStore, sql: asyncpg.Connection
    ) -> None:
        await sql.execute("""
            INSERT INTO batches (id, environment_id, run_count) VALUES ('batch_1', 'env_a', 2);
            INSERT INTO runs (id, environment_id, task, tags, batch_id, created_at) VALUES
                ('r1', 'env_a', 't1', '{x,y}', NULL, '2026-01-01Z'),
                ('r2', 'env_a', 't2', '{x}', 'batch_1', '2026-01-02Z'),
                ('r3', 'env_a', 't1', '{}', 'batch_1', '2026-01-03Z'),
                ('r4', 'env_a', 't1', '{X,"x y"}', NULL, '2026-01-03 00:00:00.000001Z'),
                ('r5', 'env_b', 't1', '{x,y}', NULL, '2026-01-04Z');
        """)
        since = Position((await here(store)).database, 1)
        everything = await read_snapshot(store, EVERYTHING)
        facets = [change.facets for change in everything.changes]
        moment = next(each.created_at for each in facets if each.id == "r4")
        for selector in (
            Selector("env_a", run_id="r1"),
            Selector("env_a", run_id="r5"),
            Selector("env_b", run_id="r5"),
            Selector("env_a", tags=("x",)),
            Selector("env_a", tags=("x", "y")),
            Selector("env_a", tags=("x y",)),
            Selector("env_a", task="t1"),
            Selector("env_a", task="t1", tags=("y",)),
            Selector("env_a", batch_id="batch_1"),
            Selector("env_b", batch_id="batch_1"),
            Selector("env_a", batch_id="batch_1", tags=("x",)),
            Selector("env_a", created_after=moment),
            Selector("env_a", tags=("X",), created_after=moment),
        ):
            all_facets = facets if selector.environment_id == "env_a" else []
            expected = [each.id for each in all_facets if selector.matches(each)]
            if selector == Selector("env_b", run_id="r5"):
                expected = ["r5"]
            assert await snapshot_ids(store, selector) == expected, selector
            changed, _ = await changes_since(store, since, selector)
            assert sorted(changed) == sorted(expected), selector

    async def test_a_page_ends_before_its_rows_get_too_heavy(
        self, store: PostgresRunStore, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(feed_reader, "_PAGE_BYTES", 250_000)
        await sql.execute(
            "INSERT INTO runs (id, environment_id, task, payload)"
            " SELECT 'run_' || n, 'env_a', 't',"
            " repeat('x', CASE n WHEN 3 THEN 900000 ELSE 100000 END)"
            " FROM generate_series(1, 5) AS n"
        )
        sizes, after = [], None
        while True:
            page = await read_snapshot(store, EVERYTHING, after=after, limit=5)
            sizes.append([change.facets.id for change in page.changes])
            after = page.next
            if after is None:
                break
        assert sizes == [["run_5", "run_4"], ["run_3"], ["run_2", "run_1"]]


class TestManyAtOnce:
    """What many ask for at one time, and what one statement answers."""

    @pytest.fixture
    async def runs(self, sql: asyncpg.Connection) -> None:
        await sql.execute("""
            INSERT INTO batches (id, environment_id, run_count) VALUES ('batch_1', 'env_a', 20);
            INSERT INTO runs (id, environment_id, task, tags, batch_id, created_at)
            SELECT 'run_' || n, 'env_a', 'task-' || n % 3, ARRAY['tag:' || n % 20],
                CASE WHEN n % 7 = 0 THEN 'batch_1' END,
                '2026-01-01Z'::timestamptz + n % 10 * interval '1s'
            FROM generate_series(1, 100) AS n
        """)

    @pytest.mark.usefixtures("runs")
    async def test_each_gets_what_it_would_get_alone(self, store: PostgresRunStore) -> None:
        middle = (await read_snapshot(store, EVERYTHING, limit=50)).next
        selectors = [
            EVERYTHING,
            Selector("env_a", run_id="run_8"),
            Selector("env_a", run_id="nobody"),
            Selector("env_a", task="task-1"),
            Selector("env_a", task="task-1", tags=("tag:4",), created_after=1.0),
            Selector("env_a", batch_id="batch_1"),
            Selector("env_b"),
            *(Selector("env_a", tags=(f"tag:{number}",)) for number in range(21)),
        ]
        parts = [
            SnapshotPart(selector, after, limit)
            for selector in selectors
            for after in (None, middle)
            for limit in (1, 4, 200)
        ]
        pages = await store.read_snapshots(parts)
        assert list(pages) == parts
        assert len({page.position for page in pages.values()}) == 1
        for part, page in pages.items():
            alone = await store.read_snapshots([part])
            assert replace(page, position=alone[part].position) == alone[part]
        assert any(page.next for page in pages.values())

    @pytest.mark.usefixtures("runs")
    async def test_a_crowd_is_answered_by_few_statements(
        self, store: PostgresRunStore, database: Database
    ) -> None:
        reads = SharedReads(store, asyncio.Semaphore(2))
        tags = [f"tag:{number}" for number in range(20)]
        pages = await asyncio.gather(
            *(
                reads.read_snapshot(Selector("env_a", tags=(tag,)), after=None, limit=4)
                for tag in tags * 10
            )
        )
        assert [page.changes[0].facets.tags for page in pages] == [(tag,) for tag in tags] * 10
        runs = await asyncio.gather(
            *(reads.read_run("env_a", f"run_{number}") for number in range(200))
        )
        assert [run is not None for run in runs] == [0 < number <= 100 for number in range(200)]
        statements = sum(times.buckets[-1][1] for times in database.queries.values())
        assert statements <= 4

    async def test_the_heavy_ones_are_left_for_later(
        self, store: PostgresRunStore, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(feed_reader, "_PAGE_BYTES", 250_000)
        await sql.execute(
            "INSERT INTO runs (id, environment_id, task, tags, payload)"
            " SELECT 'run_' || n, 'env_a', 't', ARRAY['tag:' || n % 3], repeat('x', 100000)"
            " FROM generate_series(1, 9) AS n"
        )
        parts = [SnapshotPart(Selector("env_a", tags=(f"tag:{n}",)), None, 1) for n in range(4)]
        seen = []
        while parts:
            pages = await store.read_snapshots(parts)
            seen.append([len(page.changes) for page in pages.values()])
            parts = [part for part in parts if part not in pages]
        assert seen == [[1, 0], [1], [1]]
        ids = [f"run_{number}" for number in range(12)]
        assert len(await store.look_up_runs("env_a", ids)) == 2
        reads = SharedReads(store, asyncio.Semaphore(1))
        runs = await asyncio.gather(*(reads.read_run("env_a", run_id) for run_id in ids))
        assert [run.id for run in runs if run is not None] == ids[1:10]

    @pytest.mark.usefixtures("runs")
    async def test_one_that_fails_takes_the_others_with_it_only_once(
        self, store: PostgresRunStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(gathering, "_APART_SECONDS", 3600)
        reads = SharedReads(store, asyncio.Semaphore(2))
        selectors = [Selector("env_a", task=f"task-{number}") for number in range(3)]
        selectors.append(Selector("env_a", created_after=1e300))  # no time of Postgres

        async def ask() -> list[object]:
            return await asyncio.gather(
                *(reads.read_snapshot(each, after=None, limit=4) for each in selectors),
                return_exceptions=True,
            )

        assert [type(answer) for answer in await ask()] == [InvalidBody] * 4
        assert [type(answer) for answer in await ask()] == [ChangePage] * 3 + [InvalidBody]


class TestChanges:
    async def test_commits_in_the_other_order_than_begun(
        self, store: PostgresRunStore, sql: asyncpg.Connection, connect: Connect
    ) -> None:
        early, late = await connect(), await connect()
        start = await here(store)
        early_transaction, late_transaction = early.transaction(), late.transaction()
        await early_transaction.start()
        await insert(early, "early")
        await late_transaction.start()
        await insert(late, "late")
        await late_transaction.commit()
        changes, middle = await changes_since(store, start)
        assert set(changes) == {"late"}
        await early_transaction.commit()
        changes, end = await changes_since(store, middle)
        assert set(changes) == {"early"}
        assert await changes_since(store, end) == ({}, end)
        assert set((await changes_since(store, start))[0]) == {"early", "late"}

    async def test_a_long_transaction_delays_nobody_and_is_not_missed(
        self, store: PostgresRunStore, sql: asyncpg.Connection, connect: Connect
    ) -> None:
        held = await connect()
        position = await here(store)
        transaction = held.transaction()
        await transaction.start()
        await insert(held, "held")
        for number in range(20):
            await insert(sql, f"run_{number}")
            changes, position = await changes_since(store, position)
            assert set(changes) == {f"run_{number}"}
        await transaction.commit()
        changes, position = await changes_since(store, position)
        assert set(changes) == {"held"}
        assert await changes_since(store, position) == ({}, position)

    async def test_savepoints_and_rollbacks(
        self, store: PostgresRunStore, sql: asyncpg.Connection
    ) -> None:
        start = await here(store)
        async with sql.transaction():
            await insert(sql, "kept")
            savepoint = sql.transaction()
            await savepoint.start()
            await insert(sql, "undone")
            await sql.execute("UPDATE runs SET attempt_count = 9 WHERE id = 'kept'")
            await savepoint.rollback()
            async with sql.transaction():
                await insert(sql, "in_savepoint")
        undone = sql.transaction()
        await undone.start()
        await sql.execute("UPDATE runs SET attempt_count = 9")
        await undone.rollback()
        changes, _ = await changes_since(store, start)
        assert set(changes) == {"kept", "in_savepoint"}
        run = changes["kept"].run
        assert run is not None
        assert run.attempt_count == 0

    async def test_two_updates_in_one_transaction_are_one_change(
        self, store: PostgresRunStore, sql: asyncpg.Connection
    ) -> None:
        await insert(sql, "run_1")
        start = await here(store)
        async with sql.transaction():
            await sql.execute("UPDATE runs SET status = 'EXECUTING'")
            await sql.execute("UPDATE runs SET status = 'COMPLETED_SUCCESSFULLY'")
        page = await store.read_changes(EVERYTHING, since=start, after=None, limit=10)
        assert [change.run and change.run.status for change in page.changes] == [
            "COMPLETED_SUCCESSFULLY"
        ]

    async def test_a_lost_tag_is_a_departure_with_the_current_run(
        self, store: PostgresRunStore, sql: asyncpg.Connection
    ) -> None:
        await insert(sql, "run_1", "x", "y")
        start = await here(store)
        await sql.execute("UPDATE runs SET tags = '{y}', attempt_count = 1")
        changes, after = await changes_since(store, start, TAGGED)
        change = changes["run_1"]
        assert change.run is not None
        assert (change.run.tags, change.run.attempt_count) == (("y",), 1)
        assert [departure.facets.tags for departure in change.departures] == [("x", "y")]
        assert not change.departures[0].deleted
        assert change.departures[0].changed_in == change.run.changed_in
        assert not TAGGED.matches(change.facets)
        # Who asked for the other tag sees one change, merged with what left it.
        other, _ = await changes_since(store, start, Selector("env_a", tags=("y",)))
        assert other["run_1"].run == change.run
        # Gone for good: the next read is silent, and so it is for who never saw it.
        await sql.execute("UPDATE runs SET attempt_count = 2")
        assert (await changes_since(store, after, TAGGED))[0] == {}
        assert (await changes_since(store, start, Selector("env_a", tags=("z",))))[0] == {}

    async def test_a_tag_lost_and_regained_comes_with_both(
        self, store: PostgresRunStore, sql: asyncpg.Connection
    ) -> None:
        await insert(sql, "run_1", "x")
        start = await here(store)
        await sql.execute("UPDATE runs SET tags = '{}'")
        await sql.execute("UPDATE runs SET tags = '{x,y}'")
        page = await store.read_changes(TAGGED, since=start, after=None, limit=10)
        (change,) = page.changes
        assert change.run is not None
        assert TAGGED.matches(change.facets)
        assert change.departures[0].version < change.run.version

    async def test_a_deleted_run_is_a_departure_without_a_run(
        self, store: PostgresRunStore, sql: asyncpg.Connection
    ) -> None:
        await insert(sql, "run_1", "x")
        await insert(sql, "run_2", "y")
        start = await here(store)
        before = (await store.read_runs("env_a", ["run_1"]))[0]
        await sql.execute("DELETE FROM runs")
        changes, _ = await changes_since(store, start, TAGGED)
        assert set(changes) == {"run_1"}
        assert changes["run_1"].run is None
        assert changes["run_1"].facets == before.facets
        (departure,) = changes["run_1"].departures
        assert departure.deleted
        assert departure.version > before.version
        assert set((await changes_since(store, start, EVERYTHING))[0]) == {"run_1", "run_2"}
        assert (await changes_since(store, start, Selector("env_b")))[0] == {}

    async def test_a_run_that_belongs_elsewhere_by_now_is_gone(
        self, store: PostgresRunStore, sql: asyncpg.Connection
    ) -> None:
        await insert(sql, "run_1", "x")
        start = await here(store)
        await sql.execute("DELETE FROM runs")
        await sql.execute(
            "INSERT INTO runs (id, environment_id, task, tags)"
            " VALUES ('run_1', 'env_b', 't', '{x}')"
        )
        changes, _ = await changes_since(store, start, TAGGED)
        assert changes["run_1"].run is None
        assert changes["run_1"].facets.environment_id == "env_a"

    async def test_many_changes_are_paged_without_sorting_all(
        self, store: PostgresRunStore, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(feed_reader, "_FEW", 3)
        for number in range(9):
            await insert(sql, f"run_{number}", "x")
        start = await here(store)
        await sql.execute("UPDATE runs SET attempt_count = 1 WHERE id <> 'run_4'")
        changes, _ = await changes_since(store, start, TAGGED)
        assert list(changes) == [f"run_{number}" for number in (8, 7, 6, 5, 3, 2, 1, 0)]


class TestPositionLost:
    async def lost(self, store: PostgresRunStore, since: Position) -> str:
        with pytest.raises(PositionLost) as caught:
            await store.read_changes(EVERYTHING, since=since, after=None, limit=10)
        run = (await store.read_runs("env_a", ["run_1"]))[0]
        key = PageKey(run.created_at, run.id)
        with pytest.raises(PositionLost) as later:
            await store.read_changes(EVERYTHING, since=since, after=key, limit=10)
        assert later.value.reason == caught.value.reason
        return caught.value.reason

    async def test_reasons(self, store: PostgresRunStore, sql: asyncpg.Connection) -> None:
        await insert(sql, "run_1")
        position = await here(store)
        assert await self.lost(store, replace(position, database=1)) == "other_database"
        assert await self.lost(store, replace(position, xmax=position.xmax + 1000)) == "ahead"
        await sql.execute("DELETE FROM runs")
        await insert(sql, "run_1")
        current = await here(store)
        await sql.execute(
            "INSERT INTO following (system_identifier, database_oid, horizon) VALUES (1, 1, $1)"
            " ON CONFLICT (singleton) DO UPDATE SET horizon = EXCLUDED.horizon",
            current.xmax - 1,
        )
        assert await self.lost(store, position) == "too_old"
        in_flight = replace(current, in_flight=(current.xmax - 1,))
        assert await self.lost(store, in_flight) == "too_old"
        await store.read_changes(EVERYTHING, since=current, after=None, limit=10)

    async def test_too_many_departures(
        self, store: PostgresRunStore, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(feed_reader, "MAX_DEPARTURES", 2)
        for number in range(3):
            await insert(sql, f"run_{number}", "x")
        start = await here(store)
        await sql.execute("DELETE FROM runs WHERE id <> 'run_0'")
        assert len((await changes_since(store, start, TAGGED))[0]) == 2
        await sql.execute("DELETE FROM runs")
        with pytest.raises(PositionLost) as caught:
            await changes_since(store, start, TAGGED)
        assert caught.value.reason == "too_many_departures"
        assert (await changes_since(store, start, Selector("env_a", tags=("y",))))[0] == {}

    async def test_departed_runs_that_weigh_too_much(
        self, store: PostgresRunStore, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(feed_reader, "_DEPARTED_BYTES", 100_000)
        await insert(sql, "run_1", "x")
        start = await here(store)
        await sql.execute("UPDATE runs SET tags = '{}', output = repeat('x', 90000)")
        assert set((await changes_since(store, start, TAGGED))[0]) == {"run_1"}
        await sql.execute("UPDATE runs SET output = repeat('x', 110000)")
        with pytest.raises(PositionLost):
            await changes_since(store, start, TAGGED)


class Writers:
    """Some connections that each do at most one transaction at a time, as chance will have it."""

    def __init__(self, connections: list[asyncpg.Connection], chance: random.Random) -> None:
        self._chance = chance
        self._connections = connections
        self._open: dict[int, asyncpg.transaction.Transaction] = {}
        self._locked: dict[str, int] = {}
        self._made = 0
        self.known: set[str] = set()

    async def step(self) -> None:
        writer = self._chance.randrange(len(self._connections))
        connection = self._connections[writer]
        if writer not in self._open:
            self._open[writer] = connection.transaction()
            await self._open[writer].start()
        elif self._chance.random() < 0.25:
            await self.end(writer)
            return
        if self._chance.random() < 0.2:
            savepoint = connection.transaction()
            await savepoint.start()
            await self._write(writer)
            await (savepoint.rollback() if self._chance.random() < 0.5 else savepoint.commit())
        else:
            await self._write(writer)

    async def end(self, writer: int) -> None:
        transaction = self._open.pop(writer)
        await (transaction.rollback() if self._chance.random() < 0.3 else transaction.commit())
        self._locked = {run: holder for run, holder in self._locked.items() if holder != writer}

    async def end_all(self) -> None:
        for writer in self._chance.sample(sorted(self._open), len(self._open)):
            await self.end(writer)

    async def _write(self, writer: int) -> None:
        connection = self._connections[writer]
        tags = self._chance.sample(["x", "y", "z"], self._chance.randrange(4))
        free = sorted(run for run in self.known if self._locked.get(run, writer) == writer)
        if not free or self._chance.random() < 0.3:
            self._made += 1
            run_id = f"run_{self._made}"
            await insert(connection, run_id, *tags)
        else:
            run_id = self._chance.choice(free)
            what = self._chance.random()
            if what < 0.4:
                await connection.execute("UPDATE runs SET tags = $2 WHERE id = $1", run_id, tags)
            elif what < 0.85:
                await connection.execute(
                    "UPDATE runs SET attempt_count = attempt_count + 1 WHERE id = $1", run_id
                )
            else:
                await connection.execute("DELETE FROM runs WHERE id = $1", run_id)
        self.known.add(run_id)
        self._locked[run_id] = writer


class Follower:
    """Keeps a copy of what matches, from changes alone."""

    def __init__(self, store: PostgresRunStore, selector: Selector, position: Position) -> None:
        self._store = store
        self._selector = selector
        self._position = position
        self._gone: dict[str, int] = {}
        self.versions: dict[str, int] = {}

    async def read(self, between_pages: Writers | None = None) -> None:
        page = await self._read_page(None)
        position = page.position
        while page.next is not None:
            if between_pages is not None:
                await between_pages.step()
            page = await self._read_page(page.next)
        self._position = position

    async def _read_page(self, after: PageKey | None) -> ChangePage:
        page = await self._store.read_changes(
            self._selector, since=self._position, after=after, limit=3
        )
        for change in page.changes:
            run_id = change.facets.id
            if change.run is not None and self._selector.matches(change.facets):
                assert change.run.version >= self.versions.get(run_id, 0)
                self.versions[run_id] = change.run.version
            else:
                assert change.departures, "who leaves is announced as leaving"
                self.versions.pop(run_id, None)
        return page


@pytest.mark.parametrize("seed", range(8))
async def test_followers_end_up_with_what_is_there(
    store: PostgresRunStore, sql: asyncpg.Connection, connect: Connect, seed: int
) -> None:
    chance = random.Random(seed)
    writers = Writers([await connect() for _ in range(4)], chance)
    start = await here(store)
    selectors = [
        EVERYTHING,
        TAGGED,
        Selector("env_a", tags=("x", "y")),
        Selector("env_a", task="t"),
    ]
    followers = {selector: Follower(store, selector, start) for selector in selectors}
    for _ in range(120):
        await writers.step()
        selector, follower = chance.choice(list(followers.items()))
        if chance.random() < 0.2:
            await follower.read(between_pages=writers)
        elif chance.random() < 0.3:
            await follower.read()
            assert follower.versions == await visible(sql, selector)
    await writers.end_all()
    for selector, follower in followers.items():
        await follower.read()
        assert follower.versions == await visible(sql, selector)


async def visible(sql: asyncpg.Connection, selector: Selector) -> dict[str, int]:
    rows = await sql.fetch(
        "SELECT id, version FROM runs WHERE tags @> $1 AND coalesce(task = $2, true)",
        selector.tags,
        selector.task,
    )
    return {row["id"]: row["version"] for row in rows}


@asynccontextmanager
async def explained(
    database_url: str,
) -> AsyncIterator[tuple[PostgresRunStore, ExplainingDatabase]]:
    database = ExplainingDatabase(database_url)
    await database.open()
    try:
        yield PostgresRunStore(database), database
    finally:
        await database.close()


async def test_a_large_table_is_read_by_its_indexes(
    store: PostgresRunStore, sql: asyncpg.Connection, database_url: str, database: Database
) -> None:
    await sql.execute("""
        INSERT INTO batches (id, environment_id, run_count) VALUES ('batch_1', 'env_a', 20);
        INSERT INTO runs (id, environment_id, task, created_at, tags, batch_id)
        SELECT 'run_' || n, 'env_a', 'task-' || n % 50,
            '2026-01-01Z'::timestamptz + n * interval '1s',
            ARRAY['all', 'user:' || n % 1000], CASE WHEN n % 1000 = 0 THEN 'batch_1' END
        FROM generate_series(1, 20000) AS n;
        UPDATE runs SET tags = '{all}' WHERE id LIKE 'run_1%';
    """)
    start = await here(store)
    await sql.execute("UPDATE runs SET attempt_count = 1 WHERE id LIKE 'run_77%'")
    await sql.execute("UPDATE runs SET tags = '{all}' WHERE id LIKE 'run_88%'")
    await sql.execute("VACUUM ANALYZE")
    selectors = [
        EVERYTHING,
        Selector("env_a", run_id="run_7701"),
        Selector("env_a", tags=("all",)),
        Selector("env_a", tags=("user:700",)),
        Selector("env_a", tags=("nobody",)),
        Selector("env_a", task="task-1"),
        Selector("env_a", batch_id="batch_1"),
        Selector("env_a", task="task-1", tags=("all",), created_after=1.0),
    ]
    since = replace(start, in_flight=tuple(range(start.xmax - 200, start.xmax - 100)))
    async with explained(database_url) as (explaining, plans):
        for selector in selectors:
            await read_snapshot(explaining, selector, limit=50)
            await explaining.read_changes(selector, since=since, after=None, limit=50)
            key = PageKey(
                (await explaining.read_runs("env_a", ["run_777"]))[0].created_at, "run_777"
            )
            await explaining.read_changes(selector, since=since, after=key, limit=50)
            await read_snapshot(explaining, selector, after=key, limit=50)
        await explaining.read_snapshots([SnapshotPart(each, None, 50) for each in selectors])
        await explaining.look_up_runs("env_a", [f"run_{number}" for number in range(200)])
        assert len(plans.seen) > 4 * len(selectors)
        assert "CTE here" in plans.subplans(plans.seen[0])  # not for each row
        assert plans.tables_read_whole() == set()
