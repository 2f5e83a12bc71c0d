"""What every `RateLimiter` promises, so that those in memory, Postgres and Redis stay the same."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from typing import Protocol

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from runcast.core.bucket import Bucket
from runcast.core.rate import Rate
from runcast.errors import BackendError
from runcast.ports import RateLimiter
from runcast.postgres.database import Database
from runcast.postgres.rate_limiter import PostgresRateLimiter
from runcast.redis.rate_limiter import RedisRateLimiter
from runcast.redis.server import RedisServer
from runcast.testing import ManualClock, MemoryRateLimiter
from tests.support.needs import free_port

A, B = b"a" * 32, b"b" * 32
RATE = Rate(refill=1, seconds=100.0, burst=10)
# Of a permit: what comes back while a test runs.
SLACK = 0.5


class World(Protocol):
    """A limiter whose time can pass."""

    limiter: RateLimiter

    async def pass_time(self, seconds: float) -> None: ...


class MemoryWorld:
    def __init__(self) -> None:
        self._clock = ManualClock()
        self.limiter: RateLimiter = MemoryRateLimiter(self._clock)

    async def pass_time(self, seconds: float) -> None:
        self._clock.advance(seconds)


class PostgresWorld:
    """Time passes by what is stored moving back."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.limiter: RateLimiter = PostgresRateLimiter(database)

    async def pass_time(self, seconds: float) -> None:
        await self._database.fetch(
            "UPDATE @schema@.rate_limits SET full_at = full_at - make_interval(secs => $1)", seconds
        )


class RedisWorld:
    """Time passes by what is stored moving back."""

    def __init__(self, server: RedisServer) -> None:
        self._redis = server.client
        self._prefix = f"test-{uuid.uuid4().hex}:"
        self.redis_limiter = RedisRateLimiter(server, prefix=self._prefix)
        self.limiter: RateLimiter = self.redis_limiter

    async def pass_time(self, seconds: float) -> None:
        async for key in self._redis.scan_iter(f"{self._prefix}*"):
            full_at = await self._redis.get(key)
            if full_at is not None:
                await self._redis.set(key, f"{float(full_at) - seconds:.6f}", keepttl=True)


@pytest.fixture(params=["memory", "postgres", "redis"])
def where(request: pytest.FixtureRequest) -> tuple[str, str]:
    """Where the limiter is, and its URL; asked for here, outside the loop."""
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
        await world.redis_limiter.close()
        await server.close()


def near(value: float) -> object:
    return pytest.approx(value, abs=SLACK)


async def test_a_bucket_gives_what_is_wanted_while_it_has_it(world: World) -> None:
    first = await world.limiter.draw(A, 4, RATE)
    assert (first.permits, first.missing) == (4, 4)
    second = await world.limiter.draw(A, 4, RATE)
    assert (second.permits, second.missing) == (4, near(8))
    rest = await world.limiter.draw(A, 4, RATE)
    assert (rest.permits, rest.missing) == (near(2), near(10))
    assert (await world.limiter.draw(A, 4, RATE)).permits == near(0)


async def test_each_bucket_is_one_of_its_own(world: World) -> None:
    await world.limiter.draw(A, 10, RATE)
    assert (await world.limiter.draw(B, 10, RATE)).permits == 10


async def test_permits_come_back_with_time_up_to_the_burst(world: World) -> None:
    await world.limiter.draw(A, 10, RATE)
    await world.pass_time(300)
    assert (await world.limiter.draw(A, 10, RATE)).permits == near(3)
    await world.pass_time(1_000_000)
    draw = await world.limiter.draw(A, 10, RATE)
    assert (draw.permits, draw.missing) == (10, 10)


async def test_a_limit_may_change(world: World) -> None:
    await world.limiter.draw(A, 10, RATE)
    lower = await world.limiter.draw(A, 1, Rate(1, 100.0, 2))
    assert (lower.permits, lower.missing) == (0, near(10))
    assert (await world.limiter.draw(A, 15, Rate(1, 100.0, 20))).permits == near(10)


async def test_those_who_draw_at_once_get_no_more_than_there_is(world: World) -> None:
    draws = await asyncio.gather(*(world.limiter.draw(A, 3, RATE) for _ in range(8)))
    assert sum(draw.permits for draw in draws) == near(10)
    assert max(draw.missing for draw in draws) == near(10)


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.lists(st.tuples(st.integers(1, 10), st.integers(0, 1500)), max_size=6),
    name=st.binary(min_size=32, max_size=32),
)
async def test_it_reckons_as_the_bucket_of_the_core_does(
    world: World, steps: list[tuple[int, int]], name: bytes
) -> None:
    await world.pass_time(1_000_000)  # an example may have drawn from this bucket before
    bucket = Bucket(0.0, 0.0)
    now = 0.0
    for wanted, pause in steps:
        expected = bucket.draw(wanted, RATE, now)
        draw = await world.limiter.draw(name, wanted, RATE)
        assert (draw.permits, draw.missing) == (near(expected.permits), near(expected.missing))
        bucket = Bucket(expected.missing, now)
        await world.pass_time(pause)
        now += pause


async def test_without_redis_whoever_draws_is_told_so() -> None:
    server = RedisServer(f"redis://127.0.0.1:{free_port()}/0")
    limiter = RedisRateLimiter(server, prefix="test:")
    with pytest.raises(BackendError):
        await limiter.draw(A, 1, RATE)
    await limiter.close()
    await server.close()
