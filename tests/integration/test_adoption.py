"""Databases that were restored, copied or exchanged: made ours, and old positions refused."""

import asyncio
import secrets
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest

from runcast.core.position import Position, parse_cursor
from runcast.core.selector import Selector
from runcast.errors import PositionLost
from runcast.postgres.adoption import adopt
from runcast.postgres.binaries import find_binaries
from runcast.postgres.database import Database
from runcast.postgres.migrate import migrate
from runcast.postgres.run_store import PostgresRunStore
from tests.support.followers import Feed, Follower
from tests.support.gateway_app import running_app
from tests.support.postgres import created_database, execute
from tests.support.recording_sink import following
from tests.support.snapshots import read_snapshot

# Transactions of a server that is far ahead of the one that the tests run on.
FAR_AHEAD = 1 << 40

OLD_SERVER = f"""
    SET search_path TO runcast;
    INSERT INTO environments (id, slug, name) VALUES ('env_a', 'a', 'A');
    INSERT INTO environment_keys (key, environment_id)
        VALUES ('tr_dev_abcdefghijklmnopqrstuvwx', 'env_a');
    INSERT INTO runs (id, environment_id, task, tags)
        SELECT 'run_' || n, 'env_a', 'task', '{{x}}' FROM generate_series(1, 10) AS n;
    UPDATE runs SET tags = '{{}}' WHERE id IN ('run_8', 'run_9');
    DELETE FROM runs WHERE id = 'run_10';
    INSERT INTO streams (run_id, key, changed_in) VALUES ('run_1', 'log', pg_current_xact_id());
    SET session_replication_role = replica;
    UPDATE runs SET changed_in = '{FAR_AHEAD}';
    UPDATE run_changes SET changed_in = '{FAR_AHEAD}';
    UPDATE departures SET changed_in = '{FAR_AHEAD}';
    UPDATE streams SET changed_in = '{FAR_AHEAD}';
    INSERT INTO following (system_identifier, database_oid, horizon)
        VALUES (1, 1, '{FAR_AHEAD - 1000}');
"""


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(url, server_settings={"search_path": "runcast"})
    try:
        yield connection
    finally:
        await connection.close()


async def adopted(url: str) -> bool:
    async with connected(url) as connection:
        return await adopt(connection, schema="runcast")


async def ahead(connection: asyncpg.Connection) -> int:
    """How many rows claim to be of transactions that are yet to come."""
    count: int = await connection.fetchval(
        """
        SELECT count(*) FROM (
            SELECT changed_in FROM runs UNION ALL SELECT changed_in FROM departures
            UNION ALL SELECT changed_in FROM streams
        ) AS rows WHERE changed_in >= pg_snapshot_xmax(pg_current_snapshot())
        """
    )
    return count


@pytest.fixture
def restored_url(database_url: str) -> str:
    """A database whose rows came from another server, as a restored dump leaves them."""
    execute(database_url, OLD_SERVER)
    return database_url


@pytest.fixture
def other_url(postgres_server: str) -> Iterator[str]:
    """An empty database to restore into."""
    with created_database(postgres_server) as url:
        yield url


class TestRestored:
    async def test_rows_of_a_server_that_was_ahead_are_renumbered(self, restored_url: str) -> None:
        async with connected(restored_url) as sql:
            before = await sql.fetch("SELECT id, version FROM runs")
            versions = {row["id"]: row["version"] for row in before}
            assert await ahead(sql) > 0
            assert await adopted(restored_url)
            assert await ahead(sql) == 0
            assert await sql.fetchval("SELECT count(*) FROM departures") == 0
            assert await sql.fetchval("SELECT horizon FROM following") == 0
            for run_id, version in await sql.fetch("SELECT id, version FROM runs"):
                assert version > versions[run_id]

    async def test_it_is_done_once(self, restored_url: str) -> None:
        assert await adopted(restored_url)
        async with connected(restored_url) as sql:
            before = await sql.fetch("SELECT * FROM runs ORDER BY id")
            assert not await adopted(restored_url)
            assert await sql.fetch("SELECT * FROM runs ORDER BY id") == before

    async def test_only_what_is_ahead_is_touched(self, database_url: str) -> None:
        async with connected(database_url) as sql:
            await sql.execute(
                "INSERT INTO environments (id, slug, name) VALUES ('env_a', 'a', 'A')"
            )
            await sql.execute(
                "INSERT INTO runs (id, environment_id, task) VALUES ('run_1', 'env_a', 'task')"
            )
            before = await sql.fetch("SELECT * FROM runs")
            assert await adopted(database_url)
            assert await sql.fetch("SELECT * FROM runs") == before

    async def test_nothing_is_read_again_and_again(self, restored_url: str) -> None:
        await adopted(restored_url)
        async with connected(restored_url) as sql, following(restored_url) as feed:
            await feed.asleep()
            assert feed.tailer.counts.changes == 0
            await sql.execute("UPDATE runs SET attempt_count = 1 WHERE id = 'run_1'")
            await feed.sink.has("run_1")
            await feed.asleep()
            assert feed.tailer.counts.changes == 1

    async def test_positions_of_the_old_server_are_refused(
        self, restored_url: str, database_url: str
    ) -> None:
        await adopted(restored_url)
        database = Database(restored_url)
        await database.open()
        try:
            store = PostgresRunStore(database)
            everything = Selector("env_a")
            here = (await read_snapshot(store, everything)).position
            for old in (
                replace(here, database=here.database ^ 1),
                Position(here.database ^ 1, FAR_AHEAD + 5),
            ):
                with pytest.raises(PositionLost) as caught:
                    await store.read_changes(everything, since=old, after=None, limit=10)
                assert caught.value.reason == "other_database"
        finally:
            await database.close()

    async def test_a_gateway_takes_it_over_and_resets_the_followers_of_the_old_one(
        self, restored_url: str
    ) -> None:
        async with running_app(restored_url) as app:
            feed = Feed("/realtime/v1/runs?tags=x", {"tags": ["x"]}, app.key)
            follower = Follower(app.url, feed, cursor=Position(1, FAR_AHEAD).cursor())
            follower.runs["of_old"] = {"id": "of_old", "revision": 1}
            follower.start()
            await follower.caught_up()
            assert follower.resets == ["other_database"]
            assert set(follower.runs) == {f"run_{number}" for number in range(1, 8)}
            await app.update("run_1", attempt_count=7)
            await follower.until(lambda follower: follower.runs["run_1"]["attemptCount"] == 7)
            # From here on it can be resumed as any other.
            await follower.drop()
            follower.start()
            await follower.caught_up()
            assert follower.resets == ["other_database"]


