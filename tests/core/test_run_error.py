"""Errors of runs: what is stored of what workers send, and what readers get."""

import json
from typing import Any

import pytest
from hypothesis import given, strategies as st

from runcast.core.run_error import public_error, stored_error, string_error
from runcast.errors import InvalidBody

CAUSED = {"name": "TypeError", "stackTrace": "at x", "causes": [{"message": "y"}]}
INTERNAL = {"type": "INTERNAL_ERROR", "code": "TASK_RUN_CRASHED"}
BUILT_IN = {"type": "BUILT_IN_ERROR", "name": "Error", "message": "no", "stackTrace": ""}


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        ("no", {"type": "STRING_ERROR", "raw": "no"}),
        ({"message": "no"}, BUILT_IN),
        ({"message": "no", "name": None, "stackTrace": None, "other": 1}, BUILT_IN),
        (
            {"message": "no", **CAUSED},
            {**BUILT_IN, **CAUSED},
        ),
        (BUILT_IN, BUILT_IN),
        (json.dumps(BUILT_IN), BUILT_IN),
        ('{"message": "no"}', BUILT_IN),
        ('{"type": "INTERNAL_ERROR", "code": "TASK_RUN_CRASHED"}', INTERNAL),
        ('{"a": 1}', {"type": "STRING_ERROR", "raw": '{"a": 1}'}),
        (
            '{"type": "BUILT_IN_ERROR"}',
            {"type": "STRING_ERROR", "raw": '{"type": "BUILT_IN_ERROR"}'},
        ),
        ({"type": "INTERNAL_ERROR", "code": "HANDLE_ERROR_ERROR"},) * 2,
        ({"type": "STRING_ERROR", "raw": "no"}, {"type": "STRING_ERROR", "raw": "no"}),
        ({"type": "CUSTOM_ERROR", "raw": "no"}, {"type": "CUSTOM_ERROR", "raw": "no"}),
        ({"type": "CUSTOM_ERROR", "raw": {"a": 1}}, {"type": "CUSTOM_ERROR", "raw": '{"a":1}'}),
        (INTERNAL, INTERNAL),
        (
            {**INTERNAL, "message": "m", "stackTrace": "s"},
            {**INTERNAL, "message": "m", "stackTrace": "s"},
        ),
    ],
)
def test_stored_is_one_of_four_kinds(value: object, stored: dict[str, Any]) -> None:
    assert json.loads(stored_error(value)) == stored


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (5, "error is a string or an object"),
        (None, "error is a string or an object"),
        (["no"], "error is a string or an object"),
        ({}, "error.message is a string"),
        ({"message": 5}, "error.message is a string"),
        ({"message": "m", "name": 5}, "error.name is a string"),
        ({"message": "m", "stackTrace": []}, "error.stackTrace is a string"),
        ({"message": "m", "causes": "c"}, "error.causes is a list"),
        ({"message": "m", "causes": ["c"]}, "error.causes is a list"),
        ({"type": "STRING_ERROR"}, "error.raw is a string"),
        ({"type": "OTHER", "message": "m"}, "error.type is BUILT_IN_ERROR"),
        ({"type": None, "message": "m"}, "error.type is BUILT_IN_ERROR"),
        ({"type": "INTERNAL_ERROR", "code": "WHAT"}, "error.code is one of BATCH_ITEM"),
        ({"type": "INTERNAL_ERROR", "code": []}, "error.code is one of"),
        ({"type": "INTERNAL_ERROR", "code": "PAYLOAD_TOO_LARGE", "message": 1}, "error.message"),
        ({"message": "a\0"}, "error holds a NUL"),
        ("\ud800", "error holds half of a surrogate pair"),
    ],
)
def test_anything_else_is_refused(value: object, message: str) -> None:
    with pytest.raises(InvalidBody, match=message):
        stored_error(value)


@pytest.mark.parametrize(
    ("stored", "public"),
    [
        (BUILT_IN, {"name": "Error", "message": "no"}),
        (
            {**BUILT_IN, "stackTrace": "at x", "causes": [{"message": "y"}]},
            {"name": "Error", "message": "no", "stackTrace": "at x", "causes": [{"message": "y"}]},
        ),
        ({"type": "STRING_ERROR", "raw": "no"}, {"message": "no"}),
        ({"type": "CUSTOM_ERROR", "raw": "{}"}, {"message": "{}"}),
        ({"type": "INTERNAL_ERROR", "code": "X"}, {"message": "Internal error (X)"}),
        ({"type": "INTERNAL_ERROR", "code": "X", "message": "m"}, {"message": "m"}),
        ({"message": "by SQL", "name": 5, "causes": 5}, {"message": "by SQL"}),
        ({"reason": 1}, {"message": '{"reason": 1}'}),
        ("text", {"message": "text"}),
        ([1], {"message": "[1]"}),
    ],
)
def test_readers_get_a_message_and_what_else_is_known(
    stored: object, public: dict[str, Any]
) -> None:
    assert public_error(json.dumps(stored)) == public


def test_text_that_is_no_json_is_the_message() -> None:
    assert public_error("oh no") == {"message": "oh no"}


def test_causes_that_nest_too_deep_are_left_out() -> None:
    deep = "[" * 500 + "]" * 500
    assert public_error(f'{{"message": "m", "causes": {deep}}}') == {"message": "m"}


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")))
def test_a_message_survives(message: str) -> None:
    assert public_error(string_error(message)) == {"message": message}
    assert public_error(stored_error(message)) == {"message": message}
    assert public_error(stored_error({"message": message}))["message"] == message
