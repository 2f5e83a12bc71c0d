"""What every `ChunkLog` promises: the one in memory, the one in Postgres and the one in Redis."""

import asyncio
import random
import uuid
from collections.abc import AsyncIterator, Sequence
from typing import Any, Protocol

import asyncpg
import pytest

from runcast.core.chunk import Chunk, ChunkPage, NewChunks, StreamName, StreamState
from runcast.errors import NotFound, StreamClosed, StreamFull, TooManyStreams
from runcast.ports import ChunkLog
from runcast.postgres.chunk_log import PostgresChunkLog
from runcast.postgres.database import Database
from runcast.postgres.stream_registry import StreamRegistry
from runcast.redis.chunk_log import RedisChunkLog
from runcast.redis.server import RedisServer
from runcast.testing import ManualClock, MemoryChunkLog

NAME = StreamName("run_1", "llm")
MAX_STREAMS = 3
MAX_STREAM_BYTES = 100_000
LEASE_SECONDS = 30.0
RETENTION_SECONDS = 50.0


class World(Protocol):
    """A log, on a world with the runs `run_1` and `run_2`, whose time can pass."""

    log: ChunkLog

    async def pass_time(self, seconds: float) -> None: ...

    async def delete_run(self, run_id: str) -> None: ...

    async def delete_old(self) -> None:
        """Let go of streams that nobody wrote to for the time that they are kept."""
        ...


class MemoryWorld:
    def __init__(self) -> None:
        self._clock = ManualClock()
        self._runs = {"run_1", "run_2"}
        self.log: ChunkLog = MemoryChunkLog(
            self._clock,
            runs=self._runs,
            max_streams=MAX_STREAMS,
            max_stream_bytes=MAX_STREAM_BYTES,
            lease_seconds=LEASE_SECONDS,
        )

    async def pass_time(self, seconds: float) -> None:
        self._clock.advance(seconds)

    async def delete_run(self, run_id: str) -> None:
        log = self.log
        assert isinstance(log, MemoryChunkLog)
        self._runs.remove(run_id)
        for name in [name for name in log._streams if name.run_id == run_id]:
            del log._streams[name]

    async def delete_old(self) -> None:
        assert isinstance(self.log, MemoryChunkLog)
        await self.log.prune(older_than_seconds=RETENTION_SECONDS)


class PostgresWorld:
    def __init__(self, database: Database, sql: "asyncpg.Connection[asyncpg.Record]") -> None:
        self._sql = sql
        self._registry = StreamRegistry(database, max_streams=MAX_STREAMS)
        self.log: ChunkLog = PostgresChunkLog(
            database,
            max_streams=MAX_STREAMS,
            max_stream_bytes=MAX_STREAM_BYTES,
            lease_seconds=LEASE_SECONDS,
        )

    async def pass_time(self, seconds: float) -> None:
        """Move all that was written into the past; the trigger that says "now" is passed by."""
        await self._sql.execute(f"""
            SET session_replication_role = replica;
            UPDATE streams SET updated_at = updated_at - interval '{seconds} seconds';
            UPDATE stream_writers SET open_until = open_until - interval '{seconds} seconds';
            SET session_replication_role = origin;
        """)

    async def delete_run(self, run_id: str) -> None:
        await self._sql.execute("DELETE FROM runs WHERE id = $1", run_id)
        await self._expect_no_lost_chunks()

    async def delete_old(self) -> None:
        await self._registry.prune(older_than_seconds=RETENTION_SECONDS)
        await self._expect_no_lost_chunks()

    async def _expect_no_lost_chunks(self) -> None:
        """No foreign key sees to it that chunks go with their streams."""
        left = await self._sql.fetchval(
            "SELECT count(*) FROM chunks WHERE stream_id NOT IN (SELECT id FROM streams)"
        )
        assert left == 0


