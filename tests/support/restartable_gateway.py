"""A gateway that goes away and comes back on the same port."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import asyncpg

from tests.support.gateway_app import GatewayApp, running_app


class RestartableGateway:
    """The whole gateway over one database; ``url`` and ``key`` stay the same whatever happens."""

    def __init__(self, database_url: str, **settings: Any) -> None:
        self._database_url = database_url
        self._settings = settings
        self._port = 0
        self._running = AsyncExitStack()
        self._sql: asyncpg.Connection
        self.app: GatewayApp
        self.url = ""
        self.key = ""

    async def start(self) -> None:
        """Begin to answer, on the port of before."""
        self._running = AsyncExitStack()
        self.app = await self._running.enter_async_context(
            running_app(self._database_url, **{"port": self._port} | self._settings)
        )
        self._port, self.url, self.key = self.app.port, self.app.url, self.app.key

    async def stop(self) -> None:
        """Drain and end."""
        await self._running.aclose()

    async def restart(self) -> None:
        """Go away and come back."""
        await self.stop()
        await self.start()

    def cut(self) -> int:
        """Break all connections without a word, as a lost network does; tell how many."""
        connections: list[Any] = list(self.app.server.server_state.connections)
        for connection in connections:
            # Event streams were handed over to a protocol of ours.
            transport = getattr(connection, "transport", None) or connection._transport
            transport.abort()
        return len(connections)

    async def finish(self, run_id: str) -> None:
        """Complete a run in the database, also while the gateway is away."""
        await self._sql.execute(
            "UPDATE runcast.runs SET status = 'COMPLETED_SUCCESSFULLY' WHERE id = $1", run_id
        )


@asynccontextmanager
async def restartable_gateway(
    database_url: str, **settings: Any
) -> AsyncIterator[RestartableGateway]:
    """Run such a gateway for as long as the context lasts."""
    gateway = RestartableGateway(database_url, **settings)
    gateway._sql = await asyncpg.connect(database_url)
    try:
        await gateway.start()
        yield gateway
    finally:
        await gateway.stop()
        await gateway._sql.close()
