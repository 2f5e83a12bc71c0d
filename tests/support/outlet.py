"""An outlet that remembers each write, for tests that look at what the hub sends, and how."""

from tests.support.event_stream import Event, parse_events
from tests.support.stream_hub import HandOutlet


class RecordingOutlet(HandOutlet):
    """
    Keeps single writes beside the whole.

    With ``lingers`` the reader is slow to take the last bytes: the outlet is gone only when the
    test says so (`leave`), or when it is aborted.
    """

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []
        self.lingers = False
        self.fails: Exception | None = None

    def write(self, data: bytes) -> None:
        if self.fails is not None:
            raise self.fails
        super().write(data)
        self.writes.append(data)

    def ping(self) -> None:
        self.pings += 1

    def finish(self, code: int, reason: str) -> None:
        if self.lingers:
            self.ended = f"{code} {reason}".strip()
        else:
            super().finish(code, reason)

    def abort(self) -> None:
        self.ended = "aborted"
        self._gone()

    @property
    def events(self) -> list[Event]:
        """What was written, as Server-Sent Events without chunks."""
        return parse_events(self.written)
