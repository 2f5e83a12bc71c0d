"""The limit of an environment's connections, over several whole gateways."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from runcast.core.places import PlacePace
from tests.support.event_feed import EventFeed, following
from tests.support.gateway_app import GatewayApp, running_app, until
from tests.support.gateway_process import gateway_process
from tests.support.redis import RestartableRedis
from tests.support.socket_client import connected

ALL = "/realtime/v1/runs"
PACE = PlacePace(look=0.02, settle=0.01, patience=10.0)


@pytest.fixture(params=["postgres", "redis"])
def settings(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Settings of gateways that count together, through one store or the other."""
    found: dict[str, Any] = {"max_environment_connections": 3, "place_pace": PACE}
    if request.param == "redis":
        found["redis_url"] = request.getfixturevalue("redis_url")
        found["redis_prefix"] = f"test-{uuid.uuid4().hex}:"
    return found


class Site:
    """Clients of gateways, each of which stays until it is told to leave."""

    def __init__(self) -> None:
        self.stays: list[AsyncExitStack] = []

    async def come(self, app: GatewayApp, path: str = ALL) -> httpx.Response:
        stack = AsyncExitStack()
        feed: EventFeed = await stack.enter_async_context(following(app.url, path, app.bearer))
        if feed.response.status_code == 200:
            self.stays.append(stack)
        else:
            await stack.aclose()
        return feed.response

    async def gets_in(self, app: GatewayApp) -> bool:
        answer = await self.come(app)
        assert answer.status_code == 200 or answer.json()["code"] == "too_many_connections"
        return answer.status_code == 200

    async def leave(self, index: int = -1) -> None:
        await self.stays.pop(index).aclose()

    async def gets_in_soon(self, app: GatewayApp) -> None:
        for _ in range(1000):
            if await self.gets_in(app):
                return
            await asyncio.sleep(0.01)
        raise AssertionError("nobody gets in")


@asynccontextmanager
async def visited() -> AsyncIterator[Site]:
    site = Site()
    try:
        yield site
    finally:
        while site.stays:
            await site.leave()


async def test_all_gateways_together_have_no_more_than_it_says(
    database_url: str, settings: dict[str, Any]
) -> None:
    async with (
        running_app(database_url, **settings) as first,
        running_app(database_url, **settings) as second,
        visited() as site,
    ):
        came = await asyncio.gather(*(site.gets_in((first, second)[n % 2]) for n in range(12)))
        assert sum(came) == 3
        open_at = [len(each.gateway.hub.connections) for each in (first, second)]
        assert sum(open_at) == 3
        for each in (first, second):
            assert not await site.gets_in(each)
        # Whoever leaves makes room, at whichever gateway.
        for each, other in ((first, second), (second, first)):
            await site.leave()
            await site.gets_in_soon(each)
            assert not await site.gets_in(other)
        async with httpx.AsyncClient(base_url=first.url, trust_env=False) as client:
            metrics = (await client.get("/metrics")).text
        refused = first.gateway.hub.admission.refused
        assert f'runcast_connections_refused_total{{limit="environment"}} {refused}.0' in metrics


async def test_a_gateway_that_drains_makes_room_for_those_whom_it_sends_away(
    database_url: str,
) -> None:
    settings: dict[str, Any] = {"max_environment_connections": 3, "place_pace": PACE}
    async with running_app(database_url, **settings) as second, visited() as site:
        async with running_app(database_url, **settings) as first:
            for _ in range(3):
                assert await site.gets_in(first)
            assert not await site.gets_in(second)
        for _ in range(3):
            await site.gets_in_soon(second)
        assert not await site.gets_in(second)


async def test_the_share_of_a_killed_gateway_comes_back_after_its_lease(
    database_url: str, tmp_path: Path
) -> None:
    async with (
        running_app(database_url, max_environment_connections=3, place_pace=PACE) as app,
        visited() as site,
    ):
        variables = {"RUNCAST_MAX_ENVIRONMENT_CONNECTIONS": "3"}
        with gateway_process(tmp_path, database_url, **variables) as process:
            async with (
                following(process.url, ALL, app.bearer) as feed,
                following(process.url, ALL, app.bearer) as other,
            ):
                await feed.expect("up-to-date")
                await other.expect("up-to-date")
                assert await site.gets_in(app)
                assert not await site.gets_in(app)
                process.kill()
        # Its lease has half a minute: let that pass for its row alone.
        assert not await site.gets_in(app)
        rows = await app.sql.fetch(
            "UPDATE connection_places SET held_until = held_until - interval '31 seconds'"
            " WHERE gateway <> $1 RETURNING places",
            app.gateway.hub.id,
        )
        assert [row["places"] for row in rows] == [2]
        await site.gets_in_soon(app)
        assert await site.gets_in(app)
        assert not await site.gets_in(app)


