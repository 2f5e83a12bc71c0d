"""The oracle can fail: every kind of broken feed is caught, and a good one is not."""

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from chaos.calm import Calm
from chaos.feed import Feed
from chaos.ledger import Entry, Ledger
from chaos.oracle import Oracle
from chaos.sight import Sight
from chaos.stream_feed import StreamFeed
from chaos.stream_log import StreamLog, line_text
from chaos.wish import Wish

WISH = Wish(tags=("x",), scopes=("read:tags:x",))
LONG_AGO, BEFORE = 1e6, 2e6  # Unix times that are over, and far apart
FOREVER = 1e12


def state(revision: int, *tags: str, run_id: str = "run_1", count: int = 0) -> Sight:
    updated = f"2026-01-01T00:00:00.{revision:03}"
    return Sight(run_id, revision, updated, "QUEUED", "t1", frozenset(tags), None, count)


def ledger_of(*entries: tuple[Sight, bool]) -> Ledger:
    """A ledger with these changes, a second apart and long ago; the flag says deleted."""
    ledger = Ledger("", "runcast", "env_1", read_at=FOREVER)
    for number, (sight, deleted) in enumerate(entries, start=1):
        entry = Entry(number, LONG_AGO + number - 1, deleted, sight)
        ledger.entries.setdefault(sight.run_id, []).append(entry)
    return ledger


HISTORY = (
    (state(1, "x"), False),
    (state(2, "x", count=1), False),
    (state(3, "x", "y", count=1), False),
    (state(4, "x", run_id="run_2"), False),
)
NOW = {"run_1": HISTORY[2][0], "run_2": HISTORY[3][0]}

Event = tuple[str, Any]
GOOD: list[Event] = [
    ("run", HISTORY[0][0]),
    ("up-to-date", None),
    ("run", HISTORY[1][0]),
    ("run", HISTORY[2][0]),
    ("run", HISTORY[3][0]),
]


def violations(
    events: list[Event],
    *,
    wish: Wish = WISH,
    ledger: Ledger | None = None,
    asked_at: float = 0.0,
    expires_at: float | None = None,
) -> set[str]:
    """Let a feed take these events, and tell what kinds of violations the oracle found."""
    oracle = Oracle("1", Calm(grace=10.0), ledger or ledger_of(*HISTORY))
    feed = Feed("reader", wish, oracle)
    feed.begin(expires_at)
    feed.asked_at = asked_at
    for name, value in events:
        if name == "run":
            feed.run(value)
        else:
            feed.told(name, value)
    oracle.prove()
    if differences := oracle.differences(feed, NOW):
        oracle.object(feed, "differs", str(differences))
    return {violation.kind for violation in oracle.violations}


def test_a_good_feed_is_good_and_so_is_a_state_that_is_told_twice() -> None:
    assert violations(GOOD) == set()
    assert violations([*GOOD, GOOD[-1]]) == set()


@pytest.mark.parametrize("place", [3, 4])
def test_a_dropped_last_state_is_caught(place: int) -> None:
    assert violations(GOOD[:place] + GOOD[place + 1 :]) == {"differs"}


def test_a_dropped_departure_is_caught() -> None:
    left = ledger_of((state(1, "x"), False), (state(2, "y"), False), HISTORY[2], HISTORY[3])
    gone = ("gone", {"id": "run_1", "reason": "unmatched"})
    oracle = Oracle("1", Calm(10.0), left)
    feed = Feed("reader", WISH, oracle)
    feed.run(state(1, "x"))
    now = {"run_1": state(2, "y")}
    assert oracle.differences(feed, now)
    feed.told(*gone)
    assert not oracle.differences(feed, now)


def test_states_in_the_wrong_order_are_caught() -> None:
    swapped = [*GOOD[:2], GOOD[3], GOOD[2], GOOD[3], GOOD[4]]
    assert violations(swapped) == {"went back"}


def test_a_state_that_was_never_committed_is_caught() -> None:
    torn = replace(HISTORY[1][0], count=7)
    assert violations([GOOD[0], ("run", torn), *GOOD[3:]]) == {"never committed"}
    invented = state(9, "x", run_id="run_9")
    assert violations([("run", invented), *GOOD]) == {"never committed", "differs"}


