"""
How many connections an environment may have over all gateways, and the share that this one holds.

Each connection takes a place. A gateway holds places of an environment for a lease, some more than
it needs while there are plenty, so that most connections need not ask for one. It renews its leases
before they end, and gives back what it does not need; those of a gateway that died end by
themselves. As long as all can ask, no environment has more connections than it may.

Pure: what was asked and answered goes in, with seconds of any steady clock; what to ask comes out.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

_MOST_SPARE = 100
_NEVER = float("-inf")
_SPARE_PART = 8  # of what nobody holds, a gateway holds an eighth in advance


@dataclass(frozen=True, slots=True)
class PlacePace:
    """
    Times in seconds.

    Leases last for ``lease`` and are renewed every ``renew``. An environment that is full, and a
    store that did not answer, is asked again after ``look``. Who asks waits ``patience``, and those
    who leave at about one time give their places back together, after ``settle``.
    """

    lease: float = 30.0
    renew: float = 10.0
    look: float = 1.0
    patience: float = 1.0
    settle: float = 0.25


@dataclass(frozen=True, slots=True)
class Wish:
    """The places that a gateway needs for what is open, and how many it wants to hold."""

    used: int
    wanted: int


@dataclass(frozen=True, slots=True)
class Held:
    """How many places a gateway may fill, and how many nobody holds; less than 0: too many do."""

    places: int
    left: int


def hold(wish: Wish, *, others: int, own: int, limit: int) -> tuple[Held, int]:
    """
    Answer a wish, and say how many places count as held by whoever has it.

    That is never less than it may have filled since it asked, so that no place is given twice.

    Args:
        wish: What a gateway wants.
        others: Places that other gateways hold.
        own: Places that it held so far.
        limit: Of the environment.
    """
    places = max(0, min(wish.wanted, limit - others))
    kept = max(wish.used, places, min(wish.wanted, own))
    return Held(places, limit - others - kept), kept


class _Share:
    """What this gateway holds of one environment."""

    __slots__ = (
        "asked_at",
        "full_until",
        "left",
        "places",
        "renew_at",
        "until",
        "used",
        "waiting",
    )

    def __init__(self, limit: int) -> None:
        self.used = 0
        self.waiting = 0
        self.places = 0
        self.until = self.renew_at = _NEVER  # of the lease
        self.left = limit  # as last heard
        self.full_until = _NEVER
        self.asked_at: float | None = None

    @property
    def needed(self) -> int:
        return self.used + self.waiting

    @property
    def spare(self) -> int:
        return max(0, min(_MOST_SPARE, self.left // _SPARE_PART))

    @property
    def is_large(self) -> bool:
        """Whether it is far more than what is needed."""
        return self.places - self.needed > 2 * self.spare

    @property
    def is_over(self) -> bool:
        return not (self.needed or self.places) and self.asked_at is None


class Places:
    """
    The shares of one gateway.

    Attributes:
        alone: The store does not answer: each gateway counts for itself, up to the limit.
    """

    def __init__(self, limit: int, pace: PlacePace) -> None:
        self.limit = limit
        self.alone = False
        self._pace = pace
        self._shares: dict[str, _Share] = {}

    @property
    def used(self) -> int:
        """Places that are taken here, of all environments."""
        return sum(share.used for share in self._shares.values())

    @property
    def held(self) -> int:
        """Places that this gateway may fill."""
        return sum(share.places for share in self._shares.values())

    def take(self, environment_id: str, now: float) -> bool | None:
        """Take a place, or tell that there is none. None: that is to be asked."""
        share = self._share(environment_id)
        if self.alone:
            allowed: bool | None = share.used < self.limit
        elif now < share.until and share.used < share.places:
            allowed = True
        else:
            allowed = False if now < share.full_until else None
        share.used += allowed is True
        return allowed

    def take_anyway(self, environment_id: str) -> None:
        """Take a place for somebody who is in already."""
        self._share(environment_id).used += 1

    def leave(self, environment_id: str) -> bool:
        """Give a place back; tells whether there is now something to ask, see `wishes`."""
        share = self._shares[environment_id]
        share.used -= 1
        share.full_until = _NEVER  # there is a place now, here or where it is given back to
        return share.is_large and not self.alone

    def wait(self, environment_id: str, count: int) -> None:
        """Note that somebody waits for an answer (1), or no longer (-1)."""
        self._share(environment_id).waiting += count

    def wish(self, environment_id: str, now: float) -> Wish:
        """Say what to ask for one environment that nobody asks for yet."""
        share = self._share(environment_id)
        assert share.asked_at is None, "one question at a time"
        wanted = share.needed + share.spare if share.needed else 0
        share.asked_at = now
        share.renew_at = now + self._pace.renew
        # What is offered back may be gone before the answer is here.
        share.places = min(share.places, wanted)
        return Wish(share.used, wanted)

    def wishes(self, now: float, *, every: bool = False) -> dict[str, Wish]:
        """Say what to ask: leases to be renewed, places to be given back; or ``every`` lease."""
        every = every or self.alone
        due = [
            name
            for name, share in self._shares.items()
            if share.asked_at is None and (every or now >= share.renew_at or share.is_large)
        ]
        return {name: self.wish(name, now) for name in due}

    def receive(self, answers: Mapping[str, tuple[Wish, Held]], now: float) -> None:
        """Take answers, each to its wish."""
        for name, (wish, held) in answers.items():
            share = self._shares[name]
            assert share.asked_at is not None
            share.places, share.left = held.places, held.left
            share.until = share.asked_at + self._pace.lease
            share.asked_at = None
            is_full = held.places < wish.wanted
            share.full_until = now + self._pace.look if is_full else _NEVER
            if share.is_over:
                del self._shares[name]

    def receive_failure(self, names: Iterable[str]) -> None:
        """There is no answer; what was asked may have been done."""
        self.alone = True
        for name in names:
            self._shares[name].asked_at = None

    def _share(self, environment_id: str) -> _Share:
        share = self._shares.get(environment_id)
        if share is None:
            share = self._shares[environment_id] = _Share(self.limit)
        return share
