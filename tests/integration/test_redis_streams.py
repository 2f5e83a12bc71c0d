"""Streams in Redis, through whole gateways, while Redis is killed, stopped, cut off and emptied."""

import asyncio
import logging
import os
import random
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from typing import Any

import httpx
import pytest
from redis.asyncio import Redis

from tests.support.gateway_app import GatewayApp, running_app, until
from tests.support.redis import RestartableRedis
from tests.support.relay import relaying
from tests.support.stream_follower import StreamFollower
from tests.support.stream_writer import Written, last_index, write, writing, writing_path

SEED = int(os.environ.get("RUNCAST_TEST_SEED") or random.SystemRandom().randrange(1 << 32))


@pytest.fixture
async def app(database_url: str, restartable_redis: RestartableRedis) -> AsyncIterator[GatewayApp]:
    # A writer's end that Redis was not there to hear of counts when its lease is over.
    settings: dict[str, Any] = {"redis_url": restartable_redis.url, "stream_lease_seconds": 2}
    async with running_app(database_url, **settings) as running:
        yield running


def follower(app: GatewayApp, run_id: str, **options: Any) -> StreamFollower:
    return StreamFollower(app.url, run_id, app.key, **options)


async def reading(app: GatewayApp, run_id: str, **options: Any) -> StreamFollower:
    """A reader that has what there is."""
    reader = follower(app, run_id, **options)
    reader.start()
    await reader.caught_up()
    return reader


async def read_all(app: GatewayApp, run_id: str) -> list[str]:
    """Everything that the stream holds now, as a newcomer gets it."""
    reader = await reading(app, run_id)
    await reader.drop()
    return reader.texts


async def write_lines(
    app: GatewayApp, run_id: str, lines: Sequence[str], *, writer: str = "w", first: int = 0
) -> Written:
    body = "".join(f"{line}\n" for line in lines).encode()
    return await write(app.url, app.bearer, run_id, body, writer=writer, first=first)


async def write_all(app: GatewayApp, run_id: str, lines: Sequence[str], dice: random.Random) -> int:
    """Write as a patient client does: ask how far it is, send the rest; tell how often."""
    requests = 0
    while True:
        with suppress(AssertionError, httpx.HTTPError, OSError, asyncio.IncompleteReadError):
            first = 1 + await last_index(app.url, app.bearer, run_id, "w")
            if first == len(lines):
                return requests
            requests += 1
            size = dice.randint(1, 400)
            await write_lines(app, run_id, lines[first : first + size], first=first)


def news(app: GatewayApp) -> Any:
    log = app.gateway._redis_chunks
    assert log is not None
    return log.news


async def test_chunks_are_in_redis_and_the_key_is_on_the_run(
    app: GatewayApp, restartable_redis: RestartableRedis
) -> None:
    run_id = await app.insert()
    assert (await write_lines(app, run_id, ["1", "2"])).status == 200
    assert await app.sql.fetchval("SELECT count(*) FROM chunks") == 0
    announced = "SELECT realtime_streams FROM runs WHERE id = $1"
    assert await app.sql.fetchval(announced, run_id) == ["llm"]
    async with Redis.from_url(restartable_redis.url) as redis:
        keys = sorted([key.decode() async for key in redis.scan_iter()])
        assert keys == [
            f"runcast:{{{run_id}}}",
            f"runcast:{{{run_id}}}:llm",
            f"runcast:{{{run_id}}}:llm:log",
        ]
        day = 86_400_000
        assert all([day - 60_000 < await redis.pttl(key) <= day for key in keys])
    await app.delete(run_id)
    async with Redis.from_url(restartable_redis.url) as redis:
        for _ in range(1000):
            if not await redis.dbsize():
                return
            await asyncio.sleep(0.01)
        raise AssertionError(await redis.keys())


async def test_what_was_trimmed_is_said(
    app: GatewayApp, restartable_redis: RestartableRedis
) -> None:
    run_id = await app.insert()
    await write_lines(app, run_id, list("012345"))
    async with Redis.from_url(restartable_redis.url) as redis:
        await redis.xtrim(f"runcast:{{{run_id}}}:llm:log", maxlen=2, approximate=False)
    reader = await reading(app, run_id)
    assert reader.events == ["reset too_old", "up-to-date"]
    assert (reader.texts, reader.next_offset) == (["4", "5"], 6)
    await reader.drop()
    assert await read_all_behind(app, run_id, 4) == ["5"]


