"""Frames as messages on a WebSocket."""

from typing import Any

import orjson
import pytest
from hypothesis import given, strategies as st

from runcast.core.frame import (
    End,
    Frame,
    GoneFrame,
    KeepAlive,
    Problem,
    Reset,
    RunFrame,
    UpToDate,
)
from runcast.core.socket_format import SocketFormat
from tests.support.runs import make_run

NOTHING: frozenset[str] = frozenset()
FORM = SocketFormat("s1", NOTHING)


def message(frame: Frame, cursor: str | None = None, form: SocketFormat = FORM) -> Any:
    line = form.encode(frame, cursor)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    return orjson.loads(line)


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        (
            GoneFrame("run_1", "deleted", 2, 3),
            {"type": "gone", "id": "s1", "gone": {"id": "run_1", "reason": "deleted"}},
        ),
        (UpToDate(), {"type": "up-to-date", "id": "s1"}),
        (
            Reset("ahead", "Why."),
            {"type": "reset", "id": "s1", "reset": {"reason": "ahead", "message": "Why."}},
        ),
        (End("finished"), {"type": "end", "id": "s1", "end": {"reason": "finished"}}),
        (
            Problem("not_found", "No."),
            {"type": "problem", "id": "s1", "problem": {"code": "not_found", "message": "No."}},
        ),
    ],
)
def test_messages_are_those_of_the_protocol(frame: Frame, expected: dict[str, Any]) -> None:
    assert message(frame) == expected
    assert message(frame, "AQE") == {**expected, "cursor": "AQE"}


def test_a_run_is_embedded_as_it_was_encoded() -> None:
    frame = RunFrame(make_run(payload='{"a":[1,2]}'))
    run = orjson.loads(frame.json(NOTHING))
    assert message(frame) == {"type": "run", "id": "s1", "run": run}
    assert message(frame, "AQE") == {"type": "run", "id": "s1", "cursor": "AQE", "run": run}
    assert frame.json(NOTHING) in FORM.encode(frame, None)


def test_a_cursor_for_all_names_no_subscription() -> None:
    assert message(KeepAlive(), "AQE") == {"type": "cursor", "cursor": "AQE"}


@given(
    st.text(min_size=1, max_size=8).filter(lambda name: name.isascii() and name.isprintable()),
    st.text(),
)
def test_any_name_and_any_text_stay_on_one_line(name: str, text: str) -> None:
    form = SocketFormat(name, NOTHING)
    for frame in (
        RunFrame(make_run(output=text, output_type="text/plain")),
        Problem("internal_error", text),
    ):
        assert message(frame, None, form)["id"] == name


def test_packed_messages_are_taken_apart_at_their_lines() -> None:
    lines = [FORM.encode(RunFrame(make_run(id=f"run_{n}")), None) for n in range(3)]
    packed = FORM.pack(lines)
    assert [orjson.loads(line)["run"]["id"] for line in packed.splitlines()] == [
        "run_0",
        "run_1",
        "run_2",
    ]


def test_columns_are_left_out() -> None:
    form = SocketFormat("s1", frozenset({"payload"}))
    assert "payload" not in message(RunFrame(make_run(payload="1")), None, form)["run"]
