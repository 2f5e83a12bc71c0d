"""Reading text/event-stream: bytes as they come in, events out."""

from dataclasses import dataclass

from runcast.client.errors import UnexpectedAnswer

_MAX_LINE_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """One event; ``id`` is None where it carried none."""

    name: str
    data: str
    id: str | None


class SseReader:
    """
    Collects the bytes of one response.

    ``last_id`` is that of the last block that came whole, heartbeats included: what to resume
    from once the events before it are dealt with. Lines end with ``\\n`` or ``\\r\\n`` and with
    no other character: JSON may hold any other.

    Source: HTML Standard, section 9.2.6 "Interpreting an event stream".
    """

    def __init__(self, last_id: str | None = None) -> None:
        self.last_id = last_id
        self._pieces: list[bytes] = []
        self._size = 0
        self._name = ""
        self._data: list[str] = []
        self._id: str | None = None

    def receive(self, received: bytes) -> list[ServerEvent]:
        """
        Take the next bytes and give the events that end in them.

        Raises:
            UnexpectedAnswer: A line is longer than any event of a gateway.
        """
        *ended, rest = received.split(b"\n")
        events = []
        for piece in ended:
            self._pieces.append(piece)
            line = b"".join(self._pieces).removesuffix(b"\r")
            self._pieces.clear()
            self._size = 0
            if event := self._receive_line(line):
                events.append(event)
        self._size += len(rest)
        if self._size > _MAX_LINE_BYTES:
            raise UnexpectedAnswer("The answer is no event stream; is the URL that of a gateway?")
        if rest:
            self._pieces.append(rest)
        return events

    def _receive_line(self, line: bytes) -> ServerEvent | None:
        if not line:
            return self._dispatch()
        field, _, value = line.decode("utf-8", "replace").partition(":")
        value = value.removeprefix(" ")
        if field == "event":
            self._name = value
        elif field == "data":
            self._data.append(value)
        elif field == "id" and "\0" not in value:
            self._id = value
        return None

    def _dispatch(self) -> ServerEvent | None:
        if self._id is not None:
            self.last_id = self._id
        event = None
        if self._data:
            event = ServerEvent(self._name or "message", "\n".join(self._data), self._id)
        self._name, self._data, self._id = "", [], None
        return event
