"""The newest chunks of a stream, shared by its readers."""

import asyncio
import random
from typing import Any

import pytest

from runcast.core.chunk import StoredChunks, StreamMove, StreamName
from tests.support.gateway_app import until
from tests.support.stream_hub import NAME, Client, StreamHub, away, calm


def kept(client: Client) -> int:
    return sum(len(chunk.text) for chunk in client.reader.tail._recent)


class TestSharing:
    async def test_what_is_appended_is_read_once_for_all(self) -> None:
        world = StreamHub()
        clients = [await world.live() for _ in range(20)]
        before = world.log.reads
        await world.append_many(5)
        await calm()
        assert world.log.reads == before + 1
        for client in clients:
            assert client.parts == [0, 1, 2, 3, 4]

    async def test_many_moves_at_once_are_read_together(self) -> None:
        world = StreamHub()
        client = await world.live()
        hold = world.log.hold_next_read()
        await world.append()
        await hold.reached.wait()
        before = world.log.reads
        for _ in range(50):
            await world.append()
        hold.release()
        await calm()
        assert client.parts == list(range(51))
        assert world.log.reads <= before + 2

    async def test_a_reader_a_little_behind_reads_memory(self) -> None:
        world = StreamHub()
        first, slow = await world.live(), await world.live()
        slow.outlet.set_writable(False)
        for _ in range(10):
            await world.append()
            await calm()
        before = world.log.reads
        slow.outlet.set_writable(True)
        await calm()
        assert slow.parts == first.parts == list(range(10))
        assert world.log.reads == before

    async def test_the_last_reader_takes_the_tail_along(self) -> None:
        world = StreamHub()
        first, second = await world.live(), await world.live()
        assert world.hub.tail_of(NAME) is first.reader.tail is second.reader.tail
        first.outlet.leave()
        assert world.hub.tail_of(NAME) is second.reader.tail
        second.outlet.leave()
        assert not world.hub._tails
        await world.append()
        third = await world.live()
        assert third.parts == [0]


class TestMemory:
    async def test_no_more_is_kept_than_the_budget(self) -> None:
        world = StreamHub(stream_tail_bytes=1000)
        client = await world.live()
        for size in (400, 400, 400, 2000, 10, 990, 1, 100):
            await world.append("x" * size)
            await calm()
            assert kept(client) <= 1000
        assert [len(text) for text in client.parts] == [400, 400, 400, 2000, 10, 990, 1, 100]

    async def test_a_reader_that_takes_nothing_costs_nothing(self) -> None:
        world = StreamHub(stream_tail_bytes=1000, stream_page_bytes=1000)
        stalled, other = await world.live(), await world.live()
        stalled.outlet.set_writable(False)
        written = len(stalled.outlet.written)
        for _ in range(100):
            await world.append("x" * 100)
            await calm()
        assert len(other.parts) == 100
        assert len(stalled.outlet.written) == written
        assert not stalled.reader.machine._outgoing
        assert kept(stalled) <= 1000
        stalled.outlet.set_writable(True)
        await calm()
        assert stalled.parts == other.parts


class TestJoining:
    @pytest.mark.parametrize("others", [0, 1])
    async def test_what_comes_while_a_reader_joins_is_not_missed(self, others: int) -> None:
        world = StreamHub()
        for _ in range(others):
            await world.live()
        await world.append_many(3)
        await calm()
        hold = world.log.hold_next_read()
        client = world.read(0 if not others else None)
        await hold.reached.wait()
        await world.append_many(2)
        await calm()
        hold.release()
        await calm()
        assert client.parts == ([0, 1, 2, 3, 4] if not others else [3, 4])
        await world.append()
        await calm()
        assert client.parts[-1] == 5

    @pytest.mark.parametrize("others", [0, 1])
    async def test_a_close_while_a_reader_joins_is_not_missed(self, others: int) -> None:
        world = StreamHub()
        await world.append()
        clients = [await world.live() for _ in range(others)]
        hold = world.log.hold_next_read()
        clients.append(world.read(None))
        await hold.reached.wait()
        await world.log.close(NAME)
        await calm()
        hold.release()
        await calm()
        assert [client.events[-1] for client in clients] == ["end closed"] * (others + 1)

    async def test_a_run_that_finishes_while_a_reader_joins_is_not_missed(self) -> None:
        world = StreamHub()
        await world.log.hold_open(NAME, "w", connected=True)
        await calm()
        hold = world.log.hold_next_read()
        client = world.read()
        await hold.reached.wait()
        await world.log.hold_open(NAME, "w", connected=False)
        world.finish()
        await calm()
        hold.release()
        await calm()
        assert client.events[-1] == "end finished"

    async def test_a_page_that_does_not_know_a_writer_ends_nothing(self) -> None:
        world = StreamHub()
        hold = world.log.hold_next_read()
        client = world.read()
        await hold.reached.wait()
        await world.log.hold_open(NAME, "w", connected=True)
        world.finish()
        await calm()
        hold.release()
        await calm()
        assert client.events == ["up-to-date"]
        await world.append()
        await world.log.hold_open(NAME, "w", connected=False)
        await calm()
        assert client.parts == [0]
        assert client.events[-1] == "end finished"


