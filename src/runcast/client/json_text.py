"""
Values of Python as JSON text, and back.

The standard library's JSON, because it carries what stricter ones refuse: halves of surrogate
pairs in strings, and whole numbers of any size.
"""

import dataclasses
import json
from collections.abc import Set as AbstractSet
from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from typing import Any, NoReturn
from uuid import UUID

from runcast.client.errors import InvalidArgument


def to_json(value: object, what: str = "The value") -> bytes:
    """
    Write a value as one line of JSON in UTF-8.

    Beside JSON's own types: dates, UUIDs, decimals, enums, sets, dataclasses, and whatever has
    ``model_dump`` (pydantic models, so also what the SDKs of model providers stream).

    Raises:
        InvalidArgument: It cannot be written.
    """
    try:
        try:
            return _dumps(value, ascii_only=False).encode()
        except UnicodeEncodeError:  # half of a surrogate pair: only an escape can carry it
            return _dumps(value, ascii_only=True).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidArgument(f"{what} cannot be written as JSON: {error}.") from None


def from_json(text: str | bytes) -> Any:
    """
    Read JSON.

    Raises:
        ValueError: It is none.
    """
    try:
        return json.loads(text, parse_constant=_refuse)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def plain(value: object, what: str) -> Any:
    """
    Copy a value into JSON's own types, as it will be stored.

    Raises:
        InvalidArgument: It cannot be written as JSON.
    """
    return from_json(to_json(value, what))


def _dumps(value: object, *, ascii_only: bool) -> str:
    return json.dumps(
        value, ensure_ascii=ascii_only, allow_nan=False, separators=(",", ":"), default=_default
    )


def _default(value: object) -> object:
    dump = getattr(value, "model_dump", None)
    if callable(dump):
        return dump(mode="json")
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {each.name: getattr(value, each.name) for each in dataclasses.fields(value)}
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, UUID | Decimal):
        return str(value)
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, AbstractSet):
        return list(value)
    raise TypeError(f"{type(value).__name__} is no JSON value")


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