async def test_without_redis_each_counts_alone_and_together_again_afterwards(
    database_url: str, restartable_redis: RestartableRedis
) -> None:
    settings: dict[str, Any] = {
        "redis_url": restartable_redis.url,
        "max_environment_connections": 3,
        "place_pace": PACE,
    }
    async with (
        running_app(database_url, **settings) as first,
        running_app(database_url, **settings) as second,
        visited() as site,
    ):
        assert await site.gets_in(first)
        assert await site.gets_in(first)
        assert await site.gets_in(second)
        assert not await site.gets_in(second)
        await asyncio.to_thread(restartable_redis.kill)
        await site.gets_in_soon(second)
        assert await site.gets_in(second)
        assert not await site.gets_in(second)
        assert second.gateway.hub.admission.failures
        await asyncio.to_thread(restartable_redis.start)
        counts = [each.gateway.hub.admission.places for each in (first, second)]
        await until(lambda: not any(each.alone for each in counts))
        # All five stay, and three have to go before another one may come.
        assert len(site.stays) == 5
        for _ in range(2):
            await site.leave()
            assert not await site.gets_in(first)
            assert not await site.gets_in(second)
        await site.leave()
        await site.gets_in_soon(first)


@asynccontextmanager
async def event_stream(app: GatewayApp, path: str) -> AsyncIterator[None]:
    async with following(app.url, path, app.bearer) as feed:
        assert feed.response.status_code == 200
        yield


@asynccontextmanager
async def held_poll(app: GatewayApp, _: str) -> AsyncIterator[None]:
    async with httpx.AsyncClient(base_url=app.url, headers=app.bearer, trust_env=False) as client:
        began = await client.get(ALL, params={"offset": "now"})
        assert began.status_code == 200
        echo = {name: began.headers[f"electric-{name}"] for name in ("handle", "offset", "cursor")}
        poll = asyncio.create_task(client.get(ALL, params=echo | {"live": "true"}))
        await app.subscribed()
        assert not poll.done()
        try:
            yield
        finally:
            poll.cancel()


@asynccontextmanager
async def web_socket(app: GatewayApp, _: str) -> AsyncIterator[None]:
    async with connected(app.url, app.bearing("read:runs")) as client:
        await client.expect("authenticated")
        await client.send("authenticate", token=app.token("read:runs"))
        await client.expect("authenticated")
        yield


@pytest.mark.parametrize("transport", ["auto", "portable"])
async def test_whatever_is_held_open_takes_a_place(database_url: str, transport: str) -> None:
    async with running_app(
        database_url,
        max_environment_connections=1,
        place_pace=PACE,
        transport=transport,
        poll_hold_seconds=50,
    ) as app:
        run_id = await app.insert()
        stream = f"/realtime/v1/streams/{run_id}/llm"
        holders = [(event_stream, ALL), (event_stream, stream), (held_poll, ""), (web_socket, "")]
        for holder, path in holders:
            async with holder(app, path):
                assert app.gateway.hub.admission.places.used == 1
                await nobody_else_gets_in(app, stream)
                assert app.gateway.hub.admission.places.used == 1
            await app.deserted()
            assert app.gateway.hub.admission.places.used == 0


async def nobody_else_gets_in(app: GatewayApp, stream: str) -> None:
    async with httpx.AsyncClient(base_url=app.url, headers=app.bearer, trust_env=False) as client:
        for path in (ALL, stream, f"{ALL}?offset=-1"):
            answer = await client.get(path)
            assert (answer.status_code, answer.json()["code"]) == (429, "too_many_connections")
            assert "RUNCAST_MAX_ENVIRONMENT_CONNECTIONS" in answer.json()["error"]
            assert answer.headers["retry-after"] == "5"
            assert (await client.head(path)).status_code < 500
        assert (await client.get("/api/v1/runs")).status_code == 200
    async with connected(app.url, app.bearer) as client:
        assert (await client.problem())["code"] == "too_many_connections"
        assert await client.closed() == 4029