async def read_all_behind(app: GatewayApp, run_id: str, offset: int) -> list[str]:
    reader = await reading(app, run_id, begin=offset + 1)
    await reader.drop()
    return reader.texts


@pytest.mark.chaos
async def test_redis_killed_in_the_middle_loses_nothing_and_readers_go_on(
    app: GatewayApp, database_url: str, restartable_redis: RestartableRedis
) -> None:
    dice = random.Random(SEED)
    lines = [f'{{"n":{n},"t":"{"é" * dice.randint(0, 9)}"}}' for n in range(3000)]
    run_id = await app.insert()
    async with running_app(database_url, redis_url=restartable_redis.url) as other:
        readers = [await reading(each, run_id) for each in (app, other)]
        writing_all = asyncio.create_task(write_all(app, run_id, lines, dice))
        for share in (0.2, 0.5, 0.8):
            await readers[1].has(int(len(lines) * share))
            await asyncio.to_thread(restartable_redis.kill)
            await asyncio.to_thread(restartable_redis.start)
        await writing_all
        await app.finish(run_id)
        for reader in readers:
            await reader.over()
            assert reader.texts == lines, f"seed {SEED}: {reader.summary()}"
            assert reader.events == ["up-to-date", "end finished"]
            assert reader.connections == 1


@pytest.mark.chaos
async def test_without_redis_appends_fail_clearly_and_runs_are_followed(
    app: GatewayApp, restartable_redis: RestartableRedis, caplog: pytest.LogCaptureFixture
) -> None:
    run_id = await app.insert()
    await write_lines(app, run_id, ["1"])
    reader = await reading(app, run_id)
    await asyncio.to_thread(restartable_redis.kill)
    path = writing_path(run_id)
    async with httpx.AsyncClient(
        base_url=app.url, trust_env=False, headers=app.bearer, timeout=15
    ) as client:
        refused = await client.post(f"{path}/append", content=b"x")
        assert (refused.status_code, refused.json()["code"]) == (503, "backend_unavailable")
        assert refused.json()["error"] == "Redis does not answer; try again."
        probed = await client.head(path, headers={"x-client-id": "w"})
        assert probed.status_code == 503
        ready = await client.get("/readyz")
        assert (ready.status_code, ready.json()["detail"]["redis"]) == (200, "unreachable")
        async with client.stream("GET", f"/realtime/v1/runs/{run_id}") as feed:
            pieces = feed.aiter_bytes()
            await app.finish(run_id)
            seen = b""
            while b"event: end" not in seen:
                seen += await anext(pieces)
        newcomer = follower(app, run_id)
        newcomer.start()
        await asyncio.to_thread(restartable_redis.start)
        for each in (reader, newcomer):
            await each.over()
            assert (each.texts, each.ended, each.connections) == (["1"], "finished", 1)
        await until(lambda: bool(app.gateway.readiness().detail["redis"] == "reachable"))
        ready = await client.get("/readyz")
        assert ready.json()["detail"]["redis"] == "reachable"
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []
    assert str(restartable_redis.port) not in caplog.text


