"""A run that is to be created."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRun:
    """
    Everything a trigger says about a run; the store adds number, depth, root and times.

    ``id`` None lets the database choose. ``metadata`` and ``options`` are JSON texts of objects,
    packets are texts with their type. ``idempotency_key`` is the hash that the client sent;
    ``idempotency_key_options`` the JSON text of what the user wrote. ``one_time_token`` is the
    SHA-256 of a token that may be used once. ``delay_until`` in the future makes it DELAYED.
    """

    environment_id: str
    task: str
    id: str | None = None
    status: str = "PENDING"
    payload: str | None = None
    payload_type: str = "application/json"
    metadata: str = "{}"
    tags: tuple[str, ...] = ()
    delay_until: datetime | None = None
    ttl: str | None = None
    batch_index: int | None = None
    parent_id: str | None = None
    trigger_function: str = "trigger"
    queue: str | None = None
    concurrency_key: str | None = None
    priority_ms: int = 0
    machine: str | None = None
    region: str | None = None
    worker_version: str | None = None
    max_attempts: int | None = None
    max_duration_seconds: float | None = None
    is_test: bool = False
    idempotency_key: str | None = None
    idempotency_key_expires_at: datetime | None = None
    idempotency_key_options: str | None = None
    one_time_token: str | None = None
    options: str = "{}"
