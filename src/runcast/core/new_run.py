"""A run that is to be created."""

from dataclasses import asdict, dataclass
from datetime import datetime

import orjson


@dataclass(frozen=True, slots=True)
class Debounce:
    """
    How a trigger goes together with others of its task and ``key`` while their run is delayed.

    Each pushes the run to its own ``until``, but not past any trigger's ``max_delay_seconds``
    from the run's creation. ``trailing``: the run takes over the data of the last trigger.
    """

    key: str
    until: datetime
    trailing: bool = False
    max_delay_seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRun:
    """
    Everything a trigger says about a run; the store adds number, depth, root and times.

    ``id`` None lets the database choose. ``metadata`` and ``options`` are JSON texts of objects,
    packets are texts with their type. ``idempotency_key`` is the hash that the client sent;
    ``idempotency_key_options`` the JSON text of what the user wrote. ``one_time_token`` is the
    SHA-256 of a token that may be used once. ``delay_until`` in the future makes it DELAYED.
    ``request`` names the request that asks for it, for when that is sent again. ``error`` is the
    JSON text of why it cannot run, of a run that is created in a final status.
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
    request: str | None = None
    debounce: Debounce | None = None
    error: str | None = None
    options: str = "{}"

    def to_json(self) -> str:
        """Write it so that `from_json` reads the same again."""
        return orjson.dumps(asdict(self)).decode()

    @classmethod
    def from_json(cls, text: str) -> "NewRun":
        """Read what `to_json` wrote."""
        fields = orjson.loads(text)
        for name in ("delay_until", "idempotency_key_expires_at"):
            if fields[name] is not None:
                fields[name] = datetime.fromisoformat(fields[name])
        if fields["debounce"] is not None:
            until = datetime.fromisoformat(fields["debounce"]["until"])
            fields["debounce"] = Debounce(**fields["debounce"] | {"until": until})
        return cls(**fields | {"tags": tuple(fields["tags"])})
