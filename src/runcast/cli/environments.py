"""Environments and their keys, as commands use them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from runcast.cli.clock import now
from runcast.errors import NotFound, Unprocessable
from runcast.postgres.database import Database
from runcast.postgres.key_store import Environment, PostgresKeyStore
from runcast.settings import Settings


@dataclass(frozen=True, slots=True)
class SecretKey:
    """An active key and the environment it belongs to."""

    environment_id: str
    key: str = field(repr=False)


@asynccontextmanager
async def opened_key_store(settings: Settings) -> AsyncIterator[PostgresKeyStore]:
    """Open the keys of the settings' database for a command."""
    database = Database(
        settings.require_database_url(), schema=settings.schema_name, max_connections=1
    )
    await database.open()
    try:
        yield PostgresKeyStore(database)
    finally:
        await database.close()


async def ensure_environment(settings: Settings, slug: str, name: str) -> SecretKey:
    """Return the active key of the environment with this slug, which is made when missing."""
    async with opened_key_store(settings) as store:
        environment = await _find(store, slug)
        if environment is None:
            try:
                return SecretKey(*await store.create_environment(slug, name))
            except Unprocessable:  # another process was faster
                environment = await find_environment(store, slug)
        ring = await store.read_key_ring(environment.id)
        for key in ring.usable_keys(now()) if ring else ():
            return SecretKey(environment.id, key.secret)
        return SecretKey(environment.id, await store.rotate_key(environment.id, 0))


async def find_environment(store: PostgresKeyStore, slug: str) -> Environment:
    """
    Return the environment with this slug.

    Raises:
        NotFound: There is none.
    """
    environment = await _find(store, slug)
    if environment is None:
        raise NotFound(f"There is no environment {slug!r}; `runcast keys list` shows all.")
    return environment


async def _find(store: PostgresKeyStore, slug: str) -> Environment | None:
    environments = await store.list_environments()
    return next((each for each in environments if each.slug == slug), None)
