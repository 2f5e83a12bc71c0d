"""A batch: runs that were triggered together."""

from dataclasses import dataclass
from datetime import datetime

from runcast.core.new_run import NewRun
from runcast.core.run_error import internal_error


@dataclass(frozen=True, slots=True)
class Batch:
    """
    A batch as it is now. ``run_ids`` in the order of their items.

    ``status`` is PENDING, PROCESSING, COMPLETED, PARTIAL_FAILED or ABORTED; COMPLETED once every
    run of it is final. ``cached``: it was found by its idempotency key, not created. ``options``
    is the JSON text of an object.
    """

    environment_id: str
    id: str
    status: str
    created_at: datetime
    updated_at: datetime
    run_count: int
    idempotency_key: str | None
    run_ids: tuple[str, ...]
    cached: bool = False
    options: str = "{}"


@dataclass(frozen=True, slots=True, kw_only=True)
class NewBatch:
    """
    A batch that is to be created, with its runs or before its items are known.

    ``idempotency_scope`` tells apart equal keys that were given for different things.
    """

    environment_id: str
    id: str | None = None
    idempotency_key: str | None = None
    idempotency_key_expires_at: datetime | None = None
    idempotency_scope: str = ""
    one_time_token: str | None = None
    request: str | None = None
    options: str = "{}"


@dataclass(frozen=True, slots=True)
class StreamedItems:
    """
    How far a streamed batch is: ``stored`` of ``run_count`` items are there, or it is sealed.

    ``missing``: there is no such batch, or it was given up.
    """

    run_count: int = 0
    stored: int = 0
    sealed: bool = False
    missing: bool = False


def failed_item(item: NewRun, reason: str, code: str = "BATCH_ITEM_COULD_NOT_TRIGGER") -> NewRun:
    """The run that stands for an item which cannot be run; it has nothing that may be at fault."""
    return NewRun(
        environment_id=item.environment_id,
        task=item.task,
        batch_index=item.batch_index,
        trigger_function=item.trigger_function,
        status="SYSTEM_FAILURE",
        error=internal_error(code, reason),
    )
