"""
One subscription's way from a snapshot, or from a cursor, into the live changes.

                     last page                    too much waits
    CATCHING_UP ───────────────────▶ LIVE ───────────────────────▶ CATCHING_UP
      │  ▲ │                          │                          (from where it stood)
      │  └─┘ receive_lost: reset,     │
      │      then a snapshot          │
      └──────────── close, or the end of the feed ───────────────▶ CLOSED

Pure: pages and changes go in, frames come out, nothing waits. Whoever drives it reads what
`next_read` asks for, passes on the changefeed's windows from the moment the subscription exists
(subscribe first, then snapshot), and writes what `frames_to_send` returns.

Why it misses nothing and never steps back: a page read at database snapshot Q holds every change
that Q sees; changes that came meanwhile are held and let through only if Q did not see them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from runcast.core.frame import End, Frame, GoneFrame, Reset, RunFrame, StateFrame, UpToDate
from runcast.core.limits import Limits
from runcast.core.page import PageKey, Paging
from runcast.core.position import Position


class Phase(Enum):
    """Where a subscription stands; see the module's diagram."""

    CATCHING_UP = "catching_up"
    LIVE = "live"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class Read:
    """
    A page to read next: of a snapshot (``since`` None), or of the changes since a position.

    ``attempt`` counts the beginnings, so that a page of an earlier one is not taken for it.
    """

    since: Position | None
    after: PageKey | None
    attempt: int


_DEFAULTS = Limits()
Outgoing = tuple[Frame, Position | None]


