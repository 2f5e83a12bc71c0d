"""
When to read the database's changes, when to ask for a bell, and when to sleep.

                  reads come back empty            bell is armed
    READING ───────────────────────▶ ARMING ─────────────────────────▶ WATCHING
      ▲  ▲                             ▲                                  │
      │  │ found something             │ the bell had lapsed              │ every transaction
      │  └─────────────────────────────┼──────────────────────────────────┤ that was in flight
      │                                │                                  ▼ at the arming ended
      └── rung, or a re-check found ───┴────────────────────────────── SLEEPING
    Any state: receive_lost ▶ LOST, receive_relieved ▶ RELIEVED, receive_connected ▶ READING

A busy tailer reads at short intervals and is not rung: writers pay for a NOTIFY only when somebody
sleeps, so who wakes up lets go of the bell. Who is rung for one change after a silence reads it and
sleeps on: the bell is still armed. Transactions that were already in flight when the bell was armed
may have looked at it before, so the tailer keeps reading, more slowly, until all that the first
read after the arming saw in flight have ended.

Pure: results and time go in, the next step comes out. Times are seconds of any steady clock.
"""

from dataclasses import dataclass
from enum import Enum

from runcast.core.position import Position


class State(Enum):
    """What the tailer is doing; see the module's diagram."""

    LOST = "lost"
    RELIEVED = "relieved"
    READING = "reading"
    ARMING = "arming"
    WATCHING = "watching"
    SLEEPING = "sleeping"


class Step(Enum):
    """What the shell does next."""

    READ = "read"  # read the window from the position to now; then receive_window
    ARM = "arm"  # set the bell; then receive_armed
    DISARM = "disarm"  # silence the bell, if nobody else needs it; then receive_disarmed
    WAIT = "wait"  # until wake_at, or until the bell rings


@dataclass(frozen=True, slots=True)
class Pace:
    """
    Intervals in seconds.

    The next read comes after ``quick`` where the last one found ``few`` changes at most, after
    ``busy`` where it found more: a read costs about as much for ten changes as for one. After one
    that found nothing that anybody here waits for, it comes twice as late, each time, up to
    ``unwatched``; after ``empty_reads`` that found nothing at all the bell is armed. A change that
    comes ``lone`` after the last one does not begin this, unless it is one of more than
    ``lone_changes`` with no pause as long as ``recheck``: it may be the bell that holds them up.

    ``armed`` is how long a bell stays set; it is set again every ``recheck``, and each time a
    read makes sure that nothing was missed.
    """

    quick: float = 0.001
    busy: float = 0.005
    unwatched: float = 0.02
    few: int = 3
    lone: float = 0.01
    lone_changes: int = 20
    empty_reads: int = 4
    watch: float = 0.02
    watch_longest: float = 0.25
    recheck: float = 1.0
    armed: float = 2.5


