"""Runs as the gateway tells them, and handles of runs and batches that were created."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from runcast.client.errors import UnexpectedAnswer

FINAL_STATUSES = frozenset(
    {"COMPLETED", "CANCELED", "FAILED", "CRASHED", "SYSTEM_FAILURE", "EXPIRED", "TIMED_OUT"}
)


@dataclass(frozen=True, slots=True)
class RunFailure:
    """Why a run failed."""

    message: str
    name: str | None = None
    stack_trace: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """
    A run as it was at one moment.

    Fields that were not told, or are skipped for the bearer of a token, have their default.
    ``status`` is one of QUEUED, DELAYED, PENDING_VERSION, DEQUEUED, EXECUTING, WAITING and the
    final COMPLETED, CANCELED, FAILED, CRASHED, SYSTEM_FAILURE, EXPIRED, TIMED_OUT. ``revision``
    grows with each change; only feeds tell it.
    """

    id: str
    task: str
    status: str
    created_at: datetime
    updated_at: datetime | None = None
    revision: int | None = None
    tags: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict, hash=False)
    payload: Any = field(default=None, hash=False)
    output: Any = field(default=None, hash=False)
    error: RunFailure | None = None
    number: int | None = None
    queued_at: datetime | None = None
    delayed_until: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    expired_at: datetime | None = None
    ttl: str | None = None
    duration_ms: int = 0
    cost_in_cents: float = 0.0
    base_cost_in_cents: float = 0.0
    attempt_count: int = 0
    depth: int = 0
    is_test: bool = False
    idempotency_key: str | None = None
    batch_id: str | None = None
    parent_id: str | None = None
    root_id: str | None = None
    queue: str | None = None
    streams: tuple[str, ...] = ()
    payload_url: str | None = None
    """Where to download a payload that is kept in an object store."""
    output_url: str | None = None
    """Where to download such an output."""

    @property
    def is_finished(self) -> bool:
        """Whether the run has its final status."""
        return self.status in FINAL_STATUSES

    @property
    def is_success(self) -> bool:
        """Whether the run finished as it should."""
        return self.status == "COMPLETED"


@dataclass(frozen=True, slots=True)
class RunHandle:
    """
    A run that was triggered.

    ``public_access_token`` reads this run, for an hour. ``is_cached`` tells that the run was
    there before, found by its idempotency key.
    """

    id: str
    public_access_token: str = field(repr=False)
    is_cached: bool = False


@dataclass(frozen=True, slots=True)
class BatchRunHandle:
    """One run of a batch that was triggered."""

    id: str
    task: str
    is_cached: bool = False


@dataclass(frozen=True, slots=True)
class BatchHandle:
    """
    A batch that was triggered, its runs in the order of the items.

    ``public_access_token`` reads the batch and its runs, for an hour.
    """

    id: str
    public_access_token: str = field(repr=False)
    runs: tuple[BatchRunHandle, ...] = ()
    is_cached: bool = False


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch as it was at one moment; COMPLETED when all of its runs are finished."""

    id: str
    status: str
    run_ids: tuple[str, ...]
    created_at: datetime
    updated_at: datetime
    idempotency_key: str | None = None


# Field of `Run` → names that gateways use for it: feeds first, REST answers where they differ.
_PLAIN_FIELDS = {
    "revision": "revision",
    "payload": "payload",
    "output": "output",
    "number": "number",
    "ttl": "ttl",
    "cost_in_cents": "costInCents",
    "base_cost_in_cents": "baseCostInCents",
    "attempt_count": "attemptCount",
    "depth": "depth",
    "is_test": "isTest",
    "idempotency_key": "idempotencyKey",
    "batch_id": "batchId",
    "parent_id": "parentId",
    "root_id": "rootId",
    "queue": "queue",
    "metadata": "metadata",
    "duration_ms": "durationMs",
    "payload_url": "payloadPresignedUrl",
    "output_url": "outputPresignedUrl",
}
_TIME_FIELDS = {
    "updated_at": "updatedAt",
    "queued_at": "queuedAt",
    "delayed_until": "delayedUntil",
    "started_at": "startedAt",
    "finished_at": "finishedAt",
    "expired_at": "expiredAt",
}


def run_from(told: Any) -> Run:
    """
    Read the run object of a feed or of a REST answer; fields that are new are passed over.

    Raises:
        UnexpectedAnswer: It is no run object.
    """
    try:
        fields: dict[str, Any] = {
            field: told[name] for field, name in _PLAIN_FIELDS.items() if told.get(name) is not None
        }
        for name_here, name in _TIME_FIELDS.items():
            if told.get(name) is not None:
                fields[name_here] = datetime.fromisoformat(told[name])
        if told.get("error") is not None:
            fields["error"] = _failure(told["error"])
        fields |= _related(told.get("relatedRuns") or {})
        return Run(
            id=told["id"],
            task=told["taskIdentifier"],
            status=told["status"],
            created_at=datetime.fromisoformat(told["createdAt"]),
            tags=tuple(told.get("tags") or ()),
            streams=tuple(told.get("streams") or ()),
            **fields,
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UnexpectedAnswer(
            f"The gateway sent a run that this version cannot read ({type(error).__name__}: "
            f"{error}); it may be newer or older than this package."
        ) from error


def batch_from(told: Any) -> Batch:
    """
    Read a batch.

    Raises:
        UnexpectedAnswer: It is none.
    """
    try:
        return Batch(
            id=told["id"],
            status=told["status"],
            run_ids=tuple(told["runs"]),
            created_at=datetime.fromisoformat(told["createdAt"]),
            updated_at=datetime.fromisoformat(told["updatedAt"]),
            idempotency_key=told.get("idempotencyKey"),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UnexpectedAnswer("The gateway sent a batch that cannot be read.") from error


def _failure(told: Mapping[str, Any]) -> RunFailure:
    return RunFailure(
        message=told["message"], name=told.get("name"), stack_trace=told.get("stackTrace")
    )


def _related(told: Mapping[str, Any]) -> dict[str, str]:
    return {
        f"{name}_id": told[name]["id"] for name in ("parent", "root") if told.get(name) is not None
    }
