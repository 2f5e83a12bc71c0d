"""What WebSocket clients may say, and how they are told what was wrong with it."""

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given, strategies as st

from runcast.core.command import (
    Authenticate,
    Command,
    InvalidCommand,
    Ping,
    RunsAsked,
    StreamAsked,
    Subscribe,
    Unsubscribe,
    parse_command,
)

SUBSCRIBE: dict[str, Any] = {"type": "subscribe", "id": "s1", "runs": {}}
STREAM: dict[str, Any] = {
    "type": "subscribe",
    "id": "s1",
    "stream": {"run": "run_1", "key": "llm"},
}


def parse(message: object) -> Command:
    return parse_command(json.dumps(message))


def runs(**asked: Any) -> dict[str, Any]:
    return {**SUBSCRIBE, "runs": asked}


def subscribe(asked: RunsAsked | StreamAsked, **options: Any) -> Subscribe:
    return Subscribe("s1", asked, **{"cursor": None, "skip_columns": "", "stay": False, **options})


@pytest.mark.parametrize(
    ("message", "command"),
    [
        ({"type": "authenticate", "token": "t"}, Authenticate("t")),
        ({"type": "ping"}, Ping()),
        ({"type": "unsubscribe", "id": "s1"}, Unsubscribe("s1")),
        ({"type": "unsubscribe", "id": "!~" * 32}, Unsubscribe("!~" * 32)),
        (SUBSCRIBE, subscribe(RunsAsked())),
        (runs(run="run_1"), subscribe(RunsAsked(run="run_1"))),
        (runs(batch="batch_1"), subscribe(RunsAsked(batch="batch_1"))),
        (
            runs(tags=["a", "b"], task="t", createdAt="1h"),
            subscribe(RunsAsked(tags=("a", "b"), task="t", created_at="1h")),
        ),
        (
            {**SUBSCRIBE, "cursor": "AQE", "skipColumns": ["payload", "output"], "stay": True},
            subscribe(RunsAsked(), cursor="AQE", skip_columns="payload,output", stay=True),
        ),
        ({**SUBSCRIBE, "cursor": None}, subscribe(RunsAsked())),
        (STREAM, subscribe(StreamAsked("run_1", "llm", "start"))),
        ({**STREAM, "from": "latest"}, subscribe(StreamAsked("run_1", "llm", "latest"))),
        ({**STREAM, "from": 7}, subscribe(StreamAsked("run_1", "llm", 7))),
    ],
)
def test_understands(message: dict[str, Any], command: Command) -> None:
    assert parse(message) == command
    assert parse_command(json.dumps(message).encode()) == command


@pytest.mark.parametrize(
    ("message", "names"),
    [
        ([], "one JSON object"),
        ("ping", "one JSON object"),
        (None, "one JSON object"),
        ({}, "authenticate, subscribe, unsubscribe, ping"),
        ({"type": "shout"}, "authenticate, subscribe, unsubscribe, ping"),
        ({"type": ["ping"]}, "authenticate, subscribe, unsubscribe, ping"),
        ({"type": "ping", "colour": 1}, '"ping" has no field "colour"'),
        ({"type": "authenticate"}, '"token" is a text'),
        ({"type": "authenticate", "token": None}, '"token" is a text'),
        ({"type": "unsubscribe"}, '"id" of a subscription'),
        ({"type": "unsubscribe", "id": 1}, '"id" of a subscription'),
        ({**SUBSCRIBE, "id": ""}, '"id" of a subscription'),
        ({**SUBSCRIBE, "id": "x" * 65}, '"id" of a subscription'),
        ({**SUBSCRIBE, "id": "two words"}, '"id" of a subscription'),
        ({**SUBSCRIBE, "id": "s1\n"}, '"id" of a subscription'),
        ({**SUBSCRIBE, "id": "é"}, '"id" of a subscription'),
    ],
)
def test_refuses_and_names_the_fix(message: object, names: str) -> None:
    with pytest.raises(InvalidCommand) as caught:
        parse(message)
    assert names in caught.value.message
    assert caught.value.subscription_id is None
    assert caught.value.code == "invalid_command"


