"""A writer of a stream for tests: its body is sent, stopped and cut wherever a test wants."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

import httpx

from tests.support.gateway_app import PATIENCE_SECONDS


@dataclass(frozen=True)
class Written:
    """What the gateway answered."""

    status: int
    body: bytes

    @property
    def code(self) -> str:
        error: dict[str, Any] = json.loads(self.body)
        assert error["error"]
        return str(error["code"])


class StreamWriter:
    """One request that sends lines for as long as it likes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, data: bytes) -> None:
        """Send a piece of the body; pieces need not end where lines do."""
        self._writer.write(b"%x\r\n%b\r\n" % (len(data), data))
        await self._writer.drain()

    async def send_lines(self, lines: Sequence[str]) -> None:
        await self.send("".join(f"{line}\n" for line in lines).encode())

    async def finish(self) -> Written:
        """End the body and take the answer."""
        self._writer.write(b"0\r\n\r\n")
        return await self.answer()

    async def answer(self) -> Written:
        """Take the answer, which may come before the body has ended."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            status = int((await self._reader.readline()).split()[1])
            length = 0
            while (line := await self._reader.readline()).strip():
                name, _, value = line.decode().partition(":")
                if name.lower() == "content-length":
                    length = int(value)
            return Written(status, await self._reader.readexactly(length))

    def cut(self) -> None:
        """Lose the connection, with what was not received yet."""
        self._writer.transport.abort()


def writing_path(run_id: str, key: str = "llm", target: str = "self") -> str:
    return f"/realtime/v1/streams/{run_id}/{target}/{quote(key, safe='')}"


@asynccontextmanager
async def writing(
    url: str,
    bearer: Mapping[str, str],
    run_id: str,
    *,
    key: str = "llm",
    writer: str | None = None,
    first: int | None = None,
) -> AsyncIterator[StreamWriter]:
    """Begin to write; ``first`` is the index of the first line that will be sent."""
    address = urlsplit(url)
    incoming, outgoing = await asyncio.open_connection(address.hostname, address.port)
    sock = outgoing.get_extra_info("socket")
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    headers = {
        "host": "gateway",
        "transfer-encoding": "chunked",
        "content-type": "application/json",
        **bearer,
    }
    if writer is not None:
        headers["x-client-id"] = writer
    if first is not None:
        headers["x-resume-from-chunk"] = str(first)
    head = [f"POST {writing_path(run_id, key)} HTTP/1.1"]
    head += [f"{name}: {value}" for name, value in headers.items()]
    outgoing.write("\r\n".join([*head, "", ""]).encode())
    try:
        yield StreamWriter(incoming, outgoing)
    finally:
        outgoing.transport.abort()


async def write(
    url: str,
    bearer: Mapping[str, str],
    run_id: str,
    body: bytes,
    *,
    key: str = "llm",
    writer: str | None = None,
    first: int | None = None,
) -> Written:
    """Write one body."""
    async with writing(url, bearer, run_id, key=key, writer=writer, first=first) as request:
        if body:
            await request.send(body)
        return await request.finish()


async def last_index(url: str, bearer: Mapping[str, str], run_id: str, writer: str) -> int:
    """How far a writer has come, as the gateway tells it."""
    headers = {**bearer, "x-client-id": writer}
    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=PATIENCE_SECONDS) as client:
        answer = await client.head(writing_path(run_id), headers=headers)
    assert answer.status_code == 200, answer.status_code
    return int(answer.headers["x-last-chunk-index"])
