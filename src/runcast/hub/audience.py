"""Subscribers that ask for the same, may see the same, and want it in the same form."""

from collections.abc import Sequence

from runcast.core.frame import GoneFrame, RunFrame, StateFrame
from runcast.core.position import Position
from runcast.hub.counts import Counts
from runcast.hub.form import AudienceKey
from runcast.hub.seams import Receiver


class Audience:
    """All subscribers with one key: a change is judged and encoded once for all of them."""

    __slots__ = ("key", "subscribers")

    def __init__(self, key: AudienceKey) -> None:
        self.key = key
        self.subscribers: dict[Receiver, None] = {}  # a set that keeps its order

    @property
    def kind(self) -> str:
        """The kind of the connections, if there is one; a form is of one kind."""
        return next(iter(self.subscribers)).connection.kind

    def deliver(
        self,
        frames: Sequence[StateFrame],
        before: Position,
        after: Position,
        cursor: str,
        now: float,
        counts: Counts,
    ) -> int:
        """Hand the frames of one window to every subscriber; returns how many keep up."""
        ending = self.key.ends_with_run and any(_is_last(frame) for frame in frames)
        data: bytes | None = None
        subscribers, kind = list(self.subscribers), self.kind
        behind = 0
        for subscriber in subscribers:
            if ending or not subscriber.direct:
                behind += not subscriber.direct
                subscriber.receive_window(frames, before, after)
                continue
            if data is None:
                data = self._encode(frames, cursor)
            subscriber.write(data, now)
        keeping_up = len(subscribers) - behind
        counts.deliveries += len(subscribers)
        if data is not None and kind != "poll":
            counts.bytes_written += len(data) * keeping_up
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
