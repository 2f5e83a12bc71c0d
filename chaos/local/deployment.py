"""Three gateways behind nginx, Postgres and Redis; links that can be broken lie between them."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from chaos.deployment import Deployment
from chaos.fault import network_faults
from chaos.link import linked
from chaos.local import gateways, nginx, postgres, redis
from chaos.local.process import free_ports
from chaos.token import Signer
from runcast.postgres.connection import connected
from runcast.postgres.database import Database
from runcast.postgres.key_store import PostgresKeyStore
from runcast.postgres.migrate import migrate

GATEWAYS = 3
_HEARTBEAT_SECONDS = 2.0
# Shorter than by default, so that twenty minutes hold many of them; no rates, since one key writes
# for everybody.
_SETTINGS = {
    "HEARTBEAT_SECONDS": str(_HEARTBEAT_SECONDS),
    "STALL_TIMEOUT_SECONDS": "6",
    "DRAIN_SECONDS": "2",
    "POLL_HOLD_SECONDS": "5",
    "KEY_CACHE_SECONDS": "2",
    "SECRET_KEY_RATE": "off",
    "PUBLIC_TOKEN_RATE": "off",
    "LOG_LEVEL": "warning",
    "LOG_FORMAT": "text",
}


@asynccontextmanager
async def local(folder: Path) -> AsyncIterator[Deployment]:
    """
    The whole deployment for as long as the block; logs of all parts are in the folder.

    Raises:
        ChaosError: A part of it is not on this machine, or does not start.
    """
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(postgres.running(folder / "postgres"))
        store = await stack.enter_async_context(redis.running(folder))
        signer = await _environment(database.url)
        to_database = await stack.enter_async_context(linked("127.0.0.1", database.port))
        to_redis = await stack.enter_async_context(linked("127.0.0.1", store.port))
        environment = {f"RUNCAST_{name}": value for name, value in _SETTINGS.items()} | {
            "DATABASE_URL": database.url_through(to_database.port),
            "REDIS_URL": f"redis://127.0.0.1:{to_redis.port}/0",
            "RUNCAST_OBJECTS_DIR": str(folder / "objects"),
        }
        front, *ports = free_ports(GATEWAYS + 1)
        serving = await stack.enter_async_context(gateways.running(ports, folder, environment))
        await stack.enter_async_context(nginx.running(front, ports, folder))
        to_clients = await stack.enter_async_context(linked("127.0.0.1", front))
        yield Deployment(
            f"http://127.0.0.1:{to_clients.port}",
            signer,
            database.url,
            "runcast",
            _HEARTBEAT_SECONDS,
            (
                *serving.faults(),
                *database.faults(),
                *store.faults(),
                *network_faults("clients", to_clients),
                *network_faults("gateways to postgres", to_database),
                *network_faults("gateways to redis", to_redis),
            ),
            serving.errors,
        )


async def _environment(database_url: str) -> Signer:
    async with connected(database_url) as connection:
        await migrate(connection)
    database = Database(database_url, max_connections=1)
    await database.open()
    try:
        return Signer(*await PostgresKeyStore(database).create_environment("chaos", "Chaos"))
    finally:
        await database.close()
