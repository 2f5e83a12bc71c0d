"""The hub: from a change to everybody who may see it, and to nobody else."""

import asyncio
import logging

import pytest

from runcast.core.position import Position
from runcast.core.run import Departure, RunFacets
from runcast.core.selector import Selector
from runcast.core.sse import SseFormat
from runcast.errors import BackendError, Draining, GatewayFull
from runcast.hub.hub import Hub
from tests.support.run_hub import EVERYTHING, RunHub, socket_feed
from tests.support.runs import CREATED_AT, make_run
from tests.support.stream_hub import calm

TAG_A = Selector("env_1", tags=("a",))


class TestWants:
    """What the changefeed reads of a changed run."""

    RUN = make_run(id="run_1", tags=("a",)).facets

    async def test_nothing_where_nobody_follows_it(self) -> None:
        world = RunHub()
        assert world.hub.wants(self.RUN, ()) is None
        await world.live(Selector("env_1", tags=("b",)))
        assert world.hub.wants(self.RUN, ()) is None

    async def test_what_one_of_its_followers_is_sent(self) -> None:
        world = RunHub()
        slim = await world.live(skip=frozenset({"payload", "output", "metadata"}))
        assert world.hub.wants(self.RUN, ()) == frozenset()
        tagged = await world.live(TAG_A, skip=frozenset({"payload"}))
        assert world.hub.wants(self.RUN, ()) == frozenset({"output"})
        await world.live(skip=frozenset({"output"}))
        assert world.hub.wants(self.RUN, ()) == frozenset({"output", "payload"})
        tagged.outlet.leave()
        assert world.hub.wants(self.RUN, ()) == frozenset({"payload"})
        slim.outlet.leave()
        assert world.hub.wants(self.RUN, ()) == frozenset({"payload"})

    async def test_followers_that_it_has_left_count_too(self) -> None:
        world = RunHub()
        await world.live(TAG_A, skip=frozenset({"payload"}))
        now = make_run(id="run_1").facets
        left = Departure(self.RUN, 2, 1000, deleted=False)
        assert world.hub.wants(now, ()) is None
        assert world.hub.wants(now, (left,)) == frozenset({"output"})


