"""
What requests change in a run: a patch by its worker, cancelling, another time to begin at, one
more trigger that goes together with it, more tags, other metadata.

Every function here takes a run as it is under its lock and answers with what to write: a dict
from `Run` field to its new value, with fields that keep their value left out, so that nobody
is told of a change that is none. Setting ``version``, ``changed_in`` and ``updated_at`` is the
database's part. Which statuses follow on which is in `runcast.core.status`.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import orjson

from runcast.core.metadata import Operation, apply_operations, check_size, check_storable
from runcast.core.new_run import NewRun
from runcast.core.packet import MISSING, json_text, packet_from_patch, packet_type
from runcast.core.run import Run
from runcast.core.run_error import string_error
from runcast.core.run_patch import read_patch
from runcast.core.status import FINAL_STATUSES, STARTED_STATUSES, may_move
from runcast.core.tags import check_tag_count
from runcast.errors import IllegalTransition, InvalidBody, NotDelayed, Unprocessable

DEFAULT_METADATA_BYTES = 256 * 1024
METADATA_GRACE = timedelta(hours=1)

CANCELED_ERROR = string_error("The run was canceled.")

# What the last of several triggers brings to the run that they share, beside its payload.
_TRAILING = ("metadata", "tags", "max_attempts", "max_duration_seconds", "machine")
_NOT_GIVEN: tuple[object, ...] = (None, "{}", ())


def changes_for_patch(
    run: Run,
    patch: Mapping[str, Any],
    now: datetime,
    *,
    metadata_limit_bytes: int = DEFAULT_METADATA_BYTES,
) -> dict[str, Any]:
    """
    Say what ``PATCH /api/v1/runs/{run}`` changes.

    Fields (JSON names): ``status`` (raw or public), ``startedAt``, ``completedAt``, ``queuedAt``,
    ``delayUntil``, ``expiredAt``, ``output`` and ``payload`` with ``outputType`` and
    ``payloadType`` (see `packet_from_patch`), ``error`` (see `stored_error`), ``attemptCount``,
    ``usageDurationMs``, ``costInCents``, ``baseCostInCents``, ``tags`` or ``runTags`` (all of
    them), ``metadata`` (all of it), ``ttl``, ``machine``, ``region``, ``queue``, ``version`` or
    ``workerVersion``. Null clears payload, output, error, delayUntil, ttl, machine, region and
    version.

    Left out and filled in: ``queuedAt`` when first PENDING, ``startedAt`` when first started,
    with a final status ``completedAt``, the ``expiredAt`` of an EXPIRED run, and
    ``usageDurationMs`` from start to completion while it is still 0. The ``error`` of an earlier
    attempt goes when the run succeeds. A finished run keeps its status (naming it again is no
    move, so a repeated request is fine), all else may be corrected.

    Args:
        run: The run as it is.
        patch: The request body.
        now: An aware time.
        metadata_limit_bytes: How large metadata may be.

    Raises:
        InvalidBody: A field is unknown, has a wrong value, or is null where that makes no sense.
        IllegalTransition: The run cannot move from its status to that one.
        Unprocessable: More than 10 tags, or metadata of a run that finished over an hour ago.
        PayloadTooLarge: Packet or metadata are over their limit.
    """
    changes = read_patch(patch)
    for name in ("payload", "output"):
        changes |= _packet_changes(run, name, patch)
    if "metadata" in patch:
        if not isinstance(patch["metadata"], dict):
            raise InvalidBody("metadata is an object.")
        changes |= changes_for_metadata(run, patch["metadata"], metadata_limit_bytes, now)
    _check_move(run, changes)
    _fill_in_times(run, changes, now)
    if changes.get("status", run.status) == "COMPLETED_SUCCESSFULLY" != run.status:
        changes.setdefault("error", None)
    return _effective(run, changes)


def changes_for_cancel(run: Run, now: datetime) -> dict[str, Any]:
    """Say what cancelling changes: nothing once a run is finished."""
    if run.finished:
        return {}
    changes: dict[str, Any] = {"status": "CANCELED", "error": CANCELED_ERROR}
    _fill_in_times(run, changes, now)
    return _effective(run, changes)


def changes_for_reschedule(run: Run, delay_until: datetime) -> dict[str, Any]:
    """
    Say what another time to begin at changes.

    Raises:
        NotDelayed: The run is not waiting for its time (any more).
    """
    if run.status != "DELAYED":
        raise NotDelayed(f"Only a delayed run can be rescheduled; this one is {run.status}.")
    return _effective(run, {"delay_until": delay_until})


def changes_for_debounce(
    run: Run, debounce_until: datetime | None, new_run: NewRun
) -> dict[str, Any] | None:
    """
    Say what one more trigger changes in the delayed run that stands for its debounce key.

    It is pushed later, never earlier. A trailing trigger also hands over its data.

    Args:
        run: The delayed run.
        debounce_until: How far earlier triggers allow it to be pushed; None: any time.
        new_run: What the trigger asks for, with its ``debounce``.

    Returns:
        The changes; None if the run cannot be pushed that far: it keeps its time, and the
        trigger gets a run of its own.
    """
    debounce = new_run.debounce
    assert debounce is not None, "only a trigger with a debounce key can push a run"
    limit = earliest_limit(debounce_until, run.created_at, debounce.max_delay_seconds)
    if limit is not None and debounce.until > limit:
        return None
    changes: dict[str, Any] = {
        "delay_until": max(run.delay_until or debounce.until, debounce.until)
    }
    if debounce.trailing:
        changes |= {name: getattr(new_run, name) for name in ("payload", "payload_type")}
        given = {name: getattr(new_run, name) for name in _TRAILING}
        changes |= {name: value for name, value in given.items() if value not in _NOT_GIVEN}
    changes = _effective(run, changes)
    if limit != debounce_until:
        changes["debounce_until"] = limit
    if "metadata" in changes:
        changes["seed_metadata"] = changes["metadata"]
    return changes


def earliest_limit(
    limit: datetime | None, created_at: datetime, max_delay_seconds: float | None
) -> datetime | None:
    """The time until which a run may be pushed, once one more trigger had its say."""
    if max_delay_seconds is None:
        return limit
    own = created_at + timedelta(seconds=max_delay_seconds)
    return own if limit is None else min(limit, own)


def changes_for_tags_added(run: Run, tags: Sequence[str]) -> dict[str, Any]:
    """
    Say what adding tags (as `parse_tags` gives them) changes; those already there do not count.

    Raises:
        Unprocessable: The run would have more than 10 tags; none is added.
    """
    union = tuple(dict.fromkeys((*run.tags, *tags)))
    check_tag_count(union)
    return _effective(run, {"tags": union})


def changes_for_metadata(
    run: Run,
    new: Sequence[Operation] | Mapping[str, Any],
    limit_bytes: int,
    now: datetime,
) -> dict[str, Any]:
    """
    Say what operations, or an object in place of the old one, change in a run's metadata.

    Raises:
        InvalidBody: The object holds what cannot be stored.
        Unprocessable: The run finished more than an hour ago, or see `apply_operations`.
        PayloadTooLarge: The result has more than ``limit_bytes`` as JSON text.
    """
    if run.completed_at is not None and now - run.completed_at > METADATA_GRACE:
        raise Unprocessable(
            "The metadata of a run can be changed until an hour after it has finished."
        )
    old = _read_object(run.metadata)
    if isinstance(new, Mapping):
        changed = dict(new)
        check_storable(changed, "metadata")
    elif old is None:
        raise Unprocessable("The metadata cannot be read; replace it as a whole.")
    else:
        changed = apply_operations(old, new)
    if _same_json(changed, old):
        return {}
    text = json_text("metadata", changed)
    check_size(text, limit_bytes)
    return {"metadata": text}


def _packet_changes(run: Run, name: str, patch: Mapping[str, Any]) -> dict[str, Any]:
    value, given_type = patch.get(name, MISSING), patch.get(f"{name}Type", MISSING)
    if value is MISSING and given_type is MISSING:
        return {}
    kind = None if given_type is MISSING else packet_type(f"{name}Type", given_type)
    if value is MISSING:
        value = getattr(run, name)
    text, stored_type = packet_from_patch(name, value, kind)
    return {name: text, f"{name}_type": stored_type}


def _check_move(run: Run, changes: Mapping[str, Any]) -> None:
    target = changes.get("status", run.status)
    if target != run.status and not may_move(run.status, target):
        if run.finished:
            raise IllegalTransition(
                f"The run is finished ({run.status}) and cannot become {target}; "
                "trigger a new one instead."
            )
        raise IllegalTransition(f"A run cannot move from {run.status} to {target}.")
    if "completed_at" in changes and target not in FINAL_STATUSES:
        raise InvalidBody("completedAt goes with a final status; send both in one request.")


def _fill_in_times(run: Run, changes: dict[str, Any], now: datetime) -> None:
    target = changes.get("status", run.status)
    if target == run.status:
        return
    if target == "PENDING" and run.queued_at is None:
        changes.setdefault("queued_at", now)
    if target in STARTED_STATUSES and run.started_at is None:
        changes.setdefault("started_at", now)
    if target in FINAL_STATUSES:
        completed_at = changes.setdefault("completed_at", now)
        if target == "EXPIRED":
            changes.setdefault("expired_at", completed_at)
        started_at = changes.get("started_at", run.started_at)
        if started_at is not None and run.usage_duration_ms == 0:
            elapsed = (completed_at - started_at) // timedelta(milliseconds=1)
            # Clocks of workers differ, but no run ends before it starts.
            changes.setdefault("usage_duration_ms", max(0, elapsed))


def _effective(run: Run, changes: Mapping[str, Any]) -> dict[str, Any]:
    return {
        column: value
        for column, value in changes.items()
        if not _unchanged(column, getattr(run, column), value)
    }


def _unchanged(column: str, old: Any, new: Any) -> bool:
    if column == "error" and old is not None and new is not None:
        return _same_json(_read_object(new), _read_object(old))
    return bool(old == new)


def _read_object(text: str) -> dict[str, Any] | None:
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None


def _same_json(one: object, other: object) -> bool:
    # As text, because Python takes true for 1. The database does not keep the order of keys.
    try:
        return _canonical(one) == _canonical(other)
    except orjson.JSONEncodeError:
        return False


def _canonical(value: object) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
