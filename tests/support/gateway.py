"""A gateway for tests: the real routes on a real uvicorn, over a real Postgres, in this loop."""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry

from runcast.auth.token import mint_token
from runcast.core.limits import Limits
from runcast.hub.hub import Hub
from runcast.objects.local import LocalObjectStore
from runcast.ports import ObjectStore
from runcast.postgres.chunk_log import PostgresChunkLog
from runcast.postgres.database import Database
from runcast.postgres.janitor import Janitor
from runcast.postgres.key_store import PostgresKeyStore
from runcast.postgres.object_ledger import PostgresObjectLedger
from runcast.postgres.rate_limiter import PostgresRateLimiter
from runcast.postgres.renewals import PostgresRenewals
from runcast.postgres.revocations import PostgresRevocationStore
from runcast.postgres.run_store import PostgresRunStore
from runcast.postgres.stream_registry import StreamRegistry
from runcast.postgres.waitpoint_store import PostgresWaitpointStore
from runcast.web.asgi import create_asgi
from runcast.web.bearer import Bearer
from runcast.web.key_directory import KeyDirectory
from runcast.web.listener import listen
from runcast.web.rate_limits import RateLimits
from runcast.web.request_counts import RequestCounts
from runcast.web.server import Server
from runcast.web.services import Readiness, Services

NO_OBJECTS = LocalObjectStore(Path("/nonexistent/objects"))
API_VERSION = {"x-trigger-api-version": "2025-07-16"}


class ShiftedClock:
    """The real time, moved by ``offset`` seconds."""

    def __init__(self) -> None:
        self.offset = 0.0

    def now(self) -> float:
        return time.time() + self.offset  # noqa: TID251 - tokens are checked against this clock


@dataclass
class Tenant:
    """An environment with its key, and a client that uses it."""

    environment_id: str
    key: str
    client: httpx.AsyncClient

    def token(self, *scopes: str, **claims: Any) -> str:
        """Sign a public token for this environment."""
        now = claims.pop("now", None) or time.time()  # noqa: TID251 - as a backend would
        return mint_token(
            secret=self.key,
            environment_id=self.environment_id,
            scopes=scopes,
            expires_at=claims.pop("expires_at", now + 600),
            now=now,
            **claims,
        )

    def bearing(self, *scopes: str, **claims: Any) -> dict[str, str]:
        """Headers of somebody who holds a public token with these scopes."""
        return bearing(self.token(*scopes, **claims))

    async def trigger(self, task: str = "hello", **options: Any) -> str:
        """Trigger a run and give its id."""
        payload = options.pop("payload", {"n": 1})
        answer = await self.client.post(
            f"/api/v1/tasks/{task}/trigger", json={"payload": payload, "options": options}
        )
        assert answer.status_code == 200, answer.text
        run_id: str = answer.json()["id"]
        return run_id

    async def retrieve(self, run_id: str) -> Any:
        """Retrieve a run as a backend does."""
        answer = await self.client.get(f"/api/v3/runs/{run_id}")
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def patch(self, run_id: str, **changes: Any) -> httpx.Response:
        """Change a run as its worker does."""
        return await self.client.patch(f"/api/v1/runs/{run_id}", json=changes)


class RunningGateway:
    """A gateway that answers, and the environments in it."""

    def __init__(
        self, url: str, services: Services, keys: PostgresKeyStore, clock: ShiftedClock
    ) -> None:
        self.url = url
        self.services = services
        self.keys = keys
        self.clock = clock
        self.anybody = httpx.AsyncClient(base_url=url, trust_env=False)
        self._clients = [self.anybody]

    async def tenant(self, slug: str) -> Tenant:
        """Create an environment."""
        environment_id, key = await self.keys.create_environment(slug, slug.title())
        client = httpx.AsyncClient(
            base_url=self.url, headers=bearing(key) | API_VERSION, trust_env=False
        )
        self._clients.append(client)
        return Tenant(environment_id, key, client)

    async def close(self) -> None:
        for client in self._clients:
            await client.aclose()


def address(path: str) -> str:
    """Fill the parameters of an operation's path with something that does not exist."""
    return re.sub(r"{(\w+)}", r"\1_1", path.replace("{packet}", "payload"))


def janitor(database: Database) -> Janitor:
    """One that deletes what is old, but for objects: there is no store."""
    return Janitor(
        database,
        StreamRegistry(database, max_streams=1),
        PostgresObjectLedger(database, NO_OBJECTS, unused_seconds=3600),
        stream_retention_seconds=60,
    )


def bearing(token: str) -> dict[str, str]:
    """Headers of somebody who holds this token or key."""
    return {"authorization": f"Bearer {token}"}


@asynccontextmanager
async def running_gateway(
    database_url: str,
    *,
    limits: Limits | None = None,
    readiness: Readiness | None = None,
    extra_routes: Sequence[Any] = (),
    objects: ObjectStore = NO_OBJECTS,
) -> AsyncIterator[RunningGateway]:
    """
    Run a gateway on a free port for as long as the context lasts.

    Without ``objects`` none can be stored.
    """
    limits = limits or Limits(key_cache_seconds=0.0)
    ready = readiness or Readiness(True, {"changefeed": "reading"})
    clock = ShiftedClock()
    database = Database(database_url, max_connections=5)
    await database.open()
    runs, key_store = PostgresRunStore(database), PostgresKeyStore(database)
    chunks = PostgresChunkLog(
        database, max_streams=limits.max_streams_per_run, max_stream_bytes=limits.max_stream_bytes
    )
    keys = KeyDirectory(key_store, clock=clock, ttl_seconds=limits.key_cache_seconds)
    hub = Hub(runs, chunks, clock, limits)
    services = Services(
        runs=runs,
        chunks=chunks,
        objects=objects,
        object_ledger=PostgresObjectLedger(
            database, objects, unused_seconds=limits.unused_object_seconds
        ),
        waitpoints=PostgresWaitpointStore(database),
        keys=keys,
        bearer=Bearer(keys, clock=clock, revocations=hub.revocations),
        revocations=PostgresRevocationStore(database, max_revocations=limits.max_revocations),
        renewals=PostgresRenewals(database, schema="runcast", gateway=hub.id),
        rate_limits=RateLimits(PostgresRateLimiter(database), clock=clock, limits=limits),
        hub=hub,
        clock=clock,
        limits=limits,
        allow_handover=True,
        readiness=lambda: ready,
        requests=RequestCounts(),
        metrics=CollectorRegistry(),
    )
    listener = listen("127.0.0.1", 0, stall_timeout_seconds=limits.stall_timeout_seconds)
    started = asyncio.Event()

    async def no_drain() -> None:
        return None

    async def on_ready() -> None:
        started.set()

    app = create_asgi(services, extra_routes)
    server = Server(app, limits=limits, drain=no_drain, cut_off=lambda: None, on_ready=on_ready)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    gateway = RunningGateway(
        f"http://127.0.0.1:{listener.getsockname()[1]}", services, key_store, clock
    )
    try:
        await started.wait()
        yield gateway
    finally:
        await gateway.close()
        server.stop()
        await serving
        await database.close()


@pytest.fixture
async def gateway(database_url: str) -> AsyncIterator[RunningGateway]:
    """A gateway over a database of its own."""
    async with running_gateway(database_url) as running:
        yield running


@pytest.fixture
async def tenant(gateway: RunningGateway) -> Tenant:
    """An environment of that gateway."""
    return await gateway.tenant("dev")
