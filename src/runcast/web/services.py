"""Everything that handlers work with, handed to them as one value."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from prometheus_client import CollectorRegistry

from runcast.core.limits import Limits
from runcast.hub.hub import Hub
from runcast.ports import (
    ChunkLog,
    Clock,
    ObjectLedger,
    ObjectStore,
    Renewals,
    RevocationStore,
    RunStore,
    WaitpointStore,
)
from runcast.web.bearer import Bearer
from runcast.web.direct_polls import DirectPolls
from runcast.web.key_directory import KeyDirectory
from runcast.web.rate_limits import RateLimits
from runcast.web.request_counts import RequestCounts
from runcast.web.worker_figures import WorkerFigures


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether this gateway should get new requests; ``detail`` says why, as a JSON object."""

    ready: bool
    detail: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """What stands behind the routes; made once by the app."""

    runs: RunStore
    chunks: ChunkLog
    objects: ObjectStore
    object_ledger: ObjectLedger
    waitpoints: WaitpointStore
    keys: KeyDirectory
    bearer: Bearer
    revocations: RevocationStore
    renewals: Renewals
    rate_limits: RateLimits
    hub: Hub
    clock: Clock
    limits: Limits
    allow_handover: bool
    readiness: Callable[[], Readiness]
    requests: RequestCounts
    metrics: CollectorRegistry
    workers: WorkerFigures | None = None
    polls: DirectPolls | None = None
