"""Puts a gateway together from its settings, and says in which order it starts and ends."""

import asyncio
import logging
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from runcast.core.places import PlacePace
from runcast.core.relaying import Relaying, RelayPace
from runcast.core.tailing import Pace
from runcast.errors import ConfigurationError
from runcast.hub.hub import Hub
from runcast.objects.local import LocalObjectStore
from runcast.ports import ChunkLog, ObjectStore
from runcast.postgres.adoption import adopt
from runcast.postgres.chunk_log import PostgresChunkLog
from runcast.postgres.connection import connected
from runcast.postgres.database import Database
from runcast.postgres.embedded import default_data_dir
from runcast.postgres.janitor import Janitor
from runcast.postgres.key_store import PostgresKeyStore
from runcast.postgres.migrate import verify_schema
from runcast.postgres.object_ledger import PostgresObjectLedger
from runcast.postgres.place_store import PostgresPlaceStore
from runcast.postgres.rate_limiter import PostgresRateLimiter
from runcast.postgres.relayed_tailer import RelayedTailer
from runcast.postgres.renewals import PostgresRenewals
from runcast.postgres.revocation_follower import RevocationFollower
from runcast.postgres.revocations import PostgresRevocationStore
from runcast.postgres.run_store import PostgresRunStore
from runcast.postgres.scheduler import Scheduler
from runcast.postgres.stream_registry import StreamRegistry
from runcast.postgres.tailer import PostgresTailer
from runcast.postgres.waitpoint_store import PostgresWaitpointStore
from runcast.redis.chunk_log import RedisChunkLog
from runcast.redis.place_store import RedisPlaceStore
from runcast.redis.rate_limiter import RedisRateLimiter
from runcast.redis.server import RedisServer
from runcast.redis.window_relay import RedisWindowRelay
from runcast.settings import Settings
from runcast.web.asgi import create_asgi
from runcast.web.bearer import Bearer
from runcast.web.direct_polls import DirectPolls
from runcast.web.key_directory import KeyDirectory
from runcast.web.listener import listen, url_of
from runcast.web.metrics import gateway_registry
from runcast.web.page import page_routes
from runcast.web.rate_limits import RateLimits
from runcast.web.renewal import renew_here
from runcast.web.request_counts import RequestCounts
from runcast.web.server import Server
from runcast.web.services import Readiness, Services
from runcast.web.websocket import websocket_route
from runcast.web.worker_figures import WorkerFigures, WorkerPlace

logger = logging.getLogger(__name__)

_BEGIN_ANEW_SECONDS = 1.0
_BEHIND_SECONDS = 5.0  # a changefeed that read nothing for longer makes the gateway unready


class SystemClock:
    """The one real clock."""

    def now(self) -> float:
        """Unix time in seconds."""
        return time.time()


@dataclass(frozen=True)
class Listening:
    """Where a gateway answers."""

    url: str
    host: str
    port: int


async def serve(
    settings: Settings, *, on_ready: Callable[[Listening], Awaitable[None]] | None = None
) -> None:
    """
    Run one gateway until SIGINT or SIGTERM, then drain.

    Raises:
        ConfigurationError: A setting is wrong, or the address is taken.
        BackendError: The database cannot be reached, or its schema is not of this version.
    """
    async with Gateway(settings) as gateway:
        await gateway.serve(on_ready)


