"""A follower of runs that costs little: a bare socket, for tests with very many of them."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Literal
from urllib.parse import urlencode

import orjson
from websockets.frames import Frame, Opcode

from tests.support.gateway_app import PATIENCE_SECONDS

_BACK_OFF_SECONDS = 0.1
_SOCKET_HEAD = (
    "connection: Upgrade\r\nupgrade: websocket\r\n"
    "sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)


class LightFollower:
    """
    Reads a feed of one run, or of the runs with a tag, over Server-Sent Events or a WebSocket.

    When a gateway goes away it comes back after the delay that it was told, with its cursor. Runs
    may not go back, nor may a feed be reset.

    Attributes:
        revisions: The newest of each run.
        history: All that came, in order: runs with their revisions, and cursors.
        told: The delays, in seconds, that gateways have asked for when they went away.
    """

    def __init__(
        self,
        port: int,
        token: str,
        *,
        run_id: str | None = None,
        tag: str | None = None,
        transport: Literal["sse", "socket"] = "sse",
    ) -> None:
        self._port = port
        self._token = token
        self._transport = transport
        self.run_id = run_id
        self.tag = tag
        self.cursor: str | None = None
        self.revisions: dict[str, int] = {}
        self.history: list[tuple[str, int] | str] = []
        self.told: list[float] = []
        self.up_to_date = False
        self.ended: str | None = None
        self._delay = _BACK_OFF_SECONDS
        self._changed = asyncio.Event()
        self._following: asyncio.Task[None] | None = None

    async def connect(self) -> None:
        """Connect, and wait until the snapshot is here; goes on until `stop`, or the feed's end."""
        self._following = asyncio.create_task(self._follow())
        self._following.add_done_callback(lambda _: self._changed.set())
        await self.until(lambda: self.up_to_date or self.ended is not None)

    async def over(self) -> None:
        """Wait until the feed has ended."""
        assert self._following is not None
        async with asyncio.timeout(PATIENCE_SECONDS):
            await self._following

    async def caught_up(self) -> None:
        """Wait until it is connected, and the gateway has told all there is."""
        await self.until(lambda: self.up_to_date)

    async def holds(self, revisions: dict[str, int]) -> None:
        """Wait until it has these."""
        await self.until(lambda: self.revisions == revisions)

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait, bounded, until something is true of this client."""
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                while not holds():
                    assert self._following is not None
                    if self._following.done():
                        self._following.result()
                        raise AssertionError(f"over before it came true: {self.summary()}")
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"did not come true: {self.summary()}") from None

    async def stop(self) -> None:
        """Leave."""
        assert self._following is not None
        self._following.cancel()
        await asyncio.wait({self._following})

    def summary(self) -> str:
        return (
            f"{self._transport} run={self.run_id} tag={self.tag} told={self.told}"
            f" up_to_date={self.up_to_date} ended={self.ended} runs={self.revisions}"
        )

    async def _follow(self) -> None:
        while True:
            self._delay = _BACK_OFF_SECONDS
            with suppress(OSError, asyncio.IncompleteReadError):
                await self._read()
            if self.ended is not None:
                return
            await asyncio.sleep(self._delay)

    async def _read(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        socket = self._transport == "socket"
        try:
            path, more = ("/realtime/v1/ws", _SOCKET_HEAD) if socket else (self._path(), "")
            writer.write(
                f"GET {path} HTTP/1.1\r\nHost: gateway\r\n"
                f"Authorization: Bearer {self._token}\r\n{more}\r\n".encode()
            )
            head = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")
            if head[0].startswith(b"HTTP/1.1 503 "):
                return
            assert head[0][:12] == (b"HTTP/1.1 101" if socket else b"HTTP/1.1 200"), head[0]
            if socket:
                writer.write(_frame(Opcode.TEXT, orjson.dumps(self._command())))
                await self._read_frames(reader, writer)
            else:
                await self._read_events(reader)
        finally:
            writer.transport.abort()
            self.up_to_date = False

    def _path(self) -> str:
        query = {"tags": self.tag, "cursor": self.cursor}
        asked = urlencode({name: value for name, value in query.items() if value})
        return f"/realtime/v1/runs{f'/{self.run_id}' if self.run_id else ''}?{asked}"

    def _command(self) -> dict[str, Any]:
        runs = {"run": self.run_id} if self.run_id else {"tags": [self.tag]}
        more = {} if self.cursor is None else {"cursor": self.cursor}
        return {"type": "subscribe", "id": "s", "runs": runs, **more}

    async def _read_events(self, reader: asyncio.StreamReader) -> None:
        event, data, cursor = b"", b"{}", b""
        while line := await reader.readline():
            # Lines of the chunks are passed over: no event is in two of them.
            if line.startswith(b"event: "):
                event = line[7:-1]
            elif line.startswith(b"data: "):
                data = line[6:]
            elif line.startswith(b"id: "):
                cursor = line[4:-1]
            elif line == b"\n":
                if event:
                    self._take(event.decode(), orjson.loads(data))
                if cursor:
                    self._remember(cursor.decode())
                event, data, cursor = b"", b"{}", b""

    async def _read_frames(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        while True:
            opcode, length = await reader.readexactly(2)
            if length >= 126:
                length = int.from_bytes(await reader.readexactly(2 if length == 126 else 8))
            payload = await reader.readexactly(length)
            match opcode & 0x0F:
                case Opcode.TEXT:
                    self._take_message(orjson.loads(payload))
                case Opcode.PING:
                    writer.write(_frame(Opcode.PONG, payload))
                case Opcode.CLOSE:
                    return

    def _take_message(self, message: dict[str, Any]) -> None:
        kind = message["type"]
        if kind not in ("authenticated", "cursor"):
            self._take(kind, message.get(kind, {}))
        if "cursor" in message:
            self._remember(message["cursor"])

    def _take(self, event: str, data: dict[str, Any]) -> None:
        match event:
            case "run":
                self._take_run(data["id"], data["revision"])
            case "up-to-date":
                self.up_to_date = True
            case "reconnect":
                self._delay = data["delayMs"] / 1000
                self.told.append(self._delay)
            case "end":
                self.ended = data["reason"]
            case "connection":
                pass
            case "problem" if data["code"] == "draining":
                pass
            case _:
                raise AssertionError(f"{event} {data} on {self.summary()}")
        self._changed.set()

    def _take_run(self, run_id: str, revision: int) -> None:
        known = self.revisions.get(run_id, 0)
        assert revision >= known, f"{run_id} went back to {revision} on {self.summary()}"
        self.revisions[run_id] = revision
        self.history.append((run_id, revision))

    def _remember(self, cursor: str) -> None:
        self.cursor = cursor
        self.history.append(cursor)


def _frame(opcode: Opcode, payload: bytes) -> bytes:
    return Frame(opcode, payload).serialize(mask=True)
