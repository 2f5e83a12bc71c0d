"""The whole gateway for tests: server, hub and tailer in this loop, over a real Postgres."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg
import orjson

from runcast.app import Gateway, Listening
from runcast.auth.token import mint_token
from runcast.core.places import PlacePace
from runcast.core.position import Position
from runcast.core.relaying import RelayPace
from runcast.core.tailing import Pace
from runcast.postgres.database import Database
from runcast.postgres.key_store import PostgresKeyStore
from runcast.settings import Settings
from runcast.web.server import Server

# Longer than anything here should take on a busy machine; only failures wait for it.
PATIENCE_SECONDS = 45.0
_LOOK_SECONDS = 0.01


@dataclass
class GatewayApp:
    """
    A running gateway, an environment with its key, and a way into its database.

    ``sql`` is a plain connection that finds our tables: what any producer would use.
    """

    gateway: Gateway
    listening: Listening
    serving: "asyncio.Task[None]"
    keys: PostgresKeyStore
    sql: asyncpg.Connection
    environment_id: str
    key: str

    @property
    def url(self) -> str:
        return self.listening.url

    @property
    def port(self) -> int:
        return self.listening.port

    @property
    def bearer(self) -> dict[str, str]:
        """Headers of the environment's own backend."""
        return {"authorization": f"Bearer {self.key}"}

    @property
    def server(self) -> Server:
        return self.gateway._server

    def token(self, *scopes: str, seconds: float = 600, **claims: Any) -> str:
        """Sign a public token for the environment, good for at least so many seconds."""
        now = time.time()  # noqa: TID251 - as a backend would
        return mint_token(
            secret=claims.pop("secret", self.key),
            environment_id=claims.pop("environment_id", self.environment_id),
            scopes=scopes,
            now=now,
            expires_at=now + seconds + 1,  # it is rounded down to a whole second
            **claims,
        )

    def bearing(self, *scopes: str, **claims: Any) -> dict[str, str]:
        """Headers of somebody who holds a public token with these scopes."""
        return {"authorization": f"Bearer {self.token(*scopes, **claims)}"}

    async def insert(self, task: str = "hello", **columns: Any) -> str:
        """Insert a run and give its id."""
        columns = {"environment_id": self.environment_id, "task": task} | columns
        marks = ", ".join(f"${place}" for place in range(1, len(columns) + 1))
        run_id: str = await self.sql.fetchval(
            f"INSERT INTO runs ({', '.join(columns)}) VALUES ({marks}) RETURNING id",
            *map(_storable, columns.values()),
        )
        return run_id

    async def update(self, run_id: str, **columns: Any) -> None:
        """Change a run, as any program with a connection can."""
        changes = ", ".join(f"{name} = ${place}" for place, name in enumerate(columns, start=2))
        await self.sql.execute(
            f"UPDATE runs SET {changes} WHERE id = $1", run_id, *map(_storable, columns.values())
        )

    async def finish(self, run_id: str, **columns: Any) -> None:
        await self.update(run_id, status="COMPLETED_SUCCESSFULLY", **columns)

    async def delete(self, run_id: str) -> None:
        await self.sql.execute("DELETE FROM runs WHERE id = $1", run_id)

    @property
    def held(self) -> dict[str, int]:
        """What the gateway holds for its clients; see `deserted`."""
        hub, state = self.gateway.hub, self.server.server_state
        return {
            "connections": len(hub.connections),
            "leaving": len(hub._leaving),
            "audiences": len(hub._audiences),
            "index": len(hub._index),
            "sessions": len(hub._sessions),
            "sockets": len(state.connections),
            "requests": len(state.tasks),
        }

    async def caught_up(self) -> None:
        """Wait until the gateway stands behind all that is committed now."""
        here = await self.sql.fetchval("SELECT pg_current_snapshot()::text")
        hub = self.gateway.hub
        now = Position.from_snapshot(hub.position.database, here)
        await until(lambda: hub.position.covers(now))

    async def deserted(self) -> None:
        """Wait until nothing is held for any client."""
        await until(lambda: not any(self.held.values()), lambda: self.held)

    async def subscribed(self, count: int = 1) -> None:
        """Wait until there are so many connections, all of whose subscriptions are live."""
        hub = self.gateway.hub
        await until(lambda: len(hub.connections) == count and not hub._sessions, lambda: self.held)

    async def stop(self) -> None:
        """Drain and end, as a signal does."""
        self.gateway.stop()
        await asyncio.shield(self.serving)


@asynccontextmanager
async def running_app(
    database_url: str,
    *,
    pace: Pace | None = None,
    relay_pace: RelayPace | None = None,
    place_pace: PlacePace | None = None,
    listener: socket.socket | None = None,
    **settings: Any,
) -> AsyncIterator[GatewayApp]:
    """Run a gateway with these settings on a free port; ``settings`` are names of `Settings`."""
    # A Redis that the tests are given is used by those that ask for it.
    ours = {"port": 0, "drain_seconds": 0.2, "key_cache_seconds": 0, "redis_url": None}
    chosen: dict[str, Any] = ours | settings
    async with AsyncExitStack() as stack:
        database = Database(database_url, max_connections=2)
        await database.open()
        stack.push_async_callback(database.close)
        keys = PostgresKeyStore(database)
        sql = await asyncpg.connect(database_url, server_settings={"search_path": "runcast"})
        stack.push_async_callback(sql.close)
        environment_id, key = await _environment(keys)
        gateway = Gateway(
            Settings(database_url=database_url, **chosen),
            pace=pace,
            relay_pace=relay_pace,
            place_pace=place_pace,
        )
        await stack.enter_async_context(gateway)
        ready: asyncio.Future[Listening] = asyncio.get_running_loop().create_future()

        async def on_ready(listening: Listening) -> None:
            ready.set_result(listening)

        serving = asyncio.create_task(gateway.serve(on_ready, listener=listener))
        serving.add_done_callback(lambda _: ready.done() or ready.cancel())
        try:
            listening = await ready
        except asyncio.CancelledError:
            serving.result()  # what hindered it
            raise
        app = GatewayApp(gateway, listening, serving, keys, sql, environment_id, key)
        try:
            yield app
        finally:
            await app.stop()


async def until(holds: Callable[[], bool], explain: Callable[[], object] = str) -> None:
    """Wait, bounded, for something in this process that tells nobody when it happens."""
    for _ in range(int(PATIENCE_SECONDS / _LOOK_SECONDS)):
        if holds():
            return
        await asyncio.sleep(_LOOK_SECONDS)
    raise AssertionError(f"did not come true: {explain()}")


async def _environment(keys: PostgresKeyStore) -> tuple[str, str]:
    """The environment of the tests: a second gateway on the same database shares it."""
    for environment in await keys.list_environments():
        ring = await keys.read_key_ring(environment.id)
        assert ring is not None
        return environment.id, ring.keys[0].secret
    return await keys.create_environment("dev", "Development")


def _storable(value: Any) -> Any:
    """JSON columns are text to asyncpg."""
    return orjson.dumps(value).decode() if isinstance(value, dict) else value