class Gateway:
    """
    One gateway's parts, running between enter and exit.

    Args:
        settings: Must name a database.
        pace: Intervals of the tailer; tests shorten them.
        relay_pace: Those of the relay.
        place_pace: Those of the places of connections.
        place: Where it stands among several on one port.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        pace: Pace | None = None,
        relay_pace: RelayPace | None = None,
        place_pace: PlacePace | None = None,
        place: WorkerPlace | None = None,
    ) -> None:
        url = settings.require_database_url()
        self.settings = settings
        clock = SystemClock()
        limits = settings.limits
        self._database = Database(
            url,
            schema=settings.schema_name,
            max_connections=settings.pool_max_connections,
            statement_timeout_seconds=settings.statement_timeout_seconds,
        )
        runs = PostgresRunStore(self._database)
        streams = StreamRegistry(self._database, max_streams=limits.max_streams_per_run)
        self._redis = None if settings.redis_url is None else RedisServer(settings.redis_url)
        self._redis_chunks = self._chunks_in_redis(streams, clock)
        chunks: ChunkLog = self._redis_chunks or PostgresChunkLog(
            self._database,
            max_streams=limits.max_streams_per_run,
            max_stream_bytes=limits.max_stream_bytes,
            lease_seconds=limits.stream_lease_seconds,
        )
        self._redis_places = (
            None
            if self._redis is None
            else RedisPlaceStore(self._redis, prefix=settings.redis_prefix)
        )
        places = self._redis_places or PostgresPlaceStore(self._database)
        self.hub = Hub(runs, chunks, clock, limits, places, place_pace)
        chunks.on_append = self.hub.chunks_appended
        if self._redis_chunks is not None:
            self._redis_chunks.news.on_move = self.hub.streams_moved
        self.relay = self._window_relay(relay_pace)
        self.tailer = self._tailer(pace)
        objects = object_store(settings)
        ledger = PostgresObjectLedger(
            self._database, objects, unused_seconds=limits.unused_object_seconds
        )
        keys = KeyDirectory(
            PostgresKeyStore(self._database), clock=clock, ttl_seconds=limits.key_cache_seconds
        )
        bearer = Bearer(
            keys,
            clock=clock,
            revocations=self.hub.revocations,
            max_token_seconds=limits.max_token_seconds,
        )
        self._redis_limiter = (
            None
            if self._redis is None
            else RedisRateLimiter(self._redis, prefix=settings.redis_prefix)
        )
        rate_limits = RateLimits(
            self._redis_limiter or PostgresRateLimiter(self._database), clock=clock, limits=limits
        )
        renewals = PostgresRenewals(
            self._database, schema=settings.schema_name, gateway=self.hub.id
        )
        self._revocations = RevocationFollower(
            url,
            schema=settings.schema_name,
            clock=clock,
            book=self.hub.revocations,
            on_revoked=self.hub.end_revoked,
            renewals=renewals,
        )
        self._scheduler = Scheduler(url, self._database, runs, schema=settings.schema_name)
        requests = RequestCounts()
        metrics = gateway_registry(
            self.hub,
            self.tailer,
            rate_limits,
            ledger,
            self._scheduler.counts,
            bearer,
            self._redis_chunks,
            None if self.relay is None else self.relay.machine,
            database=self._database,
            requests=requests,
        )
        self._figures = None if place is None else WorkerFigures(metrics, place)
        self.services = Services(
            runs=runs,
            chunks=chunks,
            objects=objects,
            object_ledger=ledger,
            waitpoints=PostgresWaitpointStore(self._database),
            keys=keys,
            bearer=bearer,
            revocations=PostgresRevocationStore(
                self._database, max_revocations=limits.max_revocations
            ),
            renewals=renewals,
            rate_limits=rate_limits,
            hub=self.hub,
            clock=clock,
            limits=limits,
            allow_handover=settings.transport == "auto",
            readiness=self.readiness,
            requests=requests,
            metrics=metrics,
            workers=self._figures,
            polls=DirectPolls(bearer, requests) if settings.transport == "auto" else None,
        )
        renewals.on_asked = partial(renew_here, self.services)
        self.app = create_asgi(self.services, [websocket_route(self.services), *page_routes])
        self._janitor = Janitor(
            self._database,
            streams,
            ledger,
            stream_retention_seconds=limits.stream_retention_seconds,
        )
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> "Gateway":
        await self._prepare_database()
        await self._database.open()
        self.hub.start()
        self._tasks = [
            asyncio.create_task(_for_ever(self.tailer.run)),
            asyncio.create_task(_for_ever(self._janitor.run)),
            asyncio.create_task(_for_ever(self._scheduler.run)),
            asyncio.create_task(_for_ever(self._revocations.run)),
        ]
        if self.settings.max_environment_connections:
            self._tasks.append(asyncio.create_task(_for_ever(self.hub.admission.run)))
        if self._redis_chunks is not None:
            self._tasks.append(asyncio.create_task(_for_ever(self._redis_chunks.news.run)))
        if self.relay is not None:
            self._tasks.append(asyncio.create_task(_for_ever(self.relay.run)))
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._figures is not None:
            await self._figures.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.hub.admission.close()
        if self._redis_places is not None:
            await self._redis_places.close()
        if self._redis_chunks is not None:
            await self._redis_chunks.close_connections()
        if self._redis_limiter is not None:
            await self._redis_limiter.close()
        if self._redis is not None:
            await self._redis.close()
        await self._database.close()

    async def serve(
        self,
        on_ready: Callable[[Listening], Awaitable[None]] | None = None,
        *,
        listener: socket.socket | None = None,
    ) -> None:
        """
        Answer requests until a signal, or `stop`.

        Args:
            listener: Where, instead of what the settings say; used once we can answer.
        """
        limits = self.settings.limits
        if listener is None:
            listener = listen(
                self.settings.host,
                self.settings.port,
                stall_timeout_seconds=limits.stall_timeout_seconds,
            )
        listening = _listening(listener)

        async def ready() -> None:
            if self._figures is not None:
                await self._figures.open()
            if on_ready is not None:
                await on_ready(listening)

        self._server = Server(
            self.app,
            limits=limits,
            polls=self.services.polls,
            drain=self.hub.drain,
            cut_off=self._database.terminate,
            on_ready=ready,
            forwarded_allow_ips=self.settings.forwarded_allow_ips,
        )
        await self.hub.started()
        await self._revocations.started()
        await self._server.serve(sockets=[listener])

    def stop(self) -> None:
        """Drain and end `serve`, as a signal does."""
        self._server.stop()

    def readiness(self) -> Readiness:
        """
        Ready while changefeed and revocations are fresh and the gateway is not draining.

        Redis is only told of: without it run feeds go on, and no other gateway would be better.
        """
        read_at = self.tailer.caught_up_at
        behind = None if read_at is None else asyncio.get_running_loop().time() - read_at
        stale = self.hub.revocations.is_stale(self.hub.clock.now())
        fresh = behind is not None and behind < _BEHIND_SECONDS and not stale
        return Readiness(
            fresh and not self.hub.draining,
            {
                "changefeed": self.tailer.state.value,
                "secondsSinceLastRead": None if behind is None else round(behind, 3),
                "revocations": "stale" if stale else "known",
                "draining": self.hub.draining,
                **self._redis_detail(),
            },
        )

    def _redis_detail(self) -> dict[str, str]:
        if self._redis is None:
            return {}
        detail = {"redis": "reachable" if self._redis.answers else "unreachable"}
        if self.relay is not None:
            detail["relay"] = self.relay.machine.role.value
        return detail

    def _window_relay(self, pace: RelayPace | None) -> RedisWindowRelay | None:
        if self._redis is None or self.settings.relay == "off":
            return None
        name = f"{self.settings.redis_prefix}relay:{self.settings.schema_name}"
        return RedisWindowRelay(self._redis, Relaying(pace), name=name)

    def _tailer(self, pace: Pace | None) -> PostgresTailer:
        options: dict[str, Any] = {
            "schema": self.settings.schema_name,
            "sink": self.hub,
            "on_start": self.hub.begin,
            "on_restart": self.hub.restart,
            "on_delete": self._runs_deleted,
            "pace": pace,
        }
        url = self.settings.require_database_url()
        if self.relay is None:
            return PostgresTailer(url, **options)
        return RelayedTailer(url, relay=self.relay, **options)

    def _chunks_in_redis(self, streams: StreamRegistry, clock: SystemClock) -> RedisChunkLog | None:
        if self._redis is None:
            return None
        limits = self.settings.limits
        return RedisChunkLog(
            self._redis,
            streams,
            clock,
            prefix=self.settings.redis_prefix,
            max_stream_bytes=limits.max_stream_bytes,
            retention_seconds=limits.stream_retention_seconds,
            lease_seconds=limits.stream_lease_seconds,
        )

    def _runs_deleted(self, run_ids: Sequence[str]) -> None:
        if self._redis_chunks is not None:
            self._redis_chunks.runs_deleted(run_ids)

    async def _prepare_database(self) -> None:
        """Check the schema, and make a copied or restored database ours."""
        url = self.settings.require_database_url()
        async with connected(url) as connection:
            await verify_schema(connection, schema=self.settings.schema_name)
            if await adopt(connection, schema=self.settings.schema_name):
                logger.info("this database was not followed before")


def object_store(settings: Settings) -> ObjectStore:
    """
    Make the store that the settings choose; nothing is sent or written yet.

    Raises:
        ConfigurationError: It needs a package that is not installed.
    """
    if settings.s3_bucket is None:
        return LocalObjectStore(settings.objects_dir or _default_objects_dir())
    try:
        from runcast.objects.s3 import Bucket, S3ObjectStore
    except ModuleNotFoundError as error:
        if error.name != "obstore":
            raise
        raise ConfigurationError(
            "RUNCAST_S3_BUCKET needs a package that is not here: pip install 'runcast[s3]'."
        ) from error
    return S3ObjectStore(
        Bucket(
            name=settings.s3_bucket,
            endpoint=settings.s3_endpoint,
            public_endpoint=settings.s3_public_endpoint,
            region=settings.s3_region,
            virtual_host=settings.s3_virtual_host,
            prefix=settings.s3_prefix,
            access_key_id=settings.s3_access_key_id,
            secret_access_key=settings.s3_secret_access_key,
            direct=settings.s3_addresses == "direct",
        )
    )


def _default_objects_dir() -> Path:
    try:
        return default_data_dir("objects")
    except RuntimeError:  # this user has no home
        return Path("objects")


async def _for_ever(work: Callable[[], Awaitable[None]]) -> None:
    """Work until cancelled: an error that nobody foresaw is told, and does not end the work."""
    while True:
        try:
            await work()
        except Exception:
            logger.exception("a task of the gateway failed, and begins anew")
        await asyncio.sleep(_BEGIN_ANEW_SECONDS)


def _listening(listener: socket.socket) -> Listening:
    host, port = listener.getsockname()[:2]
    return Listening(url_of(listener), host, port)
