"""The shared socket as a state machine: every transition, and whom each message reaches."""

import itertools
import json
from typing import Any

import pytest

from runcast.client.errors import (
    ApiError,
    ClientClosed,
    ConnectionLost,
    InvalidArgument,
    PermissionDenied,
    RateLimited,
    TokenExpired,
    UnexpectedAnswer,
)
from runcast.client.feed_message import POSITION, FeedMessage
from runcast.client.lane import Lane
from runcast.client.retriable import LaneFull, NoWebSocket, Retriable, SocketFull
from runcast.client.shared_socket import TRANSITIONS, Kind, SharedSocket, SocketState, State

MESSAGES: dict[Kind, dict[str, Any]] = {
    Kind.TOLD: {"type": "run", "run": {"id": "run_1"}, "cursor": "c1"},
    Kind.UP_TO_DATE: {"type": "up-to-date", "cursor": "c2"},
    Kind.RESET: {"type": "reset", "reset": {"reason": "ahead", "message": "m"}},
    Kind.END: {"type": "end", "end": {"reason": "finished"}},
    Kind.PROBLEM: {"type": "problem", "problem": {"code": "not_found", "message": "m"}},
}
WAYS = {
    State.ASKED: (),
    State.CATCHING_UP: (Kind.TOLD,),
    State.LIVE: (Kind.UP_TO_DATE,),
}
RUNS: dict[str, Any] = {"runs": {}}


class Driven:
    """A socket that was opened, and what came to the lanes of its subscriptions."""

    def __init__(self) -> None:
        self.machine = SharedSocket()
        self.tell({"type": "authenticated", "expiresAt": 7})

    def tell(self, message: dict[str, Any]) -> None:
        self.machine.receive(json.dumps(message))

    def subscribe(self, **options: Any) -> tuple[str, Lane]:
        lane = Lane(**({"of_runs": True} | options))
        return self.machine.subscribe(RUNS, lane), lane

    def sent(self) -> list[dict[str, Any]]:
        return [json.loads(text) for text in self.machine.texts_to_send()]


def taken(lane: Lane) -> list[FeedMessage]:
    found = []
    while (message := lane.take()) is not None:
        found.append(message)
    return found


def failure_of(lane: Lane) -> Exception:
    assert lane.ended
    with pytest.raises(Exception) as failed:  # noqa: PT011 - which one is what is asked
        taken(lane)
    return failed.value


@pytest.mark.parametrize(
    ("state", "kind"), list(itertools.product(WAYS, Kind)), ids=lambda each: each.value
)
def test_every_transition(state: State, kind: Kind) -> None:
    driven = Driven()
    name, lane = driven.subscribe()
    for way in WAYS[state]:
        driven.tell(MESSAGES[way] | {"id": name})
    assert driven.machine.state_of(name) is state
    driven.tell(MESSAGES[kind] | {"id": name})
    assert driven.machine.state_of(name) is TRANSITIONS[state, kind]
    over = TRANSITIONS[state, kind] is State.OVER
    assert lane.ended is over
    assert driven.machine.carried == (0 if over else 1)


def test_the_table_has_every_cell() -> None:
    living = set(State) - {State.OVER}
    assert set(TRANSITIONS) == set(itertools.product(living, Kind))


def test_messages_reach_the_lane_that_they_are_for() -> None:
    driven = Driven()
    (one, first), (_, second) = driven.subscribe(), driven.subscribe()
    driven.tell(MESSAGES[Kind.RESET] | {"id": one})
    driven.tell(MESSAGES[Kind.TOLD] | {"id": one})
    driven.tell(MESSAGES[Kind.TOLD] | {"id": "nobody"})
    driven.tell({"type": "up-to-date", "id": one, "offset": 4})
    driven.tell(
        {"type": "parts", "id": one, "cursor": "9-5", "offset": 4, "parts": [1], "times": [9]}
    )
    assert taken(first) == [
        FeedMessage("reset", {"reason": "ahead", "message": "m"}, ""),
        FeedMessage("run", {"id": "run_1"}, "c1"),
        FeedMessage("up-to-date", {"offset": 4}),
        FeedMessage("parts", ([(1, 9)], 4), "9-5"),
    ]
    assert taken(second) == []


