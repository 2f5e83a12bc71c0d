"""Reading event streams: whole events out of any pieces, and a cursor that is never ahead."""

import itertools

import pytest
from hypothesis import given, strategies as st

from runcast.cli.events import Event, EventReader, NotAnEventStream

STREAM = (
    'event: run\ndata: {"text": "a\u2028b\x85c"}\n\n'
    ": keep-alive\nid: c1\n\n"
    "event: up-to-date\r\nid: c2\r\ndata: {}\r\n\r\n"
    "data: 1\ndata:2\nretry: 5\n\n"
).encode()
EVENTS = [
    Event("run", '{"text": "a\u2028b\x85c"}'),
    Event("up-to-date", "{}"),
    Event("message", "1\n2"),
]


@given(st.lists(st.integers(0, len(STREAM)), max_size=8))
def test_events_are_the_same_however_the_bytes_are_cut(cuts: list[int]) -> None:
    reader = EventReader()
    edges = [0, *sorted(cuts), len(STREAM)]
    pieces = [STREAM[start:end] for start, end in itertools.pairwise(edges)]
    assert [event for piece in pieces for event in reader.receive(piece)] == EVENTS
    assert reader.cursor == "c2"


def test_the_cursor_is_not_ahead_of_an_event_that_was_cut_off() -> None:
    reader = EventReader("c0")
    reader.receive(b"id: c1\nevent: run\ndata: {}\n")
    assert reader.cursor == "c0"
    reader.receive(b"\n")
    assert reader.cursor == "c1"


def test_a_heartbeat_moves_the_cursor() -> None:
    reader = EventReader("c0")
    assert reader.receive(b": keep-alive\nid: c1\n\n") == []
    assert reader.cursor == "c1"


def test_an_endless_line_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runcast.cli.events._MAX_BUFFER_BYTES", 100)
    with pytest.raises(NotAnEventStream):
        EventReader().receive(b"x" * 101)
