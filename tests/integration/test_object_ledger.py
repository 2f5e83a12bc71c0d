"""Objects that no run refers to are deleted, and no others, whatever happens meanwhile."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import asyncpg
import httpx
import pytest

from runcast.core.batch import NewBatch
from runcast.core.new_run import NewRun
from runcast.errors import BackendError, Unprocessable
from runcast.objects.local import LocalObjectStore
from runcast.objects.s3 import Bucket, S3ObjectStore
from runcast.ports import ObjectStore
from runcast.postgres.database import Database
from runcast.postgres.object_ledger import PostgresObjectLedger
from runcast.postgres.run_store import PostgresRunStore
from tests.integration.conftest import Connect
from tests.support.eventually import eventually
from tests.support.gateway_app import running_app
from tests.support.relay import relaying

UNUSED_SECONDS = 3600.0
HOUR = 3601.0
STORE = "application/store"
Sql: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


class World:
    """A ledger over a store, and a database whose time can pass."""

    def __init__(self, database: Database, sql: Sql, objects: ObjectStore) -> None:
        self.database = database
        self.sql = sql
        self.objects = objects
        self.ledger = self.another_ledger()

    def another_ledger(self) -> PostgresObjectLedger:
        return PostgresObjectLedger(self.database, self.objects, unused_seconds=UNUSED_SECONDS)

    async def put(self, *names: str, environment_id: str = "env_a") -> None:
        """Do what a client does: ask for an address, and put."""
        for name in names:
            await self.ledger.expect(environment_id, name)
            await self.objects.write(environment_id, name, "text/plain", pieces(name.encode()))

    async def stored(self, *names: str, environment_id: str = "env_a") -> list[str]:
        """Those of the objects that are there."""
        there = []
        for name in names:
            async with self.objects.open(environment_id, name) as found:
                if found is not None:
                    there.append(name)
        return there

    async def insert(
        self, run_id: str, payload: str | None = None, output: str | None = None
    ) -> None:
        await insert(self.sql, run_id, payload, output)

    async def delete(self, *run_ids: str) -> None:
        await self.sql.execute("DELETE FROM runs WHERE id = ANY($1::text[])", list(run_ids))

    async def clean_later(self, seconds: float = HOUR) -> None:
        """Let time pass, and clean."""
        await self.pass_time(seconds)
        await self.ledger.clean()

    async def pass_time(self, seconds: float = HOUR) -> None:
        await self.sql.execute(
            "UPDATE object_checks SET since = since - make_interval(secs => $1)", seconds
        )
        await self.sql.execute(
            "UPDATE objects SET deleted_at = deleted_at - make_interval(secs => $1)"
            " WHERE deleted_at IS NOT NULL",
            seconds,
        )


class HeldUpStore(LocalObjectStore):
    """A directory whose deletions wait for the test, before one or after so many happened."""

    def __init__(self, directory: Path, *, after: int = 0) -> None:
        super().__init__(directory)
        self._after = after
        self._deletions = 0
        self.reached = asyncio.Event()
        self.go_on = asyncio.Event()

    async def delete(self, environment_id: str, name: str) -> None:
        if self._after:
            await super().delete(environment_id, name)
        self._deletions += 1
        if self._deletions >= self._after:
            self.reached.set()
        await self.go_on.wait()
        await super().delete(environment_id, name)


class PartlyBrokenStore(LocalObjectStore):
    """A directory where some objects cannot be deleted."""

    async def delete(self, environment_id: str, name: str) -> None:
        if name.startswith("stuck"):
            raise BackendError("It is stuck.")
        await super().delete(environment_id, name)


async def pieces(content: bytes) -> AsyncIterator[bytes]:
    yield content


async def insert(
    sql: Sql, run_id: str, payload: str | None = None, output: str | None = None
) -> None:
    await sql.execute(
        "INSERT INTO runs (id, environment_id, task, payload, payload_type, output, output_type)"
        " VALUES ($1, 'env_a', 't', $2, $3, $4, $5)",
        *(run_id, payload, STORE if payload else "text/plain"),
        *(output, STORE if output else "text/plain"),
    )


async def one_waits(sql: Sql) -> None:
    """Wait until some statement waits for another one's transaction in this database."""

    async def waits() -> bool:
        found: bool = await sql.fetchval(
            "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            " AND datname = current_database())"
        )
        return found

    await eventually(waits)


