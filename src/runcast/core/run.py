"""A run, and one change of it, as subscribers see them."""

from dataclasses import dataclass, field
from datetime import datetime

# Columns that a subscriber cannot leave out: without them nobody could tell runs apart.
UNSKIPPABLE_COLUMNS = frozenset({"id", "taskIdentifier", "friendlyId", "status", "createdAt"})


@dataclass(frozen=True, slots=True)
class RunFacets:
    """
    The facts about a run that selectors and permissions look at.

    ``created_at`` is Unix time in seconds. All but ``tags`` never change in a run's life.
    """

    environment_id: str
    id: str
    task: str
    tags: tuple[str, ...]
    batch_id: str | None
    created_at: float


@dataclass(frozen=True, slots=True)
class Run:
    """
    One row of the runs table, whole.

    Packets (``payload``, ``output``) are texts with a type beside them; ``metadata`` and
    ``error`` are JSON texts. Times are aware datetimes in UTC. ``version`` grows with each change
    of a run; ``changed_in`` is the number of the transaction that made the newest change.
    """

    environment_id: str
    id: str
    task: str
    number: int
    status: str
    version: int
    changed_in: int
    created_at: datetime
    updated_at: datetime
    queued_at: datetime | None
    delay_until: datetime | None
    started_at: datetime | None
    completed_at: datetime | None
    expired_at: datetime | None
    ttl: str | None
    payload: str | None
    payload_type: str
    output: str | None
    output_type: str
    metadata: str
    metadata_type: str
    error: str | None
    tags: tuple[str, ...]
    realtime_streams: tuple[str, ...]
    batch_id: str | None
    batch_index: int | None
    parent_id: str | None
    root_id: str | None
    depth: int
    trigger_function: str
    queue: str | None
    concurrency_key: str | None
    priority_ms: int
    machine: str | None
    region: str | None
    worker_version: str | None
    attempt_count: int
    max_attempts: int | None
    max_duration_seconds: float | None
    is_test: bool
    usage_duration_ms: int
    cost_in_cents: float
    base_cost_in_cents: float
    idempotency_key: str | None
    idempotency_key_expires_at: datetime | None
    idempotency_key_options: str | None
    options: str

    @property
    def facets(self) -> RunFacets:
        """What selectors and permissions look at."""
        return RunFacets(
            self.environment_id,
            self.id,
            self.task,
            self.tags,
            self.batch_id,
            self.created_at.timestamp(),
        )

    @property
    def size(self) -> int:
        """Of what may be large, in characters."""
        return len(self.payload or "") + len(self.output or "") + len(self.metadata)

    @property
    def finished(self) -> bool:
        """Whether the run will not change its status any more."""
        return self.completed_at is not None


# What may be so large that it is not read for those who do not ask for it.
LARGE_COLUMNS = frozenset({"payload", "output"})

RUN_COLUMNS: tuple[str, ...] = tuple(Run.__dataclass_fields__)


@dataclass(frozen=True, slots=True)
class Departure:
    """
    A run that lost a tag or was deleted, with the facets its followers knew it by.

    ``version`` and ``changed_in`` are those of the change that made it depart.
    """

    facets: RunFacets
    version: int
    changed_in: int
    deleted: bool


@dataclass(frozen=True, slots=True)
class RunChange:
    """
    What became visible about one run between two positions of the changefeed.

    ``run`` is its newest state, or None if it is gone. ``departures`` are the facets it left
    behind since the earlier position, oldest first; usually there are none. ``since`` is a time of
    the event loop before which it was not committed, where that is known.
    """

    facets: RunFacets
    run: Run | None
    departures: tuple[Departure, ...] = ()
    since: float | None = field(default=None, compare=False)

    @property
    def changed_in(self) -> int:
        """The newest transaction that this change tells of."""
        newest = self.run.changed_in if self.run else 0
        return max(newest, *(departure.changed_in for departure in self.departures), 0)
