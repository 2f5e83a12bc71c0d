"""Streams in the Redis that Sentinels name, while it changes."""

import asyncio

import pytest

from tests.support.gateway_app import running_app
from tests.support.redis import WatchedRedis
from tests.support.stream_follower import StreamFollower
from tests.support.stream_writer import write


@pytest.mark.chaos
async def test_the_replica_takes_over_from_a_killed_primary(
    database_url: str, watched_redis: WatchedRedis
) -> None:
    async with running_app(database_url, redis_url=watched_redis.url) as app:
        run_id = await app.insert()
        reader = StreamFollower(app.url, run_id, app.key)
        reader.start()
        await reader.caught_up()
        for n in range(10):
            if n == 5:
                await asyncio.to_thread(watched_redis.primary.kill)
            for _ in range(300):
                answer = await write(app.url, app.bearer, run_id, b"%d\n" % n, writer="w", first=n)
                if answer.status == 200:
                    break
                assert answer.code == "backend_unavailable"
                await asyncio.sleep(0.1)
            await reader.has(n + 1)
        assert reader.texts == [str(n) for n in range(10)]
        assert reader.events == ["up-to-date"]
        await reader.drop()
