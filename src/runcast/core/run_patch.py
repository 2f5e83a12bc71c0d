"""The fields of ``PATCH /api/v1/runs/{run}``: which there are, and how each is read."""

import math
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from runcast.core.run_error import stored_error
from runcast.core.status import raw_from_any
from runcast.core.tags import check_no_control, parse_tags
from runcast.core.timespan import parse_duration
from runcast.errors import InvalidBody, InvalidParameter

MACHINES = (
    "micro",
    "small-1x",
    "small-2x",
    "medium-1x",
    "medium-2x",
    "large-1x",
    "large-2x",
)

_MAX_NAME_LENGTH = 512
_MAX_ATTEMPTS = 2**31 - 1
_MAX_MILLISECONDS = 2**53 - 1
_MAX_CENTS = 1e15


def read_patch(patch: Mapping[str, Any]) -> dict[str, Any]:
    """
    Check the fields of a patch and turn them into `Run` fields and their new values.

    Packets and metadata are left to the caller: they depend on the run.

    Raises:
        InvalidBody: A field is unknown, has a wrong value, or is null where that makes no sense.
        Unprocessable: More than 10 tags.
    """
    unknown = sorted(name for name in patch if name not in PATCH_FIELDS)
    if unknown:
        named = ", ".join(f"{name[:60]!a}" for name in unknown[:10])
        allowed = ", ".join(sorted(PATCH_FIELDS))
        raise InvalidBody(f"Cannot be patched: {named}. What can is {allowed}.")
    empty = sorted(
        name for name, value in patch.items() if value is None and name not in _CLEARED_BY_NULL
    )
    if empty:
        raise InvalidBody(f"May not be null: {', '.join(empty)}; leave out what does not change.")
    return {
        column: read(name, patch[name]) for name, (column, read) in _FIELDS.items() if name in patch
    }


def _status(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise InvalidBody(f'{name} is a text such as "EXECUTING".')
    return raw_from_any(value)


def _time(name: str, value: object) -> datetime:
    try:
        time = datetime.fromisoformat(value) if isinstance(value, str) else None
        if time is not None and time.utcoffset() is not None:
            return time.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise InvalidBody(
        f'{name} is a time in ISO 8601 with its zone, such as "2026-01-31T12:00:00.000Z".'
    )


def _attempts(name: str, value: object) -> int:
    number = _number(name, value)
    if not 0 <= number <= _MAX_ATTEMPTS or number != int(number):
        raise InvalidBody(f"{name} is a whole number from 0 to {_MAX_ATTEMPTS}.")
    return int(number)


def _milliseconds(name: str, value: object) -> int:
    number = _number(name, value)
    if not 0 <= number <= _MAX_MILLISECONDS:
        raise InvalidBody(f"{name} is a number of milliseconds from 0 to {_MAX_MILLISECONDS}.")
    return round(number)


def _cents(name: str, value: object) -> float:
    number = _number(name, value)
    if not 0 <= number <= _MAX_CENTS:
        raise InvalidBody(f"{name} is a number from 0 to {_MAX_CENTS:.0f}.")
    return float(number)


def _number(name: str, value: object) -> int | float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidBody(f"{name} is a number.")
    if isinstance(value, float) and not math.isfinite(value):
        raise InvalidBody(f"{name} is a finite number.")
    return value


def _name(name: str, value: object) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= _MAX_NAME_LENGTH:
        raise InvalidBody(f"{name} is a text of 1 to {_MAX_NAME_LENGTH} characters.")
    check_no_control(name, value)
    return value


def _ttl(name: str, value: object) -> str:
    text = _name(name, value)
    try:
        parse_duration(text)
    except InvalidParameter as error:
        raise InvalidBody(f"{name}: {error.message}") from error
    return text


def _machine(name: str, value: object) -> str:
    if value not in MACHINES:
        raise InvalidBody(f"{name} is one of {', '.join(MACHINES)}.")
    return str(value)


def _tags(_name: str, value: object) -> tuple[str, ...]:
    return parse_tags(value)


def _error(_name: str, value: object) -> str:
    return stored_error(value)


def _or_null(read: Callable[[str, object], Any]) -> Callable[[str, object], Any]:
    return lambda name, value: None if value is None else read(name, value)


# JSON field → column and how to read it. Packets and metadata need more than their own value.
_FIELDS: dict[str, tuple[str, Callable[[str, object], Any]]] = {
    "status": ("status", _status),
    "queuedAt": ("queued_at", _time),
    "startedAt": ("started_at", _time),
    "completedAt": ("completed_at", _time),
    "expiredAt": ("expired_at", _time),
    "delayUntil": ("delay_until", _or_null(_time)),
    "ttl": ("ttl", _or_null(_ttl)),
    "error": ("error", _or_null(_error)),
    "attemptCount": ("attempt_count", _attempts),
    "usageDurationMs": ("usage_duration_ms", _milliseconds),
    "costInCents": ("cost_in_cents", _cents),
    "baseCostInCents": ("base_cost_in_cents", _cents),
    "tags": ("tags", _tags),
    "runTags": ("tags", _tags),
    "queue": ("queue", _name),
    "machine": ("machine", _or_null(_machine)),
    "region": ("region", _or_null(_name)),
    "version": ("worker_version", _or_null(_name)),
    "workerVersion": ("worker_version", _or_null(_name)),
}

PATCH_FIELDS = frozenset(_FIELDS) | {"payload", "payloadType", "output", "outputType", "metadata"}
_CLEARED_BY_NULL = frozenset(
    {
        "payload",
        "output",
        "error",
        "delayUntil",
        "ttl",
        "machine",
        "region",
        "version",
        "workerVersion",
    }
)