class RedisWorld:
    def __init__(
        self,
        database: Database,
        sql: "asyncpg.Connection[asyncpg.Record]",
        server: RedisServer,
        prefix: str,
    ) -> None:
        self._sql = sql
        self._server = server
        self._prefix = prefix
        self._clock = ManualClock()
        self.redis_log = RedisChunkLog(
            server,
            StreamRegistry(database, max_streams=MAX_STREAMS),
            self._clock,
            prefix=prefix,
            max_stream_bytes=MAX_STREAM_BYTES,
            retention_seconds=RETENTION_SECONDS,
            lease_seconds=LEASE_SECONDS,
        )
        self.log: ChunkLog = self.redis_log

    async def pass_time(self, seconds: float) -> None:
        """Move all that is to come into the past: leases, and when keys expire."""
        self._clock.advance(seconds)
        redis: Any = self._server.client
        milliseconds = int(seconds * 1000)
        async for key in redis.scan_iter(match=f"{self._prefix}*"):
            if key.endswith(b":open"):
                for presence, until in await redis.zrange(key, 0, -1, withscores=True):
                    await redis.zadd(key, {presence: until - milliseconds})
            await redis.pexpire(key, await redis.pttl(key) - milliseconds)

    async def delete_run(self, run_id: str) -> None:
        """As the changefeed of a gateway tells it."""
        await self._sql.execute("DELETE FROM runs WHERE id = $1", run_id)
        self.redis_log.runs_deleted([run_id])
        await asyncio.gather(*self.redis_log._dropping)

    async def delete_old(self) -> None:
        """Nothing to do: Redis does it."""


@pytest.fixture(params=["memory", "postgres", "redis"])
def store(request: pytest.FixtureRequest) -> str:
    """Which log is tested; what it needs is asked for here, outside the loop."""
    if request.param != "memory":
        request.getfixturevalue("database_url")
    if request.param == "redis":
        request.getfixturevalue("redis_url")
    return str(request.param)


@pytest.fixture
async def world(store: str, request: pytest.FixtureRequest) -> AsyncIterator[World]:
    if store == "memory":
        yield MemoryWorld()
        return
    url = request.getfixturevalue("database_url")
    sql = await asyncpg.connect(url, server_settings={"search_path": "runcast"})
    await sql.execute("""
        INSERT INTO environments (id, slug, name) VALUES ('env_a', 'a', 'A');
        INSERT INTO runs (id, environment_id, task)
        VALUES ('run_1', 'env_a', 't'), ('run_2', 'env_a', 't');
    """)
    database = Database(url)
    await database.open()
    if store == "postgres":
        yield PostgresWorld(database, sql)
    else:
        server = RedisServer(request.getfixturevalue("redis_url"))
        world = RedisWorld(database, sql, server, f"test-{uuid.uuid4().hex}:")
        yield world
        await world.redis_log.close_connections()
        await server.close()
    await database.close()
    await sql.close()


@pytest.fixture
def log(world: World) -> ChunkLog:
    return world.log


def lines(*texts: str, writer: str | None = None, first: int = 0) -> NewChunks:
    return NewChunks("\n".join(texts), writer, first)


async def page(
    log: ChunkLog,
    offset: int = 0,
    *,
    name: StreamName = NAME,
    max_chunks: int = 10_000,
    max_bytes: int = 1 << 30,
) -> ChunkPage:
    return await log.read(name, offset, max_chunks=max_chunks, max_bytes=max_bytes)


async def texts(log: ChunkLog, name: StreamName = NAME) -> list[str]:
    """All there is, whose offsets have to count from 0."""
    chunks = (await page(log, name=name)).chunks
    assert [chunk.index for chunk in chunks] == list(range(len(chunks)))
    return [chunk.text for chunk in chunks]


class TestAppending:
    async def test_chunks_get_the_next_offsets(self, log: ChunkLog) -> None:
        assert await log.append(NAME, lines("a", "b")) == 2
        assert await log.append(NAME, lines("c")) == 1
        assert await texts(log) == ["a", "b", "c"]

    async def test_text_comes_out_as_it_went_in(self, log: ChunkLog) -> None:
        sent = [" ", "\t\x01\x7f", "é🌱\U0010ffff", r'"\u0000\ud800"', "{", "'; --", "\u2028"]
        await log.append(NAME, lines(*sent))
        assert await texts(log) == sent

    async def test_streams_are_apart(self, log: ChunkLog) -> None:
        other, third = StreamName("run_1", "logs"), StreamName("run_2", "llm")
        for name, text in ((NAME, "1"), (other, "2"), (third, "3")):
            await log.append(name, lines(text, writer="w"))
        assert [await texts(log, name) for name in (NAME, other, third)] == [["1"], ["2"], ["3"]]

    async def test_chunks_say_when_they_came(self, log: ChunkLog) -> None:
        await log.append(NAME, lines("a", "b"))
        times = [chunk.appended_at for chunk in (await page(log)).chunks]
        assert times == sorted(times)
        assert times[0] > 1_700_000_000_000


