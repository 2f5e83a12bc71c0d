"""Parts of a stream on the wire."""

import json
from typing import Any

import pytest
from hypothesis import given, strategies as st

from runcast.core.chunk import Chunk, chunk_text
from runcast.core.frame import End, KeepAlive, Problem, Reset, UpToDate
from runcast.core.stream_format import StreamSocketFormat, StreamSseFormat, event_id
from runcast.core.stream_subscription import PartsFrame
from tests.support.event_stream import parse_events

PLAIN = StreamSseFormat(chunked=False, only_parts=False)
OFFICIAL = StreamSseFormat(chunked=False, only_parts=True)
BATCHES = StreamSseFormat(chunked=False, only_parts=True, batches=True)
SOCKET = StreamSocketFormat("s")

LINES = st.text(st.characters(codec="utf-8", exclude_characters="\0\r\n"), min_size=1)


def parts(*texts: str, first: int = 0) -> PartsFrame:
    return PartsFrame([Chunk(index, text, 1000 + index) for index, text in enumerate(texts, first)])


def _refuse(name: str) -> None:
    raise ValueError(name)


def value_of(text: str) -> Any:
    """What a chunk means: JSON, or the text itself."""
    try:
        return json.loads(text, parse_constant=_refuse)
    except ValueError:
        return text


def message(frame: PartsFrame | UpToDate | End | Reset | Problem) -> dict[str, Any]:
    line = SOCKET.encode(frame)
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    found: dict[str, Any] = json.loads(line)
    return found


class TestSse:
    def test_a_part_has_no_name_and_an_id_that_can_be_resumed_from(self) -> None:
        assert PLAIN.encode(parts('{"n":1}', "two", first=7)) == (
            b'id: 1007-7\ndata: {"n":1}\n\nid: 1008-8\ndata: two\n\n'
        )

    @given(LINES)
    def test_every_chunk_is_one_line_of_data_byte_for_byte(self, text: str) -> None:
        event = PLAIN.encode(parts(text))
        assert event.split(b"\n") == [b"id: 1000-0", b"data: " + text.encode(), b"", b""]

    def test_other_frames_are_named_events(self) -> None:
        assert PLAIN.encode(UpToDate(0)) == b'event: up-to-date\ndata: {"offset":0}\n\n'
        assert PLAIN.encode(UpToDate(5)) == b'id: 4\nevent: up-to-date\ndata: {"offset":5}\n\n'
        assert PLAIN.encode(End("closed")) == b'event: end\ndata: {"reason":"closed"}\n\n'

    @pytest.mark.parametrize(
        "frame", [UpToDate(), End("finished"), Reset("too_old", "m"), Problem("not_found", "m")]
    )
    def test_official_clients_get_nothing_but_parts_and_comments(
        self, frame: UpToDate | End | Reset | Problem
    ) -> None:
        assert OFFICIAL.encode(frame) == b""
        assert OFFICIAL.encode(parts("1")) == PLAIN.encode(parts("1"))
        assert OFFICIAL.encode(KeepAlive()) == b": keep-alive\n\n"

    def test_nothing_is_never_written_as_a_chunk_which_would_end_the_body(self) -> None:
        chunked = StreamSseFormat(chunked=True, only_parts=True)
        assert chunked.pack([chunked.encode(UpToDate())]) == b""
        assert chunked.pack([b"abc", b"de"]) == b"5\r\nabcde\r\n"


class TestBatches:
    """Source: wire/trigger-wire.md 3.6, "v2 framing"."""

    def test_parts_come_in_one_event_that_is_resumed_from_behind_its_last_record(self) -> None:
        (event,) = parse_events(BATCHES.encode(parts('{"n":1}', "two", '"three"', first=7)))
        assert (event.name, event.id) == ("batch", "9")
        records = event.json["records"]
        assert [record.pop("body") for record in records] == [
            '{"data":{"n":1},"id":"1007-7"}',
            '{"data":"two","id":"1008-8"}',
            '{"data":"three","id":"1009-9"}',
        ]
        assert records == [
            {"seq_num": index, "timestamp": 1000 + index, "headers": []} for index in (7, 8, 9)
        ]

    @given(st.lists(LINES, min_size=1, max_size=5))
    def test_every_text_arrives(self, texts: list[str]) -> None:
        (event,) = parse_events(BATCHES.encode(parts(*texts)))
        for text, record in zip(texts, event.json["records"], strict=True):
            assert json.loads(record["body"])["data"] == value_of(text)

    def test_escapes_are_kept_as_they_were_written(self) -> None:
        (event,) = parse_events(BATCHES.encode(parts(r'"\ud83c\u0000"')))
        assert event.json["records"][0]["body"] == r'{"data":"\ud83c\u0000","id":"1000-0"}'

    def test_other_frames_are_left_out(self) -> None:
        assert BATCHES.encode(End("finished")) == b""
        assert BATCHES.encode(KeepAlive()) == b": keep-alive\n\n"


class TestSocket:
    def test_parts_come_together_with_the_place_of_the_first_and_the_cursor_of_the_last(
        self,
    ) -> None:
        assert message(parts('{"n":1}', "[2]", first=4)) == {
            "type": "parts",
            "id": "s",
            "cursor": "1005-5",
            "offset": 4,
            "parts": [{"n": 1}, [2]],
            "times": [1004, 1005],
        }

    @pytest.mark.parametrize("text", ["hello", "{", '"', "NaN", "01", "\x7f", '{"a":1} x'])
    def test_a_chunk_that_is_not_json_comes_as_a_string(self, text: str) -> None:
        assert message(parts(text))["parts"] == [text]

    @given(LINES)
    def test_any_text_makes_a_message(self, text: str) -> None:
        assert message(parts(text))["parts"] == [value_of(text)]

    @pytest.mark.parametrize("escape", [r"\u0000", r"\ud83c\udf31", r"\u2028"])
    def test_escapes_are_kept_as_they_were_written(self, escape: str) -> None:
        text = chunk_text(f'"{escape}"'.encode(), 100)
        assert f'"parts":["{escape}"]'.encode() in SOCKET.encode(parts(text))

    def test_lone_surrogate_escapes_are_kept_as_they_were_written(self) -> None:
        text = chunk_text(rb'{"a":"\ud800","b":1}', 100)
        assert rb'"parts":[{"a":"\ud800","b":1}]' in SOCKET.encode(parts(text))

    def test_other_frames_carry_their_data_under_their_name(self) -> None:
        assert message(UpToDate(5)) == {"type": "up-to-date", "id": "s", "offset": 5}
        assert message(End("closed"))["end"] == {"reason": "closed"}
        assert message(Reset("ahead", "m"))["reset"] == {"reason": "ahead", "message": "m"}
        assert message(Problem("not_found", "m"))["problem"]["code"] == "not_found"


def test_an_id_says_when_and_where() -> None:
    assert event_id(Chunk(3, "x", 1700000000123)) == "1700000000123-3"
