"""The writing end of a poll's connection: nothing goes out before the answer is complete."""

import asyncio

from runcast.web.handover import drop


class PollOutlet:
    """
    Tells by an event when the hub is done with a poll.

    Args:
        transport: What the answer is written to in the end, to drop a reader that takes nothing;
            None where the server does not show it.
    """

    __slots__ = ("_transport", "aborted", "answering", "done", "writable", "write_count")

    tier = "poll"

    def __init__(self, transport: asyncio.Transport | None) -> None:
        self.writable = True
        self.write_count = 0
        self.done = asyncio.Event()
        self.answering = False  # the response has begun
        self.aborted = False
        self._transport = transport

    @property
    def unsent(self) -> int:
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    def write(self, data: bytes) -> None:
        """The connection's own messages are not for clients that poll."""

    def ping(self) -> None:
        """A poll is over soon."""

    def finish(self, code: int, reason: str) -> None:
        self.done.set()

    def abort(self) -> None:
        self.aborted = True
        self.done.set()
        if self.answering and self._transport is not None:
            drop(self._transport)
