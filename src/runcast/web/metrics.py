"""What a gateway counts, for Prometheus; docs/operations.md explains each."""

import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from math import isinf
from typing import Any, Protocol

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from runcast.core.histogram import Histogram
from runcast.core.relaying import Relaying, Role
from runcast.core.tailing import State
from runcast.hub.hub import Hub
from runcast.web.request_counts import RequestCounts


class Refusing(Protocol):
    """The figures of rate limits."""

    refused: Counter[str]
    failures: int


class Followed(Protocol):
    """The figures of a changefeed."""

    @property
    def state(self) -> State: ...

    @property
    def misses(self) -> int: ...

    @property
    def figures(self) -> dict[str, float]:
        """Numbers by name: reads, changes, reconnects, seconds_since_read, position."""
        ...

    @property
    def queries(self) -> Mapping[str, Histogram]:
        """Seconds that its statements took, by name."""
        ...


class Pooled(Protocol):
    """The figures of the database's pool of connections."""

    @property
    def figures(self) -> Mapping[str, int]:
        """Numbers by name: busy, idle, waiting, max."""
        ...

    @property
    def queries(self) -> Mapping[str, Histogram]:
        """Seconds that statements took, by name."""
        ...


class Cleaned(Protocol):
    """The figures of objects that are deleted because no run refers to them."""

    @property
    def deleted(self) -> int: ...

    @property
    def failed(self) -> int: ...


class Scheduled(Protocol):
    """The figures of what happens by time."""

    rounds: int
    done: Counter[str]
    refused: int
    late_seconds: float


class Rejecting(Protocol):
    """The figures of those who are turned away."""

    rejections: Counter[str]


class Stored(Protocol):
    """The figures of streams that are kept in Redis."""

    @property
    def figures(self) -> dict[str, float]:
        """Numbers by name: reachable, calls, round_trips, failures, lost, reconnects, misses."""
        ...


class ProcessFigures(Collector):
    """What the process itself takes, as it was at the last `look`: that reads files."""

    def __init__(self) -> None:
        self._source = ProcessCollector(registry=None)
        self._found: list[Metric] = []

    async def look(self) -> None:
        """See how it is now."""
        self._found = await asyncio.to_thread(lambda: list(self._source.collect()))

    def collect(self) -> Iterator[Metric]:
        return iter(self._found)


PROCESS = ProcessFigures()


def gateway_registry(
    hub: Hub,
    feed: Followed,
    rate_limits: Refusing,
    objects: Cleaned,
    schedule: Scheduled,
    bearer: Rejecting,
    redis: Stored | None = None,
    relaying: Relaying | None = None,
    *,
    database: Pooled,
    requests: RequestCounts,
) -> CollectorRegistry:
    """A registry that reads the figures when it is asked; nothing is counted twice."""
    registry = CollectorRegistry()
    registry.register(PROCESS)
    registry.register(_GatewayCollector(hub, feed, rate_limits, objects, schedule))
    registry.register(_TokenCollector(hub, bearer))
    registry.register(_TrafficCollector(hub, requests))
    registry.register(_DatabaseCollector(feed, database))
    if redis is not None:
        registry.register(_RedisCollector(redis))
    if relaying is not None:
        registry.register(_RelayCollector(relaying))
    return registry


class _TokenCollector(Collector):
    def __init__(self, hub: Hub, bearer: Rejecting) -> None:
        self._hub = hub
        self._bearer = bearer

    def collect(self) -> Iterator[Metric]:
        book = self._hub.revocations
        yield GaugeMetricFamily("runcast_revocations", "Revocations that count", value=len(book))
        yield GaugeMetricFamily(
            "runcast_revocations_behind_seconds",
            "Time since the revocations were last known to be complete",
            value=max(0.0, self._hub.clock.now() - book.read_at),
        )
        rejections = self._bearer.rejections
        yield _by_label("token_rejections", "Callers who were turned away", "code", rejections)


