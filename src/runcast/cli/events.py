"""Reading text/event-stream: bytes as they come in, events and the cursor out."""

from dataclasses import dataclass

from runcast.errors import GatewayError

_MAX_BUFFER_BYTES = 64 * 1024 * 1024


class NotAnEventStream(GatewayError):
    """What came cannot be a feed of a gateway."""

    code = "not_an_event_stream"


@dataclass(frozen=True, slots=True)
class Event:
    """A named event with its data, which a gateway writes as one line of JSON."""

    name: str
    data: str


class EventReader:
    """
    Collects bytes of one response and gives the events that they complete.

    ``cursor`` is the newest ``id`` of an event that came whole, or of a heartbeat; it outlives
    the response, to resume from. Lines end with ``\\n`` or ``\\r\\n``, and with no other
    character: JSON may hold any other.

    Source: HTML Standard, section 9.2.6 "Interpreting an event stream".
    """

    def __init__(self, cursor: str | None = None) -> None:
        self.cursor = cursor
        self._next_cursor = cursor
        self._buffer = b""
        self._name = ""
        self._data: list[str] = []

    def receive(self, chunk: bytes) -> list[Event]:
        """
        Take the next bytes and return the events that end in them.

        Raises:
            NotAnEventStream: A line is longer than any event of a gateway.
        """
        lines = (self._buffer + chunk).replace(b"\r\n", b"\n").split(b"\n")
        self._buffer = lines.pop()
        if len(self._buffer) > _MAX_BUFFER_BYTES:
            raise NotAnEventStream("The answer is not an event stream; is this a gateway's URL?")
        events = (self._receive_line(line.decode("utf-8", "replace")) for line in lines)
        return [event for event in events if event]

    def _receive_line(self, line: str) -> Event | None:
        if not line:
            return self._dispatch()
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "event":
            self._name = value
        elif field == "data":
            self._data.append(value)
        elif field == "id" and "\0" not in value:
            self._next_cursor = value
        return None

    def _dispatch(self) -> Event | None:
        event = Event(self._name or "message", "\n".join(self._data)) if self._data else None
        self._name, self._data = "", []
        self.cursor = self._next_cursor
        return event
