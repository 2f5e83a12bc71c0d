"""One connection: what ends it and when, what keeps it alive, and what it never sends."""

import asyncio

import pytest

from runcast.core.selector import Selector
from runcast.errors import SlowConsumer
from runcast.hub.connection import EXPIRY_MARGIN_SECONDS
from runcast.hub.wheel import TICK_SECONDS
from tests.support.grants import make_grant
from tests.support.run_hub import EVERYTHING, RunHub, socket_feed
from tests.support.runs import make_run
from tests.support.stream_hub import calm

HEARTBEAT = 15.0
ELSEWHERE = make_run(environment_id="env_2", id="run_9")


class TestExpiry:
    @pytest.mark.parametrize("expires_in", [1.0, 1.1, 60.0, 3600.0])
    async def test_an_idle_connection_ends_a_little_before_its_time(
        self, expires_in: float
    ) -> None:
        world = RunHub()
        client = await world.live(expires_in=expires_in)
        world.pass_time(expires_in - EXPIRY_MARGIN_SECONDS[1] - 2 * TICK_SECONDS)
        assert not client.connection.closed
        world.pass_time(EXPIRY_MARGIN_SECONDS[1] + TICK_SECONDS)
        assert client.names[-1] == "expired"
        assert client.events[-1].json["code"] == "expired_token"
        assert client.outlet.ended == "4001 expired_token"
        assert world.hub.counts.closed == {"expired": 1}

    @pytest.mark.parametrize("late", [0.0, 0.001, 5.0, 1e6])
    async def test_a_change_at_that_very_moment_is_not_sent(self, late: float) -> None:
        world = RunHub()
        client = await world.live(expires_in=60.0)
        client.forget()
        world.clock.advance(60.0 + late)
        world.write("run_1")
        assert client.names == ["expired"]
        assert client.outlet.ended == "4001 expired_token"
        world.write("run_1")
        world.turn()
        assert client.names == ["expired"]

    async def test_nor_what_waited_for_a_slow_reader(self) -> None:
        world = RunHub()
        client = await world.live(expires_in=60.0)
        client.forget()
        client.outlet.set_writable(False)
        world.write("run_1")
        world.clock.advance(60.0)
        client.outlet.set_writable(True)
        assert client.names == ["expired"]

    async def test_nor_a_page_that_was_on_its_way(self) -> None:
        world = RunHub()
        world.write("run_1")
        hold = world.runs.hold_next_read()
        client = world.connect(expires_in=60.0)
        await hold.reached.wait()
        world.clock.advance(60.0)
        hold.release()
        await calm()
        assert client.names == ["expired"]
        assert world.hub._sessions == set()

    async def test_a_newer_token_moves_it(self) -> None:
        world = RunHub()
        client = await world.live(expires_in=60.0)
        client.connection.renew(make_grant(expires_at=world.clock.now() + 600.0))
        world.pass_time(500.0)
        world.write("run_1")
        assert list(client.runs) == ["run_1"]
        world.pass_time(100.0)
        assert client.names[-1] == "expired"

    async def test_a_token_of_shorter_life_ends_it_sooner(self) -> None:
        world = RunHub()
        client = await world.live(expires_in=600.0)
        client.connection.renew(make_grant(expires_at=world.clock.now() + 2.0))
        world.pass_time(2.0)
        assert client.names[-1] == "expired"

    async def test_a_secret_key_never_ends_it(self) -> None:
        world = RunHub()
        client = await world.live(expires_in=60.0)
        client.connection.renew(make_grant())
        world.clock.advance(1e9)
        world.turn()
        world.write("run_1")
        assert list(client.runs) == ["run_1"]

    async def test_connections_of_one_minute_do_not_all_end_at_once(self) -> None:
        world = RunHub()
        clients = [await world.live(expires_in=60.0) for _ in range(20)]
        assert len({client.connection.deadline for client in clients}) > 1


