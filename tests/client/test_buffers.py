"""What waits to be sent: nothing of it is lost, doubled or moved, and there is never too much."""

import json
from typing import Any

from hypothesis import given, strategies as st

from runcast.client.backoff import Backoff
from runcast.client.chunk_buffer import ChunkBuffer
from runcast.client.json_text import from_json, to_json
from runcast.client.metadata_buffer import MetadataBuffer
from runcast.client.sse import SseReader
from runcast.core.metadata import apply_operations, parse_operations

KEYS = st.sampled_from(["a", "b", "$.a.x", "$.a", "$.c.0"])
NUMBERS = st.integers(-5, 5)
VALUES = st.one_of(NUMBERS, st.just([1]), st.just({"x": 1}), st.none())
OPERATIONS = st.one_of(
    st.fixed_dictionaries({"type": st.just("set"), "key": KEYS, "value": VALUES}),
    st.fixed_dictionaries({"type": st.just("append"), "key": KEYS, "value": VALUES}),
    st.fixed_dictionaries({"type": st.just("remove"), "key": KEYS, "value": VALUES}),
    st.fixed_dictionaries({"type": st.just("increment"), "key": KEYS, "value": NUMBERS}),
    st.fixed_dictionaries({"type": st.just("delete"), "key": KEYS}),
    st.fixed_dictionaries({"type": st.just("update"), "value": st.just({"b": 1})}),
)


@given(
    st.dictionaries(st.sampled_from("abc"), VALUES, max_size=3),
    st.lists(st.one_of(OPERATIONS, st.integers(0, 3)), max_size=30),
)
def test_collapsed_operations_do_what_all_would(before: dict[str, Any], steps: list[Any]) -> None:
    buffer, sent, plain = MetadataBuffer(), [], []
    for step in steps:
        if isinstance(step, int):
            sent += buffer.take(step)
        else:
            plain.append(dict(step))
            buffer.add(dict(step))
    sent += buffer.take(1_000)
    assert len(buffer) == 0
    assert apply_operations(before, parse_operations(sent)) == apply_operations(
        before, parse_operations(plain)
    )


def test_what_is_set_and_counted_again_and_again_waits_once() -> None:
    buffer = MetadataBuffer()
    for number in range(1_000):
        buffer.add({"type": "set", "key": "step", "value": number})
        buffer.add({"type": "increment", "key": "n", "value": 1})
        buffer.add({"type": "increment", "key": "m", "value": -1})
    assert len(buffer) == 3
    assert {each["key"]: each["value"] for each in buffer.take(9)} == {
        "step": 999,
        "n": 1_000,
        "m": -1_000,
    }


@given(st.lists(st.one_of(st.binary(max_size=9), st.integers(0, 40)), max_size=60))
def test_chunks_are_kept_until_they_are_acknowledged(steps: list[bytes | int]) -> None:
    buffer = ChunkBuffer(8, 40)
    chunks: list[bytes] = []
    for step in steps:
        if isinstance(step, int):
            known = buffer.first
            moved = buffer.acknowledge(step)
            assert moved == (buffer.first > known)
            assert buffer.first == max(known, min(step, len(chunks)))
        elif not buffer.full:
            buffer.add(step)
            chunks.append(step)
        kept = chunks[buffer.first :]
        assert buffer.end == len(chunks)
        assert buffer.full == (len(kept) >= 8 or sum(map(len, kept)) >= 40)
        lines, end = buffer.lines(buffer.first, 10**6)
        assert (lines, end) == (b"".join(chunk + b"\n" for chunk in kept), len(chunks))
        if kept:
            assert buffer.lines(buffer.first, 0) == (kept[0] + b"\n", buffer.first + 1)


@given(st.data())
def test_events_are_read_however_they_are_cut(data: st.DataObject) -> None:
    texts = data.draw(st.lists(st.text(), max_size=5))
    events = [(json.dumps(text, ensure_ascii=False), f"c{n}") for n, text in enumerate(texts)]
    stream = b": keep-alive\nid: 0\n\n" + b"".join(
        f"event: run\r\ndata: {body}\nid: {cursor}\n\n".encode() for body, cursor in events
    )
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    reader = SseReader()
    found = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        found += reader.receive(stream[start:end])
    assert [(event.name, event.data, event.id) for event in found] == [
        ("run", body, cursor) for body, cursor in events
    ]
    assert reader.last_id == (events[-1][1] if events else "0")


JSON = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(allow_nan=False, allow_infinity=False),
        st.text(st.characters()),
    ),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(JSON)
def test_every_value_goes_through_one_line(value: Any) -> None:
    line = to_json(value)
    assert b"\n" not in line
    assert from_json(line.decode()) == value


def test_delays_grow_to_a_bound_and_begin_anew() -> None:
    backoff = Backoff(0.25, 15.0)
    delays = [backoff.next_delay() for _ in range(1_000)]
    for number, delay in enumerate(delays):
        full = min(0.25 * 2 ** min(number, 64), 15.0)
        assert full / 2 <= delay <= full
    assert len(set(delays[10:])) > 1
    backoff.reset()
    assert backoff.next_delay() <= 0.25
