"""
One reader's way along a stream.

                 has all there is               more than it can take
    READING ───────────────────────▶ LIVE ──────────────────────────────▶ READING
       │                               │
       └───── the stream is over, or close ──────▶ CLOSED

A stream is a log with contiguous offsets, so a reader is nothing but an offset: chunks at that
offset are sent, all others are either known already or read later. Pure: chunks go in, parts come
out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from runcast.core.chunk import Chunk, StreamState
from runcast.core.frame import End, Frame, Reset, UpToDate

TOO_OLD = "The chunks after this offset are not kept any more; the stream goes on from the oldest."
AHEAD = "The stream does not reach this offset; it is read from its start."
BEGUN_ANEW = "The stream was deleted or lost and began anew; it is read from its start."


class Phase(Enum):
    """Where a reader stands; see the module's diagram."""

    READING = "reading"
    LIVE = "live"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class PartsFrame:
    """Chunks with contiguous offsets; a client that got them resumes behind the last one."""

    chunks: Sequence[Chunk]


StreamFrame = PartsFrame | Frame


class StreamSubscription:
    """
    The state machine of the module's diagram.

    Args:
        offset: Of the first chunk to send; None begins behind the last one there is.
        last_seen: When the chunk before that one was appended, if the reader knows: where another
            one is in its place, the stream is another one.
    """

    __slots__ = (
        "_generation",
        "_last_seen",
        "_outgoing",
        "_told_up_to_date",
        "offset",
        "phase",
        "run_over",
        "writable",
    )

    def __init__(self, *, offset: int | None, last_seen: int | None = None) -> None:
        self.phase = Phase.READING
        self.offset = offset
        self._last_seen = last_seen
        if offset and last_seen is not None:
            self.offset = offset - 1  # read once more, to be compared
        self.writable = True
        self.run_over = False  # the stream ends when its writers are gone
        self._generation = 0  # of the stream that was read
        self._told_up_to_date = False
        self._outgoing: list[StreamFrame] = []

    @property
    def over(self) -> bool:
        """Whether nothing more will come out: it is closed, and the last frame was taken."""
        return self.phase is Phase.CLOSED and not self._outgoing

    @property
    def direct(self) -> bool:
        """Whether live chunks at its offset may be written at once, past this machine."""
        return self.phase is Phase.LIVE and self.writable and not self._outgoing

    def receive_page(self, chunks: Sequence[Chunk], state: StreamState) -> None:
        """Take what was read from the log at the reader's offset, or behind what is lost."""
        if self.phase is not Phase.READING:
            return
        begun_anew, self._generation = self._begun_anew(state), state.generation
        if self.offset is not None and self._last_seen is not None:
            begun_anew = not self._recognizes(chunks)
            self.offset += 1
        if self.offset is None:
            self.offset = state.next_index
            chunks = ()
        elif self.offset < state.first_index:
            self._outgoing.append(Reset("too_old", TOO_OLD))
            self.offset = state.first_index
        elif self.offset > state.next_index:
            self._outgoing.append(Reset("ahead", AHEAD))
            self.offset = state.first_index
            return
        elif begun_anew and self.offset:
            self._outgoing.append(Reset("begun_anew", BEGUN_ANEW))
            self.offset = state.first_index
            return
        self._take(chunks)
        if self.offset >= state.next_index:
            self.phase = Phase.LIVE
            if not self._told_up_to_date:
                self._told_up_to_date = True
                self._outgoing.append(UpToDate(self.offset))
            self.receive_state(state)

    def receive_live(self, chunks: Sequence[Chunk]) -> None:
        """Take chunks that were just appended; those beyond a gap are read from the log."""
        if self.phase is not Phase.LIVE or not chunks or self.offset is None:
            return
        if not self.writable or chunks[0].index > self.offset:
            self.phase = Phase.READING
        else:
            self._take(chunks)

    def receive_state(self, state: StreamState) -> None:
        """The stream as it is: it may be over, have more than was sent, or have begun anew."""
        if self.phase is not Phase.LIVE or self.offset is None:
            return
        if state.next_index != self.offset or self._begun_anew(state):
            self.phase = Phase.READING
            return
        self._generation = self._generation or state.generation
        if state.closed or (self.run_over and not state.has_open_writers):
            self._outgoing.append(End("closed" if state.closed else "finished"))
            self.phase = Phase.CLOSED

    def read_again(self) -> None:
        """Whether the reader may have more is to be seen first."""
        if self.phase is Phase.LIVE:
            self.phase = Phase.READING

    def skip_to(self, offset: int) -> None:
        """The hub wrote live chunks up to there past this machine."""
        self.offset = offset

    def close(self, frame: Frame) -> None:
        """Send a last frame and nothing after it."""
        if self.phase is not Phase.CLOSED:
            self._outgoing.append(frame)
            self.phase = Phase.CLOSED

    def frames_to_send(self) -> list[StreamFrame]:
        """Take out what can be written now."""
        if not self.writable:
            return []
        outgoing, self._outgoing = self._outgoing, []
        return outgoing

    def _recognizes(self, chunks: Sequence[Chunk]) -> bool:
        """Tell whether the chunk that the reader saw last is still the one at its offset."""
        seen, self._last_seen = self._last_seen, None
        # What is not there cannot be compared: that the offset does not fit is seen without it.
        return not chunks or chunks[0].index != self.offset or chunks[0].appended_at == seen

    def _begun_anew(self, state: StreamState) -> bool:
        return 0 != self._generation != state.generation != 0

    def _take(self, chunks: Sequence[Chunk]) -> None:
        fresh = [chunk for chunk in chunks if chunk.index >= (self.offset or 0)]
        if fresh:
            self.offset = fresh[-1].index + 1
            self._outgoing.append(PartsFrame(fresh))