@pytest.fixture(params=["local", "s3"])
def objects(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    if request.param == "local":
        return LocalObjectStore(tmp_path)
    return S3ObjectStore(request.getfixturevalue("bucket"))


@pytest.fixture
def world(database: Database, sql: Sql, objects: ObjectStore) -> World:
    return World(database, sql, objects)


@pytest.fixture
def local(database: Database, sql: Sql, tmp_path: Path) -> World:
    return World(database, sql, LocalObjectStore(tmp_path))


async def test_an_object_goes_when_no_run_has_used_it_for_long(world: World) -> None:
    await world.put("unused", "payload", "output")
    await world.insert("run_1", payload="payload", output="output")
    await world.clean_later(HOUR - 60)
    assert await world.stored("unused", "payload", "output") == ["unused", "payload", "output"]
    await world.clean_later()
    assert await world.stored("unused", "payload", "output") == ["payload", "output"]
    await world.delete("run_1")
    await world.ledger.clean()
    assert await world.stored("payload", "output") == ["payload", "output"]
    await world.clean_later()
    assert await world.stored("payload", "output") == []
    assert (world.ledger.deleted, world.ledger.failed) == (3, 0)
    assert await world.sql.fetchval("SELECT count(*) FROM object_checks") == 0


async def test_an_object_of_several_runs_stays_until_the_last_is_gone(local: World) -> None:
    await local.put("shared")
    await local.insert("run_1", payload="shared")
    await local.insert("run_2", payload="shared")
    await local.insert("run_3", output="shared")
    for gone in ("run_1", "run_2"):
        await local.delete(gone)
        await local.clean_later()
        assert await local.stored("shared")
    await local.delete("run_3")
    await local.clean_later()
    assert not await local.stored("shared")


async def test_a_run_may_exchange_its_objects(local: World) -> None:
    await local.put("a", "b")
    await local.insert("run_1", payload="a")
    await local.sql.execute("UPDATE runs SET payload = 'b'")
    await local.clean_later()
    assert await local.stored("a", "b") == ["b"]
    await local.sql.execute("UPDATE runs SET payload_type = 'text/plain'")
    await local.clean_later()
    assert await local.stored("b") == []


async def test_the_name_alone_is_no_use_of_an_object(local: World) -> None:
    await local.put("x")
    await local.put("x", environment_id="env_b")
    await local.sql.execute(
        "INSERT INTO runs (environment_id, task, payload, payload_type) VALUES"
        f" ('env_a', 't', 'x', 'text/plain'), ('env_b', 't', 'x', '{STORE}')"
    )
    await local.clean_later()
    assert not await local.stored("x")
    assert await local.stored("x", environment_id="env_b")


async def test_objects_go_with_their_environment(local: World) -> None:
    await local.put("x", "y")
    await local.insert("run_1", payload="x")
    await local.sql.execute("DELETE FROM environments WHERE id = 'env_a'")
    await local.clean_later()
    assert not await local.stored("x", "y")


async def test_an_object_that_is_put_again_begins_anew(local: World) -> None:
    await local.put("x")
    await local.pass_time(HOUR - 60)
    await local.put("x")
    await local.clean_later(120)
    assert await local.stored("x")
    await local.clean_later()
    assert not await local.stored("x")
    await local.put("x")
    await local.insert("run_1", payload="x")
    await local.clean_later()
    assert await local.stored("x")


async def test_an_item_of_a_batch_keeps_its_object(local: World, store: PostgresRunStore) -> None:
    await local.put("x", "y")
    batch = await store.open_batch(NewBatch(environment_id="env_a", id="batch_1"), 1)
    run = NewRun(environment_id="env_a", task="t", batch_index=0, payload="x", payload_type=STORE)
    assert await store.add_items("env_a", batch.id, [run]) == 1
    await local.clean_later()
    assert await local.stored("x", "y") == ["x"]
    await store.seal_batch("env_a", batch.id)
    while await store.create_next_runs(batch.id):
        pass
    await local.clean_later()
    assert await local.stored("x")
    await local.sql.execute("DELETE FROM runs")
    await local.clean_later()
    assert not await local.stored("x")


async def test_a_given_up_batch_lets_go_of_its_objects(
    local: World, store: PostgresRunStore
) -> None:
    await local.put("x")
    await store.open_batch(NewBatch(environment_id="env_a", id="batch_1"), 2)
    run = NewRun(environment_id="env_a", task="t", batch_index=0, payload="x", payload_type=STORE)
    await store.add_items("env_a", "batch_1", [run])
    await local.sql.execute("DELETE FROM batches")
    await local.clean_later()
    assert not await local.stored("x")


async def test_a_run_that_is_just_being_created_keeps_its_object(
    local: World, connect: Connect
) -> None:
    await local.put("x", "y")
    triggering = await connect()
    transaction = triggering.transaction()
    await transaction.start()
    await insert(triggering, "run_1", payload="x")
    await local.clean_later()
    assert await local.stored("x", "y") == ["x"]
    await transaction.commit()
    await local.clean_later()
    assert await local.stored("x")


async def test_a_run_that_is_not_created_after_all_keeps_nothing(
    local: World, connect: Connect
) -> None:
    await local.put("x")
    triggering = await connect()
    transaction = triggering.transaction()
    await transaction.start()
    await insert(triggering, "run_1", payload="x")
    await local.clean_later()
    await transaction.rollback()
    await local.ledger.clean()
    assert await local.stored("x"), "looked at a little later"
    await local.clean_later(301)
    assert not await local.stored("x")


async def test_whoever_comes_during_or_after_the_deletion_is_told(
    database: Database, sql: Sql, connect: Connect, store: PostgresRunStore, tmp_path: Path
) -> None:
    objects = HeldUpStore(tmp_path)
    world = World(database, sql, objects)
    await world.put("x")
    await world.pass_time()
    cleaning = asyncio.create_task(world.ledger.clean())
    await objects.reached.wait()
    inserting = asyncio.create_task(insert(await connect(), "run_1", payload="x"))
    await one_waits(sql)
    objects.go_on.set()
    await cleaning
    with pytest.raises(asyncpg.CheckViolationError, match="'x' was deleted"):
        await inserting
    with pytest.raises(Unprocessable, match=r"'x' was deleted.* Store it again"):
        await store.create_runs(
            [NewRun(environment_id="env_a", task="t", payload="x", payload_type=STORE)]
        )
    assert await sql.fetchval("SELECT count(*) FROM runs") == 0
    await world.put("x")
    await world.insert("run_1", payload="x")
    await world.clean_later()
    assert await world.stored("x")


async def test_an_address_that_is_asked_for_during_the_deletion_is_given_after_it(
    database: Database, sql: Sql, tmp_path: Path
) -> None:
    objects = HeldUpStore(tmp_path)
    world = World(database, sql, objects)
    await world.put("x")
    await world.pass_time()
    cleaning = asyncio.create_task(world.ledger.clean())
    await objects.reached.wait()
    putting = asyncio.create_task(world.put("x"))
    await one_waits(sql)
    objects.go_on.set()
    await asyncio.gather(cleaning, putting)
    assert await world.stored("x")
    await world.insert("run_1", payload="x")


async def test_a_gateway_may_die_between_object_and_row(
    database: Database, sql: Sql, tmp_path: Path
) -> None:
    objects = HeldUpStore(tmp_path, after=2)
    world = World(database, sql, objects)
    await world.put("x", "y")
    await world.pass_time()
    cleaning = asyncio.create_task(world.ledger.clean())
    await objects.reached.wait()
    cleaning.cancel()
    with suppress(asyncio.CancelledError):
        await cleaning
    assert await world.stored("x", "y") == []
    await world.put("y")  # somebody comes before anybody noticed
    objects.go_on.set()
    survivor = world.another_ledger()
    await survivor.clean()
    assert await world.stored("x", "y") == ["y"]
    assert survivor.deleted == 1
    gone = await sql.fetch("SELECT name FROM objects WHERE deleted_at IS NOT NULL")
    assert [row["name"] for row in gone] == ["x"]


async def test_a_store_that_is_away_is_asked_again_later(
    database: Database, sql: Sql, bucket: Bucket
) -> None:
    assert bucket.endpoint
    async with relaying(bucket.endpoint) as relay:
        world = World(database, sql, S3ObjectStore(replace(bucket, endpoint=relay.url)))
        await world.put("a", "b")
        relay.lose()
        await world.clean_later()
        assert (world.ledger.deleted, world.ledger.failed) == (0, 2)
        relay.restore()
        await world.ledger.clean()
        assert await world.stored("a", "b") == ["a", "b"], "not before a while"
        await world.clean_later(301)
        assert await world.stored("a", "b") == []
        assert world.ledger.deleted == 2


async def test_what_cannot_be_deleted_holds_up_nothing_else(
    database: Database, sql: Sql, tmp_path: Path
) -> None:
    world = World(database, sql, PartlyBrokenStore(tmp_path))
    stuck = [f"stuck {number}" for number in range(25)]
    await world.put(*stuck)
    await world.put("x")
    await world.clean_later()
    await world.ledger.clean()
    assert await world.stored("x") == []
    assert await world.stored(*stuck) == stuck


async def test_many_gateways_delete_each_object_once(local: World) -> None:
    unused = [f"unused {number}" for number in range(60)]
    used = [f"used {number}" for number in range(30)]
    await local.put(*unused, *used)
    for number, name in enumerate(used):
        await local.insert(f"run_{number}", payload=name)
    await local.pass_time()
    ledgers = [local.another_ledger() for _ in range(4)]
    await asyncio.gather(*(ledger.clean() for ledger in ledgers))
    assert sum(ledger.deleted for ledger in ledgers) == 60
    assert await local.stored(*unused, *used) == used


async def test_those_who_delete_runs_never_wait_for_each_other(
    local: World, connect: Connect
) -> None:
    await local.put("a", "b")
    for number, name in enumerate(("a", "b", "b", "a")):
        await local.insert(f"run_{number}", payload=name)
    one, other = await connect(), await connect()
    async with one.transaction(), other.transaction():
        for connection, number in ((one, 0), (other, 1), (one, 2), (other, 3)):
            await connection.execute("DELETE FROM runs WHERE id = $1", f"run_{number}", timeout=10)
    await local.clean_later()
    assert await local.stored("a", "b") == []


async def test_names_that_nobody_asked_for_are_left_alone(local: World) -> None:
    await local.objects.write("env_a", "foreign", "text/plain", pieces(b"1"))
    await local.insert("run_1", payload="foreign", output="x" * 1_000_000)
    await local.delete("run_1")
    await local.clean_later()
    assert await local.stored("foreign")
    assert await local.sql.fetchval("SELECT count(*) FROM object_checks") == 0


async def test_deleted_objects_are_forgotten_after_some_days(local: World) -> None:
    await local.put("x")
    await local.clean_later()
    await local.clean_later(6 * 86400)
    assert await local.sql.fetchval("SELECT count(*) FROM objects") == 1
    await local.clean_later(2 * 86400)
    assert await local.sql.fetchval("SELECT count(*) FROM objects") == 0
    await local.insert("run_1", payload="x")


async def test_a_gateway_cleans_and_counts(
    database_url: str, connect: Connect, tmp_path: Path
) -> None:
    async with (
        running_app(database_url, objects_dir=tmp_path) as app,
        httpx.AsyncClient(base_url=app.url, trust_env=False, headers=app.bearer) as client,
    ):
        url = (await client.put("/api/v2/packets/x")).json()["presignedUrl"]
        assert (await client.put(url, content=b"1")).status_code == 200
        download = (await client.get("/api/v1/packets/x")).json()["presignedUrl"]
        sql = await connect()
        await sql.execute("UPDATE object_checks SET since = since - interval '25 hours'")
        await app.gateway._janitor.clean()
        assert (await client.get(download)).status_code == 404
        assert "runcast_objects_deleted_total 1.0" in (await client.get("/metrics")).text
