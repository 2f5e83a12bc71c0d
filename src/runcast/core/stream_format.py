"""Parts of a stream as Server-Sent Events and as WebSocket messages; docs/protocol.md "Streams"."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import orjson

from runcast.core.chunk import Chunk
from runcast.core.frame import KeepAlive, UpToDate
from runcast.core.sse import SseFormat, chunk as chunked_framing, event_of
from runcast.core.stream_subscription import PartsFrame, StreamFrame

_NOTHING: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class StreamSseFormat:
    """
    How one kind of SSE connection wants a stream.

    Args:
        chunked: Add the chunk framing of HTTP/1.1.
        only_parts: Leave out all named events: official clients would take them for parts.
        batches: Send parts in batches of records (v2), as official clients from 4.1 on read them.
    """

    chunked: bool
    only_parts: bool
    batches: bool = False

    def encode(self, frame: StreamFrame) -> bytes:
        """Events of one frame."""
        if isinstance(frame, PartsFrame):
            if self.batches:
                return _batch_event(frame.chunks)
            return b"".join(map(_part_event, frame.chunks))
        if self.only_parts and not isinstance(frame, KeepAlive):
            return b""
        cursor = None
        if isinstance(frame, UpToDate) and frame.offset:
            cursor = str(frame.offset - 1)  # so that a reader that got no part yet resumes here
        return SseFormat(_NOTHING, False).encode(frame, cursor)

    def pack(self, events: Iterable[bytes]) -> bytes:
        """Events as they are written to the connection, in one piece."""
        joined = b"".join(events)
        return chunked_framing(joined) if self.chunked and joined else joined


@dataclass(frozen=True, slots=True)
class StreamSocketFormat:
    """How one subscription on a WebSocket wants a stream: lines of JSON."""

    subscription_id: str

    def encode(self, frame: StreamFrame) -> bytes:
        """One message, ended by a newline that is not part of it."""
        message: dict[str, object]
        if isinstance(frame, PartsFrame):
            message = {
                "type": "parts",
                "id": self.subscription_id,
                "cursor": event_id(frame.chunks[-1]),
                "offset": frame.chunks[0].index,
                "parts": [_part(chunk.text) for chunk in frame.chunks],
                "times": [chunk.appended_at for chunk in frame.chunks],
            }
        else:
            name, data = event_of(frame)
            message = {"type": name, "id": self.subscription_id}
            if isinstance(frame, UpToDate):
                message |= data
            else:
                message[name] = data
        return orjson.dumps(message) + b"\n"

    def pack(self, events: Iterable[bytes]) -> bytes:
        """Messages as the outlet of a WebSocket takes them."""
        return b"".join(events)


StreamFormat = StreamSseFormat | StreamSocketFormat


def event_id(chunk: Chunk) -> str:
    """The id of a part: when it came, and its offset, so that a client can resume behind it."""
    return f"{chunk.appended_at}-{chunk.index}"


def _part(text: str) -> orjson.Fragment | str:
    """JSON as it was written, half surrogate pairs in escapes included; anything else as text."""
    return orjson.Fragment(text) if _is_json(text) else text


def _is_json(text: str) -> bool:
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        if "\\u" not in text:
            return False
        try:
            json.loads(text, parse_constant=_refuse_constant)
        except (ValueError, RecursionError):
            return False
    return True


def _refuse_constant(name: str) -> object:
    raise ValueError(name)


def _part_event(chunk: Chunk) -> bytes:
    return b"id: %b\ndata: %b\n\n" % (event_id(chunk).encode(), chunk.text.encode())


def _batch_event(chunks: Sequence[Chunk]) -> bytes:
    """Records as wire/trigger-wire.md 3.6 has them: the client resumes behind a ``seq_num``."""
    records = [
        {
            "seq_num": chunk.index,
            "timestamp": chunk.appended_at,
            # JSON in JSON. By its id a client knows a part that it has got before.
            "body": orjson.dumps({"data": _part(chunk.text), "id": event_id(chunk)}).decode(),
            "headers": [],
        }
        for chunk in chunks
    ]
    data = orjson.dumps({"records": records})
    return b"id: %d\nevent: batch\ndata: %b\n\n" % (chunks[-1].index, data)