class _TrafficCollector(Collector):
    """What goes in and out."""

    def __init__(self, hub: Hub, requests: RequestCounts) -> None:
        self._hub = hub
        self._requests = requests

    def collect(self) -> Iterator[Metric]:
        counts, requests = self._hub.counts, self._requests
        yield _gauges("connections", "Open connections", ("kind", "tier"), counts.connections)
        admission = self._hub.admission
        yield GaugeMetricFamily(
            "runcast_places_held",
            "Connections that this gateway may have without asking, of all environments",
            value=admission.places.held,
        )
        refused = Counter(environment=admission.refused, gateway=counts.refused)
        yield _by_label("connections_refused", "Connections beyond a limit", "limit", refused)
        yield CounterMetricFamily(
            "runcast_place_failures",
            "Times nobody answered how many connections an environment has",
            value=admission.failures,
        )
        yield _gauges(
            "subscriptions", "Open subscriptions", ("kind", "transport"), counts.subscriptions
        )
        lag = {(transport,): each for transport, each in counts.lag.items()}
        yield _histograms(
            "delivery_lag_seconds",
            "From the commit of a run's change until it was written to all who keep up",
            ("transport",),
            lag,
        )
        answered = CounterMetricFamily(
            "runcast_requests", "HTTP requests answered", labels=("method", "route", "status")
        )
        for labels, count in requests.answered.items():
            answered.add_metric(labels, count)
        yield answered
        yield _histograms(
            "request_duration_seconds",
            "Until an HTTP request began to be answered, but for feeds",
            ("method", "route"),
            requests.seconds,
        )
        sent = CounterMetricFamily("runcast_sent_bytes", "Bytes sent", labels=("to",))
        sent.add_metric(("connections",), counts.bytes_written)
        sent.add_metric(("requests",), requests.bytes_written)
        yield sent
        yield _histograms(
            "event_loop_lag_seconds",
            "How late the event loop is for a timer",
            (),
            {(): self._hub.loop_lag},
        )


class _DatabaseCollector(Collector):
    """The connections to Postgres, and what is done on them."""

    def __init__(self, feed: Followed, pool: Pooled) -> None:
        self._feed = feed
        self._pool = pool

    def collect(self) -> Iterator[Metric]:
        yield _histograms(
            "query_duration_seconds",
            "Statements of Postgres",
            ("query",),
            {(name,): each for of in (self._pool, self._feed) for name, each in of.queries.items()},
        )
        figures = self._pool.figures
        yield _gauges(
            "pool_connections",
            "Connections of the pool",
            ("state",),
            {(state,): figures[state] for state in ("busy", "idle")},
        )
        for name, meaning in (
            ("max", "Connections that the pool may have"),
            ("waiting", "Who waits for a connection of the pool"),
        ):
            yield GaugeMetricFamily(f"runcast_pool_{name}", meaning, value=figures[name])


class _RedisCollector(Collector):
    def __init__(self, redis: Stored) -> None:
        self._redis = redis

    def collect(self) -> Iterator[Metric]:
        figures = self._redis.figures
        yield GaugeMetricFamily(
            "runcast_redis_reachable", "1 while Redis answers", value=figures["reachable"]
        )
        for name, meaning, value in (
            ("redis_calls", "Appends, reads and other calls of Redis", figures["calls"]),
            ("redis_round_trips", "What those calls shared", figures["round_trips"]),
            ("redis_failures", "Round trips without an answer", figures["failures"]),
            ("redis_reconnects", "Times the news of streams were lost", figures["reconnects"]),
            ("streams_lost", "Streams that Redis lost", figures["lost"]),
            (
                "stream_news_misses",
                "Changes of streams found without news; should stay 0",
                figures["misses"],
            ),
        ):
            yield CounterMetricFamily(f"runcast_{name}", meaning, value=value)


class _RelayCollector(Collector):
    def __init__(self, relaying: Relaying) -> None:
        self._relaying = relaying

    def collect(self) -> Iterator[Metric]:
        role = GaugeMetricFamily(
            "runcast_relay_role", "What this gateway is to the others", labels=["role"]
        )
        for each in Role:
            role.add_metric([each.value], float(each is self._relaying.role))
        yield role
        windows = Counter(sent=self._relaying.sent, taken=self._relaying.taken)
        yield _by_label("relay_windows", "Windows with changes", "direction", windows)
        yield _by_label(
            "relay_fallbacks",
            "Times this gateway did not rely on the relay any more",
            "reason",
            self._relaying.fallbacks,
        )


