"""
A stand-in for a pooler in transaction mode, in front of a real Postgres.

It does the two things that matter to a listener: it announces a process id of its own making, and
notifications, which belong to a server connection that others use by then, never arrive.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import parse_qs, urlsplit

_BACKEND_KEY_DATA = b"K"
_NOTIFICATION = b"A"


@asynccontextmanager
async def transaction_pooler(database_url: str) -> AsyncIterator[str]:
    """Give the URL of a pooler in front of a database that is reached over a Unix socket."""
    parts = urlsplit(database_url)
    place = parse_qs(parts.query)
    socket_path = f"{place['host'][0]}/.s.PGSQL.{place['port'][0]}"

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_unix_connection(socket_path)
        try:
            await asyncio.gather(
                _copy_requests(reader, server_writer), _copy_answers(server_reader, writer)
            )
        finally:
            writer.close()
            server_writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        yield f"postgresql://{parts.username}@127.0.0.1:{port}{parts.path}?sslmode=disable"


async def _copy_requests(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while chunk := await reader.read(65536):
        writer.write(chunk)
    writer.close()


async def _copy_answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy message by message: a type, four bytes of length that count themselves, a body."""
    while True:
        try:
            kind = await reader.readexactly(1)
            length = await reader.readexactly(4)
            body = await reader.readexactly(int.from_bytes(length) - 4)
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        if kind == _BACKEND_KEY_DATA:
            body = (1).to_bytes(4) + body[4:]
        if kind != _NOTIFICATION:
            writer.write(kind + length + body)