@pytest.mark.parametrize(
    ("message", "names"),
    [
        ({"type": "subscribe", "id": "s1"}, '"runs" says which runs'),
        ({**SUBSCRIBE, "runs": []}, '"runs" says which runs'),
        (runs(colour="red"), '"runs" says which runs'),
        (runs(tags="a"), '"tags" is a list of texts'),
        (runs(tags=["a", 1]), '"tags" is a list of texts'),
        (runs(tags=None), '"tags" is a list of texts'),
        (runs(run="run_1", task="t"), "stand alone"),
        (runs(run="run_1", batch="batch_1"), "stand alone"),
        (runs(batch="batch_1", tags=[]), "stand alone"),
        (runs(run=7), '"run" is a text'),
        # What a template leaves when its variable is empty must not open every run.
        (runs(run=None), '"run" is a text'),
        (runs(batch=None), '"batch" is a text'),
        (runs(task=None), '"task" is a text'),
        (runs(createdAt=None), '"createdAt" is a text'),
        ({**SUBSCRIBE, "stay": "yes"}, '"stay" is true or false'),
        ({**SUBSCRIBE, "cursor": 7}, '"cursor" is a text'),
        ({**SUBSCRIBE, "skipColumns": "payload"}, '"skipColumns" is a list of texts'),
        ({**SUBSCRIBE, "skipColumns": [1]}, '"skipColumns" is a list of texts'),
        ({**SUBSCRIBE, "colour": 1}, '"subscribe" has no field "colour"'),
        ({**SUBSCRIBE, "from": 7}, 'has no field "from"'),
        ({**STREAM, "runs": {}}, 'has no field "runs"'),
        ({**STREAM, "stream": "llm"}, '"stream" says which one'),
        ({**STREAM, "stream": {"run": "run_1"}}, '"stream" says which one'),
        ({**STREAM, "stream": {"run": "run_1", "key": 1}}, '"key" is a text'),
        ({**STREAM, "from": -1}, '"from" is'),
        ({**STREAM, "from": True}, '"from" is'),
        ({**STREAM, "from": 1 << 62}, '"from" is'),
        ({**STREAM, "from": "end"}, '"from" is'),
    ],
)
def test_says_which_subscription_was_refused(message: object, names: str) -> None:
    with pytest.raises(InvalidCommand) as caught:
        parse(message)
    assert names in caught.value.message
    assert caught.value.subscription_id == "s1"


def test_shows_only_the_beginning_of_a_long_name() -> None:
    with pytest.raises(InvalidCommand) as caught:
        parse({"type": "ping", "x" * 1000: 1})
    assert len(caught.value.message) < 100


@pytest.mark.parametrize(
    "text", ["", "{", b"\xff", "\ud800", "NaN", '{"type":"ping"}{}', "[" * 100_000, "1" * 5000]
)
def test_what_is_no_json_is_refused(text: str | bytes) -> None:
    with pytest.raises(InvalidCommand, match="one JSON object"):
        parse_command(text)


@given(st.text() | st.binary())
def test_anything_else_is_never_raised(text: str | bytes) -> None:
    with pytest.raises(InvalidCommand):
        parse_command(text)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["run", "batch", "tags", "task", "createdAt", "key", "x"]), inner
        )
    ),
    max_leaves=8,
)
FIELDS = ["id", "runs", "stream", "from", "cursor", "stay", "skipColumns", "token", "x"]


@given(
    st.sampled_from(["authenticate", "subscribe", "unsubscribe", "ping"]),
    st.dictionaries(st.sampled_from(FIELDS), VALUES),
    st.booleans(),
)
def test_any_fields_are_understood_or_refused(
    kind: str, fields: dict[str, Any], named: bool
) -> None:
    message = {"type": kind, **({"id": "s1"} if named else {}), **fields}
    with contextlib.suppress(InvalidCommand):
        command = parse(message)
        assert "x" not in fields
        assert isinstance(command, Authenticate | Subscribe | Unsubscribe | Ping)
