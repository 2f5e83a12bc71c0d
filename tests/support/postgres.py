"""
Databases for tests, as fixtures: `database_url`, `empty_database_url`, `restartable_postgres`.

One throw-away server serves the whole session; every test gets databases of its own.
``TEST_DATABASE_URL`` names another server to use, whose user may create databases.
"""

import asyncio
import os
import secrets
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import psutil
import pytest

from runcast.postgres.embedded import EmbeddedServer, start_embedded
from runcast.postgres.migrate import migrate
from runcast.postgres.probe import answers

_THROW_AWAY = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "max_connections": "300",
}
_ROOM_BYTES = 4 * 2**30  # for the servers of all workers of xdist
_WAIT_SECONDS = 45.0
_LOOK_SECONDS = 0.01


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """URL of the session's server, as a user who may create databases."""
    if given := os.environ.get("TEST_DATABASE_URL"):
        yield given
        return
    with temporary_folder() as folder, start_embedded(folder, settings=_THROW_AWAY) as server:
        yield server.url


@pytest.fixture(scope="session")
def template_database(postgres_server: str) -> Iterator[str]:
    """Name of a migrated database that others are copied from; nobody can connect to it."""
    with created_database(postgres_server) as url:
        asyncio.run(_migrate(url))
        name = urlsplit(url).path[1:]
        execute(postgres_server, f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
        yield name


@pytest.fixture
def database_url(postgres_server: str, template_database: str) -> Iterator[str]:
    """URL of a migrated database for this test alone."""
    with created_database(postgres_server, template=template_database) as url:
        yield url


@pytest.fixture
def empty_database_url(postgres_server: str) -> Iterator[str]:
    """URL of a database for this test alone that has not been migrated."""
    with created_database(postgres_server) as url:
        yield url


@pytest.fixture
def restartable_postgres() -> Iterator["RestartablePostgres"]:
    """A migrated server for this test alone, to kill and to pause; it keeps what it committed."""
    with temporary_folder() as folder, start_embedded(folder) as server:
        asyncio.run(_migrate(server.url))
        restartable = RestartablePostgres(server)
        yield restartable
        restartable.resume_if_paused()


class RestartablePostgres:
    """An own server under attack; its ``url`` stays the same whatever happens to it."""

    def __init__(self, server: EmbeddedServer) -> None:
        self._server = server
        self._paused: list[psutil.Process] = []

    @property
    def url(self) -> str:
        return self._server.url

    @property
    def pid(self) -> int:
        """Process id of the postmaster as it is now."""
        return self._server.state.postmaster_pid

    async def kill(self) -> None:
        """Kill postgres with SIGKILL and wait until its successor answers."""
        await asyncio.to_thread(self._kill)

    async def pause(self) -> None:
        """Stop postgres and all its backends where they are: connections stay, nothing answers."""
        await asyncio.to_thread(self._pause)

    async def resume(self) -> None:
        """Let a paused server go on."""
        await asyncio.to_thread(self.resume_if_paused)

    def resume_if_paused(self) -> None:
        for process in self._paused:
            if process.is_running():
                process.resume()
        self._paused.clear()

    def _kill(self) -> None:
        before = self.pid
        psutil.Process(before).kill()
        wait_until(lambda: self.pid != before and answers(self._server.state.socket))

    def _pause(self) -> None:
        # The postmaster first, so that it starts no backend behind our back.
        postmaster = psutil.Process(self.pid)
        postmaster.suspend()
        self._paused.append(postmaster)
        for backend in postmaster.children(recursive=True):
            backend.suspend()
            self._paused.append(backend)


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder with a path short enough for a Unix socket, removed afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="rc-", dir=_temporary_place()))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@contextmanager
def created_database(server_url: str, *, template: str = "template1") -> Iterator[str]:
    """URL of a new database on this server, dropped afterwards, whoever is still connected."""
    name = f"runcast_test_{secrets.token_hex(6)}"
    execute(server_url, f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
    try:
        yield urlsplit(server_url)._replace(path=f"/{name}").geturl()
    finally:
        execute(server_url, f'DROP DATABASE "{name}" WITH (FORCE)')


def _temporary_place() -> str:
    """
    Memory where there is room, else the disk.

    A database has 300 files, and ext4 searches past all that were deleted in the last minutes for
    each that it makes: the more tests there were, the longer the next waits for its database.
    """
    memory = "/dev/shm"
    if not os.access(memory, os.W_OK):
        return "/tmp"
    is_fit = not os.statvfs(memory).f_flag & os.ST_NOEXEC  # programs may be copied to the data
    return memory if is_fit and shutil.disk_usage(memory).free > _ROOM_BYTES else "/tmp"


def wait_until(holds: Callable[[], bool], *, seconds: float = _WAIT_SECONDS) -> None:
    """Wait, blocking and bounded, for something that other processes bring about."""
    pause = threading.Event()
    for _ in range(int(seconds / _LOOK_SECONDS)):
        if holds():
            return
        pause.wait(_LOOK_SECONDS)
    raise AssertionError(f"did not come true within {seconds:.0f} seconds")


def execute(url: str, sql: str) -> None:
    """Run SQL from outside of any event loop, on a connection of its own."""

    async def run() -> None:
        connection = await asyncpg.connect(url)
        try:
            await connection.execute(sql)
        finally:
            await connection.close()

    asyncio.run(run())


async def _migrate(url: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await migrate(connection)
    finally:
        await connection.close()
