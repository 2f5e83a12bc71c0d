"""A bare TCP relay in front of a gateway: a network that a test can lose."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit


class Relay:
    """Passes bytes on; while it is down, connections break and new ones are broken at once."""

    def __init__(self, target: str) -> None:
        address = urlsplit(target)
        self._host, self._port = address.hostname, address.port
        self._open: set[asyncio.StreamWriter] = set()
        self._down = False
        self.url = ""
        self.connections = 0

    @property
    def in_use(self) -> bool:
        return bool(self._open)

    def lose(self) -> None:
        """Lose the network: everything under way is gone."""
        self._down = True
        for writer in list(self._open):
            writer.transport.abort()

    def restore(self) -> None:
        self._down = False

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._down:
            writer.transport.abort()
            return
        self.connections += 1
        there, onward = await asyncio.open_connection(self._host, self._port)
        try:
            await asyncio.wait(
                [
                    asyncio.ensure_future(self._pass(reader, onward)),
                    asyncio.ensure_future(self._pass(there, writer)),
                ]
            )
        finally:
            writer.transport.abort()
            onward.transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            with suppress(OSError):
                while data := await reader.read(65536):
                    writer.write(data)
                    await writer.drain()
        finally:
            self._open.discard(writer)
            writer.close()


@asynccontextmanager
async def relaying(target: str) -> AsyncIterator[Relay]:
    """Relay to this URL for as long as the context lasts."""
    relay = Relay(target)
    server = await asyncio.start_server(relay.serve, "127.0.0.1", 0)
    relay.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield relay
    finally:
        server.close()
        relay.lose()
        await server.wait_closed()
