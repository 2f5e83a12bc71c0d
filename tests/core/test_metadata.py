"""Metadata operations: what each does, what is refused, and that they are pure."""

import copy
import json
import math
from typing import Any

import pytest
from hypothesis import given, strategies as st

from runcast.core.metadata import (
    MAX_DEPTH,
    MAX_KEY_LENGTH,
    MAX_OPERATIONS,
    MAX_REMOVALS,
    Operation,
    apply_operations,
    check_size,
    check_storable,
    parse_operations,
)
from runcast.errors import InvalidBody, PayloadTooLarge, Unprocessable


def applied(metadata: dict[str, Any], *operations: dict[str, Any]) -> dict[str, Any]:
    return apply_operations(metadata, parse_operations(list(operations)))


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


def assert_same_json(one: object, other: object) -> None:
    assert json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


@pytest.mark.parametrize(
    ("before", "operation", "after"),
    [
        ({}, {"type": "set", "key": "a", "value": 1}, {"a": 1}),
        ({"a": 1}, {"type": "set", "key": "a", "value": None}, {"a": None}),
        ({"a": 1, "b": 2}, {"type": "delete", "key": "a"}, {"b": 2}),
        ({"a": 1}, {"type": "delete", "key": "z"}, {"a": 1}),
        ({"a": {"b": 1}, "$.a.b": 2}, {"type": "delete", "key": "$.a.b"}, {"a": {"b": 1}}),
        ({"a": [1]}, {"type": "append", "key": "a", "value": [2]}, {"a": [1, [2]]}),
        ({}, {"type": "append", "key": "a", "value": 2}, {"a": [2]}),
        ({"a": "x"}, {"type": "append", "key": "a", "value": "y"}, {"a": ["x", "y"]}),
        ({"a": None}, {"type": "append", "key": "a", "value": 1}, {"a": [None, 1]}),
        ({"a": [1, 2, 1.0]}, {"type": "remove", "key": "a", "value": 1}, {"a": [2]}),
        ({"a": [True, 1]}, {"type": "remove", "key": "a", "value": 1}, {"a": [True]}),
        ({"a": [[{"x": 1}], [{"x": True}]]}, {"type": "remove", "key": "a", "value": [{"x": 1}]},
         {"a": [[{"x": True}]]}),
        ({"a": "x"}, {"type": "remove", "key": "a", "value": "x"}, {"a": "x"}),
        ({}, {"type": "remove", "key": "a", "value": "x"}, {}),
        ({"a": {"b": [1]}}, {"type": "remove", "key": "$.a.b", "value": 1}, {"a": {"b": []}}),
        ({"a": 1}, {"type": "increment", "key": "a", "value": 2.5}, {"a": 3.5}),
        ({"a": 1}, {"type": "decrement", "key": "a", "value": 2}, {"a": -1}),
        ({}, {"type": "increment", "key": "a", "value": 2}, {"a": 2}),
        ({"a": "7"}, {"type": "increment", "key": "a", "value": 2}, {"a": 2}),
        ({"a": True}, {"type": "increment", "key": "a", "value": 2}, {"a": 2}),
        ({"a": 2**63}, {"type": "increment", "key": "a", "value": 2**63}, {"a": 2.0**64}),
        ({"a": 1}, {"type": "update", "value": {"b": 1}}, {"b": 1}),
        ({"a": 1}, {"type": "replace", "value": {}}, {}),
    ],
)  # fmt: skip
def test_operation(
    before: dict[str, Any], operation: dict[str, Any], after: dict[str, Any]
) -> None:
    assert_same_json(applied(before, operation), after)


@pytest.mark.parametrize(
    ("before", "key", "after"),
    [
        ({}, "a.b", {"a.b": 9}),
        ({}, "$a", {"$a": 9}),
        ({}, "$", {"$": 9}),
        ({}, "$.a.b", {"a": {"b": 9}}),
        ({}, "$.a\\.b.c", {"a.b": {"c": 9}}),
        ({}, "$.a.0", {"a": {"0": 9}}),
        ({"a": {"b": 1, "c": 2}}, "$.a.b", {"a": {"b": 9, "c": 2}}),
        ({"a": [1, 2]}, "$.a.1", {"a": [1, 9]}),
        ({"a": [1, 2]}, "$.a.2", {"a": [1, 2, 9]}),
        ({"a": [1]}, "$.a.1.b", {"a": [1, {"b": 9}]}),
        ({"a": [{"b": 1}]}, "$.a.0.b", {"a": [{"b": 9}]}),
    ],
)
def test_a_key_is_literal_unless_it_starts_like_a_path(
    before: dict[str, Any], key: str, after: dict[str, Any]
) -> None:
    assert applied(before, {"type": "set", "key": key, "value": 9}) == after


