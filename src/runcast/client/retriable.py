"""Failures that trying again may mend. They never leave the client: their causes do."""

from runcast.client.errors import RuncastError


class Retriable(Exception):
    """Trying again may help; ``cause`` is what to raise otherwise."""

    def __init__(self, cause: RuncastError, wait_seconds: float = 0.0) -> None:
        super().__init__(cause.message)
        self.cause = cause
        self.wait_seconds = wait_seconds


class LaneFull(Exception):
    """A reader was slow: its feed goes on from its position, once all that waits was taken."""

    def __init__(self, *, moved: bool) -> None:
        super().__init__("more waits for a reader than is kept in memory")
        self.moved = moved  # otherwise that would begin again where it began before


class SocketFull(Exception):
    """A WebSocket carries as many subscriptions as its gateway allows; another one may take it."""


class NoWebSocket(Retriable):
    """Something on the way lets no WebSocket through: trying again without one helps."""