def test_a_cursor_is_for_feeds_of_runs_that_are_up_to_date() -> None:
    driven = Driven()
    lanes = [driven.subscribe(of_runs=of_runs) for of_runs in (True, True, False)]
    for name, _ in (lanes[0], lanes[2]):
        driven.tell({"type": "up-to-date", "id": name})
    driven.tell({"type": "cursor", "cursor": "c9"})
    found = [[each for each in taken(lane) if each.name == POSITION] for _, lane in lanes]
    assert found == [[FeedMessage(POSITION, None, "c9")], [], []]


def test_a_full_lane_is_unsubscribed_and_the_others_go_on() -> None:
    driven = Driven()
    (slow, full), (_, other) = driven.subscribe(max_bytes=600), driven.subscribe()
    driven.sent()
    for number in range(5):
        driven.tell({"type": "run", "id": slow, "run": {"id": f"run_{number}"}})
    assert driven.sent() == [{"type": "unsubscribe", "id": slow}]
    assert isinstance(failure_of(full), LaneFull)
    assert not other.ended
    driven.tell({"type": "end", "id": slow, "end": {"reason": "unsubscribed"}})
    assert driven.machine.carried == 1


def test_names_are_never_used_again() -> None:
    driven = Driven()
    one, _ = driven.subscribe()
    driven.machine.unsubscribe(one)
    driven.machine.unsubscribe(one)
    two, _ = driven.subscribe()
    kinds = [(each["type"], each["id"]) for each in driven.sent()]
    assert kinds == [("subscribe", one), ("unsubscribe", one), ("subscribe", two)]
    assert one != two


def test_a_gateway_that_carries_fewer_is_believed() -> None:
    driven = Driven()
    driven.subscribe()
    name, lane = driven.subscribe()
    refused = {"code": "too_many_subscriptions", "message": "m"}
    driven.tell({"type": "problem", "id": name, "problem": refused})
    assert isinstance(failure_of(lane), SocketFull)
    assert driven.machine.max_subscriptions == driven.machine.carried == 1


def test_one_that_carries_none_is_busy() -> None:
    driven = Driven()
    name, lane = driven.subscribe()
    refused = {"code": "too_many_subscriptions", "message": "m"}
    driven.tell({"type": "problem", "id": name, "problem": refused})
    failure = failure_of(lane)
    assert isinstance(failure, Retriable)
    assert isinstance(failure.cause, RateLimited)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("insufficient_scope", PermissionDenied),
        ("backend_unavailable", Retriable),
        ("internal_error", Retriable),
        ("new_code", ApiError),
    ],
)
def test_a_problem_ends_one_subscription(code: str, kind: type[Exception]) -> None:
    driven = Driven()
    (name, lane), (_, other) = driven.subscribe(), driven.subscribe()
    driven.tell({"type": "problem", "id": name, "problem": {"code": code, "message": "m"}})
    assert isinstance(failure_of(lane), kind)
    assert not other.ended


def test_a_token_that_is_not_renewed_ends_nothing_yet() -> None:
    driven = Driven()
    _, lane = driven.subscribe()
    driven.sent()
    driven.machine.authenticate("fresh")
    assert driven.sent() == [{"type": "authenticate", "token": "fresh"}]
    driven.tell({"type": "problem", "problem": {"code": "invalid_token", "message": "m"}})
    assert not lane.ended
    driven.machine.receive_close(1006, "")
    assert isinstance(failure_of(lane), Retriable)


def test_a_renewed_token_has_another_end() -> None:
    driven = Driven()
    assert driven.machine.expires_at == 7
    driven.tell({"type": "authenticated", "expiresAt": 9})
    assert driven.machine.expires_at == 9


