"""A gateway that can be restarted, and clients of it."""

from collections.abc import AsyncIterator

import pytest

from runcast import AsyncClient
from tests.support.restartable_gateway import RestartableGateway, restartable_gateway


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the machine's own settings, and no proxies."""
    for name in ("RUNCAST_URL", "RUNCAST_SECRET_KEY", "RUNCAST_TOKEN", "RUNCAST_CLIENT_TRANSPORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "*")


@pytest.fixture(params=["websocket", "sse"])
def each_transport(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once over a WebSocket, once over SSE: clients, and programs that a test starts."""
    monkeypatch.setenv("RUNCAST_CLIENT_TRANSPORT", request.param)
    monkeypatch.setattr("runcast.client.open_socket._LINGER_SECONDS", 0.05)


@pytest.fixture
async def gateway(database_url: str) -> AsyncIterator[RestartableGateway]:
    async with restartable_gateway(database_url) as running:
        yield running


@pytest.fixture
async def client(gateway: RestartableGateway) -> AsyncIterator[AsyncClient]:
    """A backend's client."""
    async with AsyncClient(gateway.url, gateway.key) as client:
        yield client