@pytest.mark.parametrize("kind", ["set", "append", "increment", "remove"])
@pytest.mark.parametrize(
    "key", ["$.a.5", "$.a.x", "$.a.01", "$.a.-1", "$.n.x", "$.n.x.y", "$.a.9.b"]
)
def test_a_path_into_nothing_has_no_effect(kind: str, key: str) -> None:
    before = {"a": [1], "n": 3}
    assert applied(before, {"type": kind, "key": key, "value": 1}) == before


def test_operations_apply_in_order() -> None:
    result = applied(
        {"a": 5},
        {"type": "update", "value": {"n": 1}},
        {"type": "increment", "key": "n", "value": 1},
        {"type": "set", "key": "$.list", "value": []},
        {"type": "append", "key": "list", "value": {"n": 1}},
        {"type": "increment", "key": "$.list.0.n", "value": 4},
    )
    assert result == {"n": 2, "list": [{"n": 5}]}


def test_a_value_that_a_later_operation_changes_stays_as_it_was_sent() -> None:
    operations = parse_operations(
        [
            {"type": "replace", "value": {"deep": {"n": 1}}},
            {"type": "set", "key": "copy", "value": {"n": 1}},
            {"type": "append", "key": "list", "value": {"n": 1}},
            {"type": "increment", "key": "$.deep.n", "value": 1},
            {"type": "increment", "key": "$.copy.n", "value": 1},
            {"type": "increment", "key": "$.list.0.n", "value": 1},
        ]
    )
    before = copy.deepcopy(operations)
    first, second = apply_operations({}, operations), apply_operations({}, operations)
    assert first == second == {"deep": {"n": 2}, "copy": {"n": 2}, "list": [{"n": 2}]}
    assert operations == before


def test_update_and_decrement_are_other_words() -> None:
    assert parse_operations(
        [{"type": "update", "value": {}}, {"type": "decrement", "key": "a", "value": 3}]
    ) == (Operation("replace", (), {}), Operation("increment", ("a",), -3))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({}, "operations is a list"),
        (None, "operations is a list"),
        ([{"type": "set", "key": "a", "value": 1}, 5], r"operations\[1\] is no object"),
        ([{"key": "a"}], r"operations\[0\]\.type is one of append, decrement, delete"),
        ([{"type": ["set"]}], r"operations\[0\]\.type is one of"),
        ([{"type": "explode", "key": "a"}], r"operations\[0\]\.type is one of"),
        ([{"type": "set", "key": "a"}], r"operations\[0\] has no value"),
        ([{"type": "set", "value": 1}], r"operations\[0\]\.key is a text"),
        ([{"type": "set", "key": 5, "value": 1}], r"operations\[0\]\.key is a text"),
        ([{"type": "set", "key": "k" * (MAX_KEY_LENGTH + 1), "value": 1}], "text of at most 1024"),
        ([{"type": "delete"}], r"operations\[0\]\.key is a text"),
        ([{"type": "delete", "key": "__proto__"}], "__proto__"),
        ([{"type": "set", "key": "__proto__", "value": 1}], "__proto__"),
        ([{"type": "set", "key": "$.a.__proto__.b", "value": 1}], "__proto__"),
        ([{"type": "append", "key": "$.constructor", "value": 1}], "constructor"),
        ([{"type": "remove", "key": "$.prototype.x", "value": 1}], "prototype"),
        ([{"type": "set", "key": "$.", "value": 1}], "empty component"),
        ([{"type": "set", "key": "$.a..b", "value": 1}], "empty component"),
        ([{"type": "set", "key": "$" + ".a" * (MAX_DEPTH + 1), "value": 1}], "more than 100"),
        ([{"type": "set", "key": "a\0", "value": 1}], r"operations\[0\]\.key holds a NUL"),
        ([{"type": "set", "key": "a\ud800", "value": 1}], "surrogate"),
        ([{"type": "increment", "key": "a", "value": "1"}], r"operations\[0\]\.value is no number"),
        ([{"type": "increment", "key": "a", "value": True}], "is no number"),
        ([{"type": "increment", "key": "a", "value": math.inf}], "not finite"),
        ([{"type": "increment", "key": "a", "value": math.nan}], "not finite"),
        ([{"type": "increment", "key": "a", "value": 2**64}], "wider than 64"),
        ([{"type": "set", "key": "a", "value": {"b": "\0"}}], r"\[0\]\.value holds a NUL"),
        ([{"type": "update", "value": [1]}], r"operations\[0\]\.value is no object"),
        ([{"type": "delete", "key": "a"}] * (MAX_OPERATIONS + 1), "At most 10000 operations"),
        ([{"type": "remove", "key": "a", "value": 1}] * (MAX_REMOVALS + 1), "At most 1000 remove"),
    ],
)  # fmt: skip
def test_what_is_no_list_of_operations_is_refused(value: object, message: str) -> None:
    with pytest.raises(InvalidBody, match=message):
        parse_operations(value)


