"""The network between: what passes, passes whole and in order, however it is treated."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from chaos.link import Link, linked
from tests.support.gateway_app import PATIENCE_SECONDS

Pair = tuple[asyncio.StreamReader, asyncio.StreamWriter]

LINES = [b"%06d\n" % number for number in range(2000)]


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(4096):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


@asynccontextmanager
async def link_to_echo() -> AsyncIterator[Link]:
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with server, linked("127.0.0.1", server.sockets[0].getsockname()[1]) as link:
        yield link


async def through(link: Link, lines: list[bytes]) -> bytes:
    """Send lines one by one, and read as much."""
    async with opened(link) as (reader, writer):
        for line in lines:
            writer.write(line)
            await asyncio.sleep(0)
        return await reader.readexactly(sum(map(len, lines)))


@asynccontextmanager
async def opened(link: Link) -> AsyncIterator[Pair]:
    reader, writer = await asyncio.open_connection("127.0.0.1", link.port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


@asynccontextmanager
async def connected(link: Link) -> AsyncIterator[Pair]:
    """A connection on which bytes have passed."""
    async with opened(link) as (reader, writer):
        writer.write(b"hello\n")
        if await reader.readline() != b"hello\n":
            raise ConnectionResetError("nothing passed")
        yield reader, writer


async def passes(link: Link) -> bool:
    async with connected(link):
        return True


@pytest.mark.parametrize(
    "treat",
    [
        lambda link: asyncio.sleep(0),
        lambda link: link.slow_down(0.02, 0.03),
        lambda link: link.hold(0.05),
    ],
    ids=["left alone", "slow", "held"],
)
async def test_what_passes_is_whole_and_in_order(
    treat: Callable[[Link], Awaitable[None]],
) -> None:
    async with link_to_echo() as link, asyncio.timeout(PATIENCE_SECONDS):
        treated, answer = await asyncio.gather(treat(link), through(link, LINES))
        assert treated is None
        assert answer == b"".join(LINES)


async def test_a_cut_breaks_what_is_open_and_nothing_later() -> None:
    async with link_to_echo() as link, asyncio.timeout(PATIENCE_SECONDS):
        async with connected(link) as (reader, _):
            link.cut()
            with pytest.raises(ConnectionResetError):
                await reader.read()
        assert await passes(link)


async def test_a_lost_network_takes_no_connections() -> None:
    async with link_to_echo() as link, asyncio.timeout(PATIENCE_SECONDS):
        losing = asyncio.create_task(link.lose(3600))
        await asyncio.sleep(0)
        with pytest.raises(ConnectionResetError):
            await passes(link)
        losing.cancel()
        await asyncio.wait({losing})
        assert await passes(link)


async def test_half_open_connections_stay_and_are_silent() -> None:
    async with link_to_echo() as link, asyncio.timeout(PATIENCE_SECONDS):
        async with connected(link) as (reader, writer):
            link.forget()
            writer.write(b"anybody?\n")
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await reader.read()
        assert await passes(link)