class Subscription:
    """
    The state machine of the module's diagram.

    Args:
        since: Position to resume from; None begins with a snapshot.
        ends_with_run: The feed shows one run and is over when that run is finished or deleted.
        limits: How many runs, and bytes of them, may wait for a slow reader before the
            subscription forgets them and reads them again later; bounds its memory.
        paging: Go on behind the last page of another subscription, in place of ``since``.
    """

    __slots__ = (
        "_after",
        "_attempt",
        "_backlog",
        "_first",
        "_floor",
        "_limits",
        "_outgoing",
        "_overflowed",
        "_recent",
        "_sent",
        "_since",
        "ends_with_run",
        "phase",
        "writable",
    )

    def __init__(
        self,
        *,
        since: Position | None,
        ends_with_run: bool = False,
        limits: Limits = _DEFAULTS,
        paging: Paging | None = None,
    ) -> None:
        self.phase = Phase.CATCHING_UP
        self.writable = True
        self.ends_with_run = ends_with_run
        self._limits = limits
        self._since = paging.since if paging else since
        self._after: PageKey | None = paging.after if paging else None
        self._attempt = 0
        # Position of the first page of this catch-up.
        self._first: Position | None = paging.first if paging else None
        self._floor: Position | None = None  # position of the last one, until the feed covers it
        self._recent: dict[str, int] | None = None  # page rows that the first page did not see
        self._backlog: dict[str, StateFrame] | None = None  # newest state per run, oldest first
        self._overflowed = False
        self._sent: Position | None = since  # all up to here was handed to the writer
        self._outgoing: list[Outgoing] = []

    @property
    def direct(self) -> bool:
        """Whether a window's frames may be written at once, past this machine."""
        return (
            self.phase is Phase.LIVE
            and self.writable
            and self._floor is None
            and not self._backlog
            and not self._outgoing
        )

    @property
    def paging(self) -> Paging | None:
        """Between two pages: where another subscription can go on."""
        if self._first is None or self._after is None:
            return None
        return Paging(self._since, self._first, self._after)

    def next_read(self) -> Read | None:
        """The page to read now; None unless catching up."""
        if self.phase is not Phase.CATCHING_UP:
            return None
        return Read(self._since, self._after, self._attempt)

    def receive_page(
        self, frames: Sequence[StateFrame], position: Position, following: PageKey | None
    ) -> None:
        """Take the page that `next_read` asked for, as seen through the view."""
        if self.phase is not Phase.CATCHING_UP:
            return
        if self._first is None:
            self._first = position
        elif position.incarnation != self._first.incarnation:
            self._overflowed = True
        for frame in frames:
            if not self._first.sees(frame.changed_in):
                self._recent = self._recent or {}
                self._recent[frame.run_id] = frame.revision
            self._outgoing.append((frame, None))
        self._after = following
        if following is not None:
            return
        if self._overflowed:
            self._restart(self._first)
            return
        self.phase = Phase.LIVE
        self._floor = position
        self._sent = self._first
        held = self._backlog or {}
        self._backlog = {run_id: frame for run_id, frame in held.items() if self._is_new(frame)}
        self._outgoing.append((UpToDate(), self._first))
        if self.ends_with_run and not self._backlog:
            self._end_after([frame for frame, _ in self._outgoing])

    def receive_lost(self, reason: str, message: str) -> None:
        """The position cannot be continued: say so, and begin again with a snapshot."""
        if self.phase is Phase.CLOSED:
            return
        # What waits for a slow reader is not worth sending any more: the client forgets it at once.
        self._outgoing = [(Reset(reason, message), None)]
        self._sent = None
        self._restart(None)

    def receive_window(
        self, frames: Sequence[StateFrame], before: Position, after: Position
    ) -> int:
        """
        Take what the changefeed found for this subscription between two positions.

        Returns how many states that waited for the reader were replaced by newer ones.
        """
        if self.phase is Phase.CLOSED:
            return 0
        if self.phase is Phase.LIVE:
            if not self._backlog:
                self._sent = before
            if self._floor is not None and after.incarnation != self._floor.incarnation:
                self._floor = self._first = self._recent = None
            frames = [frame for frame in frames if self._is_new(frame)]
            if self._floor is not None and after.covers(self._floor):
                self._floor = self._first = self._recent = None
        if not frames or self._overflowed:
            return 0
        if self._backlog is None:
            self._backlog = {}
        waiting = len(self._backlog)
        for frame in frames:
            self._backlog.pop(frame.run_id, None)  # the newest state goes to the end
            self._backlog[frame.run_id] = frame
        replaced = waiting + len(frames) - len(self._backlog)
        if self._is_too_much(self._backlog):
            self._backlog = None
            if self.phase is Phase.LIVE:
                self._restart(self._sent)
            else:
                self._overflowed = True
        return replaced

    def receive_position(self, feed_position: Position) -> None:
        """
        The changefeed stands here: all its windows up to there were received.

        Once it has passed the last page, nothing that the pages contained can come any more.
        """
        floor = self._floor
        if floor is not None and (
            feed_position.incarnation != floor.incarnation or feed_position.covers(floor)
        ):
            self._floor = self._first = self._recent = None

    def receive_finished(self) -> None:
        """The one run of this feed was finished before the cursor: nothing can come any more."""
        if self.phase is Phase.LIVE and self.ends_with_run:
            self._outgoing.append((End("finished"), None))
            self._close()

    def close(self, frame: Frame) -> None:
        """Send a last frame and nothing after it."""
        if self.phase is Phase.CLOSED:
            return
        self._outgoing.append((frame, None))
        self._close()

    def frames_to_send(self, feed_position: Position) -> list[Outgoing]:
        """
        Take out what can be written now, each frame with the position it lets a client resume from.

        ``feed_position`` is where the changefeed stands: all its windows up to there were received.
        """
        self.receive_position(feed_position)
        if not self.writable:
            return []
        outgoing, self._outgoing = self._outgoing, []
        if self.phase is Phase.LIVE and self._backlog:
            frames = list(self._backlog.values())
            self._backlog = None
            outgoing.extend((frame, None) for frame in frames)
            outgoing[-1] = (outgoing[-1][0], feed_position)
            self._sent = feed_position
            if self.ends_with_run:
                self._end_after(frames)
                outgoing.extend(self._outgoing)
                self._outgoing = []
        return outgoing

    def _is_new(self, frame: StateFrame) -> bool:
        """Tell whether the pages of the last catch-up did not contain this state already."""
        if self._first is not None and self._first.sees(frame.changed_in):
            return False
        return self._recent is None or self._recent.get(frame.run_id, -1) < frame.revision

    def _is_too_much(self, backlog: dict[str, StateFrame]) -> bool:
        if len(backlog) > self._limits.max_backlog_runs:
            return True
        size = sum(frame.run.size for frame in backlog.values() if isinstance(frame, RunFrame))
        # One run alone may always wait: it would be read again at that size.
        return size > self._limits.max_backlog_bytes and len(backlog) > 1

    def _restart(self, since: Position | None) -> None:
        self.phase = Phase.CATCHING_UP
        self._since = since
        self._attempt += 1
        self._after = self._first = self._floor = self._recent = self._backlog = None
        self._overflowed = False

    def _end_after(self, frames: Sequence[Frame]) -> None:
        """End the feed if the newest state among the frames is the run's last."""
        match next((frame for frame in reversed(frames) if isinstance(frame, StateFrame)), None):
            case RunFrame(run) if run.finished:
                self._outgoing.append((End("finished"), None))
                self._close()
            case GoneFrame(reason="deleted"):
                self._outgoing.append((End("deleted"), None))
                self._close()

    def _close(self) -> None:
        self.phase = Phase.CLOSED
        self._backlog = self._recent = self._first = self._floor = None
