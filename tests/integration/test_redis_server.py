"""What of the driver would lose or double chunks, and does not."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest
import uvloop
from redis.asyncio import Connection, Redis
from redis.asyncio.connection import parse_url

from runcast.core.chunk import NewChunks, StreamMove, StreamName
from runcast.errors import BackendError, StreamLost
from runcast.redis import stream_news
from runcast.redis.chunk_log import RedisChunkLog
from runcast.redis.server import RedisServer, translated
from runcast.testing import ManualClock
from tests.support.gateway_app import until
from tests.support.redis import RestartableRedis

NAME = StreamName("run_1", "llm")
LOG = "runcast:{run_1}:llm:log"
ROUNDS = 20


class EveryRun:
    """A registrar of a world in which every run exists."""

    async def register(self, name: StreamName, *, renew: bool = False) -> int:
        return 1


@asynccontextmanager
async def log_in(url: str, **options: Any) -> AsyncIterator[RedisChunkLog]:
    server = RedisServer(url, **options)
    log = RedisChunkLog(
        server, EveryRun(), ManualClock(), max_stream_bytes=1 << 20, retention_seconds=3600
    )
    following = asyncio.create_task(log.news.run())
    try:
        yield log
    finally:
        following.cancel()
        await asyncio.wait({following})
        await log.close_connections()
        await server.close()


@contextmanager
def paused(redis: RestartableRedis, log: RedisChunkLog) -> Iterator[None]:
    """Let the server not answer, and nobody wait for it for long; else the machine may be busy."""
    server = log.writes._server
    patience = server.answer_seconds
    redis.pause()
    server.answer_seconds = 0.1
    try:
        yield
    finally:
        server.answer_seconds = patience
        redis.resume()


async def test_a_write_whose_answer_is_lost_is_not_repeated(
    restartable_redis: RestartableRedis,
) -> None:
    """Chunks without a writer would be doubled by the driver's own retries."""
    async with log_in(restartable_redis.url) as log:
        await log.append(NAME, NewChunks("0"))
        with (
            paused(restartable_redis, log),
            pytest.raises(BackendError, match="does not answer"),
        ):
            await log.append(NAME, NewChunks("1"))
        page = await log.read(NAME, 0, max_chunks=10, max_bytes=1000)
        assert [chunk.text for chunk in page.chunks] == ["0", "1"]


async def test_a_write_that_is_done_after_it_was_given_up_is_told(
    restartable_redis: RestartableRedis,
) -> None:
    async with log_in(restartable_redis.url) as log:
        moves: list[StreamMove] = []
        log.news.on_move = moves.extend
        log.follow(NAME)
        await until(lambda: len(moves) == 1)
        await log.append(NAME, NewChunks("0", "w", 0))
        with paused(restartable_redis, log):
            with pytest.raises(BackendError):
                await log.append(NAME, NewChunks("1", "w", 1))
            assert moves[-1] == StreamMove(NAME, None, False)
        await until(lambda: moves[-1] == StreamMove(NAME, 2, False))
        assert await log.append(NAME, NewChunks("1", "w", 1)) == 0


async def test_a_subscription_may_be_silent_for_longer_than_an_answer(
    restartable_redis: RestartableRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_news, "_PING_SECONDS", 1.1)
    heard: list[str] = []
    hear = stream_news._Shard._hear

    def overhear(shard: stream_news._Shard, message: dict[str, Any]) -> None:
        heard.append(message["type"])
        hear(shard, message)

    monkeypatch.setattr(stream_news._Shard, "_hear", overhear)
    async with log_in(restartable_redis.url, answer_seconds=1) as log:
        log.follow(NAME)
        await until(lambda: "pong" in heard)
        assert heard[0] == "ssubscribe"
        assert heard.count("ssubscribe") == 1
        assert log.news.reconnects == 0


async def test_a_subscription_that_the_driver_renews_is_followed_by_a_look(
    restartable_redis: RestartableRedis,
) -> None:
    async with (
        log_in(restartable_redis.url) as log,
        Redis.from_url(restartable_redis.url) as redis,
    ):
        moves: list[StreamMove] = []
        log.news.on_move = moves.extend
        log.follow(NAME)
        await until(lambda: len(moves) == 1)
        for count in range(2, 5):
            await redis.client_kill_filter(_type="pubsub")
            await until(lambda count=count: len(moves) == count)  # type: ignore[misc]
        assert moves == [StreamMove(NAME, None, False)] * 4


