"""A bare TCP connection for tests that need to see, send or leave out single bytes."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.support.gateway_app import PATIENCE_SECONDS

_REFUSALS = 20
_LOOK_SECONDS = 0.01
_MOST_IN_BUFFERS = 100_000_000


class Wire:
    """One connection; what is not asked for is not read, so the other side runs into a wall."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.received = b""

    async def send(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.sock, data)

    async def get(self, path: str, headers: dict[str, str], *, version: str = "1.1") -> None:
        """Send the head of a request."""
        await self.send(request(path, headers, version=version))

    async def read_some(self, limit: int = 65536) -> bytes:
        """Read what is there, at least a byte; nothing means that the other side has ended."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            data = await asyncio.get_running_loop().sock_recv(self.sock, limit)
        self.received += data
        return data

    async def read_until(self, mark: bytes) -> bytes:
        """Read on until all that came contains the mark, and give all of it."""
        while mark not in self.received:
            assert await self.read_some(), f"ended before {mark!r}: {self.received[-500:]!r}"
        return self.received

    async def read_to_end(self) -> bytes:
        """Read until the other side has ended, in whatever way, and give all that came."""
        try:
            while await self.read_some():
                pass
        except ConnectionError:
            pass
        return self.received

    async def fill(self, data: bytes) -> None:
        """Send this again and again until the other side takes nothing more, even later."""
        sent = refused = 0
        while refused < _REFUSALS:
            try:
                sent += self.sock.send(data)
                refused = 0
            except BlockingIOError:
                refused += 1
                await asyncio.sleep(_LOOK_SECONDS)
            assert sent < _MOST_IN_BUFFERS, "somebody reads"

    def half_close(self) -> None:
        self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Leave without a goodbye: the other side gets a RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


def request(path: str, headers: dict[str, str], *, version: str = "1.1") -> bytes:
    """The head of a GET."""
    lines = [f"GET {path} HTTP/{version}", "host: gateway"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode()


@asynccontextmanager
async def wired(port: int, *, receive_buffer: int | None = None) -> AsyncIterator[Wire]:
    """Connect; a small receive buffer makes a reader that is soon behind."""
    with socket.socket() as sock:
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
        yield Wire(sock)
