"""Packets: what is stored of a payload or output, and what readers get of it."""

import json
from typing import Any

import orjson
import pytest
from hypothesis import given, strategies as st

from runcast.core.packet import (
    JSON,
    MAX_PACKET_BYTES,
    MISSING,
    STORE,
    SUPER_JSON,
    TEXT,
    checked_text,
    decoded,
    in_object_store,
    json_fragment,
    packet_from_patch,
    packet_from_trigger,
    packet_type,
)
from runcast.errors import InvalidBody, PayloadTooLarge


def read(text: str | None, kind: str) -> Any:
    fragment = decoded(text, kind)
    assert fragment is not None
    return orjson.loads(orjson.dumps(fragment))


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("payload", "kind", "packet"),
    [
        ({"a": [1, "é"]}, JSON, ('{"a":[1,"é"]}', JSON)),
        ("text", JSON, ('"text"', JSON)),
        ("text", MISSING, ('"text"', JSON)),
        (5, None, ("5", JSON)),
        (None, JSON, ("null", JSON)),
        (MISSING, MISSING, (None, JSON)),
        (MISSING, TEXT, (None, TEXT)),
        (None, SUPER_JSON, (None, SUPER_JSON)),
        ('{"json":1}', SUPER_JSON, ('{"json":1}', SUPER_JSON)),
        ("hello", TEXT, ("hello", TEXT)),
        ("packets/p1", STORE, ("packets/p1", STORE)),
        ("a,b", "text/csv", ("a,b", "text/csv")),
    ],
)
def test_trigger_stores(payload: object, kind: object, packet: tuple[str | None, str]) -> None:
    assert packet_from_trigger(payload, kind) == packet


@pytest.mark.parametrize(
    ("payload", "kind", "message"),
    [
        ({"a": 1}, TEXT, "payload is a string when payloadType is 'text/plain'"),
        ({"a": 1}, 5, "payloadType is a content type"),
        ({"a": 1}, "", "payloadType is a content type"),
        ({"a": 1}, "x" * 129, "payloadType is a content type"),
        ({"a": 1}, "text/plain\n", "characters that no content type has"),
        ({"a": 1}, "texté", "characters that no content type has"),
        ("a\0b", TEXT, "NUL"),
        ("\ud800", TEXT, "surrogate"),
        ("\ud800", JSON, "cannot be written as JSON"),
        (nested(300), JSON, "cannot be written as JSON"),
    ],
)
def test_trigger_refuses(payload: object, kind: object, message: str) -> None:
    with pytest.raises(InvalidBody, match=message):
        packet_from_trigger(payload, kind)


def test_a_packet_has_a_limit() -> None:
    checked_text("output", "x" * MAX_PACKET_BYTES)
    with pytest.raises(PayloadTooLarge, match="output has 16777218 bytes"):
        checked_text("output", "x" * MAX_PACKET_BYTES + "é")


@pytest.mark.parametrize(
    ("value", "kind", "packet"),
    [
        ({"a": 1}, None, ('{"a":1}', JSON)),
        ({"a": 1}, JSON, ('{"a":1}', JSON)),
        (5, None, ("5", JSON)),
        (False, None, ("false", JSON)),
        (None, None, (None, JSON)),
        (None, TEXT, (None, TEXT)),
        ('{"a": 1}', None, ('{"a": 1}', JSON)),
        ("done", None, ("done", TEXT)),
        ("", None, ("", TEXT)),
        ("12", None, ("12", JSON)),
        ('{"a": 1}', JSON, ('{"a": 1}', JSON)),
        ("done", JSON, ('"done"', JSON)),
        ('{"a": 1}', TEXT, ('{"a": 1}', TEXT)),
        ('{"json":{}}', SUPER_JSON, ('{"json":{}}', SUPER_JSON)),
        ("packets/p1", STORE, ("packets/p1", STORE)),
    ],
)
def test_patch_stores(value: object, kind: str | None, packet: tuple[str | None, str]) -> None:
    assert packet_from_patch("output", value, kind) == packet


