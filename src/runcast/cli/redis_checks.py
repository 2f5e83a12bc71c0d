"""What `runcast doctor` asks of the Redis that is to keep the chunks of streams."""

from collections.abc import AsyncIterator

from runcast.cli.finding import Finding, bad, fine, note
from runcast.errors import BackendError
from runcast.redis.health import RedisHealth, ask_health
from runcast.redis.server import RedisServer
from runcast.settings import Settings

OLDEST_VERSION = 7
_DURABILITY = 'docs/operations.md "Streams in Redis" says what each setting keeps.'


async def check_redis(settings: Settings) -> AsyncIterator[Finding]:
    """Look whether Redis can keep streams, and what it keeps when it crashes."""
    if settings.redis_url is None:
        return
    server = RedisServer(settings.redis_url)
    try:
        found = await ask_health(server)
    except BackendError as error:
        yield bad("redis", error.message, "Start the server or correct REDIS_URL.")
        return
    finally:
        await server.close()
    for health in found:
        yield _check_version(health)
        yield _check_memory(health)
        yield _check_persistence(health)


def _check_version(health: RedisHealth) -> Finding:
    text = f"{health.product} {health.version} answers"
    if health.major < OLDEST_VERSION:
        return bad("redis", text, f"Redis {OLDEST_VERSION} or Valkey is needed: upgrade it.")
    return fine("redis", text)


def _check_memory(health: RedisHealth) -> Finding:
    if health.eviction in (None, "noeviction"):
        unknown = " (it does not tell its policy)" if health.eviction is None else ""
        return fine("redis memory", f"{health.memory}; nothing is evicted{unknown}")
    return bad(
        "redis memory",
        f"under pressure it evicts keys ({health.eviction}), and streams with them",
        "Set maxmemory-policy noeviction.",
    )


def _check_persistence(health: RedisHealth) -> Finding:
    topic = "redis disk"
    match health:
        case RedisHealth(appendonly=None):
            return note(topic, "it does not tell what it keeps on disk", _DURABILITY)
        case RedisHealth(appendonly=True, fsync="always"):
            return fine(topic, "what was acknowledged survives a crash (appendfsync always)")
        case RedisHealth(appendonly=True, fsync=fsync):
            lost = "the last second" if fsync == "everysec" else "what the system had not written"
            return note(topic, f"a crash loses {lost} (appendfsync {fsync})", _DURABILITY)
        case RedisHealth(snapshots=True):
            return note(topic, "a crash loses what came after the last snapshot", _DURABILITY)
        case _:
            return note(topic, "a restart loses all streams: nothing is kept on disk", _DURABILITY)
