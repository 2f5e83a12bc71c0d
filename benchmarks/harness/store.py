"""A Postgres of the benchmark's own, with an environment, runs, and somebody who changes them."""

import json
import secrets
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

import asyncpg

from benchmarks.harness.machine import Layout, on_cores
from runcast.auth.token import mint_token
from runcast.core.frame import RunFrame
from runcast.postgres.database import Database
from runcast.postgres.embedded import EmbeddedServer, start_embedded
from runcast.postgres.key_store import PostgresKeyStore
from runcast.postgres.migrate import migrate
from runcast.postgres.run_store import PostgresRunStore

_TOKEN_SECONDS = 86400.0
_SETTINGS = {"max_connections": "120", "shared_buffers": "512MB", "max_wal_size": "4GB"}
_TOUCH = "UPDATE runcast.runs SET metadata = $2 WHERE id = $1"
_TOUCH_MANY = "UPDATE runcast.runs SET metadata = $2 WHERE id = ANY($1)"


@dataclass
class Store:
    """A migrated database and one connection to it."""

    url: str
    log: Path
    environment_id: str
    key: str
    connection: "asyncpg.Connection[asyncpg.Record]"

    def token(self, *scopes: str, number: int = 0) -> str:
        """A public access token; another number gives another token for the same."""
        now = time.time()  # noqa: TID251 - as a backend would
        return mint_token(
            secret=self.key,
            environment_id=self.environment_id,
            scopes=scopes,
            expires_at=now + _TOKEN_SECONDS,
            now=now,
            token_id=f"benchmark-{number}",
        )

    async def add_runs(self, count: int, *, tags: str = "{}", prefix: str = "run_b") -> None:
        """
        Insert runs with the ids ``<prefix>0`` … in the middle of their execution.

        Args:
            tags: SQL for the tags of number ``g``, such as ``array['user:' || g % 100]``.
        """
        await self.connection.execute(
            f"""INSERT INTO runcast.runs
                (id, environment_id, task, status, tags, metadata, created_at)
            SELECT '{prefix}' || g, '{self.environment_id}', 'task-' || g % 50,
                'EXECUTING', {tags if tags != "{}" else "'{}'"}, '{{"progress": 1}}',
                now() - g * interval '1 second'
            FROM generate_series(0, {count - 1}) AS g""",
            timeout=600,
        )

    async def message_bytes(self, run_id: str) -> int:
        """The length of a run as JSON in a subscriber's event, without its payload."""
        database = Database(self.url, max_connections=1)
        await database.open()
        try:
            run = await PostgresRunStore(database).read_run(self.environment_id, run_id)
        finally:
            await database.close()
        assert run is not None
        return len(RunFrame(run).json(frozenset({"payload"})))

    async def touch(self, run_id: str, stamp: int, padding: int = 0) -> None:
        """Change one run, in one transaction, so that whoever follows it gets the stamp."""
        await self.connection.execute(_TOUCH, run_id, message(stamp, padding))

    async def touch_many(self, run_ids: Sequence[str], stamp: int) -> None:
        """Change all of these in one transaction."""
        await self.connection.execute(_TOUCH_MANY, run_ids, message(stamp, 0))


def message(stamp: int, padding: int) -> str:
    """JSON with a stamp that the load generator recognises, and so many bytes more."""
    return json.dumps({"at": f"~{stamp}~{'x' * padding}"})


class Servers:
    """Embedded servers of Postgres, each started when it is first asked for, until the exit."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running: dict[tuple[Layout, frozenset[tuple[str, str]]], EmbeddedServer] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for server in self._running.values():
            server.close()

    def get(self, layout: Layout, settings: Mapping[str, str]) -> EmbeddedServer:
        """A server on the cores of the others, durable as in production. Blocks."""
        key = layout, frozenset(settings.items())
        if key not in self._running:
            with on_cores(layout.others):
                self._running[key] = start_embedded(
                    self._folder / f"postgres-{len(self._running)}",
                    settings={**_SETTINGS, **settings},
                )
        return self._running[key]


@asynccontextmanager
async def stored(server: EmbeddedServer) -> AsyncIterator[Store]:
    """A database of its own on a server, for as long as the block."""
    name = f"bench_{secrets.token_hex(4)}"
    url = urlsplit(server.url)._replace(path=f"/{name}").geturl()
    await _execute(server.url, f"CREATE DATABASE {name}")
    try:
        connection = await asyncpg.connect(url)
        try:
            await migrate(connection)
            environment_id, key = await _environment(url)
            yield Store(url, server.log_file, environment_id, key, connection)
        finally:
            connection.terminate()
    finally:
        await _execute(server.url, f"DROP DATABASE {name} WITH (FORCE)")


async def _execute(url: str, sql: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(sql)
    finally:
        await connection.close()


async def _environment(url: str) -> tuple[str, str]:
    database = Database(url, max_connections=1)
    await database.open()
    try:
        return await PostgresKeyStore(database).create_environment("bench", "Benchmark")
    finally:
        await database.close()
