"""A bare TCP relay in front of a gateway: a network that a test can lose."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import TypeVar
from urllib.parse import urlsplit

T = TypeVar("T", bound="Relay")

STRIPPED = b"the gateway's, to a request without its upgrade"


class Relay:
    """Passes bytes on; while it is down, connections break and new ones are broken at once."""

    def __init__(self, target: str) -> None:
        address = urlsplit(target)
        self._host, self._port = address.hostname, address.port
        self._open: set[asyncio.StreamWriter] = set()
        self._down = False
        self.url = ""
        self.connections = 0
        self.refused = 0  # while it was down

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
            self.refused += 1
            writer.transport.abort()
            return
        self.connections += 1
        await self._relay(reader, writer)

    async def _relay(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, begun: bytes = b""
    ) -> None:
        there, onward = await asyncio.open_connection(self._host, self._port)
        onward.write(begun)
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


class UpgradeRelay(Relay):
    """A relay that looks at what it passes on: upgrades to WebSockets meet what it was told."""

    def __init__(self, target: str) -> None:
        super().__init__(target)
        self.upgrades = 0
        self.answer: bytes | None = b""  # empty: the connection is broken; None: nothing comes

    def pass_upgrades(self) -> None:
        """From now on a WebSocket can be had."""
        self._refuses = False

    _refuses = True

    async def _relay(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, begun: bytes = b""
    ) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            writer.close()
            return
        if b"upgrade: websocket" not in head.lower():
            await super()._relay(reader, writer, head)
            return
        self.upgrades += 1
        if not self._refuses:
            await super()._relay(reader, writer, head)
        elif self.answer is None:
            await reader.read()
        elif self.answer == STRIPPED:
            await super()._relay(reader, writer, head.replace(b"Upgrade", b"X"))
        elif self.answer:
            writer.write(self.answer)
            await writer.drain()
        writer.close()


@asynccontextmanager
async def relaying(target: str) -> AsyncIterator[Relay]:
    """Relay to this URL for as long as the context lasts."""
    async with serving(Relay(target)) as relay:
        yield relay


@asynccontextmanager
async def serving(relay: T) -> AsyncIterator[T]:
    """Let a relay take connections for as long as the context lasts."""
    server = await asyncio.start_server(relay.serve, "127.0.0.1", 0)
    relay.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield relay
    finally:
        server.close()
        relay.lose()
        await server.wait_closed()