@pytest.mark.chaos
async def test_a_redis_that_stops_and_goes_on_doubles_nothing(
    app: GatewayApp, restartable_redis: RestartableRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = app.gateway._redis_chunks
    assert log is not None
    run_id = await app.insert()
    async with writing(app.url, app.bearer, run_id, writer="w") as writer:
        await writer.send_lines(["0"])
        reader = await reading(app, run_id)
        await reader.has(1)
        monkeypatch.setattr(log.writes._server, "answer_seconds", 0.3)
        before = log.writes.failures
        restartable_redis.pause()
        await writer.send_lines(["1", "2"])
        # Sent twice, and nobody knows what became of it.
        await until(lambda: log.writes.failures >= before + 2)
        restartable_redis.resume()
        assert (await writer.finish()).status == 200
    await reader.has(3)
    assert reader.texts == ["0", "1", "2"] == await read_all(app, run_id)
    await reader.drop()


@pytest.mark.chaos
async def test_a_lost_connection_is_made_again_and_what_was_missed_is_read(
    database_url: str, restartable_redis: RestartableRedis
) -> None:
    """The driver subscribes again by itself; what was published in between is lost to it."""
    async with relaying(restartable_redis.url) as relay:
        away = relay.url.replace("http", "redis")
        async with (
            running_app(database_url, redis_url=restartable_redis.url) as app,
            running_app(database_url, redis_url=away) as cut_off,
        ):
            run_id = await app.insert()
            reader = await reading(cut_off, run_id)
            await write_lines(app, run_id, ["0"])
            await reader.has(1)
            for n in range(1, 6):
                relay.lose()
                await write_lines(app, run_id, [str(n)], first=n)
                relay.restore()
                await reader.has(n + 1)
            assert reader.texts == list("012345")
            assert news(cut_off).reconnects >= 1
            assert news(cut_off).misses == 0
            await reader.drop()


@pytest.mark.chaos
@pytest.mark.parametrize("how", ["FLUSHALL", "restarted empty"])
async def test_when_everything_is_lost_readers_and_writers_are_told(
    app: GatewayApp, database_url: str, restartable_redis: RestartableRedis, how: str
) -> None:
    run_id = await app.insert()
    async with running_app(database_url, redis_url=restartable_redis.url) as other:
        readers = [await reading(each, run_id) for each in (app, other)]
        async with writing(app.url, app.bearer, run_id, writer="w") as writer:
            await writer.send_lines(["0", "1", "2"])
            for reader in readers:
                await reader.has(3)
            await asyncio.to_thread(lose_everything, restartable_redis, how)
            await writer.send_lines(["3"])
            answer = await writer.finish()
        assert (answer.status, answer.code) == (503, "stream_lost")
        assert await last_index(app.url, app.bearer, run_id, "w") == -1
        # As many as before: only their generation tells the streams apart.
        assert (await write_lines(app, run_id, ["a", "b", "c"])).status == 200
        for reader in readers:
            await reader.until(lambda each: each.texts == ["a", "b", "c"])
            assert reader.events[1].startswith("reset ")
            await reader.drop()


@pytest.mark.chaos
@pytest.mark.parametrize("transport", ["sse", "socket"])
async def test_who_was_away_when_everything_was_lost_is_told(
    app: GatewayApp, restartable_redis: RestartableRedis, transport: str
) -> None:
    run_id = await app.insert()
    await write_lines(app, run_id, list("012"))
    reader = await reading(app, run_id, transport=transport)
    await reader.drop()
    await asyncio.to_thread(restartable_redis.flush)
    assert (await write_lines(app, run_id, ["3"], first=3)).code == "stream_lost"
    await write_lines(app, run_id, list("45678"))
    reader.start()
    await reader.until(lambda each: each.texts == list("45678"))
    assert reader.events == ["up-to-date", "reset begun_anew", "up-to-date"]
    await reader.drop()


def lose_everything(redis: RestartableRedis, how: str) -> None:
    if how == "FLUSHALL":
        redis.flush()
    else:
        redis.kill()
        redis.forget()
        redis.start()


@pytest.mark.chaos
async def test_readers_hear_of_a_loss_also_when_nobody_writes(
    app: GatewayApp, restartable_redis: RestartableRedis
) -> None:
    run_id = await app.insert()
    await write_lines(app, run_id, ["0", "1"])
    reader = await reading(app, run_id)
    await asyncio.to_thread(restartable_redis.flush)
    await news(app).look_at_all(patience_seconds=0)
    await reader.until(lambda each: each.events[:2] == ["up-to-date", "reset ahead"])
    assert reader.texts == []
    await reader.drop()


@pytest.mark.chaos
async def test_the_end_of_a_stream_that_was_not_on_disk_is_missed(
    app: GatewayApp, restartable_redis: RestartableRedis
) -> None:
    """With less persistence a crash takes the newest chunks along: nobody writes on behind them."""
    run_id = await app.insert()
    await write_lines(app, run_id, ["0", "1"])
    async with Redis.from_url(restartable_redis.url) as redis:
        await redis.config_set("appendonly", "no")
        await redis.save()  # what a restart will have
    await asyncio.to_thread(restartable_redis.kill)
    restartable_redis._options = ("--appendonly", "no", "--save", "")
    await asyncio.to_thread(restartable_redis.start)
    async with writing(app.url, app.bearer, run_id, writer="w", first=2) as writer:
        await writer.send_lines(["2", "3"])
        reader = await reading(app, run_id)
        await reader.has(4)
        await asyncio.to_thread(restartable_redis.kill)
        await asyncio.to_thread(restartable_redis.start)
        await writer.send_lines(["4"])
        answer = await writer.finish()
    assert (answer.status, answer.code) == (503, "stream_lost")
    assert await last_index(app.url, app.bearer, run_id, "w") == 1
    assert (await write_lines(app, run_id, ["2", "3", "4"], first=2)).status == 200
    await reader.until(lambda each: each.texts == list("01234"))
    assert any(event.startswith("reset ") for event in reader.events)
    await reader.drop()


@pytest.mark.chaos
async def test_scripts_that_redis_forgot_are_sent_again(
    app: GatewayApp, restartable_redis: RestartableRedis
) -> None:
    run_ids = [await app.insert() for _ in range(5)]
    async with Redis.from_url(restartable_redis.url) as redis:
        for n in range(4):
            await redis.script_flush()
            answers = await asyncio.gather(
                *(write_lines(app, run_id, [str(n)], first=n) for run_id in run_ids)
            )
            assert [answer.status for answer in answers] == [200] * 5
    for run_id in run_ids:
        assert await read_all(app, run_id) == list("0123")


async def test_many_streams_share_one_connection_for_news_and_few_round_trips(
    app: GatewayApp, restartable_redis: RestartableRedis, database_url: str
) -> None:
    log = app.gateway._redis_chunks
    assert log is not None
    run_ids = [await app.insert() for _ in range(40)]
    async with running_app(database_url, redis_url=restartable_redis.url) as other:
        readers = [await reading(other, run_id) for run_id in run_ids]
        before = log.writes.round_trips
        calls = log.writes.calls
        await asyncio.gather(*(write_lines(app, run_id, ["0"]) for run_id in run_ids))
        for reader in readers:
            await reader.has(1)
        assert log.writes.round_trips - before < log.writes.calls - calls
        async with Redis.from_url(restartable_redis.url) as redis:
            clients = await redis.client_list()
        subscribed = [int(client["ssub"]) for client in clients if int(client["ssub"])]
        assert subscribed == [40]
        for reader in readers:
            await reader.drop()
        await until(lambda: not news(other)._followers)


async def test_what_redis_does_is_measured(app: GatewayApp) -> None:
    run_id = await app.insert()
    await write_lines(app, run_id, ["0"])
    async with httpx.AsyncClient(base_url=app.url, trust_env=False) as client:
        lines = (await client.get("/metrics")).text.splitlines()
    figures = dict(line.split() for line in lines if re.match("runcast_(redis|stream)", line))
    assert figures.keys() >= {
        "runcast_redis_reachable",
        "runcast_redis_calls_total",
        "runcast_redis_round_trips_total",
        "runcast_redis_failures_total",
        "runcast_redis_reconnects_total",
        "runcast_streams_lost_total",
        "runcast_stream_news_misses_total",
    }
    assert float(figures["runcast_redis_reachable"]) == 1
    assert float(figures["runcast_redis_calls_total"]) >= 3


async def test_a_full_redis_says_so(app: GatewayApp, restartable_redis: RestartableRedis) -> None:
    run_id = await app.insert()
    await write_lines(app, run_id, ["0"])
    async with Redis.from_url(restartable_redis.url) as redis:
        await redis.config_set("maxmemory", 1)
        async with httpx.AsyncClient(
            base_url=app.url, trust_env=False, headers=app.bearer, timeout=15
        ) as client:
            refused = await client.post(f"{writing_path(run_id)}/append", content=b"x")
        assert refused.status_code == 503
        assert "maxmemory" in refused.json()["error"]
        assert await read_all(app, run_id) == ["0"]
        await redis.config_set("maxmemory", 0)
    assert (await write_lines(app, run_id, ["1"], first=1)).status == 200
