"""Lines of items, however the body is cut, and what is known of those that are too large."""

import itertools

import orjson
import pytest
from hypothesis import given, strategies as st

from runcast.core.item_splitter import ItemSplitter, OversizedItem

MAX = 60


def split(data: bytes, cuts: list[int]) -> list[bytes | OversizedItem]:
    splitter = ItemSplitter(MAX)
    found: list[bytes | OversizedItem] = []
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    for start, end in itertools.pairwise(edges):
        found += splitter.receive(data[start:end])
    return [*found, *splitter.finish()]


@given(
    st.lists(st.binary(max_size=2 * MAX).map(lambda line: line.replace(b"\n", b" "))),
    st.lists(st.integers(0, 10_000)),
)
def test_lines_do_not_depend_on_how_the_body_is_cut(lines: list[bytes], cuts: list[int]) -> None:
    found = split(b"\n".join(lines), cuts)
    kept = [line for line in lines if line.strip() or len(line) > MAX]
    assert len(found) == len(kept)
    for line, piece in zip(kept, found, strict=True):
        if len(line) > MAX:
            assert isinstance(piece, OversizedItem)
            assert line.startswith(piece.head)
        else:
            assert piece == line


@pytest.mark.parametrize(
    ("head", "known"),
    [
        (b'{"index":7,"task":"my/task","payload":"xxx', (7, "my/task")),
        (b' { "task" : "a\\"b" , "index" : 0 }', (0, 'a"b')),
        (b'{"payload":{"index":1,"task":"a"},"index":2', None),
        (b'{"index":-1,"task":"a",', None),
        (b'{"index":1,"task":"a', None),
        (rb'{"index":1,"task":"\x",', None),
        (b"\xff\xff", None),
    ],
)
def test_an_item_is_known_by_its_beginning(head: bytes, known: tuple[int, str] | None) -> None:
    assert OversizedItem(head).index_and_task() == known


def test_what_is_kept_of_an_oversized_item_is_bounded() -> None:
    splitter = ItemSplitter(100_000)
    item = orjson.dumps({"index": 1, "task": "t", "payload": "x" * 1_000_000})
    assert list(splitter.receive(item)) == []
    assert sum(map(len, splitter._parts)) == 0
    (found,) = splitter.receive(b"\nshort")
    assert isinstance(found, OversizedItem)
    assert len(found.head) < 5000
    assert found.index_and_task() == (1, "t")
    assert list(splitter.finish()) == [b"short"]