class TestPulling:
    async def test_a_pull_that_does_not_know_a_writer_ends_nothing(self) -> None:
        world = StreamHub()
        client = await world.live()
        hold = world.log.hold_next_read()
        client.reader.tail.pull()
        await hold.reached.wait()
        await world.log.hold_open(NAME, "w", connected=True)
        world.finish()
        await calm()
        hold.release()
        await calm()
        assert client.events == ["up-to-date"]
        await world.append()
        await world.log.hold_open(NAME, "w", connected=False)
        await calm()
        assert client.parts == [0]
        assert client.events[-1] == "end finished"

    async def test_what_moves_in_the_moment_a_pull_ends_is_not_missed(self) -> None:
        world = StreamHub()
        client = await world.live()
        late: list[asyncio.Task[None]] = []

        def append_next() -> None:
            # Runs after the pull has returned, and before its callback.
            client.outlet.on_write = lambda: None
            late.append(asyncio.create_task(world.append()))

        client.outlet.on_write = append_next
        await world.append()
        await calm()
        await asyncio.gather(*late)
        assert client.parts == [0, 1]

    async def test_while_the_log_is_away_it_is_asked_again(self) -> None:
        world = StreamHub()
        client = await world.live()
        world.log.failures = [away()]
        await world.append()
        await until(lambda: client.parts == [0])
        assert client.outlet.ended is None

    async def test_an_unforeseen_error_drops_the_readers_which_come_again(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        world = StreamHub()
        client = await world.live()
        world.log.failures = [ZeroDivisionError()]
        await world.append()
        await calm()
        assert client.outlet.ended == "aborted"
        assert "a stream could not be followed" in caplog.text
        assert (await world.live()).parts == [0]

    async def test_an_answer_that_comes_late_takes_nothing_back(self) -> None:
        world = StreamHub()
        client = await world.live()
        hold = world.log.hold_next_read()
        await world.append()
        await hold.reached.wait()
        await world.append()
        joined = world.read()  # has both before the others have the first
        await calm()
        assert joined.parts == [0, 1]
        hold.release()
        await calm()
        await world.append()
        await calm()
        assert client.parts == joined.parts == [0, 1, 2]


class TestWriters:
    async def test_a_finished_run_with_a_lost_writer_ends_after_its_lease(self) -> None:
        world = StreamHub(stream_lease_seconds=0.06)
        await world.log.hold_open(NAME, "w", connected=True)
        early = await world.live()
        world.finish()
        await calm()
        late = await world.live(run_over=True)
        assert early.events == late.events == ["up-to-date"]
        world.clock.advance(1)
        await until(lambda: early.events[-1] == late.events[-1] == "end finished")

    async def test_a_reader_that_comes_alone_and_late_is_told_as_well(self) -> None:
        world = StreamHub(stream_lease_seconds=0.06)
        await world.log.hold_open(NAME, "w", connected=True)
        world.finish()
        late = await world.live(run_over=True)
        world.clock.advance(1)
        await until(lambda: late.events[-1] == "end finished")


class TestBeginningAnew:
    @pytest.mark.parametrize("count", [1, 5, 9])
    async def test_a_stream_that_was_deleted_and_begun_again_is_read_from_its_start(
        self, count: int
    ) -> None:
        world = StreamHub()
        await world.append_many(5)
        client = await world.live()
        world.clock.advance(1000)
        assert await world.log.prune(older_than_seconds=100) == 1
        world.count = 0
        for _ in range(count):
            await world.append()
            await calm()
        assert client.events == ["up-to-date", "reset ahead"]
        assert client.parts == list(range(count))
        fresh = await world.live()
        assert fresh.parts == client.parts

    @pytest.mark.parametrize("count", [5, 9])
    async def test_also_when_it_has_reached_the_old_one_at_once(self, count: int) -> None:
        world = StreamHub()
        await world.append_many(5)
        client = await world.live()
        world.clock.advance(1000)
        assert await world.log.prune(older_than_seconds=100) == 1
        world.count = 0
        world.log.on_move = lambda move: None  # all of it comes as one piece of news
        await world.append_many(count)
        other = StreamMove(StreamName("run_1", "other"), None, False)
        assert not world.hub.streams_moved([other]), "nobody reads it"
        assert world.hub.streams_moved([other, StreamMove(NAME, None, False), other])
        await until(lambda: client.events[1:] == ["reset begun_anew"] and len(client.parts) > 0)
        await calm()
        assert client.parts == list(range(count))

    async def test_nothing_is_handed_on_while_that_is_not_known(self) -> None:
        world = StreamHub()
        world.tell_appends(and_moves=False)
        await world.append()
        client = await world.live()
        tail = world.hub.tail_of(NAME)
        with_news = world.log.hold_next_read()
        world.hub.streams_moved([StreamMove(NAME, None, False)])
        await world.append()
        assert client.parts == [0]
        with_news.release()
        await until(lambda: client.parts == [0, 1])
        assert tail.readers

    async def test_a_reader_who_comes_then_does_not_read_for_ever(self) -> None:
        world = StreamHub()
        await world.append_many(5)
        await world.live()
        world.clock.advance(1000)
        await world.log.prune(older_than_seconds=100)
        world.log.on_move = lambda move: None  # the changefeed is behind
        await world.append()
        fresh = await world.live()
        before = world.log.reads
        await calm()
        assert world.log.reads == before
        assert len(fresh.parts) == 1


@pytest.mark.parametrize("seed", range(12))
async def test_whatever_happens_everybody_gets_everything_once(seed: int) -> None:
    dice = random.Random(seed)
    world = StreamHub(stream_tail_bytes=300, stream_page_bytes=dice.choice([1, 200, 10_000]))
    got: list[list[int]] = [[] for _ in range(6)]
    clients = [world.read(0) for _ in got]

    def come_again(place: int) -> None:
        got[place] += clients[place].parts
        clients[place].outlet.leave()
        clients[place] = world.read(len(got[place]), writable=dice.random() < 0.8)

    for _ in range(300):
        place = dice.randrange(len(got))
        match dice.randrange(6):
            case 0 | 1:
                await world.append_many(dice.randint(1, 30))
            case 2:
                clients[place].outlet.set_writable(dice.random() < 0.6)
            case 3 if dice.random() < 0.5:
                come_again(place)
            case 4:
                asyncio.get_running_loop().call_soon(world.log.hold_next_read().release)
            case _:
                for _ in range(dice.randint(1, 5)):
                    await asyncio.sleep(0)
    await world.log.close(NAME)
    for client in clients:
        client.outlet.set_writable(True)
    for _ in range(50):  # pages may be small
        await calm()
    assert [client.events[-1] for client in clients] == ["end closed"] * len(clients)
    for mine, client in zip(got, clients, strict=True):
        assert mine + client.parts == list(range(world.count))
        assert client.events.count("up-to-date") == 1
    assert not world.hub._tails


class TestAppendedHere:
    """Chunks that this gateway stored itself reach live readers without being read."""

    @pytest.mark.parametrize("and_moves", [True, False])
    async def test_they_are_not_read(self, and_moves: bool) -> None:
        world = StreamHub()
        world.tell_appends(and_moves=and_moves)
        await world.append()
        clients = [await world.live() for _ in range(5)]
        before = world.log.reads
        for count in (1, 3, 2):
            await world.append_many(count)
            await calm()
        assert world.log.reads == before
        for client in clients:
            assert client.parts == list(range(7))

    async def test_a_close_is_seen(self) -> None:
        world = StreamHub()
        world.tell_appends()
        client = await world.live()
        await world.append()
        await world.log.close(NAME)
        await calm()
        assert client.parts == [0]
        assert client.events == ["up-to-date", "end closed"]

    async def test_the_last_writer_of_a_finished_run_is_missed(self) -> None:
        world = StreamHub()
        world.tell_appends()
        client = await world.live()
        await world.log.hold_open(NAME, "w", connected=True)
        world.finish()
        await world.append()
        await calm()
        assert client.events == ["up-to-date"]
        await world.log.hold_open(NAME, "w", connected=False)
        await calm()
        assert client.parts == [0]
        assert client.events == ["up-to-date", "end finished"]

    async def test_beyond_a_gap_they_wait_for_the_news(self) -> None:
        world = StreamHub()
        client = await world.live()
        on_move, world.log.on_move = world.log.on_move, lambda move: None
        await world.append()  # by another gateway, say
        world.log.on_append = world.hub.chunks_appended
        await world.append()
        await calm()
        assert client.parts == []
        world.log.on_move = on_move
        await world.append()
        await calm()
        assert client.parts == [0, 1, 2]

    async def test_a_read_that_is_on_its_way_doubles_nothing(self) -> None:
        world = StreamHub()
        client = await world.live()
        hold = world.log.hold_next_read()
        await world.append_many(3)
        await hold.reached.wait()  # it has these three, but not the next
        world.hub.chunks_appended(NAME, StoredChunks(0, "0\n1", 0, 2, 2))
        hold.release()
        await calm()
        assert client.parts == [0, 1, 2]

    async def test_a_read_that_is_outrun_says_nothing_old(self) -> None:
        world = StreamHub()
        world.tell_appends()
        client = await world.live()
        hold = world.log.hold_next_read()
        client.reader.tail.pull()
        await hold.reached.wait()
        await world.append_many(2)
        hold.release()
        await calm()
        assert client.parts == [0, 1]
        assert client.events == ["up-to-date"]

    async def test_a_reader_that_comes_meanwhile_misses_nothing(self) -> None:
        world = StreamHub()
        world.tell_appends(and_moves=False)
        first = await world.live()
        hold = world.log.hold_next_read()
        second = world.read()
        await hold.reached.wait()
        await world.append_many(2)
        hold.release()
        await calm()
        await world.append()
        await calm()
        assert first.parts == second.parts == [0, 1, 2]

    async def test_a_first_reader_that_comes_meanwhile_misses_nothing(self) -> None:
        world = StreamHub()
        world.tell_appends(and_moves=False)
        hold = world.log.hold_next_read()
        client = world.read()
        await hold.reached.wait()
        await world.append_many(2)
        hold.release()
        await calm()
        await world.append()
        await calm()
        assert client.parts == [0, 1, 2]

    async def test_a_fault_drops_those_who_may_have_missed_something(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        world = StreamHub()
        world.tell_appends()
        client, other = await world.live(), await world.live()

        def fail() -> None:
            raise ValueError("planted")

        client.outlet.on_write = fail
        with caplog.at_level("ERROR"):
            await world.append()
            await calm()
        assert (client.outlet.ended, other.outlet.ended) == ("aborted", "aborted")
        assert "planted" in caplog.text

    async def test_random_news_in_any_order(self) -> None:
        chance = random.Random(7)
        world = StreamHub()
        clients = [await world.live() for _ in range(3)]
        tell, on_move = world.hub.chunks_appended, world.log.on_move
        late: list[Any] = []
        for _ in range(200):
            told = chance.random() < 0.5
            world.log.on_append = tell if told else lambda name, chunks: None
            world.log.on_move = late.append
            await world.append_many(chance.randint(1, 3))
            if chance.random() < 0.3:
                world.log.hold_next_read().release()
            while late and chance.random() < 0.6:
                on_move(late.pop(0))
            for client in clients:
                if chance.random() < 0.1:
                    client.outlet.set_writable(not client.outlet.writable)
            if chance.random() < 0.1:
                clients.append(world.read())
            if chance.random() < 0.5:
                await calm()
        for move in late:
            on_move(move)
        for client in clients:
            client.outlet.set_writable(True)
        await calm()
        for client in clients:
            assert client.parts == list(range(world.count))
            assert client.events == ["up-to-date"]
