"""Revocation across gateways: whatever is open with a revoked token or key ends, everywhere."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest

from runcast.auth.revocation import STALE_SECONDS
from runcast.postgres import revocation_follower
from tests.support.event_feed import EventFeed, following
from tests.support.gateway_app import GatewayApp, running_app, until
from tests.support.socket_client import SocketClient, connected
from tests.support.stream_writer import writing

RUNS = "/realtime/v1/runs"


@pytest.fixture
async def gateways(database_url: str) -> AsyncIterator[list[GatewayApp]]:
    """Two on one database: one hands connections over, one goes through ASGI."""
    settings: dict[str, Any] = {"key_cache_seconds": 60, "poll_hold_seconds": 30}
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(
                running_app(database_url, transport=transport, **settings)
            )
            for transport in ("auto", "portable")
        ]


async def revoke(app: GatewayApp, **wanted: str) -> None:
    async with httpx.AsyncClient(base_url=app.url, headers=app.bearer, trust_env=False) as http:
        answer = await http.post("/api/v1/tokens/revocations", json=wanted)
    assert answer.status_code == 200, answer.text


class Held:
    """Everything that can be held open with one token, or key, at one gateway."""

    def __init__(self, app: GatewayApp, token: str, run_id: str) -> None:
        self._app = app
        self._headers = {"authorization": f"Bearer {token}"}
        self._run = f"{RUNS}/{run_id}"
        self._stream = f"/realtime/v1/streams/{run_id}/llm"
        self._stack = AsyncExitStack()
        self._feeds: list[EventFeed] = []
        self._shape: EventFeed
        self._socket: SocketClient
        self._poll: asyncio.Task[httpx.Response]
        self._http: httpx.AsyncClient

    async def __aenter__(self) -> "Held":
        enter = self._stack.enter_async_context
        url = self._app.url
        self._http = await enter(
            httpx.AsyncClient(base_url=url, headers=self._headers, trust_env=False, timeout=20)
        )
        for path in (self._run, self._stream):
            self._feeds.append(await enter(following(url, path, self._headers)))
            await self._feeds[-1].until("up-to-date")
        self._socket = await enter(connected(url, self._headers))
        await self._socket.subscribe("a", {"run": self._run.rpartition("/")[2]})
        await self._socket.until("up-to-date")
        first = await self._http.get(self._run, params={"offset": "-1"})
        asked = {name: first.headers[f"electric-{name}"] for name in ("handle", "offset", "cursor")}
        self._poll = asyncio.create_task(self._http.get(self._run, params=asked | {"live": "true"}))
        query = httpx.QueryParams(asked | {"live": "true", "live_sse": "true"})
        self._shape = await enter(following(url, f"{self._run}?{query}", self._headers))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._poll.cancel()
        await self._stack.aclose()

    async def ended(self) -> None:
        """Wait until all of it has ended, each with its reason; and nobody comes in again."""
        for feed in self._feeds:
            problem = await feed.until("problem")
            assert problem.data["code"] == "token_revoked"
            await feed.ended()
        with pytest.raises(StopAsyncIteration):
            await self._shape.until("no such message")
        assert (await self._socket.problem())["code"] == "token_revoked"
        assert await self._socket.closed() == 4501
        for answer in (await self._poll, await self._http.get(self._run)):
            assert answer.status_code == 401
            assert answer.json()["code"] in ("token_revoked", "invalid_token")

    async def reads(self, chunk: str) -> None:
        """A chunk arrives."""
        assert str((await self._feeds[1].until("message")).data) == chunk

    async def goes_on(self) -> None:
        """A change still arrives."""
        await self._feeds[0].expect("run")


async def test_whatever_is_open_ends_on_all_gateways(gateways: list[GatewayApp]) -> None:
    first = gateways[0]
    run_id = await first.insert()
    good = first.token("read:runs", subject="user_2")
    bad = first.token("read:runs", subject="user_1", token_id="t1")
    async with AsyncExitStack() as stack:
        held = [
            await stack.enter_async_context(Held(app, token, run_id))
            for token in (bad, good)
            for app in gateways
        ]
        await until(lambda: all(len(app.gateway.hub.connections) == 10 for app in gateways))
        await revoke(first, tokenId="t1")
        for each in held[:2]:
            await each.ended()
        await first.update(run_id, metadata={"n": 1})
        for each in held[2:]:
            await each.goes_on()
        for app in gateways:
            assert app.gateway.hub.counts.closed["revoked"] == 5


async def test_a_gateway_that_is_told_nothing_finds_out(gateways: list[GatewayApp]) -> None:
    """Also when the revocation comes by SQL, while the connection for news is away."""
    first, second = gateways
    run_id = await first.insert()
    token = first.token("read:runs", subject="user_1")
    async with Held(second, token, run_id) as held:
        await first.sql.execute("DROP TRIGGER b_tell ON revocations")
        await first.sql.execute(
            """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
            WHERE application_name = 'runcast revocations' AND datname = current_database()"""
        )
        await first.sql.execute(
            """INSERT INTO revocations (environment_id, kind, value, issued_before, kept_until)
            SELECT $1, 'subject', 'user_1', now() + interval '1 min', now() + interval '1 hour'""",
            first.environment_id,
        )
        await held.ended()


async def test_what_is_open_with_a_key_ends_with_it(gateways: list[GatewayApp]) -> None:
    first, second = gateways
    run_id = await first.insert()
    signed = first.token("read:runs")
    async with (
        writing(second.url, second.bearer, run_id) as writer,
        AsyncExitStack() as stack,
    ):
        await writer.send_lines(["1"])
        await until(lambda: bool(second.gateway.hub._end_calls))
        by_key = await stack.enter_async_context(Held(first, first.key, run_id))
        by_token = await stack.enter_async_context(Held(second, signed, run_id))
        await first.keys.rotate_key(first.environment_id, grace_seconds=3600)
        await writer.send_lines(["2"])
        for held in (by_key, by_token):
            await held.reads("2")  # for now they go on
        await first.sql.execute(
            """UPDATE environment_keys SET expires_at = now() + interval '0.5 s'
            WHERE expires_at IS NOT NULL"""
        )
        for held in (by_key, by_token):
            await held.ended()
        answer = await writer.answer()
        assert (answer.status, answer.code) == (401, "token_revoked")


async def test_who_cannot_be_looked_up_is_not_let_in(gateways: list[GatewayApp]) -> None:
    app = gateways[0]
    run_id = await app.insert()
    token = app.bearing("read:runs")
    book = app.gateway.hub.revocations
    async with (
        httpx.AsyncClient(base_url=app.url, headers=token, trust_env=False) as http,
        following(app.url, f"{RUNS}/{run_id}", token) as feed,
    ):
        await feed.until("up-to-date")
        async with app.sql.transaction():
            await app.sql.execute("LOCK TABLE revocations IN ACCESS EXCLUSIVE MODE")
            book.read_at -= STALE_SECONDS + 1
            answer = await http.get(f"/api/v3/runs/{run_id}")
            assert (answer.status_code, answer.json()["code"]) == (503, "backend_unavailable")
            ready = await http.get("/readyz")
            assert (ready.status_code, ready.json()["detail"]["revocations"]) == (503, "stale")
        await until(lambda: not book.is_stale(app.gateway.hub.clock.now()))
        assert (await http.get(f"/api/v3/runs/{run_id}")).status_code == 200
        await app.update(run_id, metadata={"n": 1})
        await feed.expect("run")


async def test_a_slow_database_is_given_more_time_until_the_revocations_are_read(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A regression, found by chaos: a gateway gave each connection up too soon, and never began."""
    monkeypatch.setattr(revocation_follower, "_ANSWER_SECONDS", (0.001, 10.0))
    async with running_app(database_url) as app:
        assert not app.gateway.hub.revocations.is_stale(app.gateway.hub.clock.now())
