"""
The options of a trigger as clients send them, and the run that they ask for.

Options that no column of a run holds, unknown ones included, are kept as they were sent.

Source: wire/trigger-wire.md 4.2 and 4.9.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictFloat, StrictInt

from runcast.core.limits import Limits
from runcast.core.metadata import check_size, check_storable
from runcast.core.new_run import Debounce, NewRun
from runcast.core.packet import JSON, MISSING, STORE, SUPER_JSON, json_text, packet_from_trigger
from runcast.core.tags import parse_tags
from runcast.core.timespan import parse_duration
from runcast.errors import InvalidBody, InvalidParameter, PayloadTooLarge, Unprocessable
from runcast.web.request_key import request_digest
from runcast.web.text_field import ShortText, Tag, Text

_MAX_TASK_BYTES = 512
_MAX_KEPT_BYTES = 64 * 1024
_MAX_INT32 = 2**31 - 1

_IDEMPOTENCY_SECONDS = 30 * 86400.0
_MAX_IDEMPOTENCY_SECONDS = 3650 * 86400.0
_IDEMPOTENCY_TTL = re.compile(r"[0-9]{1,9}[smhd]", re.ASCII)

Machine = Literal["micro", "small-1x", "small-2x", "medium-1x", "medium-2x", "large-1x", "large-2x"]
Ttl = Text | Annotated[StrictInt, Field(ge=0, le=_MAX_INT32)]
Number = StrictInt | Annotated[StrictFloat, Field(allow_inf_nan=False)]
LimitName = Annotated[str, Field(strict=True, pattern=r"^[a-zA-Z0-9_-]{1,122}$")]
GateText = Annotated[str, Field(strict=True, pattern=r"^[^\x00]*$", min_length=1, max_length=128)]


class QueueChoice(BaseModel):
    """The queue of a run."""

    model_config = ConfigDict(extra="allow")

    name: ShortText


class Gate(BaseModel):
    """A queue that a run passes through besides its own."""

    queue: GateText
    concurrencyKey: GateText | None = None


class IdempotencyKeyOptions(BaseModel):
    """The idempotency key as its user wrote it, before it was hashed."""

    key: Text
    scope: Literal["run", "attempt", "global"] | None = None


class DebounceOptions(BaseModel):
    """Triggers of one task with one key, while their run is delayed, make one run."""

    key: ShortText
    delay: Text = Field(description="How long after the last trigger it runs, such as 5s.")
    mode: Literal["leading", "trailing"] | None = Field(
        default=None, description="Whose data it runs with: the first trigger's, or the last's."
    )
    maxDelay: Text | None = Field(
        default=None, description="How long after the first trigger it runs at the latest."
    )


class TriggerOptions(BaseModel):
    """How a run is to be made. Options that are not listed are kept with the run."""

    model_config = ConfigDict(extra="allow")

    payloadType: ShortText | None = Field(
        default=None,
        description="How to read a payload that is a string; application/json if left out.",
    )
    delay: Text | None = Field(
        default=None,
        description='A duration such as "1h30m" or an ISO 8601 time: the run is DELAYED.',
    )
    ttl: Ttl | None = Field(
        default=None,
        description="How long the run may wait for its start: a duration such as 10m, or seconds; "
        "0: for ever, also where the gateway has a default.",
    )
    tags: Tag | list[Tag] | None = Field(
        default=None, description="Up to 10 distinct tags of up to 128 characters."
    )
    metadata: dict[str, Any] | str | None = Field(
        default=None, description="A JSON object, or the text of one."
    )
    metadataType: ShortText | None = None
    idempotencyKey: Text | None = Field(
        default=None, description="Two triggers of one task with one key make one run."
    )
    idempotencyKeyTTL: Text | None = Field(
        default=None, description="How long the key holds, such as 60s or 7d; 30 days if left out."
    )
    idempotencyKeyOptions: IdempotencyKeyOptions | None = None
    debounce: DebounceOptions | None = None
    parentRunId: ShortText | None = None
    resumeParentOnCompletion: StrictBool | None = None
    queue: QueueChoice | ShortText | None = None
    concurrency: list[LimitName] | None = Field(
        default=None, max_length=2, description="Names of limits that the run counts for."
    )
    concurrencyKey: Text | Number | None = None
    gates: list[Gate] | None = Field(
        default=None, max_length=3, description="Queues that the run passes besides its own."
    )
    priority: Annotated[Number, Field(ge=-1e9, le=1e9)] | None = Field(
        default=None, description="Seconds by which the run goes before others."
    )
    machine: Machine | None = None
    region: ShortText | None = None
    lockToVersion: ShortText | None = None
    maxAttempts: Annotated[StrictInt, Field(ge=0, le=_MAX_INT32)] | None = None
    maxDuration: Annotated[Number, Field(ge=0, le=1e12)] | None = Field(
        default=None, description="Seconds that the run may compute."
    )
    test: StrictBool | None = None


# Which columns or other fields of a run hold; what is left of the options is kept as it came.
_HELD = frozenset(TriggerOptions.model_fields) - {
    "queue", "concurrency", "gates", "resumeParentOnCompletion", "debounce",
}  # fmt: skip
# Of an engine that is no more.
_IGNORED = frozenset({"parentAttempt", "dependentAttempt", "dependentBatch", "parentBatch"})


def new_run(
    *,
    environment_id: str,
    task: str,
    payload: object,
    options: TriggerOptions,
    limits: Limits,
    now: float,
    headers: Mapping[str, str] | None = None,
    one_time_token: str | None = None,
    parent_id: str | None = None,
    batch_index: int | None = None,
    trigger_function: str = "trigger",
) -> NewRun:
    """
    Say what run a trigger asks for.

    Args:
        payload: A JSON value, or MISSING.
        headers: Of the request, where an idempotency key in them counts, and its own key.
        parent_id: The parent, if it does not stand in the options.
        trigger_function: What made the run, if it waits for nobody.

    Raises:
        InvalidBody: An option is not what it should be.
        Unprocessable: Too many tags, or a delay that is no time.
        PayloadTooLarge: The metadata or the options are over their limit.
    """
    if not 0 < len(task.encode()) <= _MAX_TASK_BYTES:
        raise InvalidBody(f"The name of a task has 1 to {_MAX_TASK_BYTES} bytes.")
    payload_type = MISSING if options.payloadType is None else options.payloadType
    text, kind = packet_from_trigger(payload, payload_type)
    if kind == STORE and not text:
        raise InvalidBody("payload names an object when payloadType is application/store.")
    headers = headers or {}
    key, key_seconds = _idempotency(options, headers)
    debounce, debounced_until = _debounce(options.debounce, now)
    queue = options.queue.name if isinstance(options.queue, QueueChoice) else options.queue
    waits = "AndWait" if options.resumeParentOnCompletion else ""
    return NewRun(
        environment_id=environment_id,
        task=task,
        payload=text,
        payload_type=kind,
        metadata=_metadata(options, limits),
        tags=parse_tags(options.tags or []),
        delay_until=debounced_until or delay_until(options.delay, now),
        ttl=_ttl(options.ttl, limits.default_ttl_seconds),
        parent_id=options.parentRunId or parent_id,
        batch_index=batch_index,
        trigger_function=trigger_function + waits,
        queue=queue,
        concurrency_key=_key_text(options.concurrencyKey),
        priority_ms=round((options.priority or 0) * 1000),
        machine=options.machine,
        region=options.region,
        worker_version=options.lockToVersion,
        max_attempts=options.maxAttempts,
        max_duration_seconds=options.maxDuration,
        is_test=bool(options.test),
        idempotency_key=key,
        idempotency_key_expires_at=time_of(now + key_seconds) if key else None,
        idempotency_key_options=_key_options(options) if key else None,
        one_time_token=one_time_token,
        request=request_digest(headers, f"task {task}"),
        debounce=debounce,
        options=_kept(options),
    )


def idempotency_seconds(ttl: str | None) -> float:
    """Read how long an idempotency key holds; what cannot be read means 30 days."""
    if ttl is None or not _IDEMPOTENCY_TTL.fullmatch(ttl):
        return _IDEMPOTENCY_SECONDS
    return min(parse_duration(ttl), _MAX_IDEMPOTENCY_SECONDS)


def _idempotency(options: TriggerOptions, headers: Mapping[str, str]) -> tuple[str | None, float]:
    key = headers.get("idempotency-key") or options.idempotencyKey or None
    if key is not None and len(key) > 2048:
        raise InvalidBody("An idempotency key has at most 2048 characters.")
    ttl = headers.get("idempotency-key-ttl") or options.idempotencyKeyTTL
    return key, idempotency_seconds(ttl)


def _key_options(options: TriggerOptions) -> str | None:
    written = options.idempotencyKeyOptions
    return None if written is None else written.model_dump_json(exclude_none=True)


def _key_text(key: str | float | None) -> str | None:
    """A concurrency key as text, numbers as JavaScript writes them."""
    if isinstance(key, float) and key.is_integer():
        key = int(key)
    return None if key is None or key == "" else str(key)


def _debounce(
    options: DebounceOptions | None, now: float
) -> tuple[Debounce | None, datetime | None]:
    """Read the debounce options, and when a run that is created with them is due."""
    if options is None:
        return None, None
    delay = _seconds("delay", options.delay)
    most = _seconds("maxDelay", options.maxDelay) if options.maxDelay else None
    until = time_of(now + delay)
    debounce = Debounce(options.key, until, options.mode == "trailing", most)
    return debounce, until if most is None else min(until, time_of(now + most))


def _seconds(name: str, duration: str) -> float:
    try:
        seconds = parse_duration(duration)
    except InvalidParameter as error:
        raise Unprocessable(f"options.debounce.{name}: {error.message}") from None
    if seconds < 1:
        raise Unprocessable(f"options.debounce.{name} is at least 1s.")
    return seconds


def delay_until(delay: str | None, now: float) -> datetime | None:
    """
    Read a delay: a duration from ``now``, or a time. None: there is none, or it is over.

    Raises:
        Unprocessable: Neither of both, or too far away.
    """
    if not delay:
        return None
    try:
        due = time_of(now + parse_duration(delay))
    except InvalidParameter:
        due = _parse_time(delay)
    return due if due > time_of(now) else None


def _parse_time(delay: str) -> datetime:
    try:
        due = datetime.fromisoformat(delay)
        return due.replace(tzinfo=due.tzinfo or UTC).astimezone(UTC)
    except (ValueError, OverflowError):
        raise Unprocessable(
            'The delay is neither a duration such as "1h30m" nor an ISO 8601 time.'
        ) from None


def time_of(seconds: float) -> datetime:
    try:
        return datetime.fromtimestamp(0, UTC) + timedelta(seconds=seconds)
    except OverflowError:
        raise Unprocessable("The delay reaches beyond the year 9999.") from None


def _ttl(ttl: str | int | None, default_seconds: int) -> str | None:
    if ttl is None:
        return _duration_text(default_seconds)
    if isinstance(ttl, int):
        return _duration_text(ttl)
    if not ttl:
        return None
    try:
        return ttl if parse_duration(ttl) else None
    except InvalidParameter as error:
        raise InvalidBody(f"options.ttl: {error.message}") from None


def _duration_text(seconds: int) -> str | None:
    parts = []
    for unit, length in (("w", 604_800), ("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)):
        count, seconds = divmod(seconds, length)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or None


def _metadata(options: TriggerOptions, limits: Limits) -> str:
    value: Any = options.metadata
    if isinstance(value, str):
        value = _metadata_from_text(value, options.metadataType or JSON)
    if value is None:
        return "{}"
    if not isinstance(value, dict):
        raise InvalidBody("options.metadata is a JSON object.")
    check_storable(value, "options.metadata")
    text = json_text("options.metadata", value)
    check_size(text, limits.max_metadata_bytes)
    return text


def _metadata_from_text(text: str, kind: str) -> Any:
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        raise InvalidBody("options.metadata is not the text of a JSON object.") from None
    return value.get("json") if kind == SUPER_JSON and isinstance(value, dict) else value


def _kept(options: TriggerOptions) -> str:
    sent = options.model_dump(exclude_unset=True, exclude_none=True)
    kept = {
        name: value for name, value in sent.items() if name not in _HELD and name not in _IGNORED
    }
    if not isinstance(options.queue, QueueChoice) or not options.queue.model_extra:
        kept.pop("queue", None)
    check_storable(kept, "options")
    text = json_text("options", kept)
    if len(text) > _MAX_KEPT_BYTES:
        raise PayloadTooLarge(
            f"The options hold more than {_MAX_KEPT_BYTES} bytes; put values into the payload."
        )
    return text
