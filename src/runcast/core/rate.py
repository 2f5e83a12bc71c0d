"""How many requests a token or key may make: a burst at once, and how fast it comes back."""

import re
from dataclasses import dataclass

_RATE = re.compile(r"([0-9]{1,7})/([0-9]{1,5}(?:\.[0-9]{1,3})?)(?: +burst +([0-9]{1,7}))?")
_LARGEST_SHARE = 100


@dataclass(frozen=True, slots=True)
class Rate:
    """
    ``refill`` requests in each ``seconds``, and up to ``burst`` at once after a rest.

    Written as ``600/60``, where the burst is the refill, or as ``250/10 burst 750``.
    """

    refill: int
    seconds: float
    burst: int

    @classmethod
    def parse(cls, text: str) -> "Rate":
        """
        Read a rate as it is written.

        Raises:
            ValueError: It is none; the message holds nothing of the text.
        """
        found = _RATE.fullmatch(text.strip())
        if found is None:
            raise ValueError("a rate is written as requests/seconds, such as 600/60")
        refill, seconds = int(found[1]), float(found[2])
        burst = refill if found[3] is None else int(found[3])
        if not (refill and seconds and burst):
            raise ValueError("no part of a rate is zero")
        return cls(refill, seconds, burst)

    def __str__(self) -> str:
        burst = "" if self.burst == self.refill else f" burst {self.burst}"
        return f"{self.refill}/{self.seconds:g}{burst}"

    @property
    def per_second(self) -> float:
        """Requests that come back in a second."""
        return self.refill / self.seconds

    @property
    def share(self) -> int:
        """How many requests a gateway sets aside for itself at once: a fiftieth, at most 100."""
        return max(1, min(self.burst // 50, _LARGEST_SHARE))
