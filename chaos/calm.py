"""When what arrives now was sent at the earliest, given the faults that hold things back."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from chaos.clock import now

_KEPT_SECONDS = 300.0


@dataclass
class Span:
    """A time in which something held back what was sent."""

    begun: float
    ended: float | None = None


@dataclass
class Calm:
    """
    The disturbances of the last minutes.

    Args:
        grace: Seconds that anything may take when nothing is wrong.
    """

    grace: float
    spans: list[Span] = field(default_factory=list)

    @contextmanager
    def disturbed(self, begun: float | None = None) -> Iterator[None]:
        """Something holds back what was sent, for as long as the block."""
        at = now()
        self.spans = [each for each in self.spans if (each.ended or at) > at - _KEPT_SECONDS]
        span = Span(at if begun is None else begun)
        self.spans.append(span)
        try:
            yield
        finally:
            span.ended = now()

    def since(self, at: float) -> float:
        """The time after which everything that arrives at ``at`` was sent."""
        horizon = at - self.grace
        for span in reversed(self.spans):
            if span.ended is None or span.ended + self.grace > horizon:
                horizon = min(horizon, span.begun - self.grace)
        return horizon
