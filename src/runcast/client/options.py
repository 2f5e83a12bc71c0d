"""What callers choose by name: options of triggers, changes of runs, filters of lists."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal, Required, TypedDict

from runcast.client.errors import InvalidArgument
from runcast.client.failure import failure_fields
from runcast.client.json_text import to_json

Machine = Literal["micro", "small-1x", "small-2x", "medium-1x", "medium-2x", "large-1x", "large-2x"]
Texts = str | Sequence[str]
Span = str | timedelta
"""A length of time: ``"1h30m"`` or a timedelta."""


class TriggerOptions(TypedDict, total=False):
    """
    How a run is to be made.

    Attributes:
        tags: Up to 10 texts to find and follow the run by.
        metadata: An object that the run can change as it goes.
        idempotency_key: Two triggers of one task with one key make one run.
        idempotency_key_ttl: How long that key holds; 30 days if left out.
        delay: When the run may start: a length of time from now, or a time.
        ttl: How long the run may wait before it expires.
        queue: Name of the queue; otherwise that of the task.
        concurrency_key: Divides the queue, for example one part per customer.
        priority: Seconds by which the run goes before others.
        machine: The size of machine that workers shall have.
        max_attempts: Attempts at most.
        max_duration: Seconds that the run may compute.
        parent_run_id: The run that this one belongs to.
        test: Mark the run as a test.
        region: Where to run.
        version: The version of the worker that shall run it.
    """

    tags: Texts
    metadata: Mapping[str, Any]
    idempotency_key: str
    idempotency_key_ttl: Span
    delay: Span | datetime
    ttl: Span | int
    queue: str
    concurrency_key: str
    priority: float
    machine: Machine
    max_attempts: int
    max_duration: float
    parent_run_id: str
    test: bool
    region: str
    version: str


class BatchItem(TriggerOptions, total=False):
    """One run of a batch: a task, its payload, and options as for a single trigger."""

    task: Required[str]
    payload: Any


class RunChanges(TypedDict, total=False):
    """
    What to change in a run; what is left out stays, None clears where that makes sense.

    ``error`` may be an exception. Times that follow from a status are filled in by the gateway.
    """

    status: str
    payload: Any
    output: Any
    error: "BaseException | str | Mapping[str, Any] | None"
    tags: Texts
    metadata: Mapping[str, Any]
    queued_at: datetime
    started_at: datetime
    completed_at: datetime
    expired_at: datetime
    delay_until: datetime | None
    ttl: Span | None
    attempt_count: int
    duration_ms: int
    cost_in_cents: float
    base_cost_in_cents: float
    queue: str
    machine: Machine | None
    region: str | None
    version: str | None


class RunFilters(TypedDict, total=False):
    """
    Which runs to list; alternatives within one filter, all filters together.

    ``tag`` means runs with any of the tags. ``period`` is a length of time back from now.
    """

    status: Texts
    task: Texts
    tag: Texts
    version: Texts
    queue: Texts
    machine: Texts
    region: Texts
    batch: str
    is_test: bool
    created_from: datetime
    created_to: datetime
    period: Span


_TRIGGER_NAMES = {
    "tags": "tags",
    "metadata": "metadata",
    "idempotency_key": "idempotencyKey",
    "idempotency_key_ttl": "idempotencyKeyTTL",
    "delay": "delay",
    "ttl": "ttl",
    "queue": "queue",
    "concurrency_key": "concurrencyKey",
    "priority": "priority",
    "machine": "machine",
    "max_attempts": "maxAttempts",
    "max_duration": "maxDuration",
    "parent_run_id": "parentRunId",
    "test": "test",
    "region": "region",
    "version": "lockToVersion",
}
_CHANGE_NAMES = {
    "status": "status",
    "tags": "tags",
    "metadata": "metadata",
    "queued_at": "queuedAt",
    "started_at": "startedAt",
    "completed_at": "completedAt",
    "expired_at": "expiredAt",
    "delay_until": "delayUntil",
    "ttl": "ttl",
    "attempt_count": "attemptCount",
    "duration_ms": "usageDurationMs",
    "cost_in_cents": "costInCents",
    "base_cost_in_cents": "baseCostInCents",
    "queue": "queue",
    "machine": "machine",
    "region": "region",
    "version": "version",
}
_FILTER_NAMES = {
    "status": "filter[status]",
    "task": "filter[taskIdentifier]",
    "tag": "filter[tag]",
    "version": "filter[version]",
    "queue": "filter[queue]",
    "machine": "filter[machine]",
    "region": "filter[region]",
    "batch": "filter[batch]",
    "is_test": "filter[isTest]",
    "created_from": "filter[createdAt][from]",
    "created_to": "filter[createdAt][to]",
    "period": "filter[createdAt][period]",
}


def trigger_body(payload: object, options: Mapping[str, Any]) -> dict[str, Any]:
    """
    The body of a trigger, or of one item of a batch; options that are None are left out.

    Raises:
        InvalidArgument: There is no such option.
    """
    given = {name: value for name, value in options.items() if value is not None}
    _check_names("options of a trigger", given, _TRIGGER_NAMES)
    body: dict[str, Any] = {} if payload is None else {"payload": payload}
    body["options"] = {_TRIGGER_NAMES[name]: _wire(name, given[name]) for name in given}
    return body


def change_body(changes: Mapping[str, Any]) -> dict[str, Any]:
    """
    The body that changes a run.

    Raises:
        InvalidArgument: No run has such a field, or a value is not what it should be.
    """
    packets = ("payload", "output", "error")
    named = {name: value for name, value in changes.items() if name not in packets}
    _check_names("fields of a run", named, _CHANGE_NAMES)
    body = {_CHANGE_NAMES[name]: _wire(name, value) for name, value in named.items()}
    for name in ("payload", "output"):
        if name in changes:
            body |= _packet(name, changes[name])
    if "error" in changes:
        error = changes["error"]
        body["error"] = failure_fields(error) if isinstance(error, BaseException) else error
    return body


def filter_params(filters: Mapping[str, Any]) -> list[tuple[str, str]]:
    """
    The query that lists runs; filters that are None are left out.

    Raises:
        InvalidArgument: There is no such filter.
    """
    given = {name: value for name, value in filters.items() if value is not None}
    _check_names("filters of runs", given, _FILTER_NAMES)
    return [(_FILTER_NAMES[name], _query_text(name, value)) for name, value in given.items()]


def joined(what: str, texts: Texts) -> str:
    """
    Texts as lists in queries are written.

    Raises:
        InvalidArgument: One holds a comma, which would make it two.
    """
    each = [texts] if isinstance(texts, str) else list(texts)
    if any("," in text for text in each):
        raise InvalidArgument(f"{what}: a text with a comma cannot be asked for in a list.")
    return ",".join(each)


def _packet(name: str, value: object) -> dict[str, Any]:
    """A value with its type, so that a text that looks like JSON stays a text."""
    if value is None:
        return {name: None}
    if isinstance(value, str):
        return {name: value, f"{name}Type": "text/plain"}
    text = to_json(value, name).decode()
    return {name: text, f"{name}Type": "application/json"}


def _wire(name: str, value: Any) -> Any:
    if isinstance(value, datetime):
        return _time_text(name, value)
    if isinstance(value, timedelta):
        return span_text(name, value)
    if name == "tags":
        return [value] if isinstance(value, str) else list(value)
    return value


def _query_text(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        return _time_text(name, value)
    if isinstance(value, timedelta):
        return span_text(name, value)
    return joined(name, value)


def _time_text(name: str, value: datetime) -> str:
    if value.utcoffset() is None:
        raise InvalidArgument(f"{name}: a time needs a zone, such as datetime.now(UTC).")
    return value.isoformat()


def span_text(name: str, span: timedelta) -> str:
    """
    A length of time as gateways read it, rounded up to whole seconds.

    Raises:
        InvalidArgument: It is negative.
    """
    if span < timedelta(0):
        raise InvalidArgument(f"{name}: a length of time is not negative.")
    return f"{-(-span // timedelta(seconds=1))}s"


def _check_names(what: str, given: Mapping[str, Any], known: Mapping[str, str]) -> None:
    if unknown := sorted(given.keys() - known.keys()):
        raise InvalidArgument(
            f"There are no {what} called {', '.join(unknown)}; there are {', '.join(known)}."
        )
