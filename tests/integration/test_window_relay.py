"""Gateways that share one reader of the changefeed, while whatever they share it through fails."""

import asyncio
import functools
import os
import random
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import httpx
from redis.asyncio import Redis

from runcast.core.position import Position
from runcast.core.relaying import Relaying, RelayPace, Role
from runcast.core.run import RunFacets
from runcast.core.tailing import State
from runcast.core.window import Window
from runcast.postgres.migrate import migrate
from runcast.postgres.relayed_tailer import RelayedTailer
from runcast.redis.server import RedisServer
from runcast.redis.window_relay import RedisWindowRelay
from tests.support.followers import Follower
from tests.support.gateway_app import GatewayApp, running_app, until
from tests.support.gateway_process import GatewayProcess, gateway_process
from tests.support.oracle import BATCHES, WISHES, Writers
from tests.support.recording_sink import following
from tests.support.redis import RestartableRedis
from tests.support.relayed import PATIENT, leader_and_follower, relayed, window_relay

SEED = int(os.environ.get("RUNCAST_TEST_SEED") or random.SystemRandom().randrange(1 << 32))
HASTY = RelayPace(beat=0.05, silence=1.0)


async def insert(sql: asyncpg.Connection, *run_ids: str) -> None:
    await sql.executemany(
        "INSERT INTO runs (id, environment_id, task) VALUES ($1, 'env_a', 'task')",
        [(run_id,) for run_id in run_ids],
    )


class TestFollowing:
    async def test_a_follower_reads_no_windows_and_needs_no_bell(
        self, database_url: str, redis_url: str, sql: asyncpg.Connection
    ) -> None:
        async with leader_and_follower(database_url, redis_url) as (leader, follower):
            reads = follower.tailer.counts.reads
            for number in range(20):
                await insert(sql, f"run_{number}")
                await follower.sink.has(f"run_{number}")
            assert follower.tailer.counts.reads == reads
            assert follower.machine.taken == leader.machine.sent == 20
            await until(lambda: follower.sink.position == leader.sink.position)
            assert follower.tailer.figures["seconds_since_read"] < PATIENT.silence
            assert not follower.machine.fallbacks

    async def test_who_begins_to_follow_lets_go_of_the_bell(
        self, database_url: str, redis_url: str, sql: asyncpg.Connection
    ) -> None:
        relay = RedisWindowRelay(RedisServer(redis_url), Relaying(PATIENT), name="test")
        kind = functools.partial(RelayedTailer, relay=relay)
        async with following(database_url, kind=kind) as feed:
            await feed.asleep()
            assert await sql.fetchval("SELECT last_value FROM bell") > 0
            assert feed.sink.position is not None
            here = Window.at(feed.sink.position)
            relay.machine.receive_window(here, asyncio.get_running_loop().time())
            relay.on_news()
            await until(lambda: feed.tailer.state is State.RELIEVED)
            assert await sql.fetchval("SELECT last_value FROM bell") == 0

    async def test_what_is_lost_is_read(
        self, database_url: str, redis_url: str, sql: asyncpg.Connection
    ) -> None:
        """The driver renews a lost subscription by itself and says nothing of what was missed."""
        async with (
            leader_and_follower(database_url, redis_url) as (leader, follower),
            Redis.from_url(redis_url) as redis,
        ):
            place = leader.relay._place
            for number in range(5):
                await redis.client_kill_filter(_type="pubsub")
                await insert(sql, f"run_{number}")
                await follower.sink.has(f"run_{number}")
                await follower.is_now(Role.FOLLOWING)
            # A message that never comes: the next one, or the next beat, shows the gap.
            gaps = follower.machine.fallbacks["gap"]
            here = leader.sink.position
            assert here is not None
            ahead = Position(here.database, here.xmax + 1000, (), here.incarnation)
            await redis.execute_command(  # type: ignore[no-untyped-call]
                "SPUBLISH", place, b"someone " + Window(ahead, ahead).to_bytes()
            )
            await until(lambda: follower.machine.fallbacks["gap"] > gaps)
            await insert(sql, "run_5")
            await follower.sink.has("run_5")
            await follower.is_now(Role.FOLLOWING)

    async def test_what_is_too_large_to_be_told_is_read(
        self, database_url: str, redis_url: str, sql: asyncpg.Connection
    ) -> None:
        async with leader_and_follower(database_url, redis_url) as (_, follower):
            names = [f"run_{number}" for number in range(1200)]
            async with sql.transaction():
                await insert(sql, *names)
            await follower.sink.has(*names)
            assert follower.machine.fallbacks == {"too_large": 1}
            await follower.is_now(Role.FOLLOWING)

    async def test_gateways_of_two_databases_do_not_mix(
        self, database_url: str, empty_database_url: str, redis_url: str, sql: asyncpg.Connection
    ) -> None:
        name = f"test:{secrets.token_hex(6)}"
        other_sql = await asyncpg.connect(empty_database_url)
        await migrate(other_sql)
        await other_sql.execute("SET search_path = runcast")
        await other_sql.execute("INSERT INTO environments VALUES ('env_a', 'a', 'A')")
        async with relayed(database_url, redis_url, name) as one:
            await one.is_now(Role.LEADING)
            async with relayed(empty_database_url, redis_url, name) as other:
                await insert(sql, "run_1")
                await one.sink.has("run_1")
                await insert(other_sql, "run_2")
                await other.sink.has("run_2")
                assert other.machine.role is Role.ALONE
                assert list(one.sink.runs) == ["run_1"]
                assert list(other.sink.runs) == ["run_2"]
        await other_sql.close()


