"""
WebSockets handed over from uvicorn: once one is authenticated, the hub writes to the connection.

The request's task, scope and queue are let go. What is left is the transport, the state of the
WebSocket protocol, and one small object; a task runs only while a command is carried out.

Frames from a server are neither masked nor, here, compressed: the same bytes for every reader. So
they are built once, and a delivery is a bare socket write.
"""

import asyncio
import functools
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias, cast

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import CloseCode, Frame, Opcode
from websockets.protocol import State

from runcast.hub.log_context import request_id
from runcast.web.handover import HandedOver

_SHARED_BYTES = 65536  # what is larger is a snapshot, which is for one reader

Handler: TypeAlias = Callable[[str | bytes], Awaitable[None]]

logger = logging.getLogger(__name__)


class SocketHandover(HandedOver):
    """
    Takes over a WebSocket that is open.

    Messages are handled one after the other; until one is done, no more are read than came with
    it.
    """

    __slots__ = ("_conn", "_fragments", "_handle", "_handling", "_inbox", "_opcode", "_reads")

    def __init__(self, protocol: WebSocketsSansIOProtocol, write_buffer_bytes: int) -> None:
        transport, siblings = protocol.transport, protocol.connections
        self._conn = protocol.conn
        self._fragments = bytearray()  # of a message that comes in several frames
        self._opcode: Opcode | None = None  # of that message
        self._inbox: deque[str | bytes] = deque()
        self._handle: Handler | None = None
        self._handling: asyncio.Task[None] | None = None
        self._reads = not protocol.read_paused
        while not protocol.queue.empty():  # what came together with the token
            event = cast("dict[str, Any]", protocol.queue.get_nowait())
            text = event.get("text")
            self._inbox.append(event["bytes"] if text is None else text)
        writable = protocol.writable.is_set()
        _let_go(protocol)
        super().__init__(transport, siblings, write_buffer_bytes, writable=writable)

    @staticmethod
    def can_take(protocol: object) -> bool:
        """Tell whether the WebSocket on this protocol can be handed over."""
        return (
            isinstance(protocol, WebSocketsSansIOProtocol)
            and protocol.scheme == "ws"
            and protocol.conn.state is State.OPEN
            and not protocol.frames  # half a message
            and not protocol.transport.is_closing()
        )

    def listen(self, handle: Handler) -> None:
        """Have messages handled from now on; what this raises drops the connection."""
        self._handle = handle
        self._begin_to_handle()

    # -- the hub's side -------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        self.write_count += 1
        if self._conn.state is State.OPEN:
            self._transport.write(frames(data))

    def ping(self) -> None:
        """The client's side answers by itself."""
        if self._conn.state is State.OPEN:
            self._conn.send_ping(b"")
            self._flush()

    def finish(self, code: int, reason: str) -> None:
        self._inbox.clear()
        if self._conn.state is State.OPEN:
            self._conn.send_close(code, reason)
            self._flush()
        self._read_on()  # the client's own close is to come

    # -- the transport's side -------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        self._conn.receive_data(data)
        for event in self._conn.events_received():
            if isinstance(event, Frame):
                self._take(event)
        self._flush()

    def eof_received(self) -> bool:
        self._conn.receive_eof()
        self._flush()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._inbox.clear()
        if self._handling is not None:
            self._handling.cancel()
        super().connection_lost(exc)

    # -- messages -------------------------------------------------------------------------------

    def _take(self, frame: Frame) -> None:
        if frame.opcode in (Opcode.TEXT, Opcode.BINARY):
            self._opcode = frame.opcode
        elif frame.opcode is not Opcode.CONT:
            return  # pings, pongs and closes are answered already
        # Bytes, not frames: the protocol bounds how large a message is, not of how many it is made.
        self._fragments += frame.data
        if frame.fin:
            data = bytes(self._fragments)
            self._fragments.clear()
            self._receive(data)

    def _receive(self, data: bytes) -> None:
        if self._conn.state is not State.OPEN:
            return  # nobody listens any more
        try:
            self._inbox.append(data.decode() if self._opcode is Opcode.TEXT else data)
        except UnicodeDecodeError:
            self._conn.fail(CloseCode.INVALID_DATA, "text is UTF-8")
            return
        if self._reads:
            self._reads = False
            self._transport.pause_reading()
        self._begin_to_handle()

    def _begin_to_handle(self) -> None:
        if self._handle is None or self._handling is not None:
            return
        if self._inbox:
            handling = self._handle_all(self._handle)
            self._handling = asyncio.get_running_loop().create_task(handling)
        else:
            self._read_on()

    async def _handle_all(self, handle: Handler) -> None:
        if self.connection is not None:
            request_id.set(self.connection.request_id)
        try:
            while self._inbox:
                await handle(self._inbox.popleft())
        except Exception:
            logger.exception("a command of a WebSocket failed")
            self.abort()
        finally:
            self._handling = None
            self._read_on()

    def _read_on(self) -> None:
        if not self._reads and not self._transport.is_closing():
            self._reads = True
            self._transport.resume_reading()

    def _flush(self) -> None:
        """Write what the protocol answers by itself; nothing after its last word."""
        for data in self._conn.data_to_send():
            if data:
                self._transport.write(data)
            else:
                self._transport.close()


def frames(lines: bytes) -> bytes:
    """Give the text frames of messages, each of which is a line."""
    return _shared_frames(lines) if len(lines) <= _SHARED_BYTES else _frames(lines)


def _frames(lines: bytes) -> bytes:
    return b"".join(
        Frame(Opcode.TEXT, line).serialize(mask=False) for line in lines.split(b"\n") if line
    )


# All readers of one audience are written the same object, one after the other.
_shared_frames = functools.lru_cache(maxsize=4)(_frames)


class _Nothing:
    """In the place of a transport: the end of the request closes it."""

    def close(self) -> None:
        pass


def _let_go(protocol: WebSocketsSansIOProtocol) -> None:
    """Take a connection away from uvicorn's protocol, whose request may end then."""
    protocol.connections.discard(protocol)
    protocol.stop_keepalive()
    protocol.transport = cast("asyncio.Transport", _Nothing())
    protocol.conn = None  # type: ignore[assignment]
