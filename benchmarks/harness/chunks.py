"""Chunks like those of a language model's answer, and a connection that streams them in."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from benchmarks.harness.failure import BenchmarkError

_TOKEN = (
    '{"choices":[{"index":0,"delta":{"content":" token"},"finish_reason":null}],'
    '"at":"~%020d~","x":"........"}'
)


def chunk(stamp: int = 0) -> bytes:
    """About 120 bytes of JSON with a stamp, without a line end."""
    return (_TOKEN % stamp).encode()


class Ingest:
    """One long POST whose body is written piece by piece."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    def write(self, lines: bytes) -> None:
        """Send whole lines, without waiting."""
        self._writer.write(b"%x\r\n%b\r\n" % (len(lines), lines))

    async def drained(self) -> None:
        """Wait while the server takes no more."""
        await self._writer.drain()

    async def finish(self) -> None:
        """
        End the body and wait for the answer: all of it is durable then.

        Raises:
            BenchmarkError: It was not accepted.
        """
        self._writer.write(b"0\r\n\r\n")
        head = await self._reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise BenchmarkError(f"A stream was refused: {head[:100]!r}")


@asynccontextmanager
async def ingesting(port: int, path: str, headers: str) -> AsyncIterator[Ingest]:
    """Begin to write a stream of the gateway."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(
            f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{headers}"
            "Content-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
        )
        yield Ingest(reader, writer)
    finally:
        writer.close()