class TestKeepAlive:
    async def test_an_idle_feed_gets_one_with_the_cursor(self) -> None:
        world = RunHub()
        client = await world.live()
        client.forget()
        world.pass_time(2 * HEARTBEAT + 1)
        assert client.names == [""] * len(client.events) != []
        assert all(event.comments == ("keep-alive",) for event in client.events)
        assert client.events[-1].id == world.hub.position.cursor()

    async def test_a_busy_feed_gets_none(self) -> None:
        world = RunHub()
        client = await world.live()
        client.forget()
        for _ in range(40):
            world.pass_time(1.0)
            world.write("run_1")
        assert set(client.names) == {"run run_1"}

    async def test_a_feed_that_is_catching_up_gets_one_without_cursor(self) -> None:
        world = RunHub()
        hold = world.runs.hold_next_read()
        client = world.connect()
        await hold.reached.wait()
        world.pass_time(2 * HEARTBEAT + 1)
        assert client.events
        assert {(event.comments, event.id) for event in client.events} == {(("keep-alive",), None)}

    async def test_in_a_busy_database_a_quiet_feed_gets_cursors_too(self) -> None:
        world = RunHub()
        # The changefeed is behind the page, and never has anything for this feed.
        world.runs.write(ELSEWHERE)
        client = await world.live()
        assert not client.feed.direct
        world.runs.write(ELSEWHERE)
        world.follow()
        client.forget()
        world.pass_time(2 * HEARTBEAT + 1)
        assert client.events[-1].id == world.hub.position.cursor()
        assert client.feed.direct

    async def test_one_that_comes_with_a_change_has_the_cursor_from_before_it(self) -> None:
        """Whoever is cut off in between must not miss the change."""
        world = RunHub()
        client = await world.live()
        world.pass_time(2 * HEARTBEAT + 1)
        client.forget()
        before = world.hub.position.cursor()
        world.clock.advance(HEARTBEAT + 1)
        world.write("run_1")
        after = world.hub.position.cursor()
        assert [
            (name, each.id) for name, each in zip(client.names, client.events, strict=True)
        ] == [
            ("", before),
            ("run run_1", after),
        ]

    async def test_a_paused_reader_gets_none(self) -> None:
        world = RunHub()
        client = await world.live()
        client.forget()
        client.outlet.set_writable(False)
        world.pass_time(HEARTBEAT + 5)
        assert client.names == []

    async def test_a_socket_gets_one_cursor_for_all_its_subscriptions(self) -> None:
        world = RunHub()
        client = await world.live(kind="websocket")
        client.connection.add(socket_feed(client, "s2", EVERYTHING))
        await calm()
        client.forget()
        world.pass_time(2 * HEARTBEAT + 1)
        assert {event.id for event in client.events} == {world.hub.position.cursor()}

    async def test_but_none_while_one_of_them_is_behind(self) -> None:
        world = RunHub()
        client = await world.live(kind="websocket")
        hold = world.runs.hold_next_read()
        client.connection.add(socket_feed(client, "s2", EVERYTHING))
        await hold.reached.wait()
        client.forget()
        world.pass_time(2 * HEARTBEAT + 1)
        assert client.names == []

    async def test_and_none_without_any(self) -> None:
        world = RunHub()
        client = await world.live(kind="websocket")
        client.connection.leave(client.feed, finished=True)
        client.forget()
        world.pass_time(2 * HEARTBEAT + 1)
        assert client.names == []
        assert not client.connection.closed


