"""What a gateway counts of HTTP requests, by the template of their address."""

from collections import Counter, defaultdict
from dataclasses import dataclass, field

from runcast.core.histogram import Histogram


@dataclass(slots=True)
class RequestCounts:
    """
    What happened since the start; read by the metrics.

    Attributes:
        answered: By method, route, and class of status.
        seconds: Until the answer began, by method and route; feeds are left out, which may wait.
        bytes_written: In answers that are not event streams.
    """

    answered: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    seconds: defaultdict[tuple[str, str], Histogram] = field(
        default_factory=lambda: defaultdict(Histogram)
    )
    bytes_written: int = 0
