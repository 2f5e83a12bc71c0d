"""
WebSockets under uvicorn: the hub writes frames to the connection itself.

Frames from a server are neither masked nor, here, compressed: the same bytes for every reader. So
they are built once, and a delivery is a bare socket write.
"""

import asyncio
import contextlib
import functools
from typing import Any, Protocol

from starlette.types import Message
from websockets.frames import Frame, Opcode

from runcast.hub.connection import Connection
from runcast.web.handover import drop

_SHARED_BYTES = 65536  # what is larger is a snapshot, which is for one reader


class SocketProtocol(Protocol):
    """What we need of the server's side of a WebSocket."""

    transport: asyncio.Transport
    outlet: "FrameOutlet | None"
    """Told when the transport can or cannot take more."""

    @property
    def can_send(self) -> bool:
        """Whether frames may be sent: the handshake is over, and the close has not begun."""
        ...

    @property
    def writable(self) -> asyncio.Event: ...

    async def send(self, message: Any) -> None:
        """The ASGI `send`."""
        ...


class FrameOutlet:
    """Writes the messages of a connection as frames; the server keeps reading and closing it."""

    __slots__ = ("_closing", "_protocol", "active", "connection", "gone", "writable")

    tier = "handover"

    def __init__(self, protocol: SocketProtocol, write_buffer_bytes: int) -> None:
        self.connection: Connection | None = None
        self.writable = protocol.writable.is_set()
        self.active = True
        self.gone = asyncio.Event()  # nothing more will be written: the request may end
        self._protocol = protocol
        self._closing: asyncio.Task[None] | None = None
        protocol.outlet = self
        protocol.transport.set_write_buffer_limits(high=write_buffer_bytes)

    @property
    def unsent(self) -> int:
        return self._protocol.transport.get_write_buffer_size()

    def write(self, data: bytes) -> None:
        self.active = True
        if self._protocol.can_send:
            self._protocol.transport.write(frames(data))

    def finish(self, code: int, reason: str) -> None:
        closing = self._finish({"type": "websocket.close", "code": code, "reason": reason})
        if not self.writable:
            self._closing = asyncio.get_running_loop().create_task(closing)
            return
        # Nothing in it has to wait, so it is over before the request is.
        with contextlib.suppress(StopIteration):
            closing.send(None)

    def abort(self) -> None:
        drop(self._protocol.transport)
        self.gone.set()

    def closed(self) -> None:
        """The client is gone, or the request ends."""
        self.gone.set()
        self._protocol.outlet = None
        if self.connection is not None:
            self.connection.outlet_closed()

    def set_writable(self, writable: bool) -> None:
        """The transport can take more, or cannot."""
        self.writable = writable
        if self.connection is not None:
            self.connection.outlet_writable(writable)

    async def _finish(self, message: Message) -> None:
        try:
            await self._protocol.send(message)
        except Exception:  # whatever a server raises when its client is gone
            self.abort()
        self.gone.set()


def frames(lines: bytes) -> bytes:
    """Give the text frames of messages, each of which is a line."""
    return _shared_frames(lines) if len(lines) <= _SHARED_BYTES else _frames(lines)


def _frames(lines: bytes) -> bytes:
    return b"".join(
        Frame(Opcode.TEXT, line).serialize(mask=False) for line in lines.split(b"\n") if line
    )


# All readers of one audience are written the same object, one after the other.
_shared_frames = functools.lru_cache(maxsize=4)(_frames)