class _GatewayCollector(Collector):
    def __init__(
        self,
        hub: Hub,
        feed: Followed,
        rate_limits: Refusing,
        objects: Cleaned,
        schedule: Scheduled,
    ) -> None:
        self._hub = hub
        self._feed = feed
        self._rate_limits = rate_limits
        self._objects = objects
        self._schedule = schedule

    def collect(self) -> Iterator[Metric]:
        counts, feed = self._hub.counts, self._feed.figures
        for name, meaning, value in (
            ("changes_published", "Changes that somebody subscribed to", counts.changes),
            ("deliveries", "Changes handed to subscribers", counts.deliveries),
            (
                "conflations",
                "States that a newer one replaced before their reader could take them",
                counts.conflations,
            ),
            ("chunks_appended", "Chunks of streams stored by this gateway", counts.chunks_appended),
            ("chunk_appended_bytes", "Their size", counts.chunk_bytes_appended),
            ("chunks_delivered", "Chunks handed to readers", counts.chunks_delivered),
            ("catch_ups", "Snapshots and resumes begun", counts.catch_ups),
            ("subscription_reads", "Reads for subscriptions", self._hub.reads.read),
            (
                "subscription_reads_shared",
                "Questions of subscriptions that a read for another one answered",
                self._hub.reads.asked - self._hub.reads.read,
            ),
            ("changefeed_reads", "Reads of the changefeed", feed["reads"]),
            ("changefeed_changes", "Changes that the changefeed found", feed["changes"]),
            ("changefeed_reconnects", "Times the database was lost", feed["reconnects"]),
            (
                "rate_limiter_failures",
                "Times the rate limiter did not answer and this gateway counted alone",
                self._rate_limits.failures,
            ),
            ("objects_deleted", "Objects that no run referred to any more", self._objects.deleted),
            ("object_failures", "Times an object could not be deleted", self._objects.failed),
            ("bell_misses", "Changes found without a bell; should stay 0", self._feed.misses),
            ("schedule_rounds", "Times the scheduler looked what is due", self._schedule.rounds),
            ("schedule_refused", "Due rows that could not be changed", self._schedule.refused),
        ):
            yield CounterMetricFamily(f"runcast_{name}", meaning, value=value)
        yield GaugeMetricFamily(
            "runcast_changefeed_behind_seconds",
            "Time since the changefeed was last known to be complete",
            value=feed["seconds_since_read"],
        )
        yield GaugeMetricFamily(
            "runcast_changefeed_position",
            "Number of the first transaction that the changefeed has not seen",
            value=feed["position"],
        )
        state = GaugeMetricFamily(
            "runcast_changefeed_state", "What the tailer is doing", labels=["state"]
        )
        for each in State:
            state.add_metric([each.value], float(each is self._feed.state))
        yield state
        yield _by_label("schedule_done", "What was done by time", "kind", self._schedule.done)
        yield GaugeMetricFamily(
            "runcast_schedule_late_seconds",
            "How long the oldest item was due in the last round",
            value=self._schedule.late_seconds,
        )
        yield _by_label("resets", "Subscriptions that began anew", "reason", counts.resets)
        yield _by_label("connections_closed", "Ended connections", "reason", counts.closed)

        refused = self._rate_limits.refused
        yield _by_label("rate_limited", "Requests refused by rate limits", "kind", refused)


def _gauges(
    name: str, meaning: str, labels: Sequence[str], values: Mapping[Any, float]
) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"runcast_{name}", meaning, labels=labels)
    for each, value in values.items():
        family.add_metric(each, value)
    return family


def _histograms(
    name: str, meaning: str, labels: Sequence[str], spreads: Mapping[Any, Histogram]
) -> HistogramMetricFamily:
    family = HistogramMetricFamily(f"runcast_{name}", meaning, labels=labels)
    for each, spread in spreads.items():
        buckets = [("+Inf" if isinf(at) else repr(at), count) for at, count in spread.buckets]
        family.add_metric(each, buckets, spread.total)
    return family


def _by_label(name: str, meaning: str, label: str, counts: Counter[str]) -> CounterMetricFamily:
    family = CounterMetricFamily(f"runcast_{name}", meaning, labels=[label])
    for value, count in counts.items():
        family.add_metric([value], count)
    return family
