"""A network that can be broken: a TCP proxy that passes, delays, holds back, cuts and forgets."""

import asyncio
import socket
import struct
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

_RESET = struct.pack("ii", 1, 0)  # linger for no time: what is not sent is thrown away


class Link:
    """Passes bytes between whoever connects to ``port`` and one address."""

    def __init__(self, host: str, port: int) -> None:
        self.target = (host, port)
        self.port = 0
        self.refusing = False
        self.delay = 0.0
        self.going = asyncio.Event()
        self.going.set()
        self.ends: set[_End] = set()

    def cut(self) -> None:
        """Break every connection."""
        for end in list(self.ends):
            end.break_off()

    def forget(self) -> None:
        """Half-open: those who connected keep their connections, but nothing passes any more."""
        for end in list(self.ends):
            if end.near and end.peer is not None:
                peer, end.peer = end.peer, None
                peer.peer = None
                peer.break_off()

    async def hold(self, seconds: float) -> None:
        """Let nothing pass for a while; then all of it goes on."""
        self.going.clear()
        for end in self.ends:
            end.transport.pause_reading()
        await asyncio.sleep(seconds)
        self.going.set()
        for end in self.ends:
            end.resume()

    async def slow_down(self, delay: float, seconds: float) -> None:
        """Let everything take longer for a while."""
        self.delay = delay
        await asyncio.sleep(seconds)
        self.delay = 0.0

    async def lose(self, seconds: float) -> None:
        """Break every connection, and refuse new ones for a while; when cancelled, no longer."""
        self.refusing = True
        self.cut()
        try:
            await asyncio.sleep(seconds)
        finally:
            self.refusing = False


class _End(asyncio.Protocol):
    """One end of a connection through the link; ``near`` is that of whoever connected."""

    def __init__(self, link: Link, peer: "_End | None" = None) -> None:
        self.link = link
        self.peer = peer
        self.near = peer is None
        self.transport: asyncio.Transport
        self.early = bytearray()
        self.connecting: asyncio.Task[None] | None = None
        self.full = False
        self.late: deque[bytes] = deque()
        self.over = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        if self.link.refusing:
            self.break_off()
            return
        self.link.ends.add(self)
        if not self.link.going.is_set():
            self.transport.pause_reading()
        if self.near:
            self.connecting = asyncio.create_task(self._connect())
        elif self.peer is not None:
            self.peer.peer = self
            if self.peer.early:
                self.transport.write(self.peer.early)
                self.peer.early.clear()

    def data_received(self, data: bytes) -> None:
        if self.peer is None:
            if self.near and self.connecting is not None and not self.connecting.done():
                self.early += data
            return
        if not (self.link.delay or self.late):
            self.peer.transport.write(data)
            return
        self.late.append(data)
        asyncio.get_running_loop().call_later(self.link.delay, self._pass_late)

    def _pass_late(self) -> None:
        """One timer for each piece; whichever comes first takes the oldest: none overtakes."""
        if self.late:
            data = self.late.popleft()
            if self.peer is not None:
                self.peer.transport.write(data)
        if self.over and not self.late:
            self._end()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self.link.ends.discard(self)
        if self.connecting is not None:
            self.connecting.cancel()
        # What was sent before an orderly end still arrives; a break is passed on as one.
        self.over = error is None
        if not (self.over and self.late):
            self._end()

    def _end(self) -> None:
        if self.peer is not None:
            peer, self.peer = self.peer, None
            peer.peer = None
            if self.over:
                peer.transport.close()
            else:
                peer.break_off()

    def break_off(self) -> None:
        """End with a reset, as a connection ends whose other side is gone."""
        sock = self.transport.get_extra_info("socket")
        if sock is not None and not self.transport.is_closing():
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.transport.abort()

    def pause_writing(self) -> None:
        self.full = True
        if self.peer is not None:
            self.peer.transport.pause_reading()

    def resume_writing(self) -> None:
        self.full = False
        if self.peer is not None:
            self.peer.resume()

    def resume(self) -> None:
        """Read on, unless the other side takes nothing or the link is held."""
        if self.link.going.is_set() and not (self.peer is not None and self.peer.full):
            self.transport.resume_reading()

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            await self.link.going.wait()
            await loop.create_connection(lambda: _End(self.link, self), *self.link.target)
        except OSError:
            self.break_off()


@asynccontextmanager
async def linked(host: str, port: int) -> AsyncIterator[Link]:
    """A link to this address for as long as the block."""
    link = Link(host, port)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _End(link), "127.0.0.1", 0, backlog=4096)
    link.port = server.sockets[0].getsockname()[1]
    try:
        yield link
    finally:
        server.close()
        link.cut()
