"""What a gateway counts, for Prometheus; docs/operations.md explains each."""

from collections import Counter
from collections.abc import Iterator
from typing import Protocol

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from runcast.core.relaying import Relaying, Role
from runcast.core.tailing import State
from runcast.hub.hub import Hub


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
        """Numbers by name: reads, changes, reconnects, seconds_since_read."""
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


def gateway_registry(
    hub: Hub,
    feed: Followed,
    rate_limits: Refusing,
    objects: Cleaned,
    schedule: Scheduled,
    bearer: Rejecting,
    redis: Stored | None = None,
    relaying: Relaying | None = None,
) -> CollectorRegistry:
    """A registry that reads the figures when it is asked; nothing is counted twice."""
    registry = CollectorRegistry()
    registry.register(_GatewayCollector(hub, feed, rate_limits, objects, schedule))
    registry.register(_TokenCollector(hub, bearer))
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
        yield from self._connections()
        counts, feed = self._hub.counts, self._feed.figures
        for name, meaning, value in (
            ("changes_published", "Changes that somebody subscribed to", counts.changes),
            ("deliveries", "Changes handed to subscribers", counts.deliveries),
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

    def _connections(self) -> Iterator[Metric]:
        connections = GaugeMetricFamily(
            "runcast_connections", "Open connections", labels=["kind", "tier"]
        )
        kinds = Counter((each.kind, each.outlet.tier) for each in self._hub.connections)
        for (kind, tier), count in kinds.items():
            connections.add_metric([kind, tier], count)
        yield connections
        yield GaugeMetricFamily(
            "runcast_subscriptions", "Open subscriptions", value=self._hub.subscriber_count
        )


def _by_label(name: str, meaning: str, label: str, counts: Counter[str]) -> CounterMetricFamily:
    family = CounterMetricFamily(f"runcast_{name}", meaning, labels=[label])
    for value, count in counts.items():
        family.add_metric([value], count)
    return family
