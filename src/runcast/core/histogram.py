"""How values spread, counted as Prometheus wants it."""

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate

# From a quick read to what nobody should wait for.
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Histogram:
    """Counts values by the smallest bound that is not below them."""

    __slots__ = ("_bounds", "_counts", "total")

    def __init__(self, bounds: Sequence[float] = SECONDS) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self.total += value

    @property
    def buckets(self) -> list[tuple[float, int]]:
        """Each bound with how many values are not above it; the last is infinite."""
        return list(zip((*self._bounds, float("inf")), accumulate(self._counts), strict=True))
