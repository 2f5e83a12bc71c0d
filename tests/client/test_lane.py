"""What waits for a slow reader: the newest states, bounded, and nothing told that is not true."""

from typing import Any

import pytest
from hypothesis import given, strategies as st

from runcast.client.feed_message import POSITION, FeedMessage
from runcast.client.lane import Lane
from runcast.client.retriable import LaneFull


def run(run_id: str, revision: int, position: str | None = None) -> FeedMessage:
    return FeedMessage("run", {"id": run_id, "revision": revision}, position)


def lane_of(*messages: FeedMessage, **options: Any) -> Lane:
    lane = Lane(of_runs=True, **options)
    for message in messages:
        lane.receive(message, 100)
    return lane


def taken(lane: Lane) -> list[FeedMessage]:
    found = []
    while (message := lane.take()) is not None:
        found.append(message)
    return found


def test_a_newer_state_takes_the_place_of_one_that_waits() -> None:
    lane = lane_of(run("a", 1), run("b", 1), FeedMessage("up-to-date", {}, "p1"), run("a", 2, "p2"))
    assert taken(lane) == [
        run("a", 2),
        run("b", 1),
        FeedMessage("up-to-date", {}, "p1"),
        FeedMessage(POSITION, None, "p2"),
    ]


def test_a_run_that_was_taken_is_told_anew() -> None:
    lane = lane_of(run("a", 1))
    assert taken(lane) == [run("a", 1)]
    lane.receive(run("a", 2, "p"), 1)
    assert taken(lane) == [run("a", 2, "p")]


def test_a_run_that_left_is_told_in_place_of_its_last_state() -> None:
    gone = FeedMessage("gone", {"id": "a", "reason": "deleted"})
    assert taken(lane_of(run("a", 1), gone)) == [gone]


def test_positions_that_wait_are_one() -> None:
    lane = lane_of(run("a", 1), *(FeedMessage(POSITION, None, str(n)) for n in range(5)))
    assert taken(lane) == [run("a", 1), FeedMessage(POSITION, None, "4")]


def test_a_reset_makes_forget_what_waits() -> None:
    reset = FeedMessage("reset", {"reason": "ahead", "message": "m"}, "")
    assert taken(lane_of(run("a", 1, "p"), reset, run("a", 1))) == [reset, run("a", 1)]


@pytest.mark.parametrize(("position", "moved"), [(None, False), ("p", True)])
def test_a_full_lane_ends_once_what_waits_was_taken(position: str | None, moved: bool) -> None:
    lane = lane_of(run("a", 1, position), run("b", 1), run("c", 1), max_bytes=1000)
    assert lane.ended
    lane.receive(run("d", 1), 1)
    assert [lane.take(), lane.take()] == [run("a", 1, position), run("b", 1)]
    with pytest.raises(LaneFull) as full:
        lane.take()
    assert full.value.moved is moved


def test_one_message_fits_however_long_it_is() -> None:
    lane = Lane(of_runs=False, max_bytes=1000)
    lane.receive(FeedMessage("parts", ([], 0), "1-1"), 10**6)
    assert not lane.ended


def test_a_lane_that_is_alone_says_that_it_is_full_and_goes_on() -> None:
    lane = lane_of(run("a", 1), run("b", 1), alone=True, max_bytes=1000)
    assert lane.full
    assert not lane.ended
    lane.take()
    assert not lane.full


STEPS = st.lists(st.one_of(st.sampled_from("abcd"), st.just("take"), st.just("told")), max_size=60)


@given(STEPS)
def test_a_reader_ends_with_the_newest_states_and_may_resume_anywhere(steps: list[str]) -> None:
    lane = Lane(of_runs=True)
    newest: dict[str, int] = {}  # by what was sent
    sent_by: dict[str, dict[str, int]] = {}  # the newest states when a position was sent
    seen: dict[str, int] = {}
    now = 0

    def take() -> bool:
        message = lane.take()
        if message is None:
            return False
        if message.name == "run":
            run_id, revision = message.data["id"], message.data["revision"]
            assert revision > seen.get(run_id, 0)
            seen[run_id] = revision
        if message.position is not None:
            for run_id, revision in sent_by[message.position].items():
                assert seen.get(run_id, 0) >= revision
        return True

    for step in steps:
        if step == "take":
            take()
            continue
        now += 1
        if step == "told":
            sent_by[str(now)] = dict(newest)
            lane.receive(FeedMessage(POSITION, None, str(now)), 0)
        else:
            newest[step] = now
            sent_by[str(now)] = dict(newest)
            lane.receive(run(step, now, str(now) if now % 2 else None), 10)
    while take():
        pass
    assert seen == newest