class TestLeading:
    async def test_who_ends_lets_another_one_lead_at_once(
        self, database_url: str, redis_url: str, sql: asyncpg.Connection
    ) -> None:
        name = f"test:{secrets.token_hex(6)}"
        async with AsyncExitStack() as ending:
            leader = await ending.enter_async_context(relayed(database_url, redis_url, name))
            await leader.is_now(Role.LEADING)
            async with relayed(database_url, redis_url, name) as follower:
                await follower.is_now(Role.FOLLOWING)
                await ending.aclose()
                await follower.is_now(Role.LEADING)  # it would be patient for ten seconds
                await insert(sql, "run_1")
                await follower.sink.has("run_1")
                assert follower.machine.fallbacks == {"farewell": 1}

    async def test_who_was_replaced_is_not_passed_on(self, redis_url: str) -> None:
        """As a process that was stopped, and wakes up with something to say."""
        name = f"test:{secrets.token_hex(6)}"
        now = asyncio.get_running_loop().time()
        here, later = Position(1, 10), Position(1, 12)
        run = RunFacets("env_a", "run_late", "task", (), None, 0.0)
        async with (
            window_relay(redis_url, name) as leader,
            Redis.from_url(redis_url) as redis,
            redis.pubsub() as listener,
        ):
            leader.machine.receive_place(here, now)
            leader.stir()
            await until(lambda: leader.machine.role is Role.LEADING)
            await listener.ssubscribe(name)
            await redis.set(name, "another one")
            leader.machine.receive_read(Window(here, later, (run,)), now)
            leader.stir()
            await until(lambda: leader.machine.fallbacks == {"deposed": 1})
            await redis.execute_command(  # type: ignore[no-untyped-call]
                "SPUBLISH", name, "the end"
            )
            said = b""
            while b"the end" not in said:
                message = await listener.get_message(timeout=1)
                if message is not None and message["type"] == "smessage":
                    said += message["data"]
            assert b"run_late" not in said
            # The place is free again: what it says now is heard.
            await redis.delete(name)
            await until(lambda: leader.machine.role is Role.LEADING)

    async def test_a_leader_without_its_database_leaves(
        self, database_url: str, redis_url: str, sql: asyncpg.Connection
    ) -> None:
        async with leader_and_follower(database_url, redis_url) as (leader, follower):
            assert leader.tailer._position is not None
            leader.machine.receive_lost()
            leader.relay.stir()
            await follower.is_now(Role.LEADING)
            await insert(sql, "run_1")
            await follower.sink.has("run_1")

    async def test_a_user_needs_no_more_than_the_documents_say(
        self, restartable_redis: RestartableRedis
    ) -> None:
        async with Redis.from_url(restartable_redis.url) as redis:
            await redis.acl_setuser(
                "some",
                enabled=True,
                passwords=["+word"],
                keys=["runcast:*"],
                channels=["runcast:*"],
                categories=["+@read", "+@write", "+@scripting", "+@pubsub", "+@connection"],
                commands=["+time"],
            )
        url = restartable_redis.url.replace("redis://", "redis://some:word@")
        here = Position(1, 10)
        async with (
            window_relay(url, "runcast:relay:runcast") as leader,
            window_relay(url, "runcast:relay:runcast") as follower,
        ):
            leader.machine.receive_place(here, asyncio.get_running_loop().time())
            leader.stir()
            await until(lambda: leader.machine.role is Role.LEADING)
            follower.machine.receive_place(here, asyncio.get_running_loop().time())
            await until(lambda: follower.machine.role is Role.FOLLOWING)
            leader.machine.receive_lost()
            leader.stir()
            await until(lambda: follower.machine.fallbacks == {"farewell": 1})


