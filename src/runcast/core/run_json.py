"""
Runs as JSON: the object of run feeds, and the objects of REST answers.

Stored JSON is embedded, not decoded. Objects made here go through `orjson.dumps` alone: they
hold fragments that other encoders do not know.

Source: reference/realtime__overview.md "Run object", wire/trigger-wire.md 4.1 and 4.5.
"""

import math
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import orjson

from runcast.core.packet import decoded, in_object_store, json_fragment
from runcast.core.run import UNSKIPPABLE_COLUMNS, Run
from runcast.core.run_error import public_error
from runcast.core.status import ApiVersion, public_status, status_flags

# Where the objects here use another name than the columns of official clients.
COLUMN_OF_FIELD = {
    "id": "friendlyId",
    "delayedUntil": "delayUntil",
    "durationMs": "usageDurationMs",
    "finishedAt": "completedAt",
    "streams": "realtimeStreams",
    "tags": "runTags",
}
_UNSKIPPABLE = UNSKIPPABLE_COLUMNS | {"revision"}
_NOTHING: frozenset[str] = frozenset()


def realtime_object(run: Run, skip: frozenset[str] = _NOTHING) -> bytes:
    """
    A run as run feeds send it: JSON without a line break.

    Optional fields without a value are absent, never null. ``payload`` is null when the run has
    none; like ``output`` it is absent when its value is kept in the object store.

    Args:
        run: The run.
        skip: Names to leave out, of columns or of the object's fields; what tells runs apart
            (``UNSKIPPABLE_COLUMNS`` and ``revision``) stays.
    """
    fields = _realtime_fields(run, skip)
    return orjson.dumps(_without(fields, skip - _UNSKIPPABLE) if skip else fields)


def common_object(
    run: Run, api: ApiVersion, *, withhold: frozenset[str] = _NOTHING
) -> dict[str, Any]:
    """
    The fields that every REST answer about a run has.

    Args:
        run: The run.
        api: Which clients read it.
        withhold: Names to leave out, as ``skip`` of `realtime_object`; fields that clients
            require stay, except that withheld tags are an empty list.
    """
    hides_tags = bool(withhold & {"tags", "runTags"})
    required = {
        "id": run.id,
        "status": public_status(run.status, api),
        "taskIdentifier": run.task,
        "createdAt": iso_time(run.created_at),
        "updatedAt": iso_time(run.updated_at),
        "tags": [] if hides_tags else sorted(run.tags),
        **status_flags(run.status, api),
        "isTest": run.is_test,
        "costInCents": finite(run.cost_in_cents),
        "baseCostInCents": finite(run.base_cost_in_cents),
        "durationMs": run.usage_duration_ms,
        "depth": run.depth,
        "triggerFunction": run.trigger_function,
    }
    optional = {
        "idempotencyKey": _idempotency_key(run),
        "version": run.worker_version,
        "ttl": run.ttl,
        "startedAt": _iso_time_or_none(run.started_at),
        "finishedAt": _iso_time_or_none(run.completed_at),
        "delayedUntil": _iso_time_or_none(run.delay_until),
        "expiredAt": _iso_time_or_none(run.expired_at),
        "metadata": json_fragment(run.metadata),
        "batchId": run.batch_id,
        "region": run.region,
    }
    return required | _without(_present(optional), withhold)


def retrieve_object(
    run: Run,
    api: ApiVersion,
    *,
    root: Run | None = None,
    parent: Run | None = None,
    children: Iterable[Run] = (),
    payload_url: str | None = None,
    output_url: str | None = None,
    withhold: frozenset[str] = _NOTHING,
) -> dict[str, Any]:
    """
    One run as it is retrieved.

    Args:
        run: The run.
        api: Which clients read it.
        root: Related runs, as far as the caller may read them.
        parent: See ``root``.
        children: See ``root``.
        payload_url: Where to download a payload that is kept in the object store.
        output_url: Where to download such an output.
        withhold: See `common_object`; a withheld packet has no URL either.
    """
    succeeded = run.status == "COMPLETED_SUCCESSFULLY"
    optional = {
        "payload": decoded(run.payload, run.payload_type),
        "output": decoded(run.output, run.output_type) if succeeded else None,
        "error": None if run.error is None else public_error(run.error),
    }
    urls = {
        "payload": payload_url if in_object_store(run.payload_type) else None,
        "output": output_url if succeeded and in_object_store(run.output_type) else None,
    }
    related = {
        "root": None if root is None else common_object(root, api, withhold=withhold),
        "parent": None if parent is None else common_object(parent, api, withhold=withhold),
        "children": [common_object(child, api, withhold=withhold) for child in children],
    }
    answer = common_object(run, api, withhold=withhold)
    answer |= _without(_present(optional), withhold)
    for name, url in _without(_present(urls), withhold).items():
        answer[f"{name}PresignedUrl"] = url
    answer["relatedRuns"] = _present(related)
    # Clients of 3.3 want the list; nobody reads what is in it.
    answer["attempts"] = []
    answer["attemptCount"] = run.attempt_count
    return answer