def test_a_run_of_somebody_else_is_caught() -> None:
    foreign = state(4, "z", run_id="run_2")
    history = ledger_of(*HISTORY[:3], (foreign, False), HISTORY[3])
    found = violations([GOOD[0], ("run", foreign), *GOOD[3:]], ledger=history)
    assert found == {"not allowed"}


def test_a_state_that_is_not_for_this_reader_any_more_is_caught() -> None:
    history = ledger_of(*HISTORY[:3], (state(5, "y"), False), HISTORY[3])
    assert "not allowed" in violations(GOOD, ledger=history)
    deleted = ledger_of(*HISTORY[:3], (state(3, "x", "y", count=1), True), HISTORY[3])
    assert "not allowed" in violations(GOOD, ledger=deleted)


def test_a_state_that_may_have_been_sent_before_it_was_forbidden_is_fine() -> None:
    history = ledger_of(*HISTORY[:3], (state(5, "y"), False), HISTORY[3])
    oracle = Oracle("1", Calm(grace=10.0), history)
    with oracle.calm.disturbed(begun=LONG_AGO + 2.5):  # when it was still allowed
        Feed("reader", WISH, oracle).run(HISTORY[2][0])
    assert oracle.violations == []


def test_a_state_that_is_newer_than_the_ledger_is_judged_by_its_own_tags() -> None:
    history = ledger_of((state(1, "y"), False))
    oracle = Oracle("1", Calm(grace=10.0), history)
    Feed("reader", WISH, oracle).run(HISTORY[1][0])
    assert oracle.violations == []


def test_hidden_fields_are_caught() -> None:
    shown = replace(HISTORY[0][0], fields=frozenset({"id", "output"}))
    wish = replace(WISH, withheld=("output",))
    assert violations([("run", shown), *GOOD[1:]], wish=wish) == {"withheld field"}


def test_up_to_date_without_what_was_there_is_a_hole() -> None:
    assert violations([*GOOD[1:]], asked_at=LONG_AGO + 1.5) == {"hole"}
    assert violations([GOOD[0], *GOOD[1:]], asked_at=LONG_AGO + 1.5) == {"hole"}
    assert violations([GOOD[2], *GOOD[1:]], asked_at=LONG_AGO + 1.5) == set()


def test_up_to_date_with_what_had_left_before_is_caught() -> None:
    history = ledger_of(*HISTORY[:3], (state(3, "x", "y"), True), (state(6, "x"), False))
    oracle = Oracle("1", Calm(grace=1e13), history)
    feed = Feed("reader", WISH, oracle)
    feed.begin(None)
    feed.asked_at = LONG_AGO + 3.5
    feed.run(HISTORY[2][0])
    feed.told("up-to-date", {})
    history.entries["run_1"].pop()  # it did not come back
    oracle.prove()
    assert {each.kind for each in oracle.violations} == {"left over"}


def test_the_id_of_a_run_that_never_was_in_view_is_caught() -> None:
    foreign = (state(4, "z", run_id="run_9"), False)
    gone = ("gone", {"id": "run_9", "reason": "deleted"})
    assert violations([*GOOD, gone], ledger=ledger_of(*HISTORY, foreign)) == {"foreign id"}


def test_what_comes_after_the_end_of_a_token_is_caught() -> None:
    assert violations(GOOD, expires_at=BEFORE) == {"expired"}


@pytest.mark.parametrize("reason", ["other_database", "ahead", "too_old", "token_changed"])
def test_a_reset_without_a_cause_is_caught(reason: str) -> None:
    assert violations([*GOOD[:2], ("reset", {"reason": reason, "message": ""}), *GOOD[3:]]) == {
        "reset"
    }


def test_a_refusal_of_what_may_be_seen_is_caught() -> None:
    oracle = Oracle("1", Calm(10.0), ledger_of(*HISTORY))
    feed = Feed("reader", Wish(run="run_1", scopes=("read:tags:x",)), oracle)
    feed.asked_at = BEFORE
    oracle.see_refused(feed, 403)
    oracle.prove()
    assert {each.kind for each in oracle.violations} == {"refused"}


