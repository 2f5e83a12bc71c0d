"""Which runs a list shows."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFilter:
    """
    A condition on runs of one environment; an empty tuple or None does not limit.

    Within one field any value is enough (a list by tags means any of them, unlike a selector,
    which means all of them); between fields all must hold. ``statuses`` are raw.
    """

    environment_id: str
    statuses: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    versions: tuple[str, ...] = ()
    queues: tuple[str, ...] = ()
    machines: tuple[str, ...] = ()
    regions: tuple[str, ...] = ()
    batch_id: str | None = None
    is_test: bool | None = None
    schedule_id: str | None = None
    bulk_action_id: str | None = None
    created_from: datetime | None = None
    created_to: datetime | None = None
