"""
A run as a row of an Electric shape: what official clients of both generations read.

Whatever SQL programs stored, no row of this module makes a client give up: clients end a
subscription, often silently, at the first value that is not as they expect it.

Source: wire/trigger-wire.md 2.5 to 2.8, 4.3, 4.6.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson

from runcast.core.client_version import client_version
from runcast.core.packet import JSON, SUPER_JSON, TEXT, is_readable_json
from runcast.core.run import UNSKIPPABLE_COLUMNS, Run
from runcast.core.run_json import COLUMN_OF_FIELD, finite, iso_time
from runcast.core.shape_error import shape_error

Row = dict[str, str | None]

_TYPES: Mapping[str, str] = {
    "id": "text",
    "taskIdentifier": "text",
    "friendlyId": "text",
    "status": "text",
    "createdAt": "timestamp",
    "updatedAt": "timestamp",
    "startedAt": "timestamp",
    "delayUntil": "timestamp",
    "queuedAt": "timestamp",
    "expiredAt": "timestamp",
    "completedAt": "timestamp",
    "number": "int4",
    "isTest": "bool",
    "usageDurationMs": "int4",
    "costInCents": "float8",
    "baseCostInCents": "float8",
    "ttl": "text",
    "payload": "text",
    "payloadType": "text",
    "metadata": "text",
    "metadataType": "text",
    "output": "text",
    "outputType": "text",
    "runTags": "text",
    "error": "jsonb",
    "realtimeStreams": "text",
}
_LISTS = frozenset({"runTags", "realtimeStreams"})

# Clients of 3.3 give up without these: where they are not to be seen they come without meaning.
_NEUTRAL = {
    "number": "0",
    "isTest": "f",
    "usageDurationMs": "0",
    "costInCents": "0",
    "baseCostInCents": "0",
}
_ALWAYS = UNSKIPPABLE_COLUMNS | {"updatedAt"}
_STREAMS = "$$streams"
_NEWEST = (999, 0)

# As 3.3 maps them, but for two names that it throws at.
_FOR_UNVERSIONED = {"DEQUEUED": "EXECUTING", "PENDING_VERSION": "WAITING_FOR_DEPLOY"}


@dataclass(frozen=True, slots=True)
class Dialect:
    """
    What a generation of clients understands.

    Attributes:
        unversioned: It throws at newer statuses, and at rows without certain columns.
        finds_streams_in_metadata: It looks for the keys of streams in the metadata alone.
        knows_newer_codes: It accepts error codes that came after 3.3.
    """

    unversioned: bool = False
    finds_streams_in_metadata: bool = False
    knows_newer_codes: bool = True

    @classmethod
    def of(cls, *, versioned: bool, trigger_version: str | None) -> "Dialect":
        """
        Tell from whether the client sends ``x-trigger-api-version``, and its ``trigger-version``.

        A client that does not say its version is taken for a new one.
        """
        version = client_version(trigger_version) or _NEWEST
        return cls(
            unversioned=not versioned,
            finds_streams_in_metadata=version < (4, 1),
            knows_newer_codes=versioned and version >= (4, 5),
        )


def shape_schema(dialect: Dialect, skip: frozenset[str]) -> bytes:
    """The columns that rows have, as the header ``electric-schema`` tells them."""
    hidden = _hidden(dialect, skip)
    return orjson.dumps(
        {
            name: {"type": kind, "dims": 1} if name in _LISTS else {"type": kind}
            for name, kind in _TYPES.items()
            if name not in hidden
        }
    )


def shape_row(run: Run, dialect: Dialect, skip: frozenset[str]) -> Row:
    """
    The run as a row: values are texts or None, never anything else.

    Args:
        run: The run.
        dialect: Of the clients that will read it.
        skip: Columns, or fields of our own run object, to leave out.
    """
    payload, payload_type = _packet(run.payload, run.payload_type)
    output, output_type = _packet(run.output, run.output_type)
    metadata, metadata_type = _metadata(run, dialect)
    status = run.status
    row: Row = {
        "id": run.id,
        "taskIdentifier": run.task,
        "friendlyId": run.id,
        "status": _FOR_UNVERSIONED.get(status, status) if dialect.unversioned else status,
        "createdAt": _time(run.created_at),
        "updatedAt": _time(run.updated_at),
        "startedAt": _time(run.started_at),
        "delayUntil": _time(run.delay_until),
        "queuedAt": _time(run.queued_at),
        "expiredAt": _time(run.expired_at),
        "completedAt": _time(run.completed_at),
        "number": str(run.number),
        "isTest": "t" if run.is_test else "f",
        "usageDurationMs": str(run.usage_duration_ms),
        "costInCents": repr(finite(run.cost_in_cents)),
        "baseCostInCents": repr(finite(run.base_cost_in_cents)),
        "ttl": run.ttl,
        "payload": payload,
        "payloadType": payload_type,
        "metadata": metadata,
        "metadataType": metadata_type,
        "output": output,
        "outputType": output_type,
        "runTags": _list(run.tags) if run.tags else None,
        "error": None if run.error is None else shape_error(run.error, dialect.knows_newer_codes),
        "realtimeStreams": _list(run.realtime_streams),
    }
    for name in _columns(skip) - _ALWAYS:
        if dialect.unversioned and name in _NEUTRAL:
            row[name] = _NEUTRAL[name]
        else:
            row.pop(name, None)
    return row


def _hidden(dialect: Dialect, skip: frozenset[str]) -> frozenset[str]:
    kept = _ALWAYS | _NEUTRAL.keys() if dialect.unversioned else _ALWAYS
    return _columns(skip) - kept


def _columns(names: Iterable[str]) -> frozenset[str]:
    return frozenset(COLUMN_OF_FIELD.get(name, name) for name in names)


def _time(time: datetime | None) -> str | None:
    # Clients append the Z themselves.
    return None if time is None else iso_time(time).removesuffix("Z")


def _list(items: Iterable[str]) -> str:
    """An array literal. Bare elements would be split at commas, and a bare NULL be null."""
    quoted = (item.replace("\\", "\\\\").replace('"', '\\"') for item in items)
    return "{" + ",".join(f'"{item}"' for item in quoted) + "}"


def _packet(text: str | None, kind: str) -> tuple[str | None, str]:
    """A packet that its type does not describe is text: reading it as JSON would throw."""
    if text is None:
        return None, kind
    if (kind == JSON and not is_readable_json(text)) or (
        kind == SUPER_JSON and not _is_object(text)
    ):
        return text, TEXT
    return text, kind


def _metadata(run: Run, dialect: Dialect) -> tuple[str | None, str]:
    """Metadata that is no object is left out: clients look for keys in it and throw."""
    text, kind = run.metadata, run.metadata_type
    if kind not in (JSON, SUPER_JSON) or not _is_object(text):
        if not (dialect.finds_streams_in_metadata and run.realtime_streams):
            return None, JSON
        text, kind = "{}", JSON
    if dialect.finds_streams_in_metadata and run.realtime_streams and kind == JSON:
        text = _with_streams(text, run.realtime_streams)
    return text, kind


def _with_streams(text: str, streams: tuple[str, ...]) -> str:
    try:
        value: dict[str, Any] = orjson.loads(text)
        known = value.get(_STREAMS)
        announced = known if isinstance(known, list) else []
        names = [name for name in (*announced, *streams) if isinstance(name, str)]
        return orjson.dumps({**value, _STREAMS: list(dict.fromkeys(names))}).decode()
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):
        return text  # what only JavaScript can read, or nested deeper than can be written


def _is_object(text: str) -> bool:
    return text.lstrip().startswith("{") and is_readable_json(text)
