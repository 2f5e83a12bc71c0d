"""What every `PlaceStore` promises, so that those in memory, Postgres and Redis stay the same."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from typing import Protocol

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from runcast.core.places import Held, Wish
from runcast.errors import BackendError
from runcast.ports import PlaceStore
from runcast.postgres.database import Database
from runcast.postgres.place_store import PostgresPlaceStore
from runcast.redis.place_store import RedisPlaceStore
from runcast.redis.server import RedisServer
from runcast.testing import ManualClock, MemoryPlaceStore
from tests.support.needs import free_port

LEASE = 1000.0


class World(Protocol):
    """A store whose time can pass."""

    store: PlaceStore

    async def pass_time(self, seconds: float) -> None: ...


class MemoryWorld:
    def __init__(self) -> None:
        self._clock = ManualClock()
        self.store: PlaceStore = MemoryPlaceStore(self._clock)

    async def pass_time(self, seconds: float) -> None:
        self._clock.advance(seconds)


class PostgresWorld:
    """Time passes by what is stored moving back."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.store: PlaceStore = PostgresPlaceStore(database)

    async def pass_time(self, seconds: float) -> None:
        await self._database.fetch(
            "UPDATE @schema@.connection_places "
            "SET held_until = held_until - make_interval(secs => $1)",
            seconds,
        )


class RedisWorld:
    """Time passes by what is stored moving back."""

    def __init__(self, server: RedisServer) -> None:
        self._redis = server.client
        self._prefix = f"test-{uuid.uuid4().hex}:"
        self.redis_store = RedisPlaceStore(server, prefix=self._prefix)
        self.store: PlaceStore = self.redis_store

    async def pass_time(self, seconds: float) -> None:
        async for key in self._redis.scan_iter(f"{self._prefix}*"):
            held = await self._redis.hgetall(key)
            for gateway, text in held.items():
                places, until = map(int, text.split())
                await self._redis.hset(key, gateway, f"{places} {until - int(seconds * 1000)}")


@pytest.fixture(params=["memory", "postgres", "redis"])
def where(request: pytest.FixtureRequest) -> tuple[str, str]:
    """Where the store is, and its URL; asked for here, outside the loop."""
    if request.param == "memory":
        return "memory", ""
    fixture = "database_url" if request.param == "postgres" else "redis_url"
    return request.param, request.getfixturevalue(fixture)


@pytest.fixture
async def world(where: tuple[str, str]) -> AsyncIterator[World]:
    kind, url = where
    if kind == "memory":
        yield MemoryWorld()
    elif kind == "postgres":
        database = Database(url, max_connections=4)
        await database.open()
        yield PostgresWorld(database)
        await database.close()
    else:
        server = RedisServer(url)
        world = RedisWorld(server)
        yield world
        await world.redis_store.close()
        await server.close()


async def hold(
    world: World, gateway: str, wanted: int, *, used: int = 0, name: str = "env_1", limit: int = 10
) -> Held:
    wishes = {name: Wish(used, wanted)}
    answers = await world.store.hold(gateway, wishes, limit=limit, lease_seconds=LEASE)
    assert answers.keys() == wishes.keys()
    return answers[name]


async def test_gateways_share_what_there_is(world: World) -> None:
    assert await hold(world, "a", 4) == Held(4, 6)
    assert await hold(world, "b", 7) == Held(6, 0)
    assert await hold(world, "c", 1) == Held(0, 0)
    assert await hold(world, "a", 1) == Held(1, 3)
    assert await hold(world, "c", 9) == Held(3, 0)


async def test_what_is_used_counts_also_beyond_the_limit(world: World) -> None:
    assert await hold(world, "a", 12, used=12) == Held(10, -2)
    assert await hold(world, "b", 3, used=2) == Held(0, -4)
    assert await hold(world, "a", 5, used=5) == Held(5, 3)


async def test_each_environment_is_one_of_its_own(world: World) -> None:
    wishes = {f"env_{number}": Wish(0, number) for number in range(20)}
    answers = await world.store.hold("a", wishes, limit=10, lease_seconds=LEASE)
    assert answers == {
        f"env_{number}": Held(min(number, 10), 10 - min(number, 10)) for number in range(20)
    }
    assert await hold(world, "b", 10, name="env_3") == Held(7, 0)


async def test_what_is_not_renewed_is_free_again(world: World) -> None:
    await hold(world, "a", 6)
    await hold(world, "b", 4)
    await world.pass_time(600)
    assert await hold(world, "b", 8) == Held(4, 0)
    await world.pass_time(600)
    assert await hold(world, "c", 8) == Held(6, 0)


async def test_those_who_ask_at_once_get_no_more_than_there_is(world: World) -> None:
    held = await asyncio.gather(*(hold(world, f"gateway {n}", 3) for n in range(8)))
    assert sorted(each.places for each in held) == [0, 0, 0, 0, 1, 3, 3, 3]


async def test_those_who_ask_for_many_do_not_wait_for_each_other(world: World) -> None:
    names = [f"env_{number}" for number in range(40)]
    orders = [names, names[::-1], names[20:] + names[:20]] * 3
    answers = await asyncio.gather(
        *(
            world.store.hold(
                f"gateway {n}", dict.fromkeys(order, Wish(0, 2)), limit=10, lease_seconds=LEASE
            )
            for n, order in enumerate(orders)
        )
    )
    for name in names:
        assert sum(each[name].places for each in answers) == 10


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from("abc"), st.integers(0, 9), st.integers(0, 9), st.integers(0, 700)
        ),
        max_size=6,
    ),
    limit=st.integers(1, 12),
)
async def test_it_reckons_as_that_in_memory_does(
    world: World, steps: list[tuple[str, int, int, int]], limit: int
) -> None:
    name = f"env_{uuid.uuid4().hex}"
    model = MemoryWorld()
    for gateway, used, more, pause in steps:
        expected = await hold(model, gateway, used + more, used=used, name=name, limit=limit)
        assert (
            await hold(world, gateway, used + more, used=used, name=name, limit=limit) == expected
        )
        await model.pass_time(pause)
        await world.pass_time(pause)


async def test_without_redis_whoever_asks_is_told_so() -> None:
    server = RedisServer(f"redis://127.0.0.1:{free_port()}/0")
    store = RedisPlaceStore(server, prefix="test:")
    wishes = {"env_1": Wish(0, 1), "env_2": Wish(0, 1)}
    with pytest.raises(BackendError):
        await store.hold("a", wishes, limit=1, lease_seconds=LEASE)
    await store.close()
    await server.close()
