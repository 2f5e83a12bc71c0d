"""How long to wait before trying again."""

import random


class Backoff:
    """
    Delays that grow, with jitter so that many clients do not come back at once.

    Args:
        first: The first delay in seconds.
        longest: No delay is longer.
        factor: By which delays grow.
    """

    def __init__(self, first: float, longest: float, factor: float = 2.0) -> None:
        self._first = first
        self._longest = longest
        self._factor = factor
        self.failures = 0

    def next_delay(self) -> float:
        """Count a failure and give the seconds to wait: from half of the delay to all of it."""
        exponent = min(self.failures, 64)
        self.failures += 1
        delay = min(self._first * self._factor**exponent, self._longest)
        return delay * random.uniform(0.5, 1.0)

    def reset(self) -> None:
        """Something worked: begin anew."""
        self.failures = 0
