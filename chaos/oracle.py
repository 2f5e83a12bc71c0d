"""
Judges what subscribers are sent, against what the database says that happened.

At all times: nothing is sent that the token did not allow at that moment, no state goes back, every
state was committed, whoever is told to be up to date is, every `reset` has its cause. At the end:
everybody holds what a SELECT through their own grant gives.
"""

import random
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from operator import itemgetter
from typing import TYPE_CHECKING, Protocol

from chaos.calm import Calm
from chaos.clock import now
from chaos.ledger import Ledger
from chaos.sight import Sight

if TYPE_CHECKING:
    from chaos.feed import Feed

# docs/protocol.md: what a problem may say about a fault of ours; all else is somebody's mistake.
_PASSING = frozenset(
    {
        "backend_unavailable",
        "draining",
        "expired_token",
        "insufficient_scope",
        "not_found",
        "slow_consumer",
        "too_many_connections",
        "gateway_full",
        "stream_lost",
    }
)
_DEPARTURES = 10_000  # more are not told one by one: docs/protocol.md "Reset reasons"
_LATE_SECONDS = 1.0
_MOST = 20  # violations of a kind that are kept; more say the same


class Told(Protocol):
    """Somebody who was told things."""

    @property
    def name(self) -> str: ...
    @property
    def tail(self) -> Iterable[tuple[float, str]]: ...


@dataclass(frozen=True)
class Then:
    """What somebody had been told at the moment that is judged later."""

    name: str
    tail: tuple[tuple[float, str], ...]


@dataclass(frozen=True)
class Violation:
    """A promise that was broken, and to whom; ``tail`` is what that one was told before."""

    kind: str
    seed: str
    subscriber: str
    expected: str
    at: float
    tail: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [f"{self.kind}: {self.subscriber} (seed {self.seed}): {self.expected}"]
        return "\n    ".join([*lines, *self.tail])


