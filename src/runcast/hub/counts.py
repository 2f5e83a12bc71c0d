"""What a hub counts."""

from collections import Counter, defaultdict
from dataclasses import dataclass, field

from runcast.core.histogram import Histogram


@dataclass(slots=True)
class Counts:
    """
    What happened since the start; read by the metrics.

    Attributes:
        connections: Open now, by kind and tier.
        subscriptions: Open now, by what they follow and the kind of their connection.
        lag: Seconds from a change's commit until all who keep up had it, by kind of connection.
        refused: Connections beyond the gateway's own limit.
        conflations: States that a newer one replaced before their reader could take them.
        bytes_written: To connections, before framing.
    """

    windows: int = 0
    changes: int = 0
    deliveries: int = 0
    catch_ups: int = 0
    resets: Counter[str] = field(default_factory=Counter)
    closed: Counter[str] = field(default_factory=Counter)
    connections: Counter[tuple[str, str]] = field(default_factory=Counter)
    subscriptions: Counter[tuple[str, str]] = field(default_factory=Counter)
    lag: defaultdict[str, Histogram] = field(default_factory=lambda: defaultdict(Histogram))
    refused: int = 0
    conflations: int = 0
    bytes_written: int = 0
    chunks_appended: int = 0
    chunk_bytes_appended: int = 0
    chunks_delivered: int = 0
