"""The database of the deployment: a real Postgres, which its supervisor starts again."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from chaos.database import CUT_OFF, connect
from chaos.fault import Fault
from chaos.local.process import until
from chaos.schedule import Dice
from runcast.postgres.embedded import EmbeddedServer, start_embedded
from runcast.postgres.probe import answers

_SETTINGS = {"max_connections": "150"}
_LISTENERS = "query ILIKE '%listen%' AND backend_type = 'client backend'"
_ALL = "backend_type = 'client backend'"


class Postgres:
    """A server that is killed, stopped where it is, and whose connections are ended."""

    def __init__(self, server: EmbeddedServer) -> None:
        self._server = server
        address = urlsplit(server.url)
        self.url = server.url
        self.port = address.port or 5432

    def url_through(self, port: int) -> str:
        """The same server as it is reached through a link."""
        address = urlsplit(self.url)
        user, _, _ = address.netloc.rpartition("@")
        return address._replace(netloc=f"{user}@127.0.0.1:{port}").geturl()

    def faults(self) -> Iterable[Fault]:
        """What can be done to it."""
        return (
            Fault("postgres: kill -9", "postgres", self._kill),
            Fault("postgres: stopped", "postgres", self._stop, holds_back=True),
            Fault("postgres: all backends ended", "postgres", lambda dice: self._end(_ALL)),
            Fault("postgres: listeners ended", "postgres", lambda dice: self._end(_LISTENERS)),
        )

    async def _kill(self, dice: Dice) -> None:
        before = await asyncio.to_thread(self._postmaster)
        before.kill()
        await until(lambda: self._came_back(before.pid), "Postgres did not come back")

    async def _stop(self, dice: Dice) -> None:
        paused = await asyncio.to_thread(self._pause)
        try:
            await asyncio.sleep(dice.seconds(0.5, 6))
        finally:
            for process in paused:
                with suppress(psutil.NoSuchProcess):
                    process.resume()

    def _postmaster(self) -> psutil.Process:
        return psutil.Process(self._server.state.postmaster_pid)

    def _came_back(self, before: int) -> bool:
        state = self._server.state
        return state.postmaster_pid != before and answers(state.socket)

    def _pause(self) -> list[psutil.Process]:
        # The postmaster first, so that it starts no backend behind our back.
        postmaster = self._postmaster()
        postmaster.suspend()
        paused = [postmaster]
        for backend in postmaster.children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                backend.suspend()
                paused.append(backend)
        return paused

    async def _end(self, which: str) -> None:
        with suppress(*CUT_OFF):
            async with connect(self.url) as sql:
                await sql.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    f" WHERE {which} AND pid <> pg_backend_pid()"
                )


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[Postgres]:
    """A server for as long as the block."""
    server = await asyncio.to_thread(start_embedded, folder, tcp=True, settings=_SETTINGS)
    try:
        yield Postgres(server)
    finally:
        await asyncio.to_thread(server.close)
