"""The state of reading a stream: messages of the gateway in, parts and the resume position out."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from runcast.client.errors import InvalidArgument, UnexpectedAnswer
from runcast.client.events import End, Reset, UpToDate
from runcast.client.feed import common_event
from runcast.client.feed_message import PART, FeedMessage

From = Literal["start", "latest"] | int


@dataclass(frozen=True, slots=True)
class Part:
    """
    One chunk of a stream as it is read.

    ``offset`` counts 0, 1, 2 … without a gap. ``value`` is what the writer wrote: the decoded
    JSON, or the text itself where it is none. ``appended_at`` is when the gateway stored it.
    """

    offset: int
    value: Any
    appended_at: datetime


StreamEvent = Part | UpToDate | Reset | End


class StreamFeed:
    """
    How far one reader of a stream is.

    Args:
        start: Where to begin: at the first part, behind the newest, or with the part at an offset.

    Raises:
        InvalidArgument: The start is nothing of that.
    """

    def __init__(self, start: From = "start") -> None:
        if isinstance(start, bool) or not (start in ("start", "latest") or _is_offset(start)):
            raise InvalidArgument('from_ is "start", "latest" or an offset from 0.')
        self._ended = False
        self.delay_seconds: float | None = None
        self.next_offset: int | None = start if isinstance(start, int) else None
        # Of the last part; by it the gateway sees whether the stream is still the same.
        self._last_id: str | None = None
        self._latest = start == "latest"

    def is_over(self) -> bool:
        """Whether nothing more will come."""
        return self._ended

    def request_headers(self) -> dict[str, str]:
        """What asks the gateway to go on from here."""
        if self._last_id is not None:
            return {"last-event-id": self._last_id}
        if self.next_offset:
            return {"last-event-id": str(self.next_offset - 1)}
        latest = self._latest and self.next_offset is None
        return {"x-trigger-stream-start": "latest"} if latest else {}

    def subscribe_fields(self) -> dict[str, Any]:
        """The same on a WebSocket."""
        if self._last_id is not None:
            return {"cursor": self._last_id}
        if self.next_offset is not None:
            return {"from": self.next_offset}
        return {"from": "latest"} if self._latest else {}

    def receive(self, message: FeedMessage) -> StreamEvent | None:
        """
        Take one message; None: nothing new in it.

        Raises:
            TokenExpired: The gateway says so; reconnect with a fresh token.
            ApiError: The stream cannot be read on.
            UnexpectedAnswer: The event cannot be read.
        """
        try:
            return self._receive_part(message) if message.name == PART else self._read(message)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise UnexpectedAnswer("The gateway sent a part that cannot be read.") from error

    def _receive_part(self, message: FeedMessage) -> Part | None:
        moment, _, offset_text = (message.position or "").partition("-")
        offset = int(offset_text)
        if self.next_offset is not None and offset < self.next_offset:
            return None
        self.next_offset = offset + 1
        self._last_id = message.position
        return Part(offset, message.data, datetime.fromtimestamp(int(moment) / 1000, UTC))

    def _read(self, message: FeedMessage) -> StreamEvent | None:
        data = message.data
        if message.name == "reconnect":
            self.delay_seconds = data["delayMs"] / 1000
        told = common_event(message.name, data)
        if isinstance(told, Reset):
            self.next_offset = self._last_id = None
            self._latest = False  # what follows is wanted, also if the connection is lost now
        if isinstance(told, UpToDate) and self.next_offset is None:
            self.next_offset = data.get("offset")
        self._ended = self._ended or isinstance(told, End)
        return told


def _is_offset(value: object) -> bool:
    return isinstance(value, int) and 0 <= value < 2**53
