"""One HTTP request on a connection of its own, and its answer piece by piece; for thousands."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urlencode, urlsplit

CONNECT_SECONDS = 10.0
_HEAD_BYTES = 65536


class Cut(OSError):
    """The connection broke in the middle of an answer."""


@dataclass
class Answer:
    """
    An answer whose body has yet to come.

    ``silence`` is how many seconds without a byte count as a dead connection.
    """

    status: int
    headers: dict[str, str]
    reader: asyncio.StreamReader
    silence: float

    async def pieces(self) -> AsyncIterator[bytes]:
        """
        The body as it comes, to its orderly end.

        Raises:
            Cut: The connection broke before it.
            TimeoutError: Nothing came for too long.
        """
        if self.headers.get("transfer-encoding") == "chunked":
            while size := int(await self._line() or b"0", 16):
                yield (await self._exactly(size + 2))[:-2]
            await self._line()
        elif "content-length" in self.headers:
            yield await self._exactly(int(self.headers["content-length"]))
        else:
            raise Cut("neither a length nor chunks")

    async def body(self) -> bytes:
        """All of it."""
        return b"".join([piece async for piece in self.pieces()])

    async def _line(self) -> bytes:
        async with asyncio.timeout(self.silence):
            line = await self.reader.readline()
        if not line.endswith(b"\n"):
            raise Cut("in the middle of the body")
        return line.strip()

    async def _exactly(self, size: int) -> bytes:
        try:
            async with asyncio.timeout(self.silence):
                return await self.reader.readexactly(size)
        except asyncio.IncompleteReadError:
            raise Cut("in the middle of the body") from None


@asynccontextmanager
async def get(
    url: str,
    query: Mapping[str, str],
    headers: Mapping[str, str],
    *,
    silence: float,
    buffer: int = 65536,
) -> AsyncIterator[Answer]:
    """
    Ask, and break the connection at the end of the block.

    Args:
        url: Of the resource, without a query.
        silence: Seconds without a byte after which the connection counts as dead.
        buffer: Bytes that are read ahead; what is beyond waits in the network.

    Raises:
        OSError: It could not be asked, or broke.
        TimeoutError: Nobody answered.
    """
    address = urlsplit(url)
    secure = address.scheme == "https"
    async with asyncio.timeout(CONNECT_SECONDS):
        reader, writer = await asyncio.open_connection(
            address.hostname,
            address.port or (443 if secure else 80),
            ssl=ssl.create_default_context() if secure else None,
            limit=max(buffer, _HEAD_BYTES),
        )
    try:
        path = f"{address.path}?{urlencode(query)}" if query else address.path
        lines = [f"GET {path} HTTP/1.1", f"host: {address.netloc}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
        async with asyncio.timeout(silence):
            head = await reader.readuntil(b"\r\n\r\n")
        first, *rest = head.decode("latin-1").split("\r\n")
        pairs = (line.partition(":") for line in rest if line)
        found = {name.lower(): value.strip() for name, _, value in pairs}
        yield Answer(int(first.split()[1]), found, reader, silence)
    except asyncio.IncompleteReadError:
        raise Cut("before the answer") from None
    finally:
        writer.transport.abort()