def test_prototype_names_as_literal_keys_are_plain_keys() -> None:
    assert applied({}, {"type": "set", "key": "constructor", "value": 1}) == {"constructor": 1}


def test_a_number_that_would_become_infinite_is_refused() -> None:
    with pytest.raises(Unprocessable, match="range of numbers"):
        applied({"a": 1.7e308}, {"type": "increment", "key": "a", "value": 1.7e308})


def test_metadata_that_nests_too_deep_can_only_be_replaced() -> None:
    with pytest.raises(Unprocessable, match="replace it as a whole"):
        applied({"a": nested(300)}, {"type": "delete", "key": "b"})


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        0,
        -(2**63),
        2**64 - 1,
        1.5,
        "",
        "é😀\n",
        [],
        {},
        {"a": [{"b": None}]},
        nested(100),
    ],
)
def test_json_values_can_be_stored(value: object) -> None:
    check_storable(value)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("a\0b", "NUL"),
        ({"a\0": 1}, "NUL"),
        ([{"a": "\ud83d"}], "surrogate"),
        ({"\udc00": 1}, "surrogate"),
        (math.nan, "not finite"),
        ([-math.inf], "not finite"),
        (2**64, "64 bits"),
        (-(2**63) - 1, "64 bits"),
        (nested(101), "deeper than 100"),
        (nested(100_000), "deeper than 100"),
        ({1: 2}, "no text"),
        ((1, 2), "JSON does not have"),
    ],
)
def test_what_the_database_cannot_hold_is_refused(value: object, message: str) -> None:
    with pytest.raises(InvalidBody, match=message) as refusal:
        check_storable(value, "the thing")
    assert refusal.value.message.startswith("the thing ")


def test_size_counts_bytes() -> None:
    check_size("é" * 5, 10)
    with pytest.raises(PayloadTooLarge, match="have 12 bytes, at most 10"):
        check_size("é" * 6, 10)


keys = st.sampled_from(["a", "b", "$.a", "$.a.b", "$.b.0", "$.b.1.c", "x.y", "$.x\\.y.z"])
values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from(["", "t"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner),
    max_leaves=6,
)
objects = st.dictionaries(st.sampled_from(["a", "b", "x.y"]), values)
operation_lists = st.lists(
    st.one_of(
        st.builds(
            lambda kind, key, value: {"type": kind, "key": key, "value": value},
            st.sampled_from(["set", "append", "remove"]),
            keys,
            values,
        ),
        st.builds(
            lambda kind, key, value: {"type": kind, "key": key, "value": value},
            st.sampled_from(["increment", "decrement"]),
            keys,
            st.integers(-100, 100),
        ),
        st.builds(lambda key: {"type": "delete", "key": key}, keys),
        st.builds(lambda value: {"type": "replace", "value": value}, objects),
    ),
    max_size=8,
)


@given(objects, operation_lists)
def test_applying_never_changes_what_it_was_given(
    metadata: dict[str, Any], raw: list[dict[str, Any]]
) -> None:
    operations = parse_operations(raw)
    given_before, raw_before = copy.deepcopy(metadata), copy.deepcopy(raw)
    result = apply_operations(metadata, operations)
    json.dumps(result, allow_nan=False)
    assert_same_json(metadata, given_before)
    assert_same_json(raw, raw_before)
    result.clear()
    assert_same_json(metadata, given_before)


@given(objects, operation_lists, operation_lists)
def test_one_list_is_as_good_as_two(
    metadata: dict[str, Any], first: list[dict[str, Any]], second: list[dict[str, Any]]
) -> None:
    at_once = applied(metadata, *first, *second)
    assert_same_json(at_once, applied(applied(metadata, *first), *second))


@given(
    objects,
    st.lists(st.tuples(st.sampled_from(["a", "$.a", "b"]), st.integers()), max_size=8).filter(
        lambda steps: sum(abs(step) for _, step in steps) < 2**62
    ),
    st.randoms(use_true_random=False),
)
def test_increments_commute(
    metadata: dict[str, Any], steps: list[tuple[str, int]], random: Any
) -> None:
    operations = [{"type": "increment", "key": key, "value": step} for key, step in steps]
    shuffled = list(operations)
    random.shuffle(shuffled)
    assert_same_json(applied(metadata, *operations), applied(metadata, *shuffled))