# -- faults ---------------------------------------------------------------------------------------


async def come_and_go(
    follower: Follower, urls: Callable[[], list[str]], writers: Writers, dice: random.Random
) -> None:
    """Follow any of the gateways for a while, then another one from the same cursor."""
    while not writers.are_over():
        follower.url = dice.choice(urls())
        follower.transport = dice.choice(("header", "query", "socket"))
        follower.start()
        await writers.moved(dice.randrange(20, 150))
        if not writers.are_over():
            await follower.drop()


@asynccontextmanager
async def under_load(
    database_url: str, app: GatewayApp, urls: Callable[[], list[str]]
) -> AsyncIterator[Writers]:
    """
    Let random writers write, and followers of every kind of feed go from gateway to gateway.

    In the end each has to hold what the database holds; none was told anything older than before.
    """
    for batch in BATCHES:
        await app.sql.execute(
            "INSERT INTO batches (id, environment_id, run_count) VALUES ($1, $2, 0)",
            batch,
            app.environment_id,
        )
    wishes = WISHES[::4]
    followers = [Follower(app.url, wish.feed(app)) for wish in wishes]
    writers = Writers(database_url, app.environment_id, SEED)
    async with asyncio.TaskGroup() as group:
        for number in range(3):
            group.create_task(writers.run(number, patient=number == 0))
        for number, follower in enumerate(followers):
            dice = random.Random(f"{SEED} follower {number}")
            group.create_task(come_and_go(follower, urls, writers, dice))
        try:
            yield writers
        finally:
            writers.stop()
    # Once more to each gateway, which follow in different roles.
    for number, (wish, follower) in enumerate(zip(wishes, followers, strict=True)):
        await follower.drop()
        follower.url = urls()[number % len(urls())]
        follower.start()
        expected = await wish.expected(app.sql, app.environment_id)
        try:
            await follower.until(
                lambda each, expected=expected: (  # type: ignore[misc]
                    (each.up_to_date or (each.refused is not None and not expected))
                    and each.state() == expected
                )
            )
        except AssertionError as error:
            raise AssertionError(f"seed {SEED}, {wish}: {expected} expected; {error}") from error
        assert not follower.resets
        await follower.drop()


