"""Runs as the HTTP API shows them, for its description; `core/run_json.py` makes them."""

from typing import Any

from pydantic import BaseModel, Field

Time = Field(json_schema_extra={"format": "date-time"})
OptionalTime = Field(default=None, description="ISO 8601 in UTC.")


class CommonRun(BaseModel):
    """What every answer tells of a run; fields without a value are left out."""

    id: str
    status: str = Field(description="A public status; see docs/protocol.md.")
    taskIdentifier: str
    createdAt: str = Time
    updatedAt: str = Time
    tags: list[str]
    isQueued: bool
    isExecuting: bool
    isWaiting: bool
    isCompleted: bool
    isSuccess: bool
    isFailed: bool
    isCancelled: bool
    isTest: bool
    costInCents: float
    baseCostInCents: float
    durationMs: float
    depth: int
    triggerFunction: str
    idempotencyKey: str | None = None
    version: str | None = None
    ttl: str | None = None
    startedAt: str | None = OptionalTime
    finishedAt: str | None = OptionalTime
    delayedUntil: str | None = OptionalTime
    expiredAt: str | None = OptionalTime
    metadata: dict[str, Any] | None = None
    batchId: str | None = None
    region: str | None = None


class RelatedRuns(BaseModel):
    """Runs that this one came from or made, as far as the caller may read them."""

    root: CommonRun | None = None
    parent: CommonRun | None = None
    children: list[CommonRun] = Field(default_factory=list)


class RunError(BaseModel):
    """Why a run failed."""

    message: str
    name: str | None = None
    stackTrace: str | None = None
    causes: list[Any] | None = None


class RetrievedRun(CommonRun):
    """One run."""

    payload: Any = None
    payloadPresignedUrl: str | None = None
    output: Any = None
    outputPresignedUrl: str | None = None
    error: RunError | None = None
    relatedRuns: RelatedRuns
    attempts: list[Any] = Field(description="Empty; older clients want it.")
    attemptCount: int


class RunEnvironment(BaseModel):
    """The environment of a run."""

    id: str
    name: str


class ListedRun(CommonRun):
    """One run of a list."""

    env: RunEnvironment


class Pagination(BaseModel):
    """Cursors to the pages beside this one; absent where there is none."""

    next: str | None = None
    previous: str | None = None


class RunList(BaseModel):
    """A page of runs, newest first."""

    data: list[ListedRun]
    pagination: Pagination


class RunResult(BaseModel):
    """How a run ended."""

    ok: bool
    id: str
    taskIdentifier: str
    output: str | None = Field(default=None, description="Text, to be read by its type.")
    outputType: str | None = None
    error: dict[str, Any] | None = Field(default=None, description="One of four kinds, by `type`.")


class RunId(BaseModel):
    """The run that it was about."""

    id: str


class Message(BaseModel):
    """What was done, in words."""

    message: str


class Metadata(BaseModel):
    """The metadata of a run."""

    metadata: dict[str, Any]