@dataclass
class Oracle:
    """One for all subscribers of a seed; without a ledger it judges by what they are sent alone."""

    seed: str
    calm: Calm
    ledger: Ledger | None = None
    violations: list[Violation] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    resets: Counter[str] = field(default_factory=Counter)
    _unproven: dict[tuple[str, int | None, str], "tuple[float, Sight, Feed]"] = field(
        default_factory=dict
    )
    _later: list[tuple[float, Callable[[], None]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.dice = random.Random(f"oracle {self.seed}")

    def object(self, whose: Told, kind: str, expected: str) -> None:
        """Something is wrong."""
        self.counts[f"violation: {kind}"] += 1
        if self.counts[f"violation: {kind}"] <= _MOST:
            tail = tuple(f"{at:.3f} {text[:300]}" for at, text in whose.tail)
            self.violations.append(Violation(kind, self.seed, whose.name, expected, now(), tail))

    # -- what subscribers of runs are sent ---------------------------------------------------------

    def see(self, feed: "Feed", sight: Sight) -> None:
        """A run is delivered."""
        self.counts["runs delivered"] += 1
        at = now()
        self._see_in_time(feed, at)
        if not feed.wish.shows(sight):
            self.object(feed, "not allowed", f"{sight} is not for {feed.wish}")
        if hidden := sight.fields & feed.wish.hidden:
            self.object(feed, "withheld field", f"{sight} came with {sorted(hidden)}")
        newest = feed.newest.get(sight.run_id)
        if newest is not None and sight.precedes(newest):
            self.object(feed, "went back", f"{sight} came after {newest}")
        if self.ledger is None:
            return
        self._see_still_allowed(feed, sight, self.horizon(feed, at))
        if self.ledger.find(sight) is None:
            self._unproven[(sight.run_id, sight.revision, sight.updated)] = (at, sight, feed)

    def see_gone(self, feed: "Feed", run_id: str, reason: str) -> None:
        """A run is said to have left."""
        self.counts["departures delivered"] += 1
        at = now()
        self._see_in_time(feed, at)
        if reason not in ("deleted", "unmatched"):
            self.object(feed, "unknown event", f"gone for the reason {reason}")
        if self.ledger is not None:
            self._put_off(at, feed, lambda then: self._judge_gone(then, feed, run_id))

    def see_caught_up(self, feed: "Feed") -> None:
        """A subscriber is told that it has everything: all that was committed when it asked."""
        self.counts["caught up"] += 1
        at = now()
        self._see_in_time(feed, at)
        if self.ledger is not None:
            held, asked_at = dict(feed.held), feed.asked_at
            self._put_off(at, feed, lambda then: self._judge_caught_up(then, feed, held, asked_at))

    def see_reset(self, feed: Told, reason: str) -> None:
        """A cursor could not be continued: that needs a cause that we know of."""
        self.resets[reason] += 1
        causes = {
            "token_changed": getattr(feed, "reauthenticated", False),
            "too_many_departures": self.ledger is not None and self.ledger.departures > _DEPARTURES,
        }
        if not causes.get(reason):
            self.object(feed, "reset", f"{reason} without a cause")

    def see_refused(self, feed: "Feed", status: int) -> None:
        """A run is said not to be there, or not to be for this subscriber."""
        if self.ledger is not None:
            asked_at = feed.asked_at
            self._put_off(
                now(), feed, lambda then: self._judge_refused(then, feed, status, asked_at)
            )

    def see_stream_reset(self, reader: Told, reason: str, *, lost: bool) -> None:
        """A stream could not be continued: only a store that lost it is a cause."""
        self.resets[f"stream {reason}"] += 1
        if not lost or reason not in ("ahead", "begun_anew", "too_old"):
            self.object(reader, "reset", f"{reason} without a cause")

    def see_closing(self, feed: Told, name: str, code: str) -> None:
        """A gateway ends a feed early."""
        self.counts[f"{name} {code}"] += 1
        if code not in _PASSING:
            self.object(feed, "unexpected problem", f"{name} {code}")

    def horizon(self, feed: "Feed", at: float) -> float:
        """The time after which all that this subscriber reads now was sent."""
        horizon = self.calm.since(at)
        return horizon if feed.prompt else min(horizon, feed.asked_at)

    def _see_in_time(self, feed: "Feed", at: float) -> None:
        if feed.expires_at is not None and self.horizon(feed, at) > feed.expires_at:
            self.object(feed, "expired", f"sent {at - feed.expires_at:.1f} s after its token's end")

    def _see_still_allowed(self, feed: "Feed", sight: Sight, horizon: float) -> None:
        assert self.ledger is not None
        possible = self.ledger.since(sight.run_id, horizon)
        if not possible or possible[0].seen_at > horizon:
            return
        last = possible[-1].sight
        if last.precedes(sight):
            return  # the ledger is behind, and the run shows itself by its own tags
        if not any(not entry.deleted and feed.wish.shows(entry.sight) for entry in possible):
            self.object(feed, "not allowed", f"{sight} was not in view any more: {last}")

    # -- what can be judged later only -------------------------------------------------------------

    def prove(self) -> None:
        """Look again at what could not be judged before the ledger had come so far."""
        ledger = self.ledger
        if ledger is None:
            return
        ripe = bisect_left(self._later, ledger.read_at - _LATE_SECONDS, key=itemgetter(0))
        due, self._later = self._later[:ripe], self._later[ripe:]
        for _, judge in due:
            judge()
        for key, (at, sight, feed) in list(self._unproven.items()):
            if ledger.find(sight) is not None:
                del self._unproven[key]
            elif at < ledger.read_at - _LATE_SECONDS:
                del self._unproven[key]
                known = [str(each.sight) for each in ledger.entries.get(sight.run_id, [])[-3:]]
                self.object(feed, "never committed", f"{sight}, but {known}")

    def _put_off(self, at: float, feed: "Feed", judge: "Callable[[Then], None]") -> None:
        then = Then(feed.name, tuple(feed.tail))
        self._later.append((at, lambda: judge(then)))

    def _judge_gone(self, then: "Then", feed: "Feed", run_id: str) -> None:
        assert self.ledger is not None
        entries = self.ledger.entries.get(run_id)
        # What was there before the ledger may have been in view then.
        if entries is None or entries[0].number <= self.ledger.older:
            return
        if not any(feed.wish.shows(entry.sight) for entry in entries):
            self.object(then, "foreign id", f"{run_id} never was in view of {feed.wish}")

    def _judge_refused(self, then: "Then", feed: "Feed", status: int, asked_at: float) -> None:
        assert self.ledger is not None
        possible = self.ledger.since(feed.wish.run or "", asked_at)
        if not possible or possible[0].seen_at > asked_at:
            return
        if all(not entry.deleted and feed.wish.shows(entry.sight) for entry in possible):
            self.object(then, "refused", f"{status} for {possible[-1].sight}")

    def _judge_caught_up(
        self, then: "Then", feed: "Feed", held: dict[str, Sight], asked_at: float
    ) -> None:
        """What changed after it asked may be there or not."""
        assert self.ledger is not None
        for run_id in self.ledger.entries:
            possible = self.ledger.since(run_id, asked_at)
            first, last, seen = possible[0], possible[-1], held.get(run_id)
            if first.seen_at > asked_at:
                continue
            shown = [not entry.deleted and feed.wish.shows(entry.sight) for entry in possible]
            if all(shown) and (seen is None or seen.precedes(first.sight)):
                self.object(then, "hole", f"up to date without {first.sight}: {seen}")
            elif not any(shown) and seen is not None and feed.tells_departures:
                self.object(then, "left over", f"up to date with {seen}: {last.sight}")

    def differences(self, feed: "Feed", runs: dict[str, Sight]) -> list[str]:
        """How what a subscriber holds differs from what a SELECT through its grant gives."""
        expected = {run_id: run for run_id, run in runs.items() if feed.wish.shows(run)}
        found = [
            f"expected {run}, holds {feed.held.get(run_id)}"
            for run_id, run in expected.items()
            if run_id not in feed.held or not feed.held[run_id].fits(run)
        ]
        if feed.tells_departures:
            left = feed.held.keys() - expected.keys()
            found += [f"holds {feed.held[run_id]}, now {runs.get(run_id)}" for run_id in left]
        return found

    def judge_end(self, feed: "Feed", runs: dict[str, Sight]) -> None:
        """There was time enough: what differs now stays so."""
        differences = self.differences(feed, runs)
        state = "" if feed.up_to_date else " (not up to date)"
        self.object(feed, "differs", f"{feed.wish}{state}: " + "; ".join(differences[:5]))