@pytest.mark.parametrize(
    ("value", "kind", "message"),
    [
        ([1], TEXT, "output is a string when outputType is"),
        ("done", SUPER_JSON, "output is no super JSON"),
        ("[1]", SUPER_JSON, "output is no super JSON"),
        ("a\0", None, "output holds a NUL"),
    ],
)
def test_patch_refuses(value: object, kind: str | None, message: str) -> None:
    with pytest.raises(InvalidBody, match=message):
        packet_from_patch("output", value, kind)


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ('{"a": [1, 2.5]}', JSON, {"a": [1, 2.5]}),
        ("null", JSON, None),
        ('{"json": {"at": "x"}, "meta": {}}', SUPER_JSON, {"at": "x"}),
        ('{"json": null}', SUPER_JSON, None),
        ("plain", TEXT, "plain"),
        ('{"a":1}', TEXT, '{"a":1}'),
        ("a,b", "text/csv", "a,b"),
        ("not json", JSON, "not json"),
        ("", JSON, ""),
        ("NaN", JSON, "NaN"),
        ("1e400", JSON, "1e400"),
        ('[1e400, "\\ud800"]', JSON, '[1e400, "\\ud800"]'),
        ("not json", SUPER_JSON, "not json"),
        ("[1]", SUPER_JSON, "[1]"),
        ('{"meta": {}}', SUPER_JSON, '{"meta": {}}'),
        ('{"a": "cut \\ud83d"}', JSON, {"a": "cut \ufffd"}),
        ('{"json": "cut \\ud83d"}', SUPER_JSON, "cut \ufffd"),
        ('"\\u broken', JSON, '"\\u broken'),
    ],
)
def test_readers_get_the_value_or_else_the_text(text: str, kind: str, value: Any) -> None:
    assert read(text, kind) == value


def test_what_nests_beyond_reason_comes_as_text() -> None:
    deep = "[" * 5000 + "]" * 5000
    assert read(deep, JSON) == deep
    assert read(f'"\\u0041"{deep}', JSON) == f'"\\u0041"{deep}'
    assert read(f'["\\ud800",{deep}]', JSON) == f'["\\ud800",{deep}]'
    deep = '{"json":' + "[" * 500 + "]" * 500 + "}"
    assert read(deep, SUPER_JSON) == deep


def test_there_is_no_value_without_text_or_when_it_is_kept_elsewhere() -> None:
    assert decoded(None, JSON) is None
    assert decoded("packets/p1", STORE) is None
    assert in_object_store(STORE)
    assert not in_object_store(JSON)


def test_json_is_put_on_one_line() -> None:
    encoded = orjson.dumps(json_fragment('{\r\n "a":\n"b\\nc"\r}'))
    assert b"\n" not in encoded
    assert b"\r" not in encoded
    assert orjson.loads(encoded) == {"a": "b\nc"}


def test_types_that_nobody_knows_are_types() -> None:
    assert packet_type("outputType", "image/png") == "image/png"


@given(st.text(), st.sampled_from([JSON, SUPER_JSON, TEXT, "image/png"]))
def test_any_stored_text_gives_one_line_of_valid_json(text: str, kind: str) -> None:
    encoded = orjson.dumps(decoded(text, kind))
    assert b"\n" not in encoded
    json.loads(encoded)


def test_text_that_is_no_unicode_is_made_so() -> None:
    assert read("\ud800", JSON) == "?"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text()
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)  # fmt: skip


@given(json_values)
def test_what_is_triggered_is_what_is_read(value: Any) -> None:
    text, kind = packet_from_trigger(value, JSON)
    assert read(text, kind) == value


@given(json_values, st.sampled_from([None, "\t", 2]))
def test_json_written_by_others_is_read_as_they_meant_it(value: Any, indent: Any) -> None:
    assert read(json.dumps(value, indent=indent), JSON) == value
    assert read(json.dumps({"json": value}, indent=indent), SUPER_JSON) == value
