"""One request of a client that polls: a subscription that is over once it has something to say."""

import random
from collections.abc import Callable
from operator import itemgetter

from runcast.core.frame import RunFrame
from runcast.core.page import Paging
from runcast.core.position import Position
from runcast.core.subscription import Phase, Subscription
from runcast.hub.form import AudienceKey
from runcast.hub.seams import Link
from runcast.hub.subscriber import Subscriber

# Polls that began together do not all end together.
_JITTER = 0.15
# Reading what there is may take longer than waiting for news, but no proxy waits for a minute.
_READING = 2.2


class Poll(Subscriber):
    """
    Collects what there is to tell, and ends its connection as soon as that is an answer.

    Attributes:
        messages: Encoded by the form, those about the oldest run first: clients show runs that were
            created in one millisecond in the order in which they come.
        position: Up to where the messages tell all; None: they do not.
        paging: Where to go on behind the messages if they do not tell all.
        lost: Why the old position cannot be continued, or None.

    Args:
        waits: Without anything to tell wait for news; else say at once that there is none.
    """

    __slots__ = ("_bytes", "_found", "_until", "_waits", "lost", "paging", "position")

    shows_pages = False

    def __init__(
        self, connection: Link, key: AudienceKey, machine: Subscription, *, waits: bool
    ) -> None:
        super().__init__(connection, "", key, machine)
        self._found: list[tuple[float, bytes]] = []  # when its run was created, and the message
        self.position: Position | None = None
        self.paging: Paging | None = None
        self.lost: str | None = None
        self._waits = waits
        self._bytes = 0
        hold = connection.hub.limits.poll_hold_seconds
        hold *= random.uniform(1 - _JITTER, 1 + _JITTER) if waits else _READING
        self._until = connection.hub.clock.now() + hold

    @property
    def messages(self) -> list[bytes]:
        # Several about one run stay in their order.
        return [message for _, message in sorted(self._found, key=itemgetter(0))]

    def start(self) -> None:
        """Receive changes from now on, and read what is to be read before."""
        self.connection.hub.watch(self)
        self.flush()

    def due(self, now: float) -> float:
        """When it has waited long enough."""
        return self._until

    def tick(self, now: float) -> None:
        """End the waiting; whoever was told everything may go on from here."""
        if now >= self._until:
            if self.machine.direct:
                self.position = self.connection.hub.position
            self._answer()

    def receive_lost(self, reason: str, message: str) -> None:
        """The position cannot be continued: that is an answer as well."""
        self.lost = reason
        self._answer()

    def flush(self) -> None:
        """Take what the machine has to send; what follows a complete answer waits for the next."""
        if self.connection.closed:
            return
        form = self.key.form
        for frame, position in self.machine.frames_to_send(self.connection.hub.position):
            if isinstance(frame, RunFrame):
                message = form.encode(frame, None)
                self._found.append((frame.run.created_at.timestamp(), message))
                self._bytes += len(message)
            if position is not None:
                self.position = position
                if self._found or not self._waits:
                    self._answer()
                    return
        if self.machine.phase is Phase.CATCHING_UP:
            self.paging = self.machine.paging
            if self.paging and self._bytes >= self.connection.hub.limits.poll_answer_bytes:
                self._answer()
            elif self.session is None:
                self.connection.hub.start_session(self)
        self._settle()

    @property
    def _writes(self) -> Callable[[bytes], None]:
        return self._take

    def _take(self, data: bytes) -> None:
        """Take what all in the audience get: that is an answer."""
        self.position = self.connection.hub.position
        if data:
            self._found.append((0.0, data))
            self._answer()

    def _answer(self) -> None:
        if not self.connection.closed:
            self.connection.answered()
