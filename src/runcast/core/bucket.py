"""
The bucket of permits behind a rate limit, and the share of it that one gateway holds.

Each request spends a permit; permits come back with time, up to the burst. All gateways draw from
one bucket, each several permits at once, and keep what they do not spend for later requests: so
most requests need not ask for it. In any span, requests that pass are at most what the bucket gave
in it and what the gateways held before; and a gateway may refuse while others hold some.

Pure: told the time, in Unix seconds, by whichever clock.
"""

import math
from dataclasses import dataclass

from runcast.core.rate import Rate

_TINY = 1e-6  # of a permit: what sums of fractions may be off by


@dataclass(frozen=True, slots=True)
class Draw:
    """What a draw gave, and what is missing from the bucket since; permits, fractions too."""

    permits: float
    missing: float


@dataclass(frozen=True, slots=True)
class Bucket:
    """What is missing from a full bucket at a time."""

    missing: float = 0.0
    at: float = 0.0

    def refilled(self, rate: Rate, now: float) -> "Bucket":
        """Give the bucket as it is ``now``; a clock that was set back refills nothing."""
        back = max(0.0, now - self.at) * rate.per_second
        return Bucket(max(0.0, self.missing - back), now)

    def draw(self, wanted: float, rate: Rate, now: float) -> Draw:
        """Say what a draw gives: what is wanted, or all that is there."""
        missing = self.refilled(rate, now).missing
        permits = max(0.0, min(wanted, rate.burst - missing))
        return Draw(permits, missing + permits)


@dataclass(frozen=True, slots=True)
class Allowance:
    """
    Whether a request may pass, and what is left after it.

    ``reset_at``: Unix seconds at which ``remaining`` is one more, if nobody spends any.
    """

    allowed: bool
    limit: int
    remaining: int
    reset_at: float

    @classmethod
    def untouched(cls, rate: Rate, now: float) -> "Allowance":
        """Give that of somebody who has spent nothing."""
        return cls(True, rate.burst, rate.burst, now)


class Share:
    """What one gateway holds of a bucket: permits drawn and not spent, the bucket as last seen."""

    def __init__(self, rate: Rate) -> None:
        self.rate = rate
        self._bucket = Bucket()
        self._held = 0.0

    def take(self, now: float) -> Allowance | None:
        """Spend a permit, or refuse. None: neither is sure before a draw."""
        self._bucket = self._bucket.refilled(self.rate, now)
        # Others can only have drawn since, so there is no more than was seen.
        return None if self._held < 1 <= self._left else self._answer(now)

    def receive(self, draw: Draw, now: float) -> Allowance:
        """Add what came when ``rate.share`` permits were asked for, and answer who asked."""
        self._bucket = Bucket(draw.missing, now)
        self._held += draw.permits
        return self._answer(now)

    def draw_alone(self, now: float) -> Allowance:
        """Go on by what was last seen, when the bucket cannot be asked."""
        return self.receive(self._bucket.draw(self.rate.share, self.rate, now), now)

    @property
    def _left(self) -> float:
        return self.rate.burst - self._bucket.missing + self._held

    def _answer(self, now: float) -> Allowance:
        allowed = self._held >= 1
        if allowed:
            self._held -= 1
        # What is held beyond a full bucket does not count.
        left = min(self._left, self.rate.burst - 1)
        remaining = max(0, math.floor(left + _TINY)) if allowed else 0
        reset_at = now + max(0.0, remaining + 1 - left) / self.rate.per_second
        return Allowance(allowed, self.rate.burst, remaining, reset_at)
