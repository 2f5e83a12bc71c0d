"""A WebSocket client for tests: JSON messages in, JSON messages out, and the close code."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from tests.support.gateway_app import PATIENCE_SECONDS

Message = dict[str, Any]


class SocketClient:
    """One open WebSocket."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection

    async def send(self, kind: str, **fields: Any) -> None:
        await self.connection.send(json.dumps({"type": kind, **fields}))

    async def subscribe(self, name: str, runs: Mapping[str, Any], **more: Any) -> None:
        await self.send("subscribe", id=name, runs=runs, **more)

    async def next(self) -> Message:
        """
        The next message.

        Raises:
            ConnectionClosed: There is none.
        """
        async with asyncio.timeout(PATIENCE_SECONDS):
            message: Message = json.loads(await self.connection.recv())
        return message

    async def expect(self, *kinds: str) -> Message:
        """Take exactly messages of these types, cursors apart, and give the last one."""
        message: Message = {}
        for kind in kinds:
            message = await self.next()
            while message["type"] == "cursor" != kind:
                message = await self.next()
            assert message["type"] == kind, f"expected {kind}, got {message}"
        return message

    async def until(self, kind: str) -> Message:
        """Skip to the next message of this type."""
        while (message := await self.next())["type"] != kind:
            pass
        return message

    async def problem(self) -> Message:
        """Take a message `problem` and give what is in it, with the subscription's id if any."""
        message = await self.expect("problem")
        problem: Message = message["problem"] | {"id": message.get("id")}
        assert problem["message"]
        return problem

    async def closed(self) -> int:
        """Wait for the close of the other side; no message may come before it."""
        try:
            message = await self.next()
        except ConnectionClosed as closed:
            return closed.rcvd.code if closed.rcvd else 1006
        raise AssertionError(f"expected a close, got {message}")


@asynccontextmanager
async def connected(
    url: str,
    headers: Mapping[str, str] | None = None,
    *,
    subprotocols: Sequence[str] = ("runcast.v1",),
    path: str = "/realtime/v1/ws",
) -> AsyncIterator[SocketClient]:
    """Open a socket; without headers nobody has been authenticated yet."""
    async with connect(
        url.replace("http", "ws", 1) + path,
        additional_headers=headers,
        subprotocols=[Subprotocol(name) for name in subprotocols] or None,
        proxy=None,
        max_size=None,
        compression=None,
    ) as connection:
        yield SocketClient(connection)
