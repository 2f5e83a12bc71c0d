"""The way to Redis: a single server, the primary that Sentinels name, or a cluster."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from redis import __version__ as DRIVER_VERSION
from redis.asyncio import Redis, RedisCluster
from redis.asyncio.client import PubSub
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.driver_info import DriverInfo
from redis.exceptions import (
    AuthenticationError,
    NoPermissionError,
    OutOfMemoryError,
    RedisClusterException,
    RedisError,
    ResponseError,
)
from redis.maint_notifications import MaintNotificationsConfig

from runcast.errors import BackendError

SENTINEL = ("redis+sentinel", "rediss+sentinel")
CLUSTER = ("redis+cluster", "rediss+cluster")

_MAX_CONNECTIONS = 16
_SENTINEL_PORT = 26379

Client = Redis | RedisCluster

# All that the driver raises where the server is not as it should be.
ERRORS = (RedisError, RedisClusterException, OSError)
# What uvloop and the driver raise where a connection that was lost just now is written to.
_LOST = ("the handler is closed", "'NoneType' object has no attribute 'writelines'")


class RedisServer:
    """
    Redis as the others here use it: every command is sent once, and answered in time or not at all.

    Nothing is retried below us: a write that is repeated where its answer was lost is done twice.

    Args:
        url: ``redis://``, ``rediss://`` or ``unix://``; with ``+sentinel`` the Sentinels and
            ``/service/database``; with ``+cluster`` a node of a cluster.
        answer_seconds: A server that takes longer counts as gone.
    """

    def __init__(self, url: str, *, answer_seconds: float = 5.0) -> None:
        self._url = url
        self.answer_seconds = answer_seconds
        self.answers = True  # whether what was last asked was answered
        self._options: dict[str, Any] = {
            "protocol": 3,
            "socket_timeout": answer_seconds,
            "socket_connect_timeout": answer_seconds,
            "retry": Retry(NoBackoff(), 0),
            "max_connections": _MAX_CONNECTIONS,
            # While these are on, a pooled connection that was lost is not noticed before its use.
            "maint_notifications_config": MaintNotificationsConfig(enabled=False),
            # Otherwise each new connection looks on the disk for the version of the driver.
            "driver_info": DriverInfo(lib_version=DRIVER_VERSION),
        }
        self._sentinels: list[Redis] = []
        self._client: Client = self._make_client()
        # Of the nodes of a cluster, which news of streams come from.
        self._nodes: dict[str, Redis] = {}

    @property
    def client(self) -> Client:
        """What commands are sent with."""
        return self._client

    async def close(self) -> None:
        """Close all connections."""
        for client in (self._client, *self._nodes.values(), *self._sentinels):
            await client.aclose()

    async def shard_of(self, key: str) -> str:
        """
        Name the server that has a key, as `news` knows it.

        Raises:
            BackendError: The cluster cannot be reached.
        """
        if not isinstance(self._client, RedisCluster):
            return ""
        async with translated():
            await self._client.initialize()
            node = self._client.get_node_from_key(key)
        if node is None:
            raise BackendError("No node of the Redis cluster has the stream; try again.")
        return f"{node.host}:{node.port}"

    async def primaries(self) -> list[Redis]:
        """The servers that take writes, to be asked about themselves."""
        if not isinstance(self._client, RedisCluster):
            return [self._client]
        await self._client.initialize()
        nodes = self._client.get_primaries()
        return [self._node(f"{node.host}:{node.port}") for node in nodes]

    def news(self, shard: str) -> PubSub:
        """A connection for subscriptions, to be closed by whoever asked for it."""
        if isinstance(self._client, RedisCluster):
            return self._node(shard).pubsub()
        return self._client.pubsub()

    def forget_layout(self) -> None:
        """Ask the cluster anew which node has what."""
        if isinstance(self._client, RedisCluster):
            self._client._initialize = True

    def _node(self, shard: str) -> Redis:
        if shard not in self._nodes:
            host, _, port = shard.rpartition(":")
            assert isinstance(self._client, RedisCluster)
            known = dict(self._client.connection_kwargs)
            options = {key: known[key] for key in ("username", "password") if known.get(key)}
            self._nodes[shard] = Redis(
                host=host,
                port=int(port),
                ssl=urlsplit(self._url).scheme.startswith("rediss"),
                **options,
                **self._options,
            )
        return self._nodes[shard]

    def _make_client(self) -> Client:
        scheme, _, rest = self._url.partition("://")
        if scheme in CLUSTER:
            return RedisCluster.from_url(f"{scheme.partition('+')[0]}://{rest}", **self._options)
        if scheme in SENTINEL:
            return self._by_sentinels(tls=scheme.startswith("rediss"))
        return Redis.from_url(self._url, **self._options)

    def _by_sentinels(self, *, tls: bool) -> Redis:
        parts = urlsplit(self._url)
        service, _, database = parts.path.strip("/").partition("/")
        credentials, _, hosts = parts.netloc.rpartition("@")
        username, _, password = map(unquote, credentials.partition(":"))
        more = parse_qs(parts.query)
        sentinels = Sentinel(  # type: ignore[no-untyped-call]
            [_host_and_port(host) for host in hosts.split(",")],
            sentinel_kwargs=self._options
            | {"password": more.get("sentinel_password", [None])[0], "ssl": tls},
        )
        self._sentinels = list(sentinels.sentinels)
        client: Redis = sentinels.master_for(
            service,
            db=int(database or 0),
            username=username or None,
            password=password or None,
            ssl=tls,
            **self._options,
        )
        return client


@asynccontextmanager
async def translated() -> AsyncIterator[None]:
    """Say in our terms what goes wrong; the driver's own error is the cause."""
    try:
        yield
    except ERRORS as error:
        raise translate(error) from error
    except (RuntimeError, AttributeError) as error:
        if not any(words in str(error) for words in _LOST):
            raise
        raise translate(error) from error


def translate(error: BaseException) -> BackendError:
    """Say what an error means to whoever sent the request; neither address nor secret is in it."""
    match error:
        case OutOfMemoryError():
            return BackendError(
                "Redis is full; raise its maxmemory, or let streams be kept for a shorter time."
            )
        case AuthenticationError() | NoPermissionError():
            return BackendError("Redis refuses the gateway; correct the user in REDIS_URL.")
        case ResponseError():
            return BackendError("Redis refused the command; try again.")
        case _:
            return BackendError("Redis does not answer; try again.")


def _host_and_port(text: str) -> tuple[str, int]:
    parts = urlsplit(f"//{text}")
    return parts.hostname or text, parts.port or _SENTINEL_PORT
