"""Bringing a subscriber up to date: page by page, at its pace, through all that goes wrong."""

import logging

import pytest

from runcast.core.frame import End, Problem
from runcast.core.position import Position
from runcast.core.selector import Selector
from runcast.errors import BackendError
from runcast.hub import session as session_module
from tests.support.gateway_app import until
from tests.support.run_hub import EVERYTHING, RunHub, socket_feed
from tests.support.stream_hub import calm

ONE = Selector("env_1", run_id="run_1")
FINISHED = {"status": "COMPLETED_SUCCESSFULLY"}


def many(count: int) -> list[str]:
    return [f"run_{number:03}" for number in range(count)]


class TestPages:
    async def test_grow_up_to_the_limit(self) -> None:
        world = RunHub(snapshot_page_runs=100)
        world.write(*many(250))
        client = await world.live()
        assert world.runs.limits == [20, 80, 100, 100]
        assert len(client.runs) == 250

    async def test_never_exceed_it(self) -> None:
        world = RunHub(snapshot_page_runs=3)
        world.write(*many(7))
        await world.live()
        assert world.runs.limits == [3, 3, 3]

    async def test_wait_for_the_reader(self) -> None:
        world = RunHub(snapshot_page_runs=2)
        world.write(*many(6))
        client = world.connect(writable=False)
        await calm()
        assert world.runs.reads == 0
        for pages in (1, 2):
            client.outlet.on_write = lambda: client.outlet.set_writable(False)
            client.outlet.set_writable(True)
            await calm()
            assert world.runs.reads == pages
        client.outlet.on_write = lambda: None
        client.outlet.set_writable(True)
        await calm()
        assert client.names[-1] == "up-to-date"
        assert len(client.runs) == 6

    async def test_are_read_for_a_few_at_a_time(self) -> None:
        world = RunHub(max_concurrent_catch_ups=2)
        holds = [world.runs.hold_next_read() for _ in range(4)]
        clients = [world.connect(Selector(f"env_{number}")) for number in range(4)]
        await calm()
        assert world.runs.reads == 2
        holds[0].release()
        await calm()
        assert world.runs.reads == 3
        for hold in holds:
            hold.release()
        await calm()
        assert [client.names for client in clients] == [["up-to-date"]] * 4

    async def test_show_only_what_may_be_read(self) -> None:
        world = RunHub()
        world.write("run_1", tags=("mine",))
        world.write("run_2", tags=("theirs",))
        client = await world.live(scopes="read:tags:mine")
        assert list(client.runs) == ["run_1"]


class TestTrouble:
    async def test_while_the_store_is_away_it_is_asked_again(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr(session_module, "_LONGEST_RETRY_SECONDS", 0.001)
        world = RunHub()
        world.write("run_1")
        world.runs.failures = [BackendError("Away."), BackendError("Away.")]
        with caplog.at_level(logging.WARNING):
            client = world.connect()
            await until(lambda: client.names[-1:] == ["up-to-date"])
        assert list(client.runs) == ["run_1"]
        assert world.runs.reads == 3
        assert caplog.text.count("trying again") == 2

    @pytest.mark.parametrize(
        ("cursor", "reason"),
        [(Position(2, 1), "other_database"), (Position(1, 1 << 40), "ahead")],
    )
    async def test_a_cursor_that_cannot_be_continued_is_told(
        self, cursor: Position, reason: str
    ) -> None:
        world = RunHub()
        world.write("run_1")
        client = await world.live(cursor=cursor.cursor())
        assert client.names == [f"reset {reason}", "run run_1", "up-to-date"]
        assert world.hub.counts.resets == {reason: 1}

    async def test_an_error_that_nobody_thought_of_ends_the_connection(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        world = RunHub()
        world.runs.failures = [ValueError("planted")]
        with caplog.at_level(logging.ERROR):
            client = world.connect()
            await calm()
        assert client.outlet.ended == "aborted"
        assert "planted" in caplog.text
        assert world.hub._index == {}

    async def test_whoever_leaves_meanwhile_gets_nothing(self) -> None:
        world = RunHub()
        world.write("run_1")
        hold = world.runs.hold_next_read()
        client = world.connect()
        await hold.reached.wait()
        client.outlet.leave()
        hold.release()
        await calm()
        assert client.names == []
        assert world.hub._sessions == set()

    async def test_a_subscription_that_is_taken_off_its_connection_is_silent_for_good(
        self,
    ) -> None:
        world = RunHub()
        world.write("run_1")
        client = await world.live(kind="websocket")
        hold = world.runs.hold_next_read()
        taken_off = socket_feed(client, "s2", EVERYTHING)
        client.connection.add(taken_off)
        await hold.reached.wait()
        client.forget()
        client.connection.leave(taken_off, finished=False)
        hold.release()
        await calm()
        world.write("run_1")
        assert client.names == ["run run_1"]
        assert (taken_off.session, world.hub._sessions) == (None, set())

    @pytest.mark.parametrize("frame", [End("unsubscribed"), Problem("not_found", "No.")])
    async def test_one_that_is_closed_while_it_reads_says_only_that(
        self, frame: End | Problem
    ) -> None:
        world = RunHub()
        world.write("run_1")
        hold = world.runs.hold_next_read()
        client = world.connect(kind="websocket")
        await hold.reached.wait()
        client.outlet.set_writable(False)
        client.feed.close(frame)
        hold.release()
        client.outlet.set_writable(True)
        await calm()
        word = "end unsubscribed" if isinstance(frame, End) else "problem not_found"
        assert client.names == [word]
        assert client.connection.subscribers == {}


class TestOneRun:
    async def test_ends_at_once_where_the_run_is_finished(self) -> None:
        world = RunHub()
        world.write("run_1", **FINISHED)
        client = world.connect(ONE, ends_with_run=True)
        await calm()
        assert client.names == ["run run_1", "up-to-date", "end finished"]
        assert client.outlet.ended == "1000"

    async def test_ends_where_it_was_finished_before_the_cursor(self) -> None:
        world = RunHub()
        world.write("run_1", **FINISHED)
        client = world.connect(
            ONE, ends_with_run=True, known_finished=True, cursor=world.hub.position.cursor()
        )
        await calm()
        assert client.names == ["up-to-date", "end finished"]

    async def test_ends_where_the_run_was_deleted_since_somebody_asked_for_it(self) -> None:
        world = RunHub()
        client = world.connect(ONE, ends_with_run=True)
        await calm()
        assert client.names == ["up-to-date", "end deleted"]

    async def test_goes_on_where_the_run_is_hidden_and_may_come_back(self) -> None:
        world = RunHub()
        world.write("run_1", tags=("theirs",))
        client = await world.live(ONE, scopes="read:tags:mine", ends_with_run=True)
        assert client.names == ["up-to-date"]
        world.write("run_1", tags=("mine",), **FINISHED)
        assert client.names == ["up-to-date", "run run_1", "end finished"]

    async def test_ends_when_the_final_state_was_too_much_for_a_slow_reader(self) -> None:
        world = RunHub()
        world.write("run_1")
        client = await world.live(ONE, ends_with_run=True)
        client.outlet.set_writable(False)
        world.write("run_1", **FINISHED)
        world.write("run_1", **FINISHED)
        client.outlet.set_writable(True)
        assert client.names[2:] == ["run run_1", "end finished"]
        assert client.outlet.ended == "1000"
