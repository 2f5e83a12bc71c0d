"""Names of streams and writers, and lines as chunks."""

import pytest
from hypothesis import given, strategies as st

from runcast.core.chunk import MAX_KEY_BYTES, MAX_WRITER_BYTES, StreamName, check_writer, chunk_text
from runcast.errors import InvalidBody, InvalidParameter, PayloadTooLarge

MAX = 64


class TestNames:
    @pytest.mark.parametrize("key", ["llm", "a/b", "π", "a b", "%2F", "k" * MAX_KEY_BYTES])
    def test_keys_are_printable_text(self, key: str) -> None:
        assert StreamName("run_1", key).key == key

    @pytest.mark.parametrize(
        "key", ["", "k" * (MAX_KEY_BYTES + 1), "é" * MAX_KEY_BYTES, "a\nb", "a\0b", "\ud800"]
    )
    def test_what_cannot_name_a_stream_is_refused(self, key: str) -> None:
        with pytest.raises(InvalidParameter, match="key of a stream"):
            StreamName("run_1", key)

    def test_writers_are_bounded_in_bytes(self) -> None:
        assert check_writer("w" * MAX_WRITER_BYTES) == "w" * MAX_WRITER_BYTES
        for writer in ("", "w" * (MAX_WRITER_BYTES + 1), "é" * MAX_WRITER_BYTES, "\t"):
            with pytest.raises(InvalidParameter, match="id of a writer"):
                check_writer(writer)


class TestText:
    @given(st.text(st.characters(codec="utf-8", exclude_characters="\0\r\n"), min_size=1))
    def test_any_text_comes_out_as_it_went_in(self, text: str) -> None:
        assert chunk_text(text.encode(), 1 << 20) == text

    @pytest.mark.parametrize("text", [r'"\u0000"', r'"\ud800"', r'"\udc00\ud800"', "{", "\x7f\x01"])
    def test_escapes_and_text_that_is_no_json_stay_as_they_are(self, text: str) -> None:
        assert chunk_text(text.encode(), MAX) == text

    def test_one_carriage_return_at_the_end_belongs_to_the_line_break(self) -> None:
        assert chunk_text(b"a\r", MAX) == "a"
        assert chunk_text(b"a" * MAX + b"\r", MAX) == "a" * MAX

    @pytest.mark.parametrize("line", [b"a\0b", b"\0", b"a\rb", b"a\r\r"])
    def test_raw_nul_and_carriage_return_are_refused(self, line: bytes) -> None:
        with pytest.raises(InvalidBody, match="JSON escapes"):
            chunk_text(line, MAX)

    @pytest.mark.parametrize("line", [b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xc0\x80"])
    def test_bytes_that_are_no_utf8_are_refused(self, line: bytes) -> None:
        with pytest.raises(InvalidBody, match="Base64"):
            chunk_text(line, MAX)

    def test_the_limit_is_in_bytes_and_inclusive(self) -> None:
        assert chunk_text("é".encode() * (MAX // 2), MAX) == "é" * (MAX // 2)
        with pytest.raises(PayloadTooLarge, match=f"at most {MAX} bytes, not {MAX + 1}"):
            chunk_text(b"a" * (MAX + 1), MAX)