async def test_redis_fails_in_every_way(
    database_url: str, restartable_redis: RestartableRedis
) -> None:
    settings: dict[str, Any] = {"redis_url": restartable_redis.url, "relay": "on"}
    async with AsyncExitStack() as stack:
        apps = [
            await stack.enter_async_context(running_app(database_url, relay_pace=HASTY, **settings))
            for _ in range(3)
        ]
        machines = [app.gateway.relay.machine for app in apps if app.gateway.relay]

        async def settled() -> None:
            expected = {Role.FOLLOWING: 2, Role.LEADING: 1}
            await until(
                lambda: Counter(machine.role for machine in machines) == expected,
                lambda: [(machine.role, machine.fallbacks) for machine in machines],
            )

        async def kill() -> None:
            await asyncio.to_thread(restartable_redis.kill)
            await until(lambda: all(machine.role is Role.ALONE for machine in machines))
            await writers.moved(50)
            await asyncio.to_thread(restartable_redis.start)

        async def pause() -> None:
            restartable_redis.pause()
            await until(lambda: Role.FOLLOWING not in [machine.role for machine in machines])
            await writers.moved(50)
            restartable_redis.resume()

        async def flush() -> None:
            await asyncio.to_thread(restartable_redis.flush)

        async def cut() -> None:
            async with Redis.from_url(restartable_redis.url) as redis:
                await redis.client_kill_filter(_type="normal", skipme=True)
                await redis.client_kill_filter(_type="pubsub")

        faults: list[Callable[[], Awaitable[None]]] = [cut, flush, kill, cut, pause, flush]
        async with under_load(database_url, apps[0], lambda: [app.url for app in apps]) as writers:
            for fault in faults:
                await settled()
                await writers.moved(60)
                await fault()
            await settled()
            await writers.moved(60)
        async with httpx.AsyncClient(trust_env=False) as client:
            for machine, app in zip(machines, apps, strict=True):
                while True:
                    before = (machine.role, machine.taken)
                    ready = (await client.get(f"{app.url}/readyz")).json()
                    metrics = (await client.get(f"{app.url}/metrics")).text
                    if before == (machine.role, machine.taken):  # or else it was told too early
                        break
                assert ready["detail"]["relay"] == machine.role.value
                assert f'runcast_relay_role{{role="{machine.role.value}"}} 1.0' in metrics
                assert f'windows_total{{direction="taken"}} {float(machine.taken)}' in metrics
                assert 'runcast_relay_fallbacks_total{reason="redis"}' in metrics
        assert all(app.gateway.tailer.misses == 0 for app in apps)
        assert sum(machine.taken for machine in machines) > 0


async def test_leaders_are_stopped_and_killed(
    database_url: str, redis_url: str, tmp_path: Path
) -> None:
    variables = {
        "REDIS_URL": redis_url,
        "RUNCAST_REDIS_PREFIX": f"test:{secrets.token_hex(6)}:",
        "RUNCAST_RELAY": "on",
    }

    async with AsyncExitStack() as stack, httpx.AsyncClient(trust_env=False) as client:
        # It takes no part in the relay: cursors are as good here.
        app = await stack.enter_async_context(running_app(database_url))

        async def started(number: int) -> GatewayProcess:
            folder = tmp_path / str(number)
            folder.mkdir()
            process = gateway_process(folder, database_url, **variables)
            stack.push(process)
            return await asyncio.to_thread(process.__enter__)

        alive = list(await asyncio.gather(*map(started, range(3))))

        async def role(process: GatewayProcess) -> str:
            answer = await client.get(f"{process.url}/readyz")
            return str(answer.json()["detail"]["relay"])

        async def leader() -> GatewayProcess:
            """Who leads, once all others follow."""
            while True:
                roles = [await role(process) for process in alive]
                if sorted(roles) == ["following"] * (len(alive) - 1) + ["leading"]:
                    return alive[roles.index("leading")]
                await asyncio.sleep(0.02)

        def urls() -> list[str]:
            return [app.url, *(process.url for process in alive)]

        async with under_load(database_url, app, urls) as writers, asyncio.timeout(120):
            first = await leader()
            await writers.moved(60)
            first.pause()
            alive.remove(first)
            second = await leader()
            await writers.moved(60)
            first.resume()
            alive.append(first)
            assert await leader() is second
            await writers.moved(60)
            second.kill()
            alive.remove(second)
            await leader()
            await writers.moved(60)
