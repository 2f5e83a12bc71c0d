"""
Which gateway reads the changefeed, and when a gateway may rely on another one's windows.

              heard a leader                       nobody leads: was let
    ALONE ──────────────────────▶ FOLLOWING     ALONE ─────────────────▶ LEADING
      │ heard one, a gap between    │   ▲                                  │
      ▼                  a gap, too │   │ read once, and met               │ Redis does not answer,
    DOUBTFUL ◀───────────────large──┘   │ the leader there                 │ or another one leads
      │ └───────────────────────────────┘                                  ▼
      │ FOLLOWING or DOUBTFUL: silence, Redis gone, another database     ALONE
      └────────────────────────────────────────────────────────────────▶ ALONE
    Any state: receive_lost ▶ ALONE, and neither follows nor leads until receive_place

A window is a fact about the database: whoever stands where it began, or beyond, and has handed it
over stands where it ends, whoever told it and when. So windows may be lost, doubled, late or out
of order, and may come from a leader that was replaced: each is taken only where it joins what is
known, and a gap is read from the database. That a gateway leads only spares the others' reads.

Pure: windows and time go in, the next step and the next message come out. Times are seconds of any
steady clock. One side is the tailer's, the other that of whoever carries messages.
"""

from collections import Counter
from dataclasses import dataclass
from enum import Enum

from runcast.core.position import Position
from runcast.core.window import Window

_NEVER = float("-inf")


class Role(Enum):
    """What a gateway's tailer is to the others; see the module's diagram."""

    ALONE = "alone"
    FOLLOWING = "following"
    DOUBTFUL = "doubtful"
    LEADING = "leading"


class RelayStep(Enum):
    """What the tailer does next."""

    TAIL = "tail"  # as if there were no relay
    READ = "read"  # one window from the database; then receive_read
    TAKE = "take"  # hand over what `take` gives; then receive_taken
    WAIT = "wait"  # until wake_at, or until something was heard


@dataclass(frozen=True, slots=True)
class RelayPace:
    """
    Intervals in seconds.

    A leader says something every ``beat``, unless its last read is ``stale``. Who hears nothing for
    ``silence`` reads alone, and asks to lead; for so long a leader is left its place. A follower
    reads once every ``look`` by itself, which bounds every mistake and tries its connection.
    """

    beat: float = 0.25
    silence: float = 1.0
    stale: float = 2.0
    look: float = 10.0


