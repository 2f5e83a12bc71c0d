"""A newer token for an open event stream, on whatever gateway: what it forbids never comes."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest

from runcast.postgres import renewals
from tests.support.event_feed import EventFeed, following
from tests.support.eventually import eventually
from tests.support.gateway_app import PATIENCE_SECONDS, GatewayApp, running_app, until
from tests.support.stream_writer import writing
from tests.support.wire import wired

RUNS = "/realtime/v1/runs"


@pytest.fixture
async def gateways(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[list[GatewayApp]]:
    """Two on one database: one hands connections over, one goes through ASGI."""
    monkeypatch.setattr(renewals, "_WAIT_SECONDS", PATIENCE_SECONDS)  # the machine may be busy
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(running_app(database_url, transport=transport))
            for transport in ("auto", "portable")
        ]


async def renew(app: GatewayApp, connection: EventFeed | str, token: str) -> httpx.Response:
    """Give a connection this token, by way of this gateway."""
    name = connection if isinstance(connection, str) else connection.connection["id"]
    async with httpx.AsyncClient(
        base_url=app.url, trust_env=False, verify=False, timeout=20
    ) as http:
        return await http.post(
            f"/api/v1/connections/{name}/token",
            headers={"authorization": f"Bearer {token}"},
        )


async def until_reset(feed: EventFeed) -> None:
    assert (await feed.until("reset")).data["reason"] == "token_changed"


async def test_nothing_forbidden_comes_from_then_on(gateways: list[GatewayApp]) -> None:
    """Asked of the gateway that does not hold the connection, under a stream of changes."""
    owner = gateways[0]
    mine = await owner.insert(tags=["a"], payload='{"secret":1}')
    theirs = await owner.insert(payload='{"secret":1}')
    wide = owner.bearing("read:runs", "read:tags")
    narrow = owner.token("read:tags", skip_columns=["payload"], seconds=900)

    async def change_all() -> None:
        for number in range(10_000):
            await owner.sql.execute(
                "UPDATE runs SET metadata = jsonb_build_object('n', $1::int)", number
            )

    async with AsyncExitStack() as stack:

        async def follow(app: GatewayApp, path: str) -> EventFeed:
            feed = await stack.enter_async_context(following(app.url, path, wide))
            await feed.until("up-to-date")
            return feed

        feeds = [await follow(app, RUNS) for app in gateways]
        others = [await follow(app, f"{RUNS}/{theirs}") for app in gateways]
        changing = asyncio.create_task(change_all())
        for way, feed, other in zip(reversed(gateways), feeds, others, strict=True):
            for each in (feed, other):
                answer = await renew(way, each, narrow)
                assert answer.status_code == 200, answer.text
                assert answer.json()["expiresAt"] > each.connection["expiresAt"]
        changing.cancel()
        await asyncio.gather(changing, return_exceptions=True)
        await owner.sql.execute("UPDATE runs SET metadata = '{}'")
        await owner.update(mine, metadata={"last": 1})
        for feed, other in zip(feeds, others, strict=True):
            await until_reset(feed)
            seen: dict[str, Any] = {}
            while seen.get("metadata") != {"last": 1}:
                event = await feed.next()
                assert event.name in ("run", "up-to-date")
                if event.name == "run":
                    seen = event.data
                    assert seen["id"] == mine
                    assert "payload" not in seen
            await until_reset(other)
            assert (await other.expect("problem")).data["code"] == "insufficient_scope"
            await other.ended()


async def test_a_wider_token_shows_no_more_than_was_asked_for(gateways: list[GatewayApp]) -> None:
    owner, way = gateways
    run_id = await owner.insert(tags=["a"], payload="1", metadata={"n": 1})
    await owner.insert(tags=["b"])
    narrow = owner.bearing("read:tags:a", skip_columns=["metadata"])
    async with following(owner.url, f"{RUNS}?tags=a&skipColumns=payload", narrow) as feed:
        assert "metadata" not in (await feed.expect("run")).data
        await feed.expect("up-to-date")
        assert (await renew(way, feed, owner.token("read:all"))).status_code == 200
        await until_reset(feed)
        event = await feed.expect("run")
        assert event.data["id"] == run_id
        assert "payload" not in event.data
        assert event.data["metadata"] == {"n": 1}
        await feed.expect("up-to-date")


async def test_a_reader_of_a_stream_stays_or_goes(gateways: list[GatewayApp]) -> None:
    owner, way = gateways
    run_id = await owner.insert(tags=["user_1"])
    path = f"/realtime/v1/streams/{run_id}/llm"
    wide = owner.bearing("read:runs")
    async with (
        writing(owner.url, owner.bearer, run_id) as writer,
        following(owner.url, path, wide) as stays,
        following(owner.url, path, wide) as goes,
    ):
        for feed in (stays, goes):
            await feed.until("up-to-date")
        await writer.send_lines(["1"])
        for feed in (stays, goes):
            assert (await feed.expect("message")).data == 1
        assert (await renew(way, stays, owner.token("read:tags:user_1"))).status_code == 200
        assert (await renew(way, goes, owner.token("read:tags:user_2"))).status_code == 200
        await writer.send_lines(["2"])
        assert (await stays.expect("message")).data == 2
        assert (await goes.expect("problem")).data["code"] == "insufficient_scope"
        await goes.ended()


async def test_a_connection_lives_longer_or_shorter(gateways: list[GatewayApp]) -> None:
    owner, way = gateways
    run_id = await owner.insert()
    short = owner.bearing("read:runs", seconds=2)
    async with (
        following(owner.url, f"{RUNS}/{run_id}", short) as control,
        following(owner.url, f"{RUNS}/{run_id}", short) as feed,
    ):
        for each in (control, feed):
            await each.expect("run", "up-to-date")
        assert (await renew(way, feed, owner.token("read:runs"))).status_code == 200
        await control.expect("expired")
        await owner.update(run_id, metadata={"n": 1})
        await feed.expect("run")
        assert (await renew(way, feed, owner.token("read:runs", seconds=0))).status_code == 200
        await feed.expect("expired")


async def test_news_comes_through_when_connections_for_it_break(
    gateways: list[GatewayApp],
) -> None:
    owner, way = gateways
    await owner.insert()
    async with following(owner.url, RUNS, owner.bearing("read:runs", "read:tags")) as feed:
        await feed.expect("run", "up-to-date")

        async def killed() -> bool:
            ended = await owner.sql.fetchval(
                """SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                WHERE application_name = 'runcast revocations' AND datname = current_database()"""
            )
            return bool(ended)

        for _ in range(3):
            await eventually(killed)
            token = owner.token("read:runs", "read:tags")
            assert (await renew(way, feed, token)).status_code == 200


async def test_who_may_not_is_told_so(
    gateways: list[GatewayApp], monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, way = gateways
    environment_id, key = await owner.keys.create_environment("other", "Other")
    foreign = owner.token("read:runs", secret=key, environment_id=environment_id)
    async with following(
        owner.url, RUNS, owner.bearing("read:runs", "read:tags", subject="user_1")
    ) as feed:
        await feed.expect("up-to-date")

        async def refused(
            app: GatewayApp, token: str, connection: EventFeed | str = feed
        ) -> tuple[int, Any]:
            answer = await renew(app, connection, token)
            return answer.status_code, answer.json()["code"]

        good = owner.token("read:runs", "read:tags", subject="user_1")
        for app in gateways:
            assert await refused(app, foreign) == (404, "not_found")
            assert await refused(app, owner.token("read:runs")) == (401, "invalid_token")
            other = owner.token("read:runs", subject="user_2")
            assert await refused(app, other) == (401, "invalid_token")
        for number in range(30):
            assert (await renew(gateways[number % 2], feed, good)).status_code == 200
        for app in gateways:
            assert await refused(app, good) == (429, "limit_exceeded")
        await owner.insert(task="still here")
        await feed.expect("run")
        monkeypatch.setattr(renewals, "_WAIT_SECONDS", 0.1)
        for unknown in ("unknown", "0123456789ab-its-gateway-is-gone"):
            assert await refused(way, good, unknown) == (404, "not_found")
    await owner.deserted()
    assert await refused(way, good) == (404, "not_found")
    assert not owner.gateway.hub._named


async def test_what_waits_for_a_slow_reader_is_dropped(gateways: list[GatewayApp]) -> None:
    for owner, way in (gateways, gateways[::-1]):
        await owner.insert(payload=json.dumps("x" * 3_000_000))
        hub = owner.gateway.hub
        async with wired(owner.port, receive_buffer=4096) as wire:
            await wire.get(RUNS, owner.bearing("read:runs", "read:tags"))
            await until(lambda: any(each.outlet.unsent for each in hub.connections))  # noqa: B023
            (name,) = hub._named
            answer = await renew(way, name, owner.token("read:tags"))
            assert answer.status_code == 200, answer.text
            assert hub.counts.closed == {"renewed": 1}
            assert len(await wire.read_to_end()) < 3_000_000