class TestTelling:
    async def test_what_is_told_is_what_is_read(self, log: ChunkLog) -> None:
        told: list[tuple[StreamName, Chunk]] = []
        log.on_append = lambda name, stored: told.extend((name, each) for each in stored.chunks())
        other = StreamName("run_2", "llm")
        await asyncio.gather(
            log.append(NAME, lines("a", "é", writer="w")),
            log.append(other, lines("b")),
            log.append(NAME, lines("c", writer="v")),
        )
        for stream in (NAME, other):
            heard = [chunk for name, chunk in told if name == stream]
            assert heard == list((await page(log, name=stream)).chunks)
        assert len(told) == 4

    async def test_what_was_there_already_or_is_refused_is_not_told(self, log: ChunkLog) -> None:
        told: list[str] = []
        log.on_append = lambda name, stored: told.append(stored.lines)
        await log.append(NAME, lines("a", "b", writer="w"))
        await log.append(NAME, lines("a", "b", "c", writer="w"))
        await log.append(NAME, lines("b", "c", writer="w", first=1))
        await log.close(NAME)
        with pytest.raises(StreamClosed):
            await log.append(NAME, lines("d"))
        assert told == ["a\nb", "c"]


class TestIdempotency:
    async def test_a_chunk_that_is_sent_again_is_stored_once(self, log: ChunkLog) -> None:
        sent = lines("a", "b", "c", writer="w")
        assert await log.append(NAME, lines("a", "b", writer="w")) == 2
        assert await log.append(NAME, sent) == 1
        assert await log.append(NAME, sent) == 0
        assert await texts(log) == ["a", "b", "c"]

    async def test_also_when_both_come_at_once(self, log: ChunkLog) -> None:
        sent = lines(*map(str, range(50)), writer="w")
        stored = await asyncio.gather(*(log.append(NAME, sent) for _ in range(5)))
        assert sum(stored) == 50
        assert await texts(log) == sent.lines.split("\n")

    async def test_writers_count_each_for_itself(self, log: ChunkLog) -> None:
        await log.append(NAME, lines("a", writer="v"))
        await log.append(NAME, lines("b", writer="w"))
        assert await texts(log) == ["a", "b"]

    async def test_without_a_writer_every_chunk_is_new(self, log: ChunkLog) -> None:
        for _ in range(2):
            await log.append(NAME, lines("a"))
        assert await texts(log) == ["a", "a"]

    async def test_the_last_index_is_the_highest_stored(self, log: ChunkLog) -> None:
        assert await log.last_index(NAME, "w") == -1
        await log.register(NAME)
        assert await log.last_index(NAME, "w") == -1
        await log.append(NAME, lines("f", "g", writer="w", first=5))
        assert await log.last_index(NAME, "w") == 6
        assert await log.last_index(NAME, "v") == -1
        assert await log.last_index(StreamName("run_1", "logs"), "w") == -1

    async def test_what_was_refused_is_not_counted(self, log: ChunkLog) -> None:
        with pytest.raises(StreamFull):
            await log.append(NAME, lines("x" * (MAX_STREAM_BYTES + 1), writer="w"))
        assert await log.last_index(NAME, "w") == -1
        assert await log.append(NAME, lines("y", writer="w")) == 1


class TestConcurrency:
    async def test_writers_of_one_stream_interleave_without_a_gap(self, log: ChunkLog) -> None:
        async def write(writer: str) -> None:
            for index in range(0, 60, 3):
                sent = [f"{writer}{n}" for n in range(index, index + 3)]
                await log.append(NAME, lines(*sent, writer=writer, first=index))

        await asyncio.gather(*(write(writer) for writer in "abcdefgh"))
        found = await texts(log)
        assert len(found) == 8 * 60
        for writer in "abcdefgh":
            assert [text for text in found if text[0] == writer] == [
                f"{writer}{n}" for n in range(60)
            ]

    async def test_many_streams_at_once(self, log: ChunkLog) -> None:
        names = [StreamName(run, key) for run in ("run_1", "run_2") for key in "abc"]
        appends = [(name, n) for n in range(40) for name in names]

        async def write(name: StreamName) -> None:
            for n in range(40):
                await log.append(name, lines(f"{name.run_id} {name.key} {n}"))

        await asyncio.gather(*map(write, names))
        for name in names:
            assert await texts(log, name) == [
                f"{name.run_id} {name.key} {n}" for each, n in appends if each == name
            ]

    async def test_appends_that_came_together_keep_their_order(self, log: ChunkLog) -> None:
        await log.register(NAME)
        await asyncio.gather(*(log.append(NAME, lines(str(n))) for n in range(100)))
        assert await texts(log) == [str(n) for n in range(100)]

    async def test_one_that_is_refused_hinders_no_other(self, log: ChunkLog) -> None:
        closed = StreamName("run_1", "closed")
        for name in (NAME, closed):
            await log.register(name)
        await log.close(closed)
        results: Sequence[int | BaseException] = await asyncio.gather(
            log.append(NAME, lines("a")),
            log.append(closed, lines("b")),
            log.append(NAME, lines("x" * (MAX_STREAM_BYTES + 1))),
            log.append(NAME, lines("c")),
            return_exceptions=True,
        )
        kinds = [type(result) for result in results]
        assert kinds == [int, StreamClosed, StreamFull, int]
        assert await texts(log) == ["a", "c"]

    async def test_an_append_whose_caller_left_does_not_disturb_the_others(
        self, log: ChunkLog
    ) -> None:
        await log.register(NAME)
        appends = [asyncio.create_task(log.append(NAME, lines(str(n)))) for n in range(20)]
        await asyncio.sleep(0)
        leaving = random.sample(appends, 5)
        for append in leaving:
            append.cancel()
        await asyncio.wait(appends)
        kept = [str(n) for n, append in enumerate(appends) if append not in leaving]
        assert [text for text in await texts(log) if text in kept] == kept


