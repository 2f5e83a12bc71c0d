"""
The error of a run: the four kinds that are stored, and the plain object that readers get.

Source: wire/trigger-wire.md 4.6.
"""

from collections.abc import Mapping
from typing import Any

import orjson

from runcast.core.metadata import check_storable
from runcast.core.packet import json_text
from runcast.errors import InvalidBody

# What official clients of today know; they drop a run with another code.
INTERNAL_ERROR_CODES = frozenset(
    {
        "BATCH_ITEM_COULD_NOT_TRIGGER",
        "CONFIGURED_INCORRECTLY",
        "COULD_NOT_FIND_EXECUTOR",
        "COULD_NOT_FIND_TASK",
        "COULD_NOT_IMPORT_TASK",
        "DISK_SPACE_EXCEEDED",
        "GRACEFUL_EXIT_TIMEOUT",
        "HANDLE_ERROR_ERROR",
        "MAX_DURATION_EXCEEDED",
        "OUTDATED_SDK_VERSION",
        "PAYLOAD_TOO_LARGE",
        "POD_EVICTED",
        "POD_UNKNOWN_ERROR",
        "RECURSIVE_WAIT_DEADLOCK",
        "TASK_ALREADY_RUNNING",
        "TASK_DID_CONCURRENT_WAIT",
        "TASK_EXECUTION_ABORTED",
        "TASK_EXECUTION_FAILED",
        "TASK_INPUT_ERROR",
        "TASK_OUTPUT_ERROR",
        "TASK_PROCESS_EXITED_WITH_NON_ZERO_CODE",
        "TASK_PROCESS_MAYBE_OOM_KILLED",
        "TASK_PROCESS_OOM_KILLED",
        "TASK_PROCESS_SIGKILL_TIMEOUT",
        "TASK_PROCESS_SIGSEGV",
        "TASK_PROCESS_SIGTERM",
        "TASK_RUN_CANCELLED",
        "TASK_RUN_CRASHED",
        "TASK_RUN_HEARTBEAT_TIMEOUT",
        "UNSPECIFIED_ERROR",
    }
)
_KINDS = frozenset({"BUILT_IN_ERROR", "CUSTOM_ERROR", "STRING_ERROR", "INTERNAL_ERROR"})


def stored_error(value: object) -> str:
    """
    Bring an error as workers send it into one of the four kinds, as JSON text.

    Accepted are the kinds themselves, ``{"message", "name"?, "stackTrace"?, "causes"?}``, the JSON
    text of one of these (as shapes have it), and any other string, which is the message. Fields
    that a kind does not have are left out.

    Raises:
        InvalidBody: Nothing of that, or a field of the wrong type.
    """
    check_storable(value, "error")
    if isinstance(value, str):
        return _error_of_text(value)
    if not isinstance(value, dict):
        raise InvalidBody('error is a string or an object such as {"message": "what happened"}.')
    match value.get("type", "BUILT_IN_ERROR"):
        case "BUILT_IN_ERROR":
            fields = _built_in(value)
        case "STRING_ERROR":
            fields = {"type": "STRING_ERROR", "raw": _text(value, "raw")}
        case "CUSTOM_ERROR":
            raw = value.get("raw")
            text = raw if isinstance(raw, str) else json_text("error.raw", raw)
            fields = {"type": "CUSTOM_ERROR", "raw": text}
        case "INTERNAL_ERROR":
            fields = _internal(value)
        case _:
            raise InvalidBody(
                "error.type is BUILT_IN_ERROR, CUSTOM_ERROR, STRING_ERROR or INTERNAL_ERROR; "
                'or send {"message": "what happened"} without a type.'
            )
    return json_text("error", fields)


def _error_of_text(text: str) -> str:
    try:
        value = orjson.loads(text)
        known = isinstance(value, dict) and (value.get("type") in _KINDS or "message" in value)
        return stored_error(value) if known else string_error(text)
    except (orjson.JSONDecodeError, InvalidBody):
        return string_error(text)


def string_error(message: str) -> str:
    """The stored form of an error of which there is only a message."""
    return json_text("error", {"type": "STRING_ERROR", "raw": message})


def internal_error(code: str, message: str) -> str:
    """The stored form of an error of ours; ``code`` is one of `INTERNAL_ERROR_CODES`."""
    assert code in INTERNAL_ERROR_CODES, code
    return json_text("error", {"type": "INTERNAL_ERROR", "code": code, "message": message})


def public_error(stored: str) -> dict[str, Any]:
    """
    Reduce a stored error to ``{message, name?, stackTrace?, causes?}``; never fails.

    What SQL programs store without a kind is read as far as it goes.
    """
    try:
        value = orjson.loads(stored)
    except orjson.JSONDecodeError:
        return {"message": stored}
    if not isinstance(value, dict):
        return {"message": value if isinstance(value, str) else stored}
    error: dict[str, Any] = {"message": _message(value, stored)}
    for name in ("name", "stackTrace"):
        if isinstance(value.get(name), str) and value[name]:
            error[name] = value[name]
    if isinstance(value.get("causes"), list) and _can_be_written(value["causes"]):
        error["causes"] = value["causes"]
    return error


def _can_be_written(value: object) -> bool:
    # More can be read than written: nesting is bounded differently.
    try:
        orjson.dumps(value)
    except orjson.JSONEncodeError:
        return False
    return True


def _message(value: Mapping[str, Any], stored: str) -> str:
    for name in ("message", "raw"):
        if isinstance(value.get(name), str):
            message: str = value[name]
            return message
    if value.get("type") == "INTERNAL_ERROR":
        return f"Internal error ({value.get('code')})"
    return stored


def _built_in(value: Mapping[str, Any]) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "type": "BUILT_IN_ERROR",
        "name": _text(value, "name", "Error"),
        "message": _text(value, "message"),
        # Official clients drop a run whose error has no stack trace; an empty one will do.
        "stackTrace": _text(value, "stackTrace", ""),
    }
    causes = value.get("causes")
    if causes is not None:
        if not isinstance(causes, list) or not all(isinstance(cause, dict) for cause in causes):
            raise InvalidBody('error.causes is a list of objects such as {"message": "why"}.')
        fields["causes"] = causes
    return fields


def _internal(value: Mapping[str, Any]) -> dict[str, Any]:
    code = value.get("code")
    if not isinstance(code, str) or code not in INTERNAL_ERROR_CODES:
        raise InvalidBody(f"error.code is one of {', '.join(sorted(INTERNAL_ERROR_CODES))}.")
    fields = {"type": "INTERNAL_ERROR", "code": code}
    for name in ("message", "stackTrace"):
        if value.get(name) is not None:
            fields[name] = _text(value, name)
    return fields


def _text(value: Mapping[str, Any], name: str, default: str | None = None) -> str:
    text = value.get(name)
    if text is None:
        text = default
    if not isinstance(text, str):
        raise InvalidBody(f"error.{name} is a string.")
    return text