def list_object(
    run: Run,
    api: ApiVersion,
    *,
    environment: Mapping[str, Any],
    withhold: frozenset[str] = _NOTHING,
) -> dict[str, Any]:
    """One run in a list; ``environment`` has ``id`` and ``name``."""
    answer = common_object(run, api, withhold=withhold)
    if "metadata" in answer and "$$streams" in run.metadata:
        answer["metadata"] = _without_stream_keys(run.metadata)
    answer["env"] = dict(environment)
    return answer


def iso_time(time: datetime) -> str:
    """Write a time as ISO 8601 in UTC with milliseconds and ``Z``; what is finer is cut off."""
    return time.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


def finite(number: float) -> float:
    """A number that JSON can hold: databases also know NaN and infinity, which count as zero."""
    return number if math.isfinite(number) else 0.0


def _realtime_fields(run: Run, skip: frozenset[str]) -> dict[str, Any]:
    required = {
        "id": run.id,
        "taskIdentifier": run.task,
        "status": public_status(run.status, ApiVersion.V2025_07_16),
        "revision": run.version,
        "createdAt": iso_time(run.created_at),
        "updatedAt": iso_time(run.updated_at),
        "number": run.number,
        "durationMs": run.usage_duration_ms,
        "costInCents": finite(run.cost_in_cents),
        "baseCostInCents": finite(run.base_cost_in_cents),
        "tags": run.tags,
        "isTest": run.is_test,
        "depth": run.depth,
        "attemptCount": run.attempt_count,
    }
    if run.payload is None:
        required["payload"] = None
    optional = {
        # Large and costly to read, so not even read where they are not wanted.
        "payload": None if "payload" in skip else decoded(run.payload, run.payload_type),
        "output": None if "output" in skip else decoded(run.output, run.output_type),
        "metadata": None if "metadata" in skip else json_fragment(run.metadata),
        "error": None if run.error is None else public_error(run.error),
        "queuedAt": _iso_time_or_none(run.queued_at),
        "delayedUntil": _iso_time_or_none(run.delay_until),
        "startedAt": _iso_time_or_none(run.started_at),
        "finishedAt": _iso_time_or_none(run.completed_at),
        "expiredAt": _iso_time_or_none(run.expired_at),
        "ttl": run.ttl,
        "idempotencyKey": _idempotency_key(run),
        "batchId": run.batch_id,
        "parentId": run.parent_id,
        "rootId": run.root_id,
        "queue": run.queue,
        "streams": run.realtime_streams or None,
    }
    return required | _present(optional)


def _present(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _without(fields: Mapping[str, Any], names: frozenset[str]) -> dict[str, Any]:
    return {
        field: value
        for field, value in fields.items()
        if field not in names and COLUMN_OF_FIELD.get(field) not in names
    }


def _iso_time_or_none(time: datetime | None) -> str | None:
    return None if time is None else iso_time(time)


def _idempotency_key(run: Run) -> str | None:
    """The key as the user wrote it if that is known, else its hash."""
    if run.idempotency_key is None or run.idempotency_key_options is None:
        return run.idempotency_key
    try:
        options = orjson.loads(run.idempotency_key_options)
    except orjson.JSONDecodeError:
        return run.idempotency_key
    written = options.get("key") if isinstance(options, dict) else None
    return written if isinstance(written, str) else run.idempotency_key


def _without_stream_keys(metadata: str) -> dict[str, Any] | orjson.Fragment:
    try:
        value = orjson.loads(metadata)
        hidden = ("$$streams", "$$streamsVersion", "$$streamsBaseUrl")
        kept = {name: item for name, item in value.items() if name not in hidden}
        return orjson.Fragment(orjson.dumps(kept))
    except (orjson.JSONDecodeError, orjson.JSONEncodeError, AttributeError):
        return json_fragment(metadata)