class TestLimits:
    async def test_streams_of_a_run_are_counted(self, log: ChunkLog) -> None:
        for number in range(MAX_STREAMS):
            await log.register(StreamName("run_1", f"s{number}"))
        await log.register(StreamName("run_1", "s0"))
        for call in (log.register(NAME), log.append(NAME, lines("a"))):
            with pytest.raises(TooManyStreams, match=f"at most {MAX_STREAMS} streams"):
                await call
        await log.append(StreamName("run_2", "llm"), lines("a"))

    async def test_they_are_counted_also_when_they_come_at_once(self, log: ChunkLog) -> None:
        names = [StreamName("run_1", f"s{number}") for number in range(3 * MAX_STREAMS)]
        results = await asyncio.gather(*map(log.register, names), return_exceptions=True)
        assert sum(isinstance(result, TooManyStreams) for result in results) == 2 * MAX_STREAMS

    async def test_a_full_stream_takes_nothing_of_what_is_too_much(self, log: ChunkLog) -> None:
        await log.append(NAME, lines("x" * (MAX_STREAM_BYTES - 2)))
        with pytest.raises(StreamFull, match=f"at most {MAX_STREAM_BYTES} bytes"):
            await log.append(NAME, lines("y", "zz"))
        assert (await page(log)).state.next_index == 1
        with pytest.raises(StreamFull):
            await log.append(NAME, lines("éé"))  # bytes, not characters
        assert await log.append(NAME, lines("é")) == 1

    async def test_what_a_full_stream_holds_may_be_sent_again(self, log: ChunkLog) -> None:
        sent = lines("x" * MAX_STREAM_BYTES, writer="w")
        await log.append(NAME, sent)
        assert await log.append(NAME, sent) == 0

    async def test_an_unknown_run_has_no_streams(self, log: ChunkLog) -> None:
        name = StreamName("run_0", "llm")
        for call in (
            log.register(name),
            log.append(name, lines("a")),
            log.hold_open(name, "c", connected=True),
        ):
            with pytest.raises(NotFound):
                await call

    async def test_a_run_that_was_deleted_takes_its_streams_along(self, world: World) -> None:
        log = world.log
        await log.append(NAME, lines("a"))
        await world.delete_run("run_1")
        assert await page(log) == ChunkPage((), StreamState())
        for call in (log.append(NAME, lines("b")), log.hold_open(NAME, "c", connected=False)):
            with pytest.raises(NotFound):
                await call


class TestClosing:
    async def test_nothing_comes_after_the_close(self, log: ChunkLog) -> None:
        await log.append(NAME, lines("a", writer="w"))
        assert not (await page(log)).state.closed
        for _ in range(2):
            await log.close(NAME)
        assert (await page(log)).state.closed
        with pytest.raises(StreamClosed):
            await log.append(NAME, lines("b", writer="w", first=1))
        assert await log.append(NAME, lines("a", writer="w")) == 0
        assert await texts(log) == ["a"]

    async def test_a_writer_counts_while_it_is_connected(self, log: ChunkLog) -> None:
        for presence in ("one", "two"):
            await log.hold_open(NAME, presence, connected=True)
        for presence in ("one", "two"):
            assert (await page(log)).state.has_open_writers
            await log.hold_open(NAME, presence, connected=False)
        assert not (await page(log)).state.has_open_writers

    async def test_a_writer_that_nobody_hears_of_is_gone(self, world: World) -> None:
        await world.log.hold_open(NAME, "one", connected=True)
        await world.pass_time(LEASE_SECONDS - 5)
        assert (await page(world.log)).state.has_open_writers
        await world.log.hold_open(NAME, "one", connected=True)
        await world.pass_time(LEASE_SECONDS - 5)
        assert (await page(world.log)).state.has_open_writers
        await world.pass_time(6)
        assert not (await page(world.log)).state.has_open_writers

    async def test_presence_says_nothing_of_what_was_written(self, log: ChunkLog) -> None:
        await log.append(NAME, lines("a", writer="w"))
        await log.hold_open(NAME, "c", connected=True)
        await log.hold_open(NAME, "c", connected=False)
        assert await log.last_index(NAME, "w") == 0
        assert await log.last_index(NAME, "c") == -1