class Tailing:
    """The state machine of the module's diagram."""

    __slots__ = (
        "_armed_at",
        "_awaited",
        "_empty",
        "_found_at",
        "_gap",
        "_interval",
        "_is_rung",
        "_is_wanted",
        "_lone_changes",
        "_suspected_at",
        "_was_rung",
        "is_armed",
        "misses",
        "pace",
        "state",
        "wake_at",
    )

    def __init__(self, pace: Pace | None = None) -> None:
        self.pace = pace or Pace()
        self.state = State.LOST
        self.wake_at = float("inf")
        self.is_armed = False  # the bell is to ring for this tailer
        self.misses = 0  # re-checks that found what no bell had told: should stay 0
        self._empty = 0
        self._gap = self.pace.quick
        self._found_at = float("-inf")
        self._lone_changes = 0
        self._is_rung = False  # since the last read began
        self._was_rung = False  # before that
        self._is_wanted = False
        self._interval = 0.0
        self._armed_at = float("-inf")
        self._awaited: set[int] | None = None  # transactions; known with the next read
        self._suspected_at: float | None = None

    def receive_connected(self, now: float) -> None:
        """The database answers: read at once what came meanwhile."""
        self._read_soon(now)

    def receive_lost(self) -> None:
        """The connection is gone; nothing can be done until it is back."""
        self.state = State.LOST
        self.wake_at = float("inf")
        self.is_armed = False  # that went with the connection
        self._suspected_at = None

    def receive_relieved(self) -> None:
        """The bell is disarmed, another gateway reads for this one: rest until it ends."""
        self.receive_lost()
        self.state = State.RELIEVED

    def receive_bell(self, now: float) -> None:
        """A writer rang."""
        self._suspected_at = None  # late, but not missed
        self._is_rung = True
        if self.state in (State.SLEEPING, State.WATCHING):
            self.wake_at = now

    def receive_wanted(self) -> None:
        """Somebody waits for something of what the read under way has found."""
        self._is_wanted = True

    def receive_window(self, found: int, position: Position, now: float) -> None:
        """A read ended at ``position`` and found this many changes."""
        is_wanted, self._is_wanted = self._is_wanted, False
        if self.state in (State.LOST, State.RELIEVED):
            return
        if found and not self._is_lone(now):
            if self.state is State.SLEEPING and not (self._was_rung or self._is_rung):
                self._suspected_at = now
            gap = self.pace.quick if found <= self.pace.few else self.pace.busy
            if self.state is State.READING and not is_wanted:
                gap = max(gap, self._longer_gap())
            self._read_soon(now + gap)
            self._gap = gap
            return
        match self.state:
            case State.READING:
                self._empty += 1
                self._gap = self._longer_gap()
                self.wake_at = now + self._gap
                if self._empty >= self.pace.empty_reads:
                    self.state = State.ARMING
            case State.WATCHING:
                running = set(position.in_flight)
                self._awaited = running if self._awaited is None else self._awaited & running
                if not self._awaited:
                    self.state = State.SLEEPING
                    self._sleep_on(now)
                else:
                    self._interval = min(self._interval * 1.5, self.pace.watch_longest)
                    self._sleep_until(now + self._interval, now)
            case State.SLEEPING:
                self._sleep_on(now)

    def receive_armed(self, *, lapsed: bool, now: float) -> None:
        """The bell is set; ``lapsed``: it had not been set before."""
        if self.state in (State.LOST, State.RELIEVED):
            return
        lapsed |= now - self._armed_at >= self.pace.armed  # and somebody else set it again
        self._armed_at = now
        self.is_armed = True
        if self.state is State.ARMING or lapsed:
            self.state = State.WATCHING
            self._awaited = None
            self._interval = self.pace.watch
            self.wake_at = now

    def receive_disarmed(self) -> None:
        """The bell need not ring for this tailer any more."""
        self.is_armed = False

    def next_step(self, now: float) -> Step:
        """What to do at this time; after `Step.WAIT` ask again at ``wake_at`` or when rung."""
        if self._suspected_at is not None and now - self._suspected_at > self.pace.recheck:
            self.misses += 1  # a re-check found a change, and no bell came for it
            self._suspected_at = None
        match self.state:
            case State.LOST | State.RELIEVED:
                return Step.WAIT
            case State.READING if self.is_armed:
                return Step.DISARM
            case State.ARMING:
                return Step.ARM
            case State.WATCHING | State.SLEEPING:
                if now - self._armed_at >= self.pace.recheck:
                    return Step.ARM
        if now < self.wake_at:
            return Step.WAIT
        self._was_rung, self._is_rung = self._is_rung, False
        return Step.READ

    def _is_lone(self, now: float) -> bool:
        """Tell whether what was found, and rung for, is to be slept through."""
        silence, self._found_at = now - self._found_at, now
        if self.state not in (State.WATCHING, State.SLEEPING) or not self._was_rung:
            return False
        self._lone_changes = 1 if silence >= self.pace.recheck else self._lone_changes + 1
        return silence >= self.pace.lone and self._lone_changes <= self.pace.lone_changes

    def _sleep_on(self, now: float) -> None:
        """Until the next re-check."""
        self._sleep_until(self._armed_at + self.pace.recheck, now)

    def _sleep_until(self, wake_at: float, now: float) -> None:
        """Read again at once if somebody rang while this read was under way."""
        self.wake_at = now if self._is_rung else wake_at

    def _longer_gap(self) -> float:
        return max(self._gap, min(self._gap * 2, self.pace.unwatched))

    def _read_soon(self, at: float) -> None:
        self.state = State.READING
        self._empty = 0
        self._lone_changes = 0
        self._gap = self.pace.quick
        self.wake_at = at
