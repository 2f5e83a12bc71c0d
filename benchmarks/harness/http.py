"""The least of HTTP that a publisher needs: one connection, one request after the other."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from benchmarks.harness.failure import BenchmarkError


class HttpConnection:
    """A kept connection to a server on 127.0.0.1."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._port = port

    async def request(
        self, method: str, path: str, body: bytes = b"", headers: str = ""
    ) -> tuple[int, bytes]:
        """
        Send a request and read its answer: status and body.

        Args:
            headers: More header lines, each with its line end.
        """
        self._writer.write(
            f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{self._port}\r\n{headers}"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        head = await self._reader.readuntil(b"\r\n\r\n")
        status = int(head[9:12])
        fields = dict(
            line.split(": ", 1) for line in head.decode().lower().split("\r\n")[1:] if ": " in line
        )
        if "chunked" in fields.get("transfer-encoding", ""):
            return status, await self._chunks()
        return status, await self._reader.readexactly(int(fields.get("content-length", 0)))

    async def post(self, path: str, body: bytes, headers: str = "") -> None:
        """
        Send a body.

        Raises:
            BenchmarkError: It was not accepted.
        """
        status, answer = await self.request("POST", path, body, headers)
        if status >= 300:
            raise BenchmarkError(f"POST {path} was answered {status}: {answer[:200]!r}")

    async def _chunks(self) -> bytes:
        body = b""
        while size := int((await self._reader.readline()).strip(), 16):
            body += (await self._reader.readexactly(size + 2))[:-2]
        await self._reader.readexactly(2)
        return body


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[HttpConnection]:
    """Connect to a server on 127.0.0.1 for as long as the block."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield HttpConnection(reader, writer, port)
    finally:
        writer.close()