PROBLEM = {"code": "slow_consumer", "message": "m"}


@pytest.mark.parametrize(
    ("message", "close", "failure"),
    [
        (
            {"type": "expired", "expired": {"code": "expired_token", "message": "m"}},
            0,
            TokenExpired,
        ),
        (None, 4001, TokenExpired),
        ({"type": "problem", "problem": PROBLEM}, 4029, Retriable),
        ({"type": "problem", "problem": PROBLEM}, 4500, RateLimited),
        (None, 4503, ApiError),
        (None, 1012, Retriable),
        (None, 1006, Retriable),
        ({"type": "run"}, 1006, Retriable),
        ({"no": "type"}, 0, NoWebSocket),
        ({"type": "expired"}, 0, NoWebSocket),
    ],
)
def test_an_ended_socket_ends_all(
    message: dict[str, Any] | None, close: int, failure: type[Exception]
) -> None:
    driven = Driven()
    lanes = [driven.subscribe()[1] for _ in range(2)]
    if message:
        driven.tell(message)
    if close:
        driven.machine.receive_close(close, "reason")
    assert driven.machine.state is SocketState.CLOSED
    for lane in lanes:
        assert isinstance(failure_of(lane), failure)
    assert isinstance(failure_of(driven.subscribe()[1]), failure)


def test_a_gateway_that_goes_away_says_how_long_to_wait_within_reason() -> None:
    for told, waited in ((1500, 1.5), (10**9, 30.0)):
        driven = Driven()
        _, lane = driven.subscribe()
        reconnect = {"code": "draining", "message": "m", "delayMs": told}
        driven.tell({"type": "reconnect", "reconnect": reconnect})
        failure = failure_of(lane)
        assert isinstance(failure, Retriable)
        assert failure.wait_seconds == waited


def test_a_refusal_before_anything_else_is_the_answer() -> None:
    machine = SharedSocket()
    lane = Lane(of_runs=True)
    machine.subscribe(RUNS, lane)
    problem = {"code": "expired_token", "message": "m"}
    machine.receive(json.dumps({"type": "problem", "problem": problem}))
    assert isinstance(failure_of(lane), TokenExpired)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "1",
        "{",
        '{"id": "1"}',
        '{"id": [], "type": "run"}',
        "[" * 100000,
        '{"id": "1", "type": "run", "run": 1}',
        '{"id": "1", "type": "run", "run": {"id": []}}',
        '{"id": "1", "type": "parts", "parts": [1], "times": [], "offset": 0}',
        '{"id": "1", "type": "problem", "problem": {}}',
    ],
)
def test_what_cannot_be_read_is_left_to_the_other_transport(text: str) -> None:
    driven = Driven()
    name, lane = driven.subscribe()
    assert name == "1"
    driven.machine.receive(text)
    failure = failure_of(lane)
    assert isinstance(failure, NoWebSocket)
    assert isinstance(failure.cause, UnexpectedAnswer)


def test_what_a_newer_gateway_says_is_passed_over() -> None:
    driven = Driven()
    name, lane = driven.subscribe()
    driven.tell({"type": "weather", "weather": "fine"})
    driven.tell({"type": "weather", "id": name, "weather": "fine"})
    assert taken(lane) == [FeedMessage("weather", "fine")]


def test_a_client_that_is_closed_ends_all() -> None:
    driven = Driven()
    _, lane = driven.subscribe()
    driven.machine.close()
    driven.machine.close(ConnectionLost("later"))
    driven.machine.receive_close(1000, "")
    driven.tell({"type": "authenticated"})
    assert isinstance(failure_of(lane), ClientClosed)


def test_more_than_a_gateway_listens_to_is_not_sent() -> None:
    driven = Driven()
    with pytest.raises(InvalidArgument):
        driven.machine.subscribe({"runs": {"tags": ["x" * 70_000]}}, Lane(of_runs=True))
    assert driven.sent() == []
    assert driven.machine.carried == 0