def test_an_unexpected_problem_is_caught() -> None:
    problem = ("problem", {"code": "internal_error", "message": ""})
    assert violations([*GOOD, problem]) == {"unexpected problem"}


# -- streams -------------------------------------------------------------------------------------

TEXTS = [line_text("a", 0, ""), line_text("b", 0, ""), line_text("a", 1, ""), line_text("a", 2, "")]
Parts = list[tuple[int, str]]
RIGHT: Parts = list(enumerate(TEXTS))


def dropped(parts: Parts) -> Parts:
    return [(offset, text) for offset, (_, text) in enumerate(parts[:2] + parts[3:])]


def doubled(parts: Parts) -> Parts:
    return [(offset, text) for offset, (_, text) in enumerate([*parts[:3], *parts[2:]])]


def reordered(parts: Parts) -> Parts:
    return [*parts[:2], (2, parts[3][1]), (3, parts[2][1])]


def gap(parts: Parts) -> Parts:
    return [*parts[:2], *parts[3:]]


def altered(parts: Parts) -> Parts:
    return [*parts[:3], (3, line_text("a", 2, "other"))]


def cut_short(parts: Parts) -> Parts:
    return parts[:-1]


def stream(lost_at: float = 0.0) -> StreamLog:
    log = StreamLog("run_1", "llm", closed=True, lost_at=lost_at)
    log.sent = {"a": [TEXTS[0], TEXTS[2], TEXTS[3]], "b": [TEXTS[1]]}
    log.stored = {"a": [LONG_AGO] * 3, "b": [LONG_AGO]}
    return log


def read(parts: Parts, log: StreamLog) -> Counter[str]:
    """Let a reader take these parts and the end; how many violations of each kind."""
    oracle = Oracle("1", Calm(10.0))
    feed = StreamFeed("reader", log, oracle)
    for offset, text in parts:
        feed.parts(offset, [text], f"1-{offset}")
    feed.told("end", {"reason": "closed"})
    return Counter(violation.kind for violation in oracle.violations)


def test_a_stream_that_is_whole_is_good() -> None:
    assert not read(RIGHT, stream())


@pytest.mark.parametrize("broken", [dropped, doubled, reordered, gap, altered, cut_short])
def test_a_broken_stream_is_caught(broken: Callable[[Parts], Parts]) -> None:
    assert read(broken(RIGHT), stream())


def test_two_readers_have_to_agree() -> None:
    log = stream()
    assert not read(RIGHT, log)
    other = [(0, TEXTS[1]), (1, TEXTS[0]), *RIGHT[2:]]
    assert read(other, log) == {"stream differs": 1}


def test_only_what_was_stored_before_a_loss_may_be_missing() -> None:
    log = stream(lost_at=BEFORE)
    assert not read([(0, TEXTS[3])], log)
    log.stored["a"][1] = BEFORE + 1
    assert read([(0, TEXTS[3])], log) == {"stream differs": 1}


def test_a_lost_stream_is_a_cause_for_a_reset_and_no_other_one_is() -> None:
    for lost_at, expected in ((0.0, 1), (BEFORE, 0)):
        oracle = Oracle("1", Calm(10.0))
        feed = StreamFeed("reader", stream(lost_at), oracle)
        feed.told("reset", {"reason": "begun_anew", "message": ""})
        assert len(oracle.violations) == expected


def test_a_reader_that_goes_back_takes_the_same_chunks_again() -> None:
    oracle = Oracle("1", Calm(10.0))
    feed = StreamFeed("reader", stream(), oracle)
    for offset, text in RIGHT:
        feed.parts(offset, [text], f"1-{offset}")
    feed.rewind(random.Random(1))
    for offset, text in RIGHT[len(feed.texts) :]:
        feed.parts(offset, [text], f"1-{offset}")
    feed.told("end", {"reason": "closed"})
    assert oracle.violations == []
