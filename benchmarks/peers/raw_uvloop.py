"""
The floor for any Python server: a bare protocol on uvloop, the same bytes to every transport.

No framework, no authentication, no HTTP but what it takes. GET subscribes, POST publishes.
"""

import asyncio
from typing import ClassVar

import uvloop

_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-store\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)


class Subscriber(asyncio.Protocol):
    """One connection, of a subscriber or of the publisher."""

    __slots__ = ("_buffer", "_transport")

    everybody: ClassVar[set[asyncio.WriteTransport]] = set()
    sent: ClassVar[int] = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport
        self._buffer = b""

    def connection_lost(self, exc: Exception | None) -> None:
        self.everybody.discard(self._transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, end, body = self._buffer.partition(b"\r\n\r\n")
        if not end:
            return
        if head.startswith(b"GET"):
            self._buffer = b""
            self._transport.write(_HEAD)
            self.everybody.add(self._transport)
            return
        size = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
        if len(body) >= size:
            self._buffer = body[size:]
            self._transport.write(b"HTTP/1.1 204 No Content\r\n\r\n")
            self._publish(body[:size])

    def _publish(self, body: bytes) -> None:
        Subscriber.sent += 1
        event = b"id: %d\nevent: run\ndata: %b\n\n" % (self.sent, body)
        chunk = b"%x\r\n%b\r\n" % (len(event), event)
        for transport in self.everybody:
            transport.write(chunk)


async def main() -> None:
    """Serve until killed."""
    server = await asyncio.get_running_loop().create_server(
        Subscriber, "127.0.0.1", 0, backlog=4096
    )
    print(f"listening {server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
