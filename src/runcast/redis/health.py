"""What a server of Redis says of itself."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from runcast.redis.server import RedisServer, translated


@dataclass(frozen=True, slots=True)
class RedisHealth:
    """
    Of one server. None: it does not tell, as those of some providers.

    Valkey says which version of Redis it is like; ``version`` is its own.
    """

    product: str
    version: str
    major: int
    memory: str
    eviction: str | None
    appendonly: bool | None
    fsync: str | None
    snapshots: bool | None


async def ask_health(server: RedisServer) -> list[RedisHealth]:
    """
    Ask the server, or all primaries of a cluster.

    Raises:
        BackendError: One does not answer.
    """
    async with translated(), asyncio.timeout(2 * server.answer_seconds):
        return [await _ask(client) for client in await server.primaries()]


async def _ask(client: Redis) -> RedisHealth:
    info: Mapping[str, Any] = await client.info()
    settings = await _configuration(client)
    version = str(info.get("redis_version", "0"))
    valkey = info.get("valkey_version")
    most = int(info.get("maxmemory", 0))
    used = str(info.get("used_memory_human", "?"))
    appendonly = settings.get("appendonly")
    return RedisHealth(
        product="Valkey" if valkey else "Redis",
        version=str(valkey or version),
        major=int(version.partition(".")[0]),
        memory=f"{used} of {info.get('maxmemory_human')} used" if most else f"{used} used",
        eviction=settings.get("maxmemory-policy") or info.get("maxmemory_policy"),
        appendonly=None if appendonly is None else appendonly == "yes",
        fsync=settings.get("appendfsync"),
        snapshots=bool(settings["save"]) if "save" in settings else None,
    )


async def _configuration(client: Redis) -> Mapping[str, str]:
    try:
        found: Mapping[Any, Any] = await client.config_get(
            "maxmemory-policy", "appendonly", "appendfsync", "save"
        )
    except ResponseError:  # CONFIG is forbidden, or unknown to a provider's server
        return {}
    return {_text(name): _text(value) for name, value in found.items()}


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
