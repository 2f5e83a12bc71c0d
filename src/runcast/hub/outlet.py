"""The writing end of a connection, as the hub sees it."""

from typing import Protocol


class Outlet(Protocol):
    """
    Where a connection's bytes go. Nothing here waits.

    The outlet tells its `Connection` when it can or cannot take more (`outlet_writable`) and
    when it is gone (`outlet_closed`).
    """

    writable: bool
    """False while the reader is behind; what is written nevertheless is kept."""

    write_count: int
    """How often something was written."""

    @property
    def unsent(self) -> int:
        """Bytes that wait for the reader, as far as known; less than before: it has taken some."""
        ...

    tier: str
    """How it writes, for metrics: ``handover``, ``portable``, or ``poll`` through ASGI."""

    def write(self, data: bytes) -> None:
        """Send, or keep until the reader can take it."""
        ...

    def ping(self) -> None:
        """
        Ask for a sign of life, where the connection knows how: who gives none is dropped by TCP.

        Only called where there is nothing to write that would do as well.
        """
        ...

    def finish(self, code: int, reason: str) -> None:
        """
        End cleanly after what was written.

        ``code`` and ``reason`` are the close code of a WebSocket; SSE has no place for them.
        """
        ...

    def abort(self) -> None:
        """Drop the connection now, with what was not sent yet."""
        ...
