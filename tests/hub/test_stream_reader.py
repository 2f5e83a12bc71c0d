"""One reader of a stream: where it begins, what ends it, and what its run has to do with it."""

from collections.abc import Sequence

import pytest

from runcast.core.frame import End
from runcast.web.stream_reading import run_key
from tests.support.gateway_app import until
from tests.support.grants import make_grant
from tests.support.stream_hub import NAME, StreamHub, away, calm


class TestBeginning:
    @pytest.mark.parametrize(
        ("offset", "expected"), [(0, [0, 1, 2]), (2, [2]), (3, []), (None, [])]
    )
    async def test_from_an_offset_or_behind_all_there_is(
        self, offset: int | None, expected: list[int]
    ) -> None:
        world = StreamHub()
        await world.append_many(3)
        client = await world.live(offset)
        assert client.parts == expected
        await world.append()
        await calm()
        assert client.parts == [*expected, 3]

    async def test_a_stream_that_does_not_exist_may_begin_later(self) -> None:
        world = StreamHub()
        client = await world.live()
        await world.append()
        await calm()
        assert client.parts == [0]

    async def test_far_beyond_the_end_it_is_said_and_read_from_the_start(self) -> None:
        world = StreamHub()
        await world.append()
        client = world.read(10**18)
        await calm()
        assert client.events == ["reset ahead", "up-to-date"]
        assert client.parts == [0]

    async def test_parts_come_at_the_pace_of_the_connection(self) -> None:
        world = StreamHub(stream_page_bytes=10)
        await world.append(*["x" * 10] * 50)
        client = world.read(writable=False)
        await calm()
        assert (client.parts, world.log.reads) == ([], 0)
        for taken in range(1, 51):
            client.outlet.on_write = lambda: client.outlet.set_writable(False)
            client.outlet.set_writable(True)
            await calm()
            assert len(client.parts) <= taken + 1
        client.outlet.on_write = lambda: None
        client.outlet.set_writable(True)
        await calm()
        assert len(client.parts) == 50
        assert client.events == ["up-to-date"]

    async def test_while_the_log_is_away_it_is_asked_again(self) -> None:
        world = StreamHub()
        await world.append()
        world.log.failures = [away(), away()]
        client = world.read()
        await until(lambda: client.parts == [0])
        assert client.events == ["up-to-date"]

    async def test_an_unforeseen_error_drops_the_connection(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        world = StreamHub()
        world.log.failures = [ZeroDivisionError()]
        client = world.read()
        await calm()
        assert client.outlet.ended == "aborted"
        assert "a stream could not be read" in caplog.text
        assert not world.hub._tails


class TestEnd:
    @pytest.mark.parametrize("single", [False, True])
    async def test_a_closed_stream_ends_and_only_a_connection_of_its_own_with_it(
        self, single: bool
    ) -> None:
        world = StreamHub()
        client = await world.live(single=single)
        await world.append()
        await world.log.close(NAME)
        await calm()
        assert client.parts == [0]
        assert client.events == ["up-to-date", "end closed"]
        assert client.outlet.ended == ("1000" if single else None)
        assert not client.connection.subscribers
        assert not world.hub._tails
        assert not world.hub._audiences

    async def test_a_reader_that_is_behind_gets_all_and_its_end(self) -> None:
        world = StreamHub()
        client = await world.live()
        client.outlet.set_writable(False)
        await world.append_many(3)
        await world.log.close(NAME)
        await calm()
        assert client.parts == []
        client.outlet.set_writable(True)
        await calm()
        assert client.parts == [0, 1, 2]
        assert client.events == ["up-to-date", "end closed"]

    @pytest.mark.parametrize("single", [False, True])
    async def test_a_reader_that_has_all_and_takes_nothing_now_gets_its_end_later(
        self, single: bool
    ) -> None:
        world = StreamHub()
        client = await world.live(single=single)
        client.outlet.set_writable(False)
        await world.log.register(NAME)
        await world.log.close(NAME)
        await calm()
        assert client.events == ["up-to-date"]
        assert client.outlet.ended is None
        client.outlet.set_writable(True)
        await calm()
        assert client.events == ["up-to-date", "end closed"]
        assert not client.connection.subscribers

    async def test_a_last_page_that_could_not_be_written_at_once_is_not_lost(self) -> None:
        world = StreamHub()
        await world.append_many(3)
        await world.log.close(NAME)
        hold = world.log.hold_next_read()
        client = world.read()
        await hold.reached.wait()
        client.outlet.set_writable(False)  # others write to this connection as well
        hold.release()
        await calm()
        assert client.parts == []
        client.outlet.set_writable(True)
        await calm()
        assert client.parts == [0, 1, 2]
        assert client.events == ["up-to-date", "end closed"]

    async def test_a_finished_run_ends_a_stream_without_writers(self) -> None:
        world = StreamHub()
        client = await world.live()
        world.finish()
        await calm()
        assert client.events == ["up-to-date", "end finished"]

    async def test_a_finished_run_waits_for_its_writers(self) -> None:
        world = StreamHub()
        await world.log.hold_open(NAME, "w", connected=True)
        client = await world.live()
        world.finish()
        await world.append()
        await calm()
        assert client.events == ["up-to-date"]
        await world.log.hold_open(NAME, "w", connected=False)
        await calm()
        assert client.parts == [0]
        assert client.events == ["up-to-date", "end finished"]

    async def test_unsubscribing_in_the_middle_of_a_read_says_so_and_nothing_else(self) -> None:
        world = StreamHub()
        await world.append()
        hold = world.log.hold_next_read()
        client = world.read()
        await hold.reached.wait()
        client.reader.close(End("unsubscribed"))
        hold.release()
        await calm()
        assert (client.parts, client.events) == ([], ["end unsubscribed"])
        assert not world.hub._tails


class TestRun:
    @pytest.mark.parametrize("told", [True, False], ids=["told", "before it was watched"])
    async def test_a_deleted_run_ends_its_readers(self, told: bool) -> None:
        world = StreamHub()
        if told:
            client = await world.live(single=True)
            world.delete()
        else:
            world.delete(told=False)
            client = world.read(single=True)
        await calm()
        assert client.events[-1] == "problem not_found"
        assert client.outlet.ended is not None

    @pytest.mark.parametrize("told", [True, False], ids=["told", "before it was watched"])
    async def test_who_may_not_see_the_run_any_more_reads_no_more(self, told: bool) -> None:
        world = StreamHub()
        if told:
            client = await world.live(scopes="read:tags:a")
            world.change(tags=("b",))
        else:
            world.change(told=False, tags=("b",))
            client = world.read(scopes="read:tags:a")
        await world.append()
        await calm()
        assert client.parts == []
        assert client.events[-1] == "problem insufficient_scope"

    async def test_a_run_that_finished_before_it_was_watched_ends_its_stream(self) -> None:
        world = StreamHub()
        await world.append()
        world.finish(told=False)
        client = world.read(run_over=False)  # so it was when the request was judged
        await calm()
        assert client.parts == [0]
        assert client.events == ["up-to-date", "end finished"]

    async def test_a_run_is_looked_at_once(self) -> None:
        world = StreamHub()
        looks: list[str] = []
        look_up_runs = world.runs.look_up_runs

        async def look(environment_id: str, run_ids: Sequence[str]) -> object:
            looks.extend(run_ids)
            return await look_up_runs(environment_id, run_ids)

        world.runs.look_up_runs = look  # type: ignore[method-assign, assignment]
        client = await world.live()
        client.outlet.set_writable(False)
        await world.append()
        await calm()
        client.outlet.set_writable(True)
        await calm()
        assert client.parts == [0]
        assert looks == [NAME.run_id]

    async def test_other_changes_of_the_run_are_not_told(self) -> None:
        world = StreamHub()
        client = await world.live()
        world.change(status="EXECUTING")
        await calm()
        assert client.events == ["up-to-date"]

    @pytest.mark.parametrize("reason", ["other_database", "ahead"])
    async def test_when_the_changefeed_lost_its_place_the_stream_is_looked_at(
        self, reason: str
    ) -> None:
        world = StreamHub()
        client = await world.live()
        world.log.on_move = lambda move: None
        await world.append()
        world.hub.restart(world.runs.position, reason, "m")
        await calm()
        assert client.parts == [0]


class TestTime:
    async def test_nothing_is_sent_after_the_grant_is_over(self) -> None:
        world = StreamHub()
        client = await world.live(expires_in=60)
        world.clock.advance(58)
        await world.append()
        await calm()
        world.clock.advance(2)
        await world.append()
        await calm()
        assert client.parts == [0]
        assert client.outlet.ended == "4001 expired_token"

    async def test_a_reader_that_waited_long_enough_ends_cleanly(self) -> None:
        world = StreamHub()
        client = await world.live(single=True, timeout_seconds=10)
        world.clock.advance(9)
        await world.append()
        await calm()
        world.clock.advance(9)
        client.connection.tick(world.clock.now())
        assert client.outlet.ended is None
        world.clock.advance(1)
        client.connection.tick(world.clock.now())
        assert client.events == ["up-to-date", "end idle"]
        assert client.outlet.ended == "1000"

    async def test_it_is_looked_at_when_its_time_comes(self) -> None:
        world = StreamHub(heartbeat_seconds=300)
        client = await world.live(single=True, timeout_seconds=10)
        for _ in range(45):
            world.clock.advance(0.25)
            world.hub._wheel.turn(lambda error: pytest.fail(str(error)))
        assert client.events == ["up-to-date", "end idle"]

    async def test_a_reader_that_takes_nothing_is_dropped(self) -> None:
        world = StreamHub(stall_timeout_seconds=30)
        client = await world.live()
        client.outlet.set_writable(False)
        await world.append()
        await calm()
        world.clock.advance(31)
        client.connection.tick(world.clock.now())
        assert client.outlet.ended == "aborted"
        assert world.hub.counts.closed["slow_consumer"] == 1
        assert not world.hub._tails


class TestRenewal:
    async def test_what_is_read_meanwhile_waits_for_a_look_at_the_run(self) -> None:
        world = StreamHub()
        await world.append()
        hold = world.log.hold_next_read()
        client = world.read()
        await hold.reached.wait()
        world.change(tags=("b",))
        client.reader.renew(run_key(make_grant(["read:tags:a"]), NAME.run_id))
        hold.release()
        await calm()
        assert client.parts == []
        assert client.events == ["problem insufficient_scope"]

    async def test_a_reader_that_may_go_on_misses_nothing(self) -> None:
        world = StreamHub()
        world.tell_appends()
        client = await world.live()
        await world.append()
        client.reader.renew(run_key(make_grant(["read:tags:a"]), NAME.run_id))
        await world.append()
        await calm()
        await world.append()
        await calm()
        assert (client.parts, client.events) == ([0, 1, 2], ["up-to-date"])
        world.change(tags=("b",))
        assert client.events[1:] == ["problem insufficient_scope"]
