"""A reader of a stream for tests: keeps what it got byte for byte, and resumes where it was."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import quote

import httpx
import orjson
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from tests.support.gateway_app import PATIENCE_SECONDS


@dataclass
class StreamFollower:
    """
    One client. Every part must have the offset behind the one before, also over reconnects.

    On a WebSocket parts are JSON values: their texts are compact JSON again, so byte for byte only
    where they were that.

    Attributes:
        begin: Where to begin: ``start``, ``latest`` or an offset.
        bare: Resume with the bare offset instead of the whole id.
    """

    url: str
    run_id: str
    token: str
    key: str = "llm"
    transport: Literal["sse", "socket"] = "sse"
    begin: str | int = "start"
    bare: bool = False
    headers: dict[str, str] = field(default_factory=dict)
    texts: list[str] = field(default_factory=list)
    events: list[str] = field(default_factory=list)
    cursor: str | None = None
    next_offset: int | None = None
    connections: int = 0
    refused: int | None = None
    cut: bool = False
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _following: "asyncio.Task[None] | None" = None

    # -- what a test tells it ---------------------------------------------------------------------

    def start(self) -> None:
        """Follow in the background."""
        assert self._following is None or self._following.done()
        self._following = asyncio.create_task(self.follow())
        self._following.add_done_callback(lambda _: self._changed.set())

    async def drop(self) -> None:
        """Lose the connection, in the middle of whatever comes."""
        assert self._following is not None
        self._following.cancel()
        await asyncio.wait({self._following})

    async def over(self) -> None:
        """Wait until the connection has ended."""
        assert self._following is not None
        async with asyncio.timeout(PATIENCE_SECONDS):
            await self._following

    async def until(self, holds: Callable[["StreamFollower"], bool]) -> None:
        """Wait, bounded, until something is true of what this client has."""
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                while not holds(self):
                    if self._following is not None and self._following.done():
                        self._following.result()
                        raise AssertionError(f"over before it came true: {self.summary()}")
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"did not come true: {self.summary()}") from None

    async def has(self, count: int) -> None:
        await self.until(lambda follower: len(follower.texts) >= count)

    async def caught_up(self) -> None:
        await self.until(lambda follower: "up-to-date" in follower.events)

    @property
    def ended(self) -> str | None:
        """Why the stream is over, or None."""
        last = self.events[-1] if self.events else ""
        return last.removeprefix("end ") if last.startswith("end ") else None

    def summary(self) -> str:
        return (
            f"{self.transport} {self.run_id}/{self.key} connections={self.connections}"
            f" parts={len(self.texts)} next={self.next_offset} events={self.events[-5:]}"
            f" refused={self.refused} cut={self.cut}"
        )

    # -- following --------------------------------------------------------------------------------

    async def follow(self, enough: Callable[["StreamFollower"], bool] = lambda _: False) -> None:
        """Follow on one connection until it ends, or until it is enough."""
        self.connections += 1
        self.refused, self.cut = None, False
        follow = self._follow_sse if self.transport == "sse" else self._follow_socket
        try:
            async for _ in follow():
                self._changed.set()
                if enough(self):
                    return
        except (httpx.TransportError, ConnectionClosed, OSError):
            self.cut = True

    async def follow_for(self, count: int) -> None:
        """Follow on one connection until it ends, or so many more parts are here."""
        enough = len(self.texts) + count
        await self.follow(lambda follower: len(follower.texts) >= enough)

    async def _follow_sse(self) -> AsyncIterator[None]:
        headers = {"authorization": f"Bearer {self.token}", **self.headers}
        if self.cursor is not None:
            headers["last-event-id"] = self._resume()
        elif self.begin == "latest":
            headers["x-trigger-stream-start"] = "latest"
        parameters = {} if self.begin in ("start", "latest") else {"from": str(self.begin)}
        path = f"/realtime/v1/streams/{self.run_id}/{quote(self.key, safe='')}"
        async with (
            httpx.AsyncClient(base_url=self.url, trust_env=False, timeout=None) as client,
            client.stream("GET", path, headers=headers, params=parameters) as response,
        ):
            if response.status_code != 200:
                self.refused = response.status_code
                return
            rest = b""
            async for piece in response.aiter_bytes():
                *blocks, rest = (rest + piece).split(b"\n\n")
                for block in blocks:
                    self._take_event(block)
                    yield
            assert not rest, "torn"

    def _take_event(self, block: bytes) -> None:
        fields: dict[str, str] = {}
        for line in block.decode().split("\n"):
            name, _, value = line.partition(": ")
            assert name not in fields
            fields[name] = value
        if fields.get("event") == "batch":
            self.bare = True  # by the number that stands as `id`
            for record in json.loads(fields["data"])["records"]:
                cursor = f"{record['timestamp']}-{record['seq_num']}"
                text = orjson.dumps(json.loads(record["body"])["data"]).decode()
                self._take_parts(cursor, record["seq_num"], [text])
            assert fields["id"] == self._resume()
        elif fields.get("event") == "connection":
            pass  # comes before all else, and says nothing of the stream
        elif "event" in fields:
            self._take(fields["event"], json.loads(fields["data"]))
        elif "data" in fields:
            self._take_parts(fields["id"], int(fields["id"].partition("-")[2]), [fields["data"]])

    async def _follow_socket(self) -> AsyncIterator[None]:
        command: dict[str, Any] = {
            "type": "subscribe",
            "id": "s",
            "stream": {"run": self.run_id, "key": self.key},
        }
        if self.cursor is not None:
            command["cursor"] = self._resume()
        else:
            command["from"] = self.begin
        async with connect(
            self.url.replace("http", "ws", 1) + "/realtime/v1/ws",
            additional_headers={"authorization": f"Bearer {self.token}"},
            proxy=None,
            max_size=None,
            compression=None,
        ) as socket:
            try:
                await socket.send(json.dumps(command))
                async for text in socket:
                    message = json.loads(text)
                    kind = message["type"]
                    if kind == "parts":
                        parts = [orjson.dumps(part).decode() for part in message["parts"]]
                        self._take_parts(message["cursor"], message["offset"], parts)
                    elif kind not in ("authenticated", "cursor"):
                        self._take(kind, message.get(kind, {}))
                    yield
                    if kind in ("end", "problem"):
                        return
            finally:
                socket.transport.abort()

    def _resume(self) -> str:
        assert self.cursor is not None
        return self.cursor.partition("-")[2] if self.bare else self.cursor

    def _take_parts(self, cursor: str, offset: int, texts: list[str]) -> None:
        assert self.next_offset in (None, offset), f"got {offset} on {self.summary()}"
        assert self.ended is None, f"more after the end on {self.summary()}"
        self.texts += texts
        self.next_offset = offset + len(texts)
        assert cursor.endswith(f"-{self.next_offset - 1}")
        self.cursor = cursor

    def _take(self, name: str, data: dict[str, Any]) -> None:
        assert self.ended is None, f"more after the end on {self.summary()}"
        self.events.append(f"{name} {data.get('reason', data.get('code', ''))}".strip())
        if name == "reset":
            self.texts.clear()
            self.cursor = self.next_offset = None