async def test_a_silent_server_is_given_up(
    restartable_redis: RestartableRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a machine that is gone nobody sends an end."""
    monkeypatch.setattr(stream_news, "_PING_SECONDS", 0.1)
    monkeypatch.setattr(stream_news, "_SILENCE_SECONDS", 0.3)
    async with log_in(restartable_redis.url) as log:
        moves: list[StreamMove] = []
        log.news.on_move = moves.extend
        log.follow(NAME)
        await until(lambda: log.news.connected and bool(moves))
        restartable_redis.pause()
        reconnects = log.news.reconnects
        await until(lambda: log.news.reconnects > reconnects)
        assert not log.news.connected
        told = len(moves)
        restartable_redis.resume()
        await until(lambda: log.news.connected and len(moves) > told)


async def test_a_connection_that_was_lost_while_idle_is_noticed_before_its_use(
    restartable_redis: RestartableRedis,
) -> None:
    async with (
        log_in(restartable_redis.url) as log,
        Redis.from_url(restartable_redis.url) as redis,
    ):
        pool: Any = log.writes._server.client.connection_pool  # type: ignore[union-attr]
        for n in range(ROUNDS):
            assert await log.append(NAME, NewChunks(str(n))) == 1
            await log.last_index(NAME, "w")
            await redis.client_kill_filter(_type="normal", skipme=True)
            # The loop has heard of it, though nobody has used one of them since.
            await until(lambda: all(each._reader.at_eof() for each in pool._available_connections))
        assert await redis.xlen(LOG) == ROUNDS
        assert (log.writes.failures, log.reads.failures) == (0, 0)


async def test_a_user_needs_no_more_than_the_documents_say(
    restartable_redis: RestartableRedis,
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
    async with log_in(url) as log:
        moves: list[StreamMove] = []
        log.news.on_move = moves.extend
        log.follow(NAME)
        await until(lambda: len(moves) == 1)
        await log.append(NAME, NewChunks("0", "w", 0))
        await log.hold_open(NAME, "c", connected=True)
        await log.hold_open(NAME, "c", connected=False)
        await log.close(NAME)
        await until(lambda: any(move.closed for move in moves))
        page = await log.read(NAME, 0, max_chunks=10, max_bytes=1000)
        assert [chunk.text for chunk in page.chunks] == ["0"]
        log.runs_deleted(["run_1"])
        await asyncio.gather(*log._dropping)
        assert (await log.read(NAME, 0, max_chunks=1, max_bytes=1)).state.next_index == 0


async def test_what_is_gone_is_told_once(restartable_redis: RestartableRedis) -> None:
    async with log_in(restartable_redis.url) as log:
        await log.append(NAME, NewChunks("0", "w", 0))
        await asyncio.to_thread(restartable_redis.flush)
        with pytest.raises(StreamLost, match="ask how far it is"):
            await log.append(NAME, NewChunks("1", "w", 1))
        assert await log.last_index(NAME, "w") == -1
        assert await log.append(NAME, NewChunks("0\n1", "w", 0)) == 2
        assert log.lost == 1


async def test_large_groups_are_sent_in_pieces(restartable_redis: RestartableRedis) -> None:
    async with log_in(restartable_redis.url) as log:
        size = 300_000
        sent = [str(n) * (size // len(str(n))) for n in range(10, 40)]
        log._max_stream_bytes = 1 << 24
        stored = await asyncio.gather(*(log.append(NAME, NewChunks(text)) for text in sent))
        assert stored == [1] * len(sent)
        got: list[str] = []
        while chunks := (
            await log.read(NAME, len(got), max_chunks=100, max_bytes=1_000_000)
        ).chunks:
            assert len(chunks) == min(3, len(sent) - len(got))
            got += [chunk.text for chunk in chunks]
        assert got == sent


def test_a_connection_that_uvloop_has_closed_is_one_that_was_lost(redis_url: str) -> None:
    """It raises another error then than asyncio's own transports do. Found by chaos."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(_write_when_closed(redis_url)) == "RuntimeError"


async def _write_when_closed(redis_url: str) -> str:
    """Write to a connection of the driver whose transport is gone; what the driver raised."""
    connection: Any = Connection(**parse_url(redis_url))
    await connection.connect()
    connection._writer.transport.abort()
    with pytest.raises(BackendError, match="does not answer") as told:
        async with translated():
            await connection.send_command("PING", check_health=False)
    await connection.disconnect(nowait=True)
    return type(told.value.__cause__).__name__


async def test_a_connection_that_the_driver_gave_up_meanwhile_is_one_that_was_lost(
    redis_url: str,
) -> None:
    """Subscribing in one task while another one hears that the connection is gone. By chaos."""
    connection: Any = Connection(**parse_url(redis_url))
    await connection.connect()
    await connection.disconnect(nowait=True)
    with pytest.raises(BackendError, match="does not answer"):
        async with translated():
            await connection._send_packed_command([b"PING\r\n"])


async def test_other_mistakes_are_no_lost_connection() -> None:
    with pytest.raises(RuntimeError, match="ours"):
        async with translated():
            raise RuntimeError("a mistake of ours")