class TestReading:
    async def test_a_stream_that_nobody_wrote_to_is_empty(self, log: ChunkLog) -> None:
        assert await page(log) == ChunkPage((), StreamState())
        assert await page(log, 7) == ChunkPage((), StreamState())
        await log.register(NAME)
        assert list((await page(log)).chunks) == []

    async def test_pages_are_bounded_by_count(self, log: ChunkLog) -> None:
        await log.append(NAME, lines(*map(str, range(10))))
        found = await page(log, 3, max_chunks=4)
        assert [chunk.index for chunk in found.chunks] == [3, 4, 5, 6]
        assert found.state.next_index == 10
        assert list((await page(log, 3, max_chunks=0)).chunks) == []
        assert (await page(log, 3, max_chunks=0)).state.next_index == 10

    async def test_pages_are_bounded_by_bytes_but_never_empty(self, log: ChunkLog) -> None:
        await log.append(NAME, lines("é" * 10, "b" * 20, "c" * 30, "d"))
        for max_bytes, count in ((1, 1), (39, 1), (40, 2), (69, 2), (70, 3), (71, 4)):
            found = (await page(log, max_bytes=max_bytes)).chunks
            assert len(found) == count
        assert [chunk.index for chunk in (await page(log, 2, max_bytes=1)).chunks] == [2]

    async def test_behind_the_end_is_nothing(self, log: ChunkLog) -> None:
        await log.append(NAME, lines("a", "b"))
        for offset in (2, 3, 10**18):
            found = await page(log, offset)
            assert list(found.chunks) == []
            assert found.state.next_index == 2

    async def test_pages_put_together_are_the_stream(self, log: ChunkLog) -> None:
        sent = ["x" * (n % 50) for n in range(300)]
        await log.append(NAME, lines(*sent))
        got: list[str] = []
        while found := (await page(log, len(got), max_chunks=17, max_bytes=400)).chunks:
            assert found[0].index == len(got)
            got += [chunk.text for chunk in found]
        assert got == sent


class TestRetention:
    async def test_streams_that_nobody_wrote_to_for_long_are_deleted(self, world: World) -> None:
        log = world.log
        old, kept = NAME, StreamName("run_1", "kept")
        for name in (old, kept):
            await log.append(name, lines("a", writer="w"))
        await world.pass_time(RETENTION_SECONDS - 10)
        await log.append(kept, lines("b"))
        await world.pass_time(20)
        await world.delete_old()
        assert await page(log, name=old) == ChunkPage((), StreamState())
        assert await texts(log, kept) == ["a", "b"]

    async def test_one_with_a_connected_writer_stays(self, world: World) -> None:
        await world.log.append(NAME, lines("a"))
        await world.pass_time(RETENTION_SECONDS - 10)
        await world.log.hold_open(NAME, "c", connected=True)
        await world.pass_time(20)
        await world.delete_old()
        assert await texts(world.log) == ["a"]

    async def test_it_may_begin_again_from_nothing(self, world: World) -> None:
        log = world.log
        await log.append(NAME, lines("a", "b", writer="w"))
        before = (await page(log)).state.generation
        await log.close(NAME)
        await world.pass_time(2 * RETENTION_SECONDS)
        await world.delete_old()
        assert await log.last_index(NAME, "w") == -1
        assert await log.append(NAME, lines("c", writer="w")) == 1
        assert await texts(log) == ["c"]
        assert (await page(log)).state.generation not in (0, before)

    async def test_a_generation_lasts(self, log: ChunkLog) -> None:
        await log.append(NAME, lines("a"))
        generation = (await page(log)).state.generation
        await log.append(NAME, lines("b"))
        await log.close(NAME)
        assert (await page(log)).state.generation == generation != 0
