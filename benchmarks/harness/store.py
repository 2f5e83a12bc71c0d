"""A Postgres of the benchmark's own, with an environment, runs, and somebody who changes them."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from runcast.auth.token import mint_token
from runcast.postgres.database import Database
from runcast.postgres.embedded import start_embedded
from runcast.postgres.key_store import PostgresKeyStore
from runcast.postgres.migrate import migrate

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

    async def touch(self, run_id: str, stamp: int, padding: int = 0) -> None:
        """Change one run, in one transaction, so that whoever follows it gets the stamp."""
        await self.connection.execute(_TOUCH, run_id, message(stamp, padding))

    async def touch_many(self, run_ids: Sequence[str], stamp: int) -> None:
        """Change all of these in one transaction."""
        await self.connection.execute(_TOUCH_MANY, run_ids, message(stamp, 0))


def message(stamp: int, padding: int) -> str:
    """JSON with a stamp that the load generator recognises, and so many bytes more."""
    return json.dumps({"at": f"~{stamp}~{'x' * padding}"})


@asynccontextmanager
async def stored(folder: Path, settings: Mapping[str, str] | None = None) -> AsyncIterator[Store]:
    """Start a server of Postgres, durable as in production, for as long as the block."""
    server = await asyncio.to_thread(
        start_embedded, folder / "postgres", settings={**_SETTINGS, **(settings or {})}
    )
    try:
        connection = await asyncpg.connect(server.url)
        try:
            await migrate(connection)
            environment_id, key = await _environment(server.url)
            yield Store(server.url, server.log_file, environment_id, key, connection)
        finally:
            await connection.close(timeout=5)
    finally:
        await asyncio.to_thread(server.close)


async def _environment(url: str) -> tuple[str, str]:
    database = Database(url, max_connections=1)
    await database.open()
    try:
        return await PostgresKeyStore(database).create_environment("bench", "Benchmark")
    finally:
        await database.close()
