"""Frames as Server-Sent Events, read back by a strict parser."""

from typing import Any

import orjson
import pytest
from hypothesis import given, strategies as st
from sse_starlette import ServerSentEvent

from runcast.core.frame import (
    End,
    Expired,
    Frame,
    GoneFrame,
    KeepAlive,
    Problem,
    Reconnect,
    Reset,
    RunFrame,
    UpToDate,
)
from runcast.core.sse import LAST_CHUNK, SseFormat, chunk, event_of
from tests.support.event_stream import Event, body_of, parse_events
from tests.support.runs import make_run

NOTHING: frozenset[str] = frozenset()
PLAIN = SseFormat(NOTHING, chunked=False)
CHUNKED = SseFormat(NOTHING, chunked=True)

# Letters that a line-based format may stumble over, in every place where text can stand.
TEXT = st.text(max_size=20) | st.sampled_from(["a\nb", "a\r\nid: 1\n\nb", "\u2028", "data: x", ":"])
STORABLE = TEXT.filter(lambda text: "\0" not in text and text.isprintable())
CURSORS = st.none() | st.text("abcXYZ019-_", min_size=1, max_size=20)

frames = st.one_of(
    st.builds(
        RunFrame,
        st.builds(
            make_run,
            payload=TEXT.map(lambda text: orjson.dumps(text).decode()),
            output=TEXT,
            output_type=st.just("text/plain"),
            error=TEXT.map(lambda text: orjson.dumps({"message": text}, option=2).decode()),
            tags=st.lists(STORABLE, max_size=2).map(tuple),
        ),
    ),
    st.builds(GoneFrame, TEXT, st.sampled_from(["deleted", "unmatched"]), st.just(1), st.just(2)),
    st.just(UpToDate()),
    st.builds(Reset, TEXT, TEXT),
    st.builds(End, st.sampled_from(["finished", "deleted", "unsubscribed"])),
    st.just(Expired()),
    st.builds(Reconnect, st.integers(0, 10_000)),
    st.builds(Problem, TEXT, TEXT),
)


def expected(frame: Frame) -> tuple[str, Any]:
    if isinstance(frame, RunFrame):
        return "run", orjson.loads(frame.json(NOTHING))
    return event_of(frame)


def expected_id(frame: Frame, cursor: str | None) -> str | None:
    return "" if isinstance(frame, Reset) else cursor  # a reset takes the client's cursor away


@given(frames, CURSORS)
def test_every_frame_is_read_back_as_it_was(frame: Frame, cursor: str | None) -> None:
    (event,) = parse_events(PLAIN.encode(frame, cursor))
    assert (event.name, event.json) == expected(frame)
    assert event.id == expected_id(frame, cursor)
    assert event.retry == (frame.delay_ms if isinstance(frame, Reconnect) else None)
    assert event.comments == ()


@given(frames, CURSORS)
def test_it_is_the_event_that_sse_starlette_would_write(frame: Frame, cursor: str | None) -> None:
    ours = PLAIN.encode(frame, cursor)
    (event,) = parse_events(ours)
    theirs = ServerSentEvent(
        event.data, event=event.name, id=event.id, retry=event.retry, sep="\n"
    ).encode()
    assert parse_events(theirs) == [event]
    assert len(theirs) == len(ours)


@given(st.lists(st.tuples(frames, CURSORS), max_size=4))
def test_events_are_written_one_behind_the_other(sent: list[tuple[Frame, str | None]]) -> None:
    packed = PLAIN.pack(PLAIN.encode(frame, cursor) for frame, cursor in sent)
    assert [(event.name, event.id) for event in parse_events(packed)] == [
        (expected(frame)[0], expected_id(frame, cursor)) for frame, cursor in sent
    ]


@given(st.lists(st.tuples(frames, CURSORS), max_size=4), st.integers(0, 3))
def test_chunks_carry_the_same_bytes(sent: list[tuple[Frame, str | None]], split: int) -> None:
    encoded = [CHUNKED.encode(frame, cursor) for frame, cursor in sent]
    written = CHUNKED.pack(encoded[:split]) + CHUNKED.pack(encoded[split:])
    assert body_of(written + LAST_CHUNK) == PLAIN.pack(encoded)


def test_nothing_to_write_is_not_the_last_chunk() -> None:
    # An empty chunk would end the response.
    assert CHUNKED.pack([]) == b""


def test_a_chunk_says_its_length_in_hex() -> None:
    assert chunk(b"x" * 26) == b"1a\r\n" + b"x" * 26 + b"\r\n"


@pytest.mark.parametrize("cursor", [None, "AQE"])
def test_keep_alive_is_a_comment_and_moves_the_cursor(cursor: str | None) -> None:
    assert parse_events(PLAIN.encode(KeepAlive(), cursor)) == [
        Event(None, "", cursor, comments=("keep-alive",))
    ]


@pytest.mark.parametrize(
    ("frame", "name", "data"),
    [
        (GoneFrame("run_1", "deleted", 2, 3), "gone", {"id": "run_1", "reason": "deleted"}),
        (UpToDate(), "up-to-date", {}),
        (Reset("ahead", "Why."), "reset", {"reason": "ahead", "message": "Why."}),
        (End("finished"), "end", {"reason": "finished"}),
        (Problem("not_found", "No."), "problem", {"code": "not_found", "message": "No."}),
    ],
)
def test_names_and_data_are_those_of_the_protocol(
    frame: Frame, name: str, data: dict[str, str]
) -> None:
    (event,) = parse_events(PLAIN.encode(frame, None))
    assert (event.name, event.json) == (name, data)


@pytest.mark.parametrize(
    ("frame", "name", "code"),
    [(Expired(), "expired", "expired_token"), (Reconnect(700), "reconnect", "draining")],
)
def test_ends_that_ask_to_come_back_say_why(frame: Frame, name: str, code: str) -> None:
    (event,) = parse_events(PLAIN.encode(frame, None))
    assert event.name == name
    assert event.json["code"] == code
    assert "econnect" in event.json["message"]
    assert event.json.get("delayMs") == (700 if name == "reconnect" else None)


@pytest.mark.parametrize("frame", [RunFrame(make_run()), KeepAlive()])
def test_runs_and_keep_alives_have_forms_of_their_own(frame: Frame) -> None:
    with pytest.raises(AssertionError):
        event_of(frame)


def test_columns_are_left_out() -> None:
    frame = RunFrame(make_run(payload="1"))
    form = SseFormat(frozenset({"payload"}), chunked=False)
    (event,) = parse_events(form.encode(frame, None))
    assert "payload" not in event.json
    assert event.json["id"] == "run_1"


def test_equal_forms_are_one_key() -> None:
    assert {SseFormat(frozenset({"a"}), True), SseFormat(frozenset({"a"}), True)} == {
        SseFormat(frozenset({"a"}), True)
    }
