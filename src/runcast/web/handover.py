"""
SSE connections handed over from uvicorn: after the response's head, the hub writes to the socket.

The request's task, scope and parser are let go; what is left of a connection is its transport and
one small protocol object. That makes a delivery as cheap as a bare socket write.
"""

import asyncio
import contextlib
import socket
import struct
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from runcast.core.sse import LAST_CHUNK
from runcast.hub.connection import Connection

EXTENSION = "runcast.connection"


class HandedOver(asyncio.Protocol):
    """The transport's side of a connection that the hub writes to, whatever is spoken on it."""

    __slots__ = ("_siblings", "_transport", "connection", "writable", "write_count")

    tier = "handover"

    def __init__(
        self,
        transport: asyncio.Transport,
        siblings: object,
        write_buffer_bytes: int,
        *,
        writable: bool,
    ) -> None:
        self.connection: Connection | None = None
        self.writable = writable
        self.write_count = 0
        self._transport = transport
        self._siblings = cast("set[Any]", siblings)
        self._siblings.add(self)  # uvicorn's shutdown waits for it
        transport.set_protocol(self)
        transport.set_write_buffer_limits(high=write_buffer_bytes)

    @property
    def unsent(self) -> int:
        return self._transport.get_write_buffer_size()

    def abort(self) -> None:
        drop(self._transport)

    def pause_writing(self) -> None:
        self.writable = False
        if self.connection is not None:
            self.connection.outlet_writable(False)

    def resume_writing(self) -> None:
        self.writable = True
        if self.connection is not None:
            self.connection.outlet_writable(True)

    def connection_lost(self, exc: Exception | None) -> None:
        self._siblings.discard(self)
        if self.connection is not None:
            self.connection.outlet_closed()

    def shutdown(self) -> None:
        """Called by uvicorn, after the hub has drained."""
        self._transport.close()


class HandoverOutlet(HandedOver):
    """Takes over a connection whose response head says ``transfer-encoding: chunked``."""

    __slots__ = ()

    def __init__(self, protocol: HttpToolsProtocol, write_buffer_bytes: int) -> None:
        transport, siblings = protocol.transport, protocol.connections
        writable = not protocol.flow.write_paused
        _let_go(protocol)
        super().__init__(transport, siblings, write_buffer_bytes, writable=writable)

    @staticmethod
    def can_take(protocol: object, scope: Any) -> bool:
        """Tell whether the request on this protocol can be handed over after its response head."""
        return (
            isinstance(protocol, HttpToolsProtocol)
            and scope["http_version"] == "1.1"
            and scope["scheme"] == "http"
            and not protocol.pipeline
            and not protocol.transport.is_closing()
            and not protocol.cycle.more_body
        )

    def write(self, data: bytes) -> None:
        self.write_count += 1
        self._transport.write(data)

    def ping(self) -> None:
        """Event streams have comments for it."""

    def finish(self, code: int, reason: str) -> None:
        self._transport.write(LAST_CHUNK)
        asyncio.get_running_loop().call_soon(self._transport.close)

    def data_received(self, data: bytes) -> None:
        """A request pipelined behind an endless response: nothing will ever answer it."""


def drop(transport: asyncio.Transport) -> None:
    """End a connection now; the kernel forgets at once what it still holds for the reader."""
    sock = transport.get_extra_info("socket")
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


def _let_go(protocol: HttpToolsProtocol) -> None:
    """Take a connection away from uvicorn's protocol, as its own WebSocket upgrade does."""
    cycle = protocol.cycle
    protocol.connections.discard(protocol)
    protocol._unset_keepalive_if_required()
    cycle.disconnected = True  # further sends of the request's task go nowhere
    cycle.message_event.set()
    # What follows breaks the cycles of references, so that the memory goes at once.
    cycle.transport = None  # type: ignore[assignment]
    protocol.cycle = None  # type: ignore[assignment]
    protocol.parser = None  # type: ignore[assignment]
    protocol.flow = None  # type: ignore[assignment]
    protocol.transport = None  # type: ignore[assignment]
