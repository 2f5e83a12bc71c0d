"""A strict reader of text/event-stream, by the HTML standard's section 9.2.6."""

import json
from dataclasses import dataclass
from typing import Any

import h11


@dataclass(frozen=True)
class Event:
    """
    One block of the stream.

    ``name`` is None in a block without data, which a client does not dispatch; its ``id`` counts
    nevertheless.
    """

    name: str | None
    data: str
    id: str | None = None
    retry: int | None = None
    comments: tuple[str, ...] = ()

    @property
    def json(self) -> Any:
        return json.loads(self.data)


def parse_events(data: bytes) -> list[Event]:
    """Read whole blocks; whatever the standard would silently drop is an error here."""
    text = data.decode()
    assert "\r" not in text
    assert text.endswith("\n\n") or not text, "cut off"
    return [_event(block.split("\n")) for block in text.split("\n\n")[:-1]]


def _event(lines: list[str]) -> Event:
    fields: dict[str, str] = {}
    comments = []
    for line in lines:
        name, colon, value = line.partition(":")
        assert colon, f"a field without a value: {line!r}"
        value = value.removeprefix(" ")
        if not name:
            comments.append(value)
            continue
        assert name in {"event", "data", "id", "retry"}, f"unknown field {name!r}"
        assert name not in fields, f"{name} twice"
        fields[name] = value
    assert "\0" not in fields.get("id", "")
    return Event(
        fields.get("event", "message") if "data" in fields else None,
        fields.get("data", ""),
        fields.get("id"),
        int(fields["retry"]) if "retry" in fields else None,
        tuple(comments),
    )


def body_of(chunked: bytes) -> bytes:
    """The body that an HTTP/1.1 client reads from chunks; they have to come to their end."""
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="GET", target="/", headers=[("host", "gateway")]))
    client.send(h11.EndOfMessage())
    client.receive_data(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + chunked)
    body = b""
    while not isinstance(event := client.next_event(), h11.EndOfMessage):
        assert event is not h11.NEED_DATA, "cut off"
        if isinstance(event, h11.Data):
            body += event.data
    assert client.trailing_data == (b"", False)
    return body