class Relaying:
    """The state machine of the module's diagram."""

    __slots__ = (
        "_position",
        "_read_at",
        "_spoke_at",
        "_told",
        "fallbacks",
        "heard_at",
        "pace",
        "role",
        "sent",
        "taken",
        "wake_at",
    )

    def __init__(self, pace: RelayPace | None = None) -> None:
        self.pace = pace or RelayPace()
        self.role = Role.ALONE
        self.wake_at = _NEVER
        self.heard_at = _NEVER  # when a leader of our database was last heard
        self.sent = 0  # windows with changes
        self.taken = 0
        self.fallbacks: Counter[str] = Counter()  # times the relay was left, by reason
        self._position: Position | None = None  # where the tailer stands; None: without database
        self._read_at = _NEVER
        self._spoke_at = _NEVER
        # Following: from our position on, to be taken. Leading: to be sent. Doubtful: what was
        # heard since the doubt.
        self._told: Window | None = None

    # -- the tailer's side ------------------------------------------------------------------------

    def receive_place(self, position: Position, now: float) -> None:
        """The tailer is connected, and begins here."""
        self._be(Role.ALONE)
        self._position = position
        self._read_at = now

    def receive_lost(self) -> None:
        """The database is gone: whoever still has it may lead."""
        if self.role is not Role.ALONE:
            self._fall_back("database")
        self._position = None

    def receive_read(self, window: Window, now: float) -> None:
        """The tailer read this window from the database."""
        self._read_at = now
        self._position = window.after
        told = self._told
        match self.role:
            case Role.LEADING:
                assert told is not None
                self._told = told.joined(window) or window
            case Role.FOLLOWING:
                assert told is not None
                self._told = told.since(window.after)
            case Role.DOUBTFUL:
                self._told = None  # what does not join was heard before this read, or is read again
                if told is None:
                    self._be(Role.FOLLOWING, Window.at(window.after))
                elif window.after.reaches(told.before):
                    rest = told.since(window.after)
                    if rest.whole:
                        self._be(Role.FOLLOWING, rest)

    def next_step(self, now: float) -> RelayStep:
        """What to do at this time; after `RelayStep.WAIT` ask again at ``wake_at`` or when told."""
        if self.role in (Role.FOLLOWING, Role.DOUBTFUL) and self._is_silent(now):
            self._fall_back("silence")
        match self.role:
            case Role.ALONE | Role.LEADING:
                return RelayStep.TAIL
            case Role.DOUBTFUL:
                return RelayStep.READ
        assert self._told is not None
        if self._told.before != self._told.after:
            return RelayStep.TAKE
        look_at = self._read_at + self.pace.look
        if now >= look_at:
            return RelayStep.READ
        self.wake_at = min(look_at, self.heard_at + self.pace.silence)
        return RelayStep.WAIT

    def take(self) -> Window:
        """What is to be handed over now."""
        assert self.role is Role.FOLLOWING
        assert self._told is not None
        window, self._told = self._told, Window.at(self._told.after)
        return window

    def receive_taken(self, window: Window) -> None:
        """The tailer has handed over what it took, and stands at its end."""
        self._position = window.after
        self.taken += window.size > 0
        if self.role is Role.FOLLOWING:
            assert self._told is not None
            self._told = self._told.since(window.after)

    # -- the carrier's side -----------------------------------------------------------------------

    def receive_window(self, window: Window, now: float) -> None:
        """A leader told this window."""
        here = self._position
        if here is None or self.role is Role.LEADING:
            return
        there = window.after
        if (there.database, there.incarnation) != (here.database, here.incarnation):
            self.receive_stranger()
            return
        self.heard_at = now
        told = self._told
        if self.role is Role.DOUBTFUL:
            self._told = (told and told.joined(window)) or window
            return
        joined = (told or Window.at(here)).joined(window)
        if joined is not None and joined.whole:
            self._be(Role.FOLLOWING, joined)
            return
        if self.role is Role.FOLLOWING:
            self.fallbacks["gap" if joined is None else "too_large"] += 1
        self._be(Role.DOUBTFUL, joined or window)

    def receive_stranger(self) -> None:
        """The leader follows another database or server, or cannot be understood."""
        if self.role in (Role.FOLLOWING, Role.DOUBTFUL):
            self._fall_back("stranger")

    def receive_farewell(self) -> None:
        """The leader gave up its place."""
        self.heard_at = _NEVER
        if self.role in (Role.FOLLOWING, Role.DOUBTFUL):
            self._fall_back("farewell")

    def receive_deaf(self) -> None:
        """Nothing can be heard any more."""
        if self.role in (Role.FOLLOWING, Role.DOUBTFUL):
            self._fall_back("redis")

    @property
    def speak_at(self) -> float:
        """When to ask for the next message."""
        match self.role:
            case Role.LEADING:
                assert self._told is not None
                return _NEVER if self._has_news(self._told) else self._spoke_at + self.pace.beat
            case Role.ALONE if self._position is not None:
                return max(self.heard_at + self.pace.silence, self._spoke_at + self.pace.beat)
        return float("inf")

    def next_message(self, now: float) -> Window | None:
        """What to say, as the leader or to become it; then receive_answer."""
        if now < self.speak_at:
            return None
        self._spoke_at = now
        if self.role is Role.ALONE:
            assert self._position is not None
            return Window.at(self._position)
        told = self._told
        assert told is not None
        if not self._has_news(told) and now - self._read_at > self.pace.stale:
            return None
        self._told = Window.at(told.after)
        self.sent += self._has_news(told)
        return told

    def receive_answer(self, leads: bool | None) -> None:
        """
        Whoever decides has passed the message on, because this gateway leads now, or has not.

        None: there was no answer.
        """
        if leads and self._position is not None:
            if self.role is not Role.LEADING:
                self._be(Role.LEADING, Window.at(self._position))
        elif self.role is Role.LEADING:
            self._fall_back("redis" if leads is None else "deposed")

    def _has_news(self, told: Window) -> bool:
        return told.size > 0 or not told.whole

    def _is_silent(self, now: float) -> bool:
        return now - self.heard_at >= self.pace.silence

    def _fall_back(self, reason: str) -> None:
        self.fallbacks[reason] += 1
        self._be(Role.ALONE)

    def _be(self, role: Role, told: Window | None = None) -> None:
        self.role = role
        self._told = told
