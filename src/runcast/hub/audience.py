"""Subscribers that ask for the same, may see the same, and want it in the same form."""

from collections.abc import Callable, Sequence

from runcast.core.frame import GoneFrame, RunFrame, StateFrame
from runcast.core.position import Position
from runcast.hub.counts import Counts
from runcast.hub.form import AudienceKey
from runcast.hub.seams import Receiver


class Audience:
    """
    All subscribers with one key: a change is judged and encoded once for all of them.

    Most of them keep up, and their state machines have nothing to add: they are written past, so
    that a delivery touches no more of a connection than its outlet.
    """

    __slots__ = ("_past", "key", "subscribers")

    def __init__(self, key: AudienceKey) -> None:
        self.key = key
        self.subscribers: dict[Receiver, None] = {}  # a set that keeps its order
        self._past: dict[Receiver, Callable[[bytes], None]] = {}

    @property
    def kind(self) -> str:
        """The kind of the connections, if there is one; a form is of one kind."""
        return next(iter(self.subscribers)).connection.kind

    def leave(self, receiver: Receiver) -> None:
        """Deliver nothing more to a subscriber."""
        del self.subscribers[receiver]
        self._past.pop(receiver, None)

    def write_past(self, receiver: Receiver, write: Callable[[bytes], None] | None) -> None:
        """Write to a subscriber without asking it from now on; None: ask it again."""
        if write is None:
            self._past.pop(receiver, None)
        else:
            self._past[receiver] = write

    def deliver(
        self,
        frames: Sequence[StateFrame],
        before: Position,
        after: Position,
        cursor: str,
        counts: Counts,
    ) -> int:
        """Hand the frames of one window to every subscriber; returns how many keep up."""
        ending = self.key.ends_with_run and any(_is_last(frame) for frame in frames)
        kind, keeping_up = self.kind, len(self._past)
        past = [] if ending else list(self._past.values())
        asked: list[Receiver] = []
        if len(past) < len(self.subscribers):
            asked = [each for each in self.subscribers if ending or each not in self._past]
        counts.deliveries += len(self.subscribers)
        if past:
            data = self._encode(frames, cursor)
            for write in past:
                write(data)
            if kind != "poll":
                counts.bytes_written += len(data) * len(past)
        for receiver in asked:
            receiver.receive_window(frames, before, after)
        return keeping_up

    def _encode(self, frames: Sequence[StateFrame], cursor: str) -> bytes:
        form = self.key.form
        events = [form.encode(frame, None) for frame in frames[:-1]]
        events.append(form.encode(frames[-1], cursor))
        return form.pack(events)


def _is_last(frame: StateFrame) -> bool:
    match frame:
        case RunFrame():
            return frame.run.finished
        case GoneFrame():
            return frame.reason == "deleted"