class TestStalls:
    async def test_a_reader_that_takes_nothing_is_dropped(self) -> None:
        world = RunHub()
        client = await world.live()
        client.outlet.set_writable(False)
        world.pass_time(world.limits.stall_timeout_seconds - 1)
        assert not client.connection.closed
        world.pass_time(1 + TICK_SECONDS)
        assert client.outlet.ended == "aborted"
        assert world.hub.counts.closed == {"slow_consumer": 1}
        assert world.hub._index == {}

    async def test_one_that_goes_on_in_time_is_not(self) -> None:
        world = RunHub()
        client = await world.live()
        for _ in range(4):
            client.outlet.set_writable(False)
            world.pass_time(world.limits.stall_timeout_seconds - 1)
            client.outlet.set_writable(True)
            world.pass_time(1)
        assert client.outlet.ended is None

    async def test_one_that_takes_a_little_now_and_then_is_not(self) -> None:
        world = RunHub()
        client = await world.live()
        client.outlet.written *= 100
        client.outlet.set_writable(False)
        for _ in range(10):
            world.pass_time(world.limits.stall_timeout_seconds / 2)
            client.outlet.written = client.outlet.written[:-1]
        assert client.outlet.ended is None

    async def test_after_its_end_as_well(self) -> None:
        world = RunHub()
        client = await world.live()
        client.outlet.lingers = True
        client.outlet.set_writable(False)
        client.connection.drain(100)
        assert client.outlet.ended == "4054 draining"
        world.pass_time(world.limits.stall_timeout_seconds + 2 * TICK_SECONDS)
        assert client.outlet.ended == "aborted"
        assert world.hub._leaving == set()
        world.pass_time(60.0)
        assert len(world.hub._wheel) == 0

    async def test_one_that_is_behind_gets_nothing_after_its_grant_is_over(self) -> None:
        world = RunHub()
        client = await world.live(expires_in=5.0)
        client.outlet.lingers = True
        client.outlet.set_writable(False)
        world.pass_time(5.0)
        assert client.outlet.ended == "aborted"

    async def test_one_that_was_writable_at_its_end_may_not_linger_either(self) -> None:
        world = RunHub()
        client = await world.live(expires_in=5.0)
        client.outlet.lingers = True
        world.pass_time(5.0 + world.limits.stall_timeout_seconds + 2 * TICK_SECONDS)
        assert client.outlet.ended == "aborted"


class TestEnds:
    async def test_a_feed_of_one_run_ends_with_it(self) -> None:
        world = RunHub()
        world.write("run_1")
        one = Selector("env_1", run_id="run_1")
        client = await world.live(one, ends_with_run=True)
        stays = await world.live(one)
        world.write("run_1", status="COMPLETED_SUCCESSFULLY")
        assert client.names[-2:] == ["run run_1", "end finished"]
        assert client.outlet.ended == "1000"
        assert stays.names[-1] == "run run_1"
        assert world.hub.counts.closed == {"finished": 1}

    async def test_a_problem_is_told(self) -> None:
        world = RunHub()
        client = await world.live()
        client.connection.fail(SlowConsumer("Read faster."))
        assert client.names[-1] == "problem slow_consumer"
        assert client.outlet.ended == "4029 slow_consumer"

    async def test_the_end_is_said_once(self) -> None:
        world = RunHub()
        client = await world.live()
        client.outlet.lingers = True
        client.connection.drain(500)
        client.connection.expire()
        client.connection.fail(SlowConsumer("Read faster."))
        client.connection.answered()
        assert client.names[-1] == "reconnect"
        assert client.outlet.ended == "4054 draining"
        client.connection.abort("drain")
        assert client.outlet.ended == "aborted"
        assert world.hub.counts.closed == {"drain": 1}

    async def test_a_subscription_that_leaves_twice_leaves_once(self) -> None:
        world = RunHub()
        client = await world.live(kind="websocket")
        client.connection.leave(client.feed, finished=True)
        client.connection.leave(client.feed, finished=True)
        assert client.connection.subscribers == {}
        assert world.hub._audiences == {}

    async def test_whoever_waits_to_write_is_woken_by_the_end(self) -> None:
        world = RunHub()
        client = await world.live()
        client.outlet.set_writable(False)
        waits = [asyncio.ensure_future(client.connection.writable()) for _ in range(2)]
        await calm()
        assert not any(wait.done() for wait in waits)
        client.outlet.leave()
        await asyncio.gather(*waits)
        await client.connection.writable()
