"""Frames as messages of one subscription on a WebSocket; docs/protocol.md "WebSocket"."""

from collections.abc import Iterable
from dataclasses import dataclass

import orjson

from runcast.core.frame import Frame, KeepAlive, RunFrame, UpToDate
from runcast.core.sse import event_of


@dataclass(frozen=True, slots=True)
class SocketFormat:
    """
    How one subscription on a WebSocket wants its frames.

    ``subscription_id`` is the client's name for it, printable ASCII. Messages are lines of JSON:
    JSON text holds no raw newline, so lines can be joined and taken apart again.
    """

    subscription_id: str
    skip: frozenset[str]

    def encode(self, frame: Frame, cursor: str | None) -> bytes:
        """One message, ended by a newline that is not part of it."""
        match frame:
            case RunFrame():
                head = self._head("run", cursor)
                return orjson.dumps(head)[:-1] + b',"run":' + frame.json(self.skip) + b"}\n"
            case KeepAlive():
                return orjson.dumps({"type": "cursor", "cursor": cursor}) + b"\n"
        name, data = event_of(frame)
        message = self._head(name, cursor)
        if not isinstance(frame, UpToDate):
            message[name] = data
        return orjson.dumps(message) + b"\n"

    def pack(self, events: Iterable[bytes]) -> bytes:
        """Messages as the outlet of a WebSocket takes them."""
        return b"".join(events)

    def _head(self, name: str, cursor: str | None) -> dict[str, object]:
        head: dict[str, object] = {"type": name, "id": self.subscription_id}
        if cursor is not None:
            head["cursor"] = cursor
        return head