class TestDumped:
    async def test_a_real_dump_restored_into_another_database(
        self, restored_url: str, other_url: str
    ) -> None:
        async with running_app(restored_url) as app:
            feed = Feed("/realtime/v1/runs?tags=x", {"tags": ["x"]}, app.key)
            follower = Follower(app.url, feed)
            follower.start()
            await follower.caught_up()
            await follower.drop()
        await asyncio.to_thread(_copy_dump, restored_url, other_url)
        async with running_app(other_url) as app:
            follower.url = app.url
            follower.start()
            await follower.caught_up()
            assert follower.resets == ["other_database"]
            assert len(follower.runs) == 7
            await app.update("run_2", attempt_count=7)
            await follower.until(lambda follower: follower.runs["run_2"]["attemptCount"] == 7)

    async def test_exchanged_under_a_running_gateway(
        self, database_url: str, other_url: str, postgres_server: str
    ) -> None:
        """A restore that swaps names: behind the URL there is another database, never adopted."""
        here, other = (urlsplit(url).path[1:] for url in (database_url, other_url))
        await asyncio.to_thread(_copy_dump, database_url, other_url)
        async with connected(other_url) as sql:
            await sql.execute(OLD_SERVER)
        await adopted(database_url)
        async with following(database_url) as feed, connected(postgres_server) as sql:
            await feed.asleep()
            await _exchange(sql, here, other)
            try:
                await feed.sink.until(lambda: feed.sink.restarts == ["other_database"])
                await feed.asleep()  # it never would, if it found all rows new for ever
                async with connected(database_url) as writer:
                    await writer.execute("UPDATE runs SET attempt_count = 1 WHERE id = 'run_1'")
                await feed.sink.has("run_1")
            finally:
                await _exchange(sql, here, other)


async def _exchange(sql: asyncpg.Connection, first: str, second: str) -> None:
    """Exchange the names of two databases, whoever is connected to the first."""
    await sql.execute(f'ALTER DATABASE "{first}" ALLOW_CONNECTIONS false')
    await sql.fetch(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = $1", first
    )
    await sql.execute(f'ALTER DATABASE "{first}" RENAME TO exchanging')
    await sql.execute(f'ALTER DATABASE "{second}" RENAME TO "{first}"')
    await sql.execute(f'ALTER DATABASE exchanging RENAME TO "{second}"')
    await sql.execute(f'ALTER DATABASE "{second}" ALLOW_CONNECTIONS true')


def _copy_dump(source_url: str, target_url: str) -> None:
    folder: Path = find_binaries().folder
    for program in ("pg_dump", "psql"):
        if not (folder / program).exists():
            pytest.skip(f"there is no {program} beside the postgres that is used")
    dump = subprocess.run(
        [folder / "pg_dump", "--schema=runcast", source_url], stdout=subprocess.PIPE, check=True
    )
    subprocess.run(
        [folder / "psql", "--quiet", "--set=ON_ERROR_STOP=1", target_url],
        input=dump.stdout,
        stdout=subprocess.DEVNULL,
        check=True,
    )


@pytest.fixture
def plain_user_url(postgres_server: str) -> Iterator[str]:
    """An empty database that belongs to a user without any other right."""
    role, password = f"runcast_{secrets.token_hex(6)}", secrets.token_hex(16)
    execute(
        postgres_server,
        f"CREATE ROLE {role} LOGIN PASSWORD '{password}'"
        " NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS",
    )
    with created_database(postgres_server) as url:
        execute(postgres_server, f'ALTER DATABASE "{urlsplit(url).path[1:]}" OWNER TO {role}')
        parts = urlsplit(url)
        at = parts.netloc.rpartition("@")[2]
        yield parts._replace(netloc=f"{role}:{password}@{at}").geturl()
    execute(postgres_server, f"DROP ROLE {role}")


class TestPlainUser:
    async def test_needs_no_more_than_to_own_the_database(self, plain_user_url: str) -> None:
        async with connected(plain_user_url) as sql:
            assert not await sql.fetchval("SELECT usesuper FROM pg_user WHERE usename = user")
            await migrate(sql)
        async with running_app(plain_user_url) as app:
            run_id = await app.insert(tags=["x"])
            follower = Follower(app.url, Feed(f"/realtime/v1/runs/{run_id}", {}, app.key))
            follower.start()
            await follower.caught_up()
            assert follower.cursor is not None
            assert parse_cursor(follower.cursor).database > 0
            await app.update(run_id, attempt_count=1)
            await follower.until(lambda follower: follower.runs[run_id]["attemptCount"] == 1)
            await app.delete(run_id)
            await follower.until(lambda follower: follower.ended == "deleted")
        async with connected(plain_user_url) as sql:
            assert await sql.fetchval("SELECT system_identifier FROM following") != 0
            assert not await adopt(sql, schema="runcast")
