"""Lines out of bytes, however those are cut."""

from itertools import pairwise

import pytest
from hypothesis import given, strategies as st

from runcast.core.line_splitter import LineSplitter
from runcast.errors import InvalidBody, PayloadTooLarge

PIECES = [b"\n", b"\r\n", b"a", b"bc", "é🌱\u2028".encode()]
BODIES = st.lists(st.sampled_from(PIECES)).map(b"".join)


def split(pieces: list[bytes], *, max_bytes: int = 1 << 20) -> list[str]:
    splitter = LineSplitter(max_bytes)
    given = [lines for piece in pieces for lines in splitter.receive(piece)]
    return [line for lines in [*given, *splitter.finish()] for line in lines.split("\n")]


@given(BODIES, st.lists(st.integers(0, 200)))
def test_any_cut_of_the_bytes_gives_the_same_lines(body: bytes, cuts: list[int]) -> None:
    places = sorted({0, len(body), *(cut for cut in cuts if cut < len(body))})
    pieces = [body[start:end] for start, end in pairwise(places)]
    lines = [line.removesuffix(b"\r") for line in body.split(b"\n")]
    expected = [line.decode() for line in lines if line]
    assert split(pieces) == expected
    assert split([body[place : place + 1] for place in range(len(body))]) == expected


def test_a_last_line_without_newline_counts_only_at_the_end() -> None:
    splitter = LineSplitter(10)
    assert list(splitter.receive(b"a\nb")) == ["a"]
    assert list(splitter.receive(b"c")) == []
    assert list(splitter.finish()) == ["bc"]
    assert list(splitter.finish()) == []


def test_empty_lines_are_no_lines() -> None:
    assert split([b"\n\n\r\n", b"\r", b"\n", b"a\r\n"]) == ["a"]


@given(st.integers(1, 40), st.integers(1, 7))
def test_a_line_may_be_as_long_as_the_limit_and_a_carriage_return(limit: int, step: int) -> None:
    def pieces(line: bytes) -> list[bytes]:
        return [line[place : place + step] for place in range(0, len(line), step)]

    longest = b"a" * limit + b"\r"
    assert split(pieces(longest + b"\n"), max_bytes=limit) == ["a" * limit]
    with pytest.raises(PayloadTooLarge, match=f"at most {limit} bytes"):
        split(pieces(b"a" * (limit + 2)), max_bytes=limit)


def test_no_more_is_kept_than_one_line_may_have() -> None:
    splitter = LineSplitter(100)
    for _ in range(10):
        assert list(splitter.receive(b"0123456789")) == []
    with pytest.raises(PayloadTooLarge):
        list(splitter.receive(b"0123456789"))


def test_lines_before_one_that_is_too_long_are_given() -> None:
    lines = LineSplitter(4).receive(b"a\nb\n" + b"c" * 9)
    assert next(lines) == "a\nb"
    with pytest.raises(PayloadTooLarge):
        next(lines)


@pytest.mark.parametrize("bad", [b"\0", b"a\rb", b"\xff", b"1234567"])
def test_lines_before_one_that_is_no_chunk_are_given(bad: bytes) -> None:
    lines = LineSplitter(6).receive(b"a\n\nb\n" + bad + b"\nc\n")
    assert next(lines) == "a\nb"
    with pytest.raises((InvalidBody, PayloadTooLarge)):
        next(lines)
