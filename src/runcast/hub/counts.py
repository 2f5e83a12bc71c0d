"""What a hub counts."""

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class Counts:
    """What happened since the start; read by the metrics."""

    windows: int = 0
    changes: int = 0
    deliveries: int = 0
    catch_ups: int = 0
    resets: Counter[str] = field(default_factory=Counter)
    closed: Counter[str] = field(default_factory=Counter)
