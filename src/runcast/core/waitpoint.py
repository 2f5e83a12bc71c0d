"""
Waitpoints: something that is waited for until somebody completes it, or its time is over.

That its time is over is not written down: whoever looks at it sees it.

Source: wire/trigger-wire.md 4.8.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import orjson

from runcast.core.chunk import Chunk, StreamName
from runcast.core.packet import JSON, TEXT, checked_text, json_text
from runcast.core.run_json import iso_time

WaitpointStatus = Literal["WAITING", "COMPLETED", "TIMED_OUT"]
# Completed by whoever has its token, by time alone, or by what is sent to a run.
WaitpointKind = Literal["token", "time", "input"]
# What official clients know a timeout by.
_TIMEOUT_CODE = "TRIGGER_WAITPOINT_TIMEOUT"


@dataclass(frozen=True, slots=True)
class AwaitedInput:
    """The first chunk from ``offset`` on of what is sent to a run under ``key``."""

    run_id: str
    key: str
    offset: int

    @property
    def stream(self) -> StreamName:
        """Where it will be."""
        return StreamName.of_input(self.run_id, self.key)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewWaitpoint:
    """
    A waitpoint to be created. ``timeout_at`` None: it waits for ever.

    ``request`` names the request that asks for it, for when that is sent again.
    """

    environment_id: str
    kind: WaitpointKind = "token"
    timeout_at: datetime | None = None
    tags: tuple[str, ...] = ()
    idempotency_key: str | None = None
    idempotency_key_expires_at: datetime | None = None
    awaited: AwaitedInput | None = None
    request: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Waitpoint:
    """A waitpoint; ``output`` is a packet's text, None if it was completed without data."""

    id: str
    environment_id: str
    kind: WaitpointKind
    created_at: datetime
    timeout_at: datetime | None
    completed_at: datetime | None
    tags: tuple[str, ...]
    idempotency_key: str | None
    idempotency_key_expires_at: datetime | None
    output: str | None
    output_type: str
    awaited: AwaitedInput | None = None

    def status(self, now: datetime) -> WaitpointStatus:
        """Say how it stands."""
        if self.completed_at is not None:
            return "COMPLETED"
        if self.timeout_at is not None and self.timeout_at <= now:
            return "COMPLETED" if self.kind == "time" else "TIMED_OUT"
        return "WAITING"


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitpointFilter:
    """A condition on waitpoints of one environment, as `RunFilter` is on runs."""

    environment_id: str
    statuses: tuple[str, ...] = ()
    idempotency_key: str | None = None
    tags: tuple[str, ...] = ()
    created_from: datetime | None = None
    created_to: datetime | None = None


def output_packet(data: object) -> tuple[str, str]:
    """
    Make the packet that a waitpoint is completed with of a JSON value.

    Raises:
        InvalidBody: It cannot be stored.
        PayloadTooLarge: More than a packet holds.
    """
    if isinstance(data, str):
        return checked_text("data", data), TEXT
    return checked_text("data", json_text("data", data)), JSON


def input_packet(chunk: Chunk) -> tuple[str, str]:
    """
    Make the packet that a waitpoint is completed with of what was sent to a run.

    A chunk of input is a JSON string that holds JSON. One that was written there as to any other
    stream is taken as it is.
    """
    if not _is_json(chunk.text):
        return chunk.text, TEXT
    value = orjson.loads(chunk.text)
    return (value if isinstance(value, str) and _is_json(value) else chunk.text), JSON


def _is_json(text: str) -> bool:
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return True


def waitpoint_object(waitpoint: Waitpoint, url: str, now: datetime) -> dict[str, Any]:
    """A waitpoint in a list; what it has not is left out."""
    status = waitpoint.status(now)
    over = waitpoint.completed_at or (None if status == "WAITING" else waitpoint.timeout_at)
    answer: dict[str, Any] = {
        "id": waitpoint.id,
        "url": url,
        "status": status,
        "tags": list(waitpoint.tags),
        "createdAt": iso_time(waitpoint.created_at),
    }
    for name, time in (
        ("completedAt", over),
        ("completedAfter", waitpoint.timeout_at),
        ("timeoutAt", waitpoint.timeout_at),
        ("idempotencyKeyExpiresAt", waitpoint.idempotency_key_expires_at),
    ):
        if time is not None:
            answer[name] = iso_time(time)
    if waitpoint.idempotency_key is not None:
        answer["idempotencyKey"] = waitpoint.idempotency_key
    return answer


def retrieved_waitpoint(waitpoint: Waitpoint, url: str, now: datetime) -> dict[str, Any]:
    """One waitpoint with what it was completed with; a timeout is an error."""
    answer = waitpoint_object(waitpoint, url, now)
    match answer["status"]:
        case "COMPLETED":
            answer["outputIsError"] = False
            answer["outputType"] = waitpoint.output_type
            if waitpoint.output is not None:
                answer["output"] = waitpoint.output
        case "TIMED_OUT":
            message = f"The waitpoint timed out at {answer['timeoutAt']}."
            answer["outputIsError"] = True
            answer["outputType"] = JSON
            answer["output"] = orjson.dumps({"code": _TIMEOUT_CODE, "message": message}).decode()
    return answer
