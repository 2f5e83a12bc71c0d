"""A follower of one run that costs little: a bare socket, for tests with very many of them."""

import asyncio
import re

from tests.support.gateway_app import PATIENCE_SECONDS

_REVISION = re.compile(rb'"revision":(\d+)')


class LightFollower:
    """Reads Server-Sent Events line by line; keeps the newest revision and how the feed ended."""

    def __init__(self, port: int, token: str, run_id: str) -> None:
        self._port = port
        self._token = token
        self.run_id = run_id
        self.revision = 0
        self.ended: str | None = None
        self._up_to_date = asyncio.Event()
        self._reading: asyncio.Task[None] | None = None

    async def connect(self) -> None:
        """Connect, and wait until the snapshot is here."""
        self._reading = asyncio.create_task(self._read())
        async with asyncio.timeout(PATIENCE_SECONDS):
            await self._up_to_date.wait()

    async def over(self) -> None:
        """Wait until the gateway has ended the connection."""
        assert self._reading is not None
        async with asyncio.timeout(PATIENCE_SECONDS):
            await self._reading

    async def _read(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            writer.write(
                f"GET /realtime/v1/runs/{self.run_id} HTTP/1.1\r\nHost: gateway\r\n"
                f"Authorization: Bearer {self._token}\r\n\r\n".encode()
            )
            status = await reader.readline()
            assert status.startswith(b"HTTP/1.1 200 "), status
            event = b""
            while line := await reader.readline():
                if line.startswith(b"event: "):
                    event = line.removeprefix(b"event: ").strip()
                elif line.startswith(b"data: "):
                    self._take(event, line)
        finally:
            writer.transport.abort()
            self._up_to_date.set()

    def _take(self, event: bytes, line: bytes) -> None:
        match event:
            case b"run":
                found = _REVISION.search(line)
                assert found is not None
                revision = int(found[1])
                assert revision >= self.revision
                self.revision = revision
            case b"up-to-date":
                self._up_to_date.set()
            case b"end":
                self.ended = "finished" if b"finished" in line else line.decode()
