"""A state of a run, as far as every transport tells it, and as the database keeps it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import orjson

# docs/protocol.md "Statuses": those that have another name in public.
_PUBLIC = {
    "PENDING": "QUEUED",
    "WAITING_FOR_DEPLOY": "PENDING_VERSION",
    "RETRYING_AFTER_FAILURE": "EXECUTING",
    "WAITING_TO_RESUME": "WAITING",
    "PAUSED": "WAITING",
    "COMPLETED_SUCCESSFULLY": "COMPLETED",
    "COMPLETED_WITH_ERRORS": "FAILED",
    "INTERRUPTED": "FAILED",
}
FINAL = frozenset({"COMPLETED", "FAILED", "CANCELED", "EXPIRED"})
_TAG = re.compile(r'"([^"]*)"')


@dataclass(frozen=True, slots=True)
class Sight:
    """
    One state of a run.

    Attributes:
        revision: Grows with each change; None where the transport does not tell it.
        updated: When it was changed, ISO 8601 to milliseconds without the zone.
        count: What writers count in the metadata; None where there is none, or it was not shown.
        fields: Names of what was shown.
    """

    run_id: str
    revision: int | None
    updated: str
    status: str
    task: str
    tags: frozenset[str]
    batch_id: str | None
    count: int | None
    fields: frozenset[str] = frozenset()

    def fits(self, other: "Sight") -> bool:
        """Tell whether both may be the same state: nothing that both say differs."""
        return (
            self.run_id == other.run_id
            and (self.revision is None or self.revision == (other.revision or self.revision))
            and (self.updated, self.status, self.task, self.tags)
            == (other.updated, other.status, other.task, other.tags)
            and (self.count is None or other.count is None or self.count == other.count)
        )

    def precedes(self, other: "Sight") -> bool:
        """Tell whether this is an earlier state of the run than the other one."""
        if self.revision is None or other.revision is None:
            return self.updated < other.updated
        return self.revision < other.revision

    def __str__(self) -> str:
        tags = ",".join(sorted(self.tags))
        return f"{self.run_id}@{self.revision or self.updated} {self.status} [{tags}] {self.count}"


def public_status(raw: str) -> str:
    """The name by which clients know a status."""
    return _PUBLIC.get(raw, raw)


@lru_cache(maxsize=4096)
def sight_of_event(data: bytes) -> Sight:
    """Read a run object; the same bytes come to many subscribers."""
    return sight_of_object(orjson.loads(data))


def sight_of_object(run: Mapping[str, Any]) -> Sight:
    """Read a run object, of feeds or of the list of runs."""
    return Sight(
        run_id=run["id"],
        revision=run.get("revision"),
        updated=run["updatedAt"].removesuffix("Z"),
        status=run["status"],
        task=run["taskIdentifier"],
        tags=frozenset(run["tags"]),
        batch_id=run.get("batchId"),
        count=count_in(run.get("metadata")),
        fields=frozenset(run),
    )


def sight_of_row(row: Mapping[str, str | None], batch_id: str | None) -> Sight:
    """Read a row of a shape, which does not say its batch."""
    metadata = row.get("metadata")
    return Sight(
        run_id=row["id"] or "",
        revision=None,
        updated=row["updatedAt"] or "",
        status=public_status(row["status"] or ""),
        task=row["taskIdentifier"] or "",
        tags=frozenset(_TAG.findall(row["runTags"] or "")),
        batch_id=batch_id,
        count=count_in(orjson.loads(metadata)) if metadata else None,
        fields=frozenset(row),
    )


def count_in(metadata: object) -> int | None:
    """What writers count."""
    count = metadata.get("count") if isinstance(metadata, dict) else None
    return count if isinstance(count, int) else None