class TestPublish:
    async def test_a_snapshot_comes_first_and_then_each_change(self) -> None:
        world = RunHub()
        world.write("run_1", "run_2")
        client = await world.live()
        assert client.names == ["run run_2", "run run_1", "up-to-date"]
        world.write("run_2")
        world.delete("run_1")
        assert client.names[3:] == ["run run_2", "gone run_1 deleted"]
        assert client.events[-1].id == world.runs.position.cursor()

    async def test_only_the_last_event_of_a_window_has_a_cursor(self) -> None:
        world = RunHub()
        client = await world.live()
        client.forget()
        world.write("run_1", "run_2", "run_3")
        assert [event.id for event in client.events] == [None, None, world.runs.position.cursor()]

    async def test_a_change_is_encoded_once_for_all_who_see_it_alike(self) -> None:
        world = RunHub()
        one, other = await world.live(), await world.live()
        world.write("run_1")
        assert one.outlet.writes[-1] is other.outlet.writes[-1]
        assert world.hub.counts.deliveries == 2

    async def test_another_form_gets_other_bytes(self) -> None:
        world = RunHub()
        whole = await world.live()
        part = await world.live(skip=frozenset({"payload"}))
        world.write("run_1", payload="1")
        assert "payload" in whole.events[-1].json
        assert "payload" not in part.events[-1].json

    async def test_everybody_sees_what_is_asked_for_and_allowed(self) -> None:
        world = RunHub()
        clients = {
            "all": await world.live(),
            "one": await world.live(Selector("env_1", run_id="run_1")),
            "tag": await world.live(TAG_A),
            "task": await world.live(Selector("env_1", task="other")),
            "batch": await world.live(Selector("env_1", batch_id="batch_1")),
            "elsewhere": await world.live(Selector("env_2")),
            "may see b": await world.live(scopes="read:tags:b"),
        }
        world.write("run_1", tags=("a", "b"))
        world.write("run_2", task="other", batch_id="batch_1")
        world.write("run_3", environment_id="env_2")
        assert {name: list(client.runs) for name, client in clients.items()} == {
            "all": ["run_1", "run_2"],
            "one": ["run_1"],
            "tag": ["run_1"],
            "task": ["run_2"],
            "batch": ["run_2"],
            "elsewhere": ["run_3"],
            "may see b": ["run_1"],
        }

    async def test_what_may_be_seen_is_judged_with_each_change(self) -> None:
        world = RunHub()
        client = await world.live(scopes="read:tags:mine")
        world.write("run_1", tags=("theirs",))
        assert client.runs == {}
        world.write("run_1", tags=("theirs", "mine"))
        assert list(client.runs) == ["run_1"]
        world.write("run_1", tags=("theirs",))
        world.write("run_1", tags=("theirs", "more"))
        assert client.names[1:] == ["run run_1", "gone run_1 unmatched"]

    async def test_nobody_learns_of_the_deletion_of_what_they_never_saw(self) -> None:
        world = RunHub()
        world.write("run_1", tags=("theirs",))
        client = await world.live(scopes="read:tags:mine")
        world.delete("run_1")
        assert client.names == ["up-to-date"]

    async def test_a_window_without_changes_only_moves_the_position(self) -> None:
        world = RunHub()
        client = await world.live()
        client.forget()
        before = world.hub.position
        world.runs.begin().abort()
        world.follow()
        assert world.hub.position.xmax > before.xmax
        assert client.names == []
        assert world.hub.counts.windows == 1

    async def test_an_audience_that_fails_is_cut_off_and_the_others_get_theirs(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        world = RunHub()
        broken = await world.live(skip=frozenset({"payload"}))
        same = await world.live(skip=frozenset({"payload"}))
        others = [await world.live(), await world.live(TAG_A)]
        broken.outlet.fails = RuntimeError("planted")
        with caplog.at_level(logging.ERROR):
            world.write("run_1", tags=("a",))
        assert [list(client.runs) for client in others] == [["run_1"], ["run_1"]]
        # They may have missed it, and must not be told of a later position.
        assert broken.outlet.ended == same.outlet.ended == "aborted"
        assert world.hub.counts.closed == {"error": 2}
        assert "planted" in caplog.text

    async def test_a_connection_that_one_audience_ends_is_missed_by_none(self) -> None:
        world = RunHub()
        client = await world.live(kind="websocket", expires_in=5)
        client.connection.add(socket_feed(client, "more", TAG_A))
        other = await world.live(TAG_A)
        await calm()
        world.clock.advance(5)  # nobody has looked yet
        world.write("run_1", tags=("a",))
        assert world.hub.counts.closed == {"expired": 1}
        assert list(other.runs) == ["run_1"]


class TestSlowReaders:
    async def test_get_only_the_newest_states(self) -> None:
        world = RunHub()
        client = await world.live()
        client.forget()
        client.outlet.set_writable(False)
        for attempt in range(5):
            world.write("run_1", attempt_count=attempt)
            world.write("run_2", attempt_count=attempt)
        assert client.names == []
        client.outlet.set_writable(True)
        assert client.names == ["run run_1", "run run_2"]
        assert [event.json["attemptCount"] for event in client.events] == [4, 4]
        assert client.events[-1].id == world.runs.position.cursor()
        assert world.hub.counts.conflations == client.connection.conflations == 8
        world.write("run_1")
        assert len(client.names) == 3
        assert world.hub.counts.conflations == 8

    async def test_read_again_what_was_too_much_to_keep(self) -> None:
        world = RunHub(max_backlog_runs=2)
        world.write("run_0", "run_9")
        client = await world.live()
        client.forget()
        reads = world.runs.reads
        client.outlet.set_writable(False)
        world.write("run_1", "run_2")
        world.delete("run_9")
        world.write("run_3")
        await calm()
        assert (client.names, world.runs.reads) == ([], reads)
        client.outlet.set_writable(True)
        await calm()
        assert sorted(client.names) == [
            "gone run_9 deleted",
            "run run_1",
            "run run_2",
            "run run_3",
            "up-to-date",
        ]
        assert world.hub.counts.resets == {}

    async def test_harm_nobody_else(self) -> None:
        world = RunHub()
        slow, quick = await world.live(), await world.live()
        slow.outlet.set_writable(False)
        world.write("run_1")
        assert list(quick.runs) == ["run_1"]
        assert slow.runs == {}


class TestResuming:
    async def test_any_cursor_that_was_given_continues_completely(self) -> None:
        world = RunHub(snapshot_page_runs=2)
        world.write("run_1", "run_2", "run_3", tags=("a",))
        client = await world.live(TAG_A)
        world.write("run_4", tags=("a",))
        world.write("run_1", tags=())
        cursors = [event.id for event in client.events if event.id]
        world.delete("run_2")
        world.write("run_5", tags=("a",))
        for cursor in cursors:
            resumed = await world.live(TAG_A, cursor=cursor)
            known = {**client.runs, **resumed.runs}
            assert "gone run_2 deleted" in resumed.names
            assert known["run_5"] == client.runs["run_5"]
            assert client.runs.keys() == {"run_3", "run_4", "run_5"}

    async def test_changes_while_the_snapshot_is_read_are_neither_lost_nor_told_twice(
        self,
    ) -> None:
        world = RunHub()
        world.write("run_1", "run_2")
        hold = world.runs.hold_next_read()
        client = world.connect()
        await hold.reached.wait()
        world.write("run_1")
        world.write("run_3")
        hold.release()
        await calm()
        assert client.names == ["run run_2", "run run_1", "up-to-date", "run run_1", "run run_3"]
        assert client.runs == {
            run_id: world.run(run_id).version for run_id in ("run_1", "run_2", "run_3")
        }

    async def test_what_the_snapshot_saw_before_the_changefeed_is_told_once(self) -> None:
        world = RunHub()
        world.runs.write(make_run(id="run_1"))
        client = await world.live()
        assert client.names == ["run run_1", "up-to-date"]
        assert not client.feed.direct
        world.follow()
        assert client.names == ["run run_1", "up-to-date"]
        assert client.feed.direct


class TestRestart:
    async def test_everybody_begins_again_with_a_snapshot(self) -> None:
        world = RunHub()
        world.write("run_1")
        clients = [await world.live(), await world.live(TAG_A)]
        paused = await world.live()
        paused.outlet.set_writable(False)
        for client in (*clients, paused):
            client.forget()
        world.runs.delete("run_1")
        world.runs.write(make_run(id="run_2", tags=("a",)))
        world.hub.restart(world.runs.position, "other_database", "It was restored.")
        await calm()
        for client in clients:
            assert client.names == ["reset other_database", "run run_2", "up-to-date"]
        assert paused.names == []
        paused.outlet.set_writable(True)
        await calm()
        assert paused.names == ["reset other_database", "run run_2", "up-to-date"]
        assert world.hub.counts.resets == {"other_database": 3}

    async def test_a_page_of_the_lost_database_is_thrown_away(self) -> None:
        world = RunHub()
        world.write("run_1")
        hold = world.runs.hold_next_read()
        client = world.connect()
        await hold.reached.wait()
        world.runs.delete("run_1")
        world.hub.restart(world.runs.position, "ahead", "It lost something.")
        hold.release()
        await calm()
        assert client.names == ["reset ahead", "up-to-date"]


class TestIndex:
    async def test_nothing_is_left_of_those_who_left(self) -> None:
        world = RunHub()
        clients = [
            await world.live(TAG_A),
            await world.live(TAG_A),
            await world.live(Selector("env_1", tags=("a", "b"))),
            await world.live(Selector("env_1", run_id="run_1")),
            world.connect(),
        ]
        assert len(world.hub._audiences) == 4
        assert world.hub.subscriber_count == len(clients)
        for client in clients:
            client.outlet.leave()
        await calm()
        assert (world.hub._index, world.hub._audiences) == ({}, {})
        assert (world.hub.connections, world.hub._leaving) == (set(), set())
        assert world.hub._sessions == set()
        assert world.hub.counts.closed == {"client": 5}
        world.pass_time(2 * world.limits.heartbeat_seconds)
        assert len(world.hub._wheel) == 0

    async def test_who_stays_of_an_audience_still_gets_changes(self) -> None:
        world = RunHub()
        stays, leaves = await world.live(TAG_A), await world.live(TAG_A)
        leaves.outlet.leave()
        world.hub.unwatch(leaves.feed)
        world.write("run_1", tags=("a",))
        assert list(stays.runs) == ["run_1"]

    async def test_another_selector_under_the_same_key_stays_filed(self) -> None:
        world = RunHub()
        stays = await world.live(Selector("env_1", tags=("a",), task="hello-world"))
        leaves = await world.live(TAG_A)
        leaves.outlet.leave()
        world.write("run_1", tags=("a",))
        assert list(stays.runs) == ["run_1"]

    async def test_wants_what_somebody_may_be_waiting_for(self) -> None:
        world = RunHub()
        facets = RunFacets("env_1", "run_1", "t", ("a",), None, CREATED_AT.timestamp())
        bare = RunFacets("env_1", "run_1", "t", (), None, CREATED_AT.timestamp())
        left = Departure(facets, 2, 3, deleted=False)
        assert world.hub.wants(facets, [left]) is None
        client = await world.live(TAG_A)
        assert world.hub.wants(facets, []) is not None
        assert world.hub.wants(bare, [left]) is not None
        assert world.hub.wants(bare, []) is None
        client.outlet.leave()
        assert world.hub.wants(facets, [left]) is None


class TestAdmission:
    def test_nobody_before_the_changefeed_began(self) -> None:
        world = RunHub()
        hub = Hub(world.runs, world.hub._chunks, world.clock, world.limits)
        assert not hub.following
        with pytest.raises(BackendError):
            hub.admit()

    async def test_whoever_waits_learns_that_the_changefeed_began(self) -> None:
        world = RunHub()
        hub = Hub(world.runs, world.hub._chunks, world.clock, world.limits)
        hub.begin(Position(1, 10))
        await hub.started()
        hub.admit()
        assert hub.following
        hub.publish((), Position(1, 11))
        assert hub.position == Position(1, 11)

    async def test_no_more_than_the_limit(self) -> None:
        world = RunHub(max_connections=1)
        world.hub.admit()
        client = await world.live()
        with pytest.raises(GatewayFull):
            world.hub.admit()
        client.outlet.leave()
        world.hub.admit()

    async def test_nobody_while_draining(self) -> None:
        world = RunHub(drain_seconds=0.0)
        await world.hub.drain()
        with pytest.raises(Draining):
            world.hub.admit()


class TestDrain:
    async def test_everybody_is_asked_to_reconnect(self) -> None:
        world = RunHub(drain_seconds=0.05)
        world.hub.start()
        clients = [await world.live() for _ in range(3)]
        await world.hub.drain()
        for client in clients:
            assert client.names[-1] == "reconnect"
            assert client.events[-1].retry == client.events[-1].json["delayMs"]
            assert 0 < client.events[-1].json["delayMs"] <= 2000
            assert client.outlet.ended == "4054 draining"
        assert world.hub.counts.closed == {"drain": 3}
        assert (world.hub.connections, world.hub._leaving) == (set(), set())

    async def test_who_was_admitted_just_before_is_asked_too(self) -> None:
        """A regression: it was cut off without a word."""
        world = RunHub(drain_seconds=0.0)
        staying = await world.live()
        staying.outlet.lingers = True
        draining = asyncio.ensure_future(world.hub.drain())
        await calm()
        late = world.connect()
        assert late.names == ["reconnect"]
        assert late.outlet.ended == "4054 draining"
        staying.outlet.leave()
        await draining

    async def test_it_waits_for_the_last_bytes(self) -> None:
        world = RunHub(drain_seconds=0.0)
        client = await world.live()
        client.outlet.lingers = True
        draining = asyncio.ensure_future(world.hub.drain())
        while client.outlet.ended is None:
            await calm()
        assert not draining.done()
        client.outlet.leave()
        await draining

    async def test_who_does_not_go_is_dropped(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("runcast.hub.hub._LAST_BYTES_SECONDS", 0.02)
        world = RunHub(drain_seconds=0.0)
        stuck = await world.live()
        stuck.outlet.lingers = True
        reading = world.connect(writable=False)
        reading.outlet.lingers = True
        await world.hub.drain()
        assert stuck.outlet.ended == reading.outlet.ended == "aborted"
        assert (world.hub.connections, world.hub._leaving) == (set(), set())
        assert world.hub._sessions == set()


def test_the_cursor_of_a_position_is_made_once_while_the_feed_stands_there() -> None:
    world = RunHub()
    position = world.hub.position
    assert world.hub.cursor_of(position) is world.hub.cursor_of(position)
    assert world.hub.cursor_of(Position(1, 7)) == Position(1, 7).cursor()


def test_equal_questions_are_one_audience() -> None:
    assert SseFormat(frozenset(), chunked=False) == SseFormat(frozenset(), chunked=False)
    assert Selector("env_1", tags=("b", "a")) == Selector("env_1", tags=("a", "b"))
    assert EVERYTHING != TAG_A
