"""Runs for tests: a plain one, changed where the test cares."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from runcast.core.run import Run
from runcast.core.status import FINAL_STATUSES

CREATED_AT = datetime(2026, 1, 31, 12, 0, 0, 123456, tzinfo=UTC)

_PLAIN = Run(
    environment_id="env_1",
    id="run_1",
    task="hello-world",
    number=1,
    status="PENDING",
    version=1,
    changed_in=1000,
    created_at=CREATED_AT,
    updated_at=CREATED_AT,
    queued_at=CREATED_AT,
    delay_until=None,
    started_at=None,
    completed_at=None,
    expired_at=None,
    ttl=None,
    payload=None,
    payload_type="application/json",
    output=None,
    output_type="application/json",
    metadata="{}",
    metadata_type="application/json",
    error=None,
    tags=(),
    realtime_streams=(),
    batch_id=None,
    batch_index=None,
    parent_id=None,
    root_id=None,
    depth=0,
    trigger_function="trigger",
    queue="task/hello-world",
    concurrency_key=None,
    priority_ms=0,
    machine=None,
    region=None,
    worker_version=None,
    attempt_count=0,
    max_attempts=None,
    max_duration_seconds=None,
    is_test=False,
    usage_duration_ms=0,
    cost_in_cents=0.0,
    base_cost_in_cents=0.0,
    idempotency_key=None,
    idempotency_key_expires_at=None,
    idempotency_key_options=None,
    options="{}",
)


def make_run(**changes: Any) -> Run:
    """A queued run with the given fields changed; a final status brings ``completed_at``."""
    if changes.get("status") in FINAL_STATUSES:
        changes.setdefault("completed_at", changes.get("updated_at", CREATED_AT))
    return replace(_PLAIN, **changes)
