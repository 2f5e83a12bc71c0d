"""Frames as Server-Sent Events; docs/protocol.md "Server-Sent Events"."""

from collections.abc import Iterable
from dataclasses import dataclass

import orjson

from runcast.core.frame import (
    Connected,
    End,
    Expired,
    Frame,
    GoneFrame,
    KeepAlive,
    Problem,
    Reconnect,
    Reset,
    RunFrame,
    UpToDate,
)
from runcast.errors import Draining, ExpiredToken

EXPIRED_MESSAGE = "The token has expired; reconnect with a fresh one and the last cursor."
RECONNECT_MESSAGE = "This gateway is going away; reconnect after the delay."


@dataclass(frozen=True, slots=True)
class SseFormat:
    """
    How one kind of SSE connection wants its frames: without these columns, and in which framing.

    ``chunked`` adds the chunk framing of HTTP/1.1 for connections that are written to directly.
    Equal formats get equal bytes, so what is encoded for one is sent to all.
    """

    skip: frozenset[str]
    chunked: bool

    def encode(self, frame: Frame, cursor: str | None) -> bytes:
        """One event; ``cursor`` becomes its ``id:``."""
        head = b"id: " + cursor.encode() + b"\n" if cursor is not None else b""
        match frame:
            case RunFrame():
                return head + b"event: run\ndata: " + frame.json(self.skip) + b"\n\n"
            case KeepAlive():
                return b": keep-alive\n" + head + b"\n"
            case Reconnect():
                head += b"retry: %d\n" % frame.delay_ms
            case Reset():
                head = b"id: \n"  # the cursor is worth nothing any more: forget it
        name, data = event_of(frame)
        return head + b"event: " + name.encode() + b"\ndata: " + orjson.dumps(data) + b"\n\n"

    def pack(self, events: Iterable[bytes]) -> bytes:
        """Events as they are written to the connection, in one piece."""
        joined = b"".join(events)
        return chunk(joined) if self.chunked and joined else joined


def event_of(frame: Frame) -> tuple[str, dict[str, object]]:
    """Name and data of every frame but runs and keep-alives, which have forms of their own."""
    match frame:
        case GoneFrame():
            return "gone", {"id": frame.run_id, "reason": frame.reason}
        case UpToDate():
            return "up-to-date", {} if frame.offset is None else {"offset": frame.offset}
        case Reset():
            return "reset", {"reason": frame.reason, "message": frame.message}
        case End():
            return "end", {"reason": frame.reason}
        case Expired():
            return "expired", {"code": ExpiredToken.code, "message": EXPIRED_MESSAGE}
        case Reconnect():
            return "reconnect", {
                "code": Draining.code,
                "message": RECONNECT_MESSAGE,
                "delayMs": frame.delay_ms,
            }
        case Problem():
            return "problem", {"code": frame.code, "message": frame.message}
        case Connected():
            data: dict[str, object] = {"id": frame.connection_id}
            if frame.expires_at is not None:
                data["expiresAt"] = int(frame.expires_at)
            return "connection", data
        case _:
            raise AssertionError(frame)


def chunk(data: bytes) -> bytes:
    """One chunk of a chunked HTTP/1.1 body; RFC 9112 section 7.1."""
    return b"%x\r\n%b\r\n" % (len(data), data)


LAST_CHUNK = b"0\r\n\r\n"
