"""One subscription's end in the hub: its state machine, its form, and the connection it feeds."""

import asyncio
from collections.abc import Callable, Sequence

from runcast.core.frame import End, Frame, StateFrame
from runcast.core.position import Position
from runcast.core.subscription import Phase, Subscription
from runcast.hub.form import AudienceKey
from runcast.hub.seams import Link


class Subscriber:
    """
    Drives one `Subscription` with what the hub finds and writes its frames to the connection.

    ``key`` says what it sees and in which form; ``name`` tells it apart on its connection.
    """

    __slots__ = (
        "asked_to_skip",
        "connection",
        "direct",
        "key",
        "known_finished",
        "machine",
        "name",
        "session",
    )

    def __init__(
        self,
        connection: Link,
        name: str,
        key: AudienceKey,
        machine: Subscription,
        *,
        known_finished: bool = False,
        asked_to_skip: frozenset[str] = frozenset(),
    ) -> None:
        self.connection = connection
        self.name = name
        self.key = key
        self.machine = machine
        self.direct = False  # the audience writes past us
        self.known_finished = known_finished  # the one run of this feed was so before the cursor
        self.asked_to_skip = asked_to_skip  # by the client, beside what its token withholds
        self.session: asyncio.Task[None] | None = None
        machine.writable = connection.outlet.writable

    in_feed = True
    shows_pages = True

    @property
    def kind(self) -> str:
        """What it follows."""
        return self.key.view.selector.index_key[1]

    def start(self) -> None:
        """Receive changes from now on, and be brought up to date."""
        hub = self.connection.hub
        hub.watch(self)
        hub.start_session(self)

    def stop(self) -> None:
        """Receive nothing more."""
        self.connection.hub.unwatch(self)
        if self.session is not None:
            self.session.cancel()

    def due(self, now: float) -> float:
        """A feed waits for ever."""
        return float("inf")

    def tick(self, now: float) -> None:
        """Let a quiet feed, which no window wakes, learn how far the changefeed is."""
        self.machine.receive_position(self.connection.hub.position)
        self._settle()

    def renew(self, key: AudienceKey) -> None:
        """
        Show what the new key lets see, from the beginning, and nothing of the old one any more.

        The client is told, and the snapshot is read, with the next `flush`.
        """
        hub = self.connection.hub
        hub.unwatch(self)
        self.direct = False
        self.key = key
        self.known_finished = False
        hub.watch(self)
        self.machine.receive_lost("token_changed", "The new token shows other runs or fields.")

    @property
    def cursor(self) -> str | None:
        """From where a client that got everything so far resumes; None while it has not."""
        hub = self.connection.hub
        return hub.cursor_of(hub.position) if self.machine.direct else None

    def receive_window(
        self, frames: Sequence[StateFrame], before: Position, after: Position
    ) -> None:
        """Take what the changefeed found, and write what can be written."""
        replaced = self.machine.receive_window(frames, before, after)
        self.connection.hub.counts.conflations += replaced
        self.connection.conflations += replaced
        self.flush()

    def receive_lost(self, reason: str, message: str) -> None:
        """The position cannot be continued; begin again with a snapshot."""
        self.machine.receive_lost(reason, message)
        self.flush()

    def set_writable(self, writable: bool) -> None:
        """The connection can take more, or cannot."""
        self.machine.writable = writable
        if writable:
            self.flush()
        else:
            self._settle()

    def close(self, frame: Frame) -> None:
        """Send a last frame, whatever else waits, and leave."""
        self.machine.writable = True
        self.machine.close(frame)
        self.flush()

    def flush(self) -> None:
        """Write what the machine has to send, and do what its phase asks for."""
        connection = self.connection
        if connection.closed:
            return
        hub = connection.hub
        outgoing = self.machine.frames_to_send(hub.position)
        if outgoing:
            form = self.key.form
            data = form.pack(
                form.encode(frame, None if position is None else hub.cursor_of(position))
                for frame, position in outgoing
            )
            connection.write(data, hub.clock.now())
            hub.counts.bytes_written += len(data)
        if self.machine.phase is Phase.CLOSED:
            last = outgoing[-1][0] if outgoing else None
            connection.leave(self, finished=isinstance(last, End))
        elif self.machine.phase is Phase.CATCHING_UP and self.session is None:
            hub.start_session(self)
        self._settle()

    def _settle(self) -> None:
        """Let the audience write past us while the machine has nothing to add."""
        direct = self.machine.direct
        if direct is not self.direct:
            self.direct = direct
            self.connection.hub.write_past(self, self._writes if direct else None)

    @property
    def _writes(self) -> Callable[[bytes], None]:
        return self.connection.outlet.write
