"""Streams in a Redis Cluster of three primaries."""

import asyncio

from redis.asyncio import Redis

from runcast.core.places import Wish
from runcast.core.relaying import Role
from tests.support.gateway_app import GatewayApp, running_app, until
from tests.support.redis import RestartableRedis
from tests.support.stream_follower import StreamFollower
from tests.support.stream_writer import write


async def reading(app: GatewayApp, run_id: str) -> StreamFollower:
    reader = StreamFollower(app.url, run_id, app.key)
    reader.start()
    await reader.caught_up()
    return reader


async def test_streams_of_all_nodes_are_written_and_read(
    database_url: str, redis_cluster: list[RestartableRedis]
) -> None:
    url = redis_cluster[0].url.replace("redis://", "redis+cluster://")
    async with (
        running_app(database_url, redis_url=url) as app,
        running_app(database_url, redis_url=url) as other,
    ):
        run_ids = [await app.insert() for _ in range(20)]
        readers = [await reading(other, run_id) for run_id in run_ids]
        for n in range(3):
            answers = await asyncio.gather(
                *(
                    write(app.url, app.bearer, run_id, b"%d\n" % n, writer="w", first=n)
                    for run_id in run_ids
                )
            )
            assert [answer.status for answer in answers] == [200] * len(run_ids)
        for reader in readers:
            await reader.has(3)
            assert reader.texts == ["0", "1", "2"]
            assert reader.events == ["up-to-date"]
        log = other.gateway._redis_chunks
        assert log is not None
        await until(lambda: log.news.connected)
        assert len(log.news._shards) == 3
        for node in redis_cluster:
            async with Redis.from_url(node.url) as redis:
                subscribed = [int(each["ssub"]) for each in await redis.client_list()]
                assert await redis.dbsize() > 0
            assert sum(count > 0 for count in subscribed) == 1  # one connection a gateway and node
        for reader in readers:
            await reader.drop()
        # Places of connections are on all nodes too.
        places = app.gateway._redis_places
        assert places is not None
        wishes = {f"env_{number}": Wish(0, number) for number in range(20)}
        held = await places.hold("a", wishes, limit=100, lease_seconds=30)
        assert [each.places for each in held.values()] == list(range(20))


async def test_a_node_that_is_killed_and_comes_back(
    database_url: str, redis_cluster: list[RestartableRedis]
) -> None:
    url = redis_cluster[0].url.replace("redis://", "redis+cluster://")
    async with running_app(database_url, redis_url=url, relay="on") as app:
        run_ids = [await app.insert() for _ in range(9)]
        readers = [await reading(app, run_id) for run_id in run_ids]

        async def write_to_all(n: int) -> None:
            for run_id in run_ids:
                for _ in range(300):
                    answer = await write(
                        app.url, app.bearer, run_id, b"%d\n" % n, writer="w", first=n
                    )
                    if answer.status == 200:
                        break
                    assert answer.status == 503
                    await asyncio.sleep(0.1)
                else:
                    raise AssertionError("no answer with success")

        await write_to_all(0)
        await asyncio.to_thread(redis_cluster[1].kill)
        await asyncio.to_thread(redis_cluster[1].start)
        await write_to_all(1)
        for reader in readers:
            await reader.until(lambda each: each.texts[-1:] == ["1"])
            await reader.drop()
        async with running_app(database_url, redis_url=url, relay="on") as other:
            roles = {Role.LEADING, Role.FOLLOWING}
            await until(lambda: {role_of(app), role_of(other)} == roles)


def role_of(app: GatewayApp) -> Role:
    assert app.gateway.relay is not None
    return app.gateway.relay.machine.role
