"""The application under a server of our own, which shows nothing of itself but ASGI."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest

from tests.support.gateway_app import PATIENCE_SECONDS, GatewayApp, running_app, until

Message = MutableMapping[str, Any]


class Exchange:
    """One request or one socket: what the application sent, and a wall to put up before it."""

    def __init__(self) -> None:
        self.sent: list[Message] = []
        self.open = asyncio.Event()
        self.open.set()
        self.waiting = 0
        self.failure: Exception | None = None
        self._to_receive: asyncio.Queue[Message] = asyncio.Queue()
        self._arrived = asyncio.Event()
        self.task: asyncio.Task[None]

    async def receive(self) -> Message:
        return await self._to_receive.get()

    async def send(self, message: Message) -> None:
        if self.failure is not None:
            raise self.failure
        self.waiting += 1
        try:
            await self.open.wait()
        finally:
            self.waiting -= 1
        if self.failure is not None:
            raise self.failure
        self.sent.append(message)
        self._arrived.set()

    def tell(self, **message: Any) -> None:
        """Let the application receive a message."""
        self._to_receive.put_nowait(message)

    @property
    def text(self) -> bytes:
        """All of the body, or all messages, so far."""
        return b"".join(each.get("body") or each.get("text", "").encode() for each in self.sent)

    async def until(self, mark: bytes) -> None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while mark not in self.text:
                self._arrived.clear()
                await self._arrived.wait()

    async def over(self) -> None:
        """Wait until the application has returned, properly."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            await self.task


@asynccontextmanager
async def exchange(app: GatewayApp, path: str, *, kind: str = "http") -> AsyncIterator[Exchange]:
    """Call the application as a server does that knows only what ASGI demands."""
    one = Exchange()
    scope = {
        "type": kind,
        "asgi": {"version": "3.0"},
        "http_version": "2",
        "path": path,
        "query_string": b"",
        "headers": [(b"authorization", app.bearer["authorization"].encode())],
    }
    scope |= {"method": "GET"} if kind == "http" else {"subprotocols": ["runcast.v1"]}
    if kind == "http":
        one.tell(type="http.request")
    else:
        one.tell(type="websocket.connect")
    application: Callable[..., Awaitable[None]] = app.gateway.app
    one.task = asyncio.ensure_future(_called(application, scope, one))
    try:
        yield one
    finally:
        one.task.cancel()
        await asyncio.wait({one.task})


async def _called(application: Callable[..., Awaitable[None]], scope: Any, one: Exchange) -> None:
    await application(scope, one.receive, one.send)


@pytest.fixture
async def app(database_url: str) -> AsyncIterator[GatewayApp]:
    async with running_app(database_url, heartbeat_seconds=0.3) as app:
        yield app


@pytest.fixture
async def strict_app(database_url: str) -> AsyncIterator[GatewayApp]:
    """One that soon gives up on who takes nothing."""
    async with running_app(database_url, stall_timeout_seconds=0.5) as app:
        yield app


def runs(path: str = "") -> str:
    return f"/realtime/v1/runs{path}"


class TestHttp:
    async def test_a_feed_is_complete(self, app: GatewayApp) -> None:
        run_id = await app.insert()
        async with exchange(app, runs(f"/{run_id}")) as one:
            await one.until(b"event: up-to-date")
            await one.until(b": keep-alive")
            await app.finish(run_id)
            await one.over()
            assert one.sent[0]["status"] == 200
            assert one.sent[-1] == {"type": "http.response.body", "body": b"", "more_body": False}
            assert one.text.endswith(b'event: end\ndata: {"reason":"finished"}\n\n')
        await app.deserted()

    async def test_behind_a_wall_states_are_skipped_and_the_newest_arrives(
        self, app: GatewayApp
    ) -> None:
        run_id = await app.insert()
        async with exchange(app, runs(f"/{run_id}")) as one:
            await one.until(b"event: up-to-date")
            before = len(one.sent)
            one.open.clear()
            for step in range(20):
                await app.update(run_id, metadata={"step": step})
                await until(lambda: one.waiting == 1)
            assert len(one.sent) == before
            one.open.set()
            await one.until(b'"step": 19')
            assert len(one.sent) < before + 10
            await app.finish(run_id)
            await one.over()
        await app.deserted()

    async def test_a_wall_that_stays_ends_the_request(self, strict_app: GatewayApp) -> None:
        app = strict_app
        run_id = await app.insert()
        async with exchange(app, runs(f"/{run_id}")) as one:
            await one.until(b"event: up-to-date")
            one.open.clear()
            await app.update(run_id, status="EXECUTING")
            await one.over()
            assert one.sent[-1].get("more_body") is True
            assert app.gateway.hub.counts.closed["slow_consumer"] == 1
        await app.deserted()

    @pytest.mark.parametrize("behind", [False, True])
    async def test_a_client_that_leaves_ends_the_request(
        self, app: GatewayApp, behind: bool
    ) -> None:
        run_id = await app.insert()
        async with exchange(app, runs()) as one:
            await one.until(b"event: up-to-date")
            if behind:
                one.open.clear()
                await app.update(run_id, status="EXECUTING")
                await until(lambda: one.waiting == 1)
            one.tell(type="http.disconnect")
            await one.over()
        await app.deserted()

    @pytest.mark.parametrize("behind", [False, True])
    async def test_a_send_that_fails_ends_the_request(self, app: GatewayApp, behind: bool) -> None:
        run_id = await app.insert()
        async with exchange(app, runs()) as one:
            await one.until(b"event: up-to-date")
            if behind:
                one.open.clear()
                await app.update(run_id, status="EXECUTING")
                await until(lambda: one.waiting == 1)
                one.failure = ConnectionError("gone")
                one.open.set()
            else:
                one.failure = ConnectionError("gone")
                await app.update(run_id, status="EXECUTING")
            await one.over()
        await app.deserted()

    async def test_a_request_that_is_cancelled_holds_nothing(self, app: GatewayApp) -> None:
        async with exchange(app, runs()) as one:
            await one.until(b"event: up-to-date")
        await app.deserted()

    async def test_a_drain_ends_the_request(self, app: GatewayApp) -> None:
        async with exchange(app, runs()) as one, exchange(app, runs()) as behind:
            await one.until(b"event: up-to-date")
            await behind.until(b"event: up-to-date")
            behind.open.clear()
            await app.stop()
            await one.over()
            await behind.over()
            assert b"event: reconnect" in one.text
            assert one.sent[-1]["more_body"] is False
            assert behind.sent[-1]["more_body"] is True

    async def test_others_are_not_held_up(self, app: GatewayApp) -> None:
        run_id = await app.insert()
        async with exchange(app, runs()) as behind, exchange(app, runs()) as healthy:
            await behind.until(b"event: up-to-date")
            await healthy.until(b"event: up-to-date")
            behind.open.clear()
            for step in range(5):
                await app.update(run_id, metadata={"step": step})
                await healthy.until(b'"step": %d' % step)
            assert b'"step": 4' not in behind.text


class TestWebSocket:
    async def test_commands_are_followed(self, app: GatewayApp) -> None:
        run_id = await app.insert()
        async with exchange(app, "/realtime/v1/ws", kind="websocket") as one:
            await one.until(b'"authenticated"')
            accepted = one.sent[0]
            assert accepted["type"] == "websocket.accept"
            assert accepted["subprotocol"] == "runcast.v1"
            assert [name for name, _ in accepted["headers"]] == [b"x-request-id"]
            command = {"type": "subscribe", "id": "x", "runs": {"run": run_id}}
            one.tell(type="websocket.receive", text=orjson.dumps(command).decode())
            await one.until(b'"up-to-date"')
            await app.finish(run_id)
            await one.until(b'"end"')
            one.tell(type="websocket.disconnect", code=1000)
            await one.over()
        await app.deserted()

    async def test_a_wall_that_stays_ends_the_socket(self, strict_app: GatewayApp) -> None:
        app = strict_app
        run_id = await app.insert()
        async with exchange(app, "/realtime/v1/ws", kind="websocket") as one:
            await one.until(b'"authenticated"')
            command = {"type": "subscribe", "id": "x", "runs": {"run": run_id}}
            one.tell(type="websocket.receive", text=orjson.dumps(command).decode())
            await one.until(b'"up-to-date"')
            one.open.clear()
            await app.update(run_id, metadata={"x": 1})
            await one.over()
            assert app.gateway.hub.counts.closed["slow_consumer"] == 1
        await app.deserted()

    async def test_a_send_that_fails_ends_the_socket(self, app: GatewayApp) -> None:
        async with exchange(app, "/realtime/v1/ws", kind="websocket") as one:
            await one.until(b'"authenticated"')
            one.failure = ConnectionError("gone")
            one.tell(type="websocket.receive", text='{"type":"ping"}')
            await one.over()
        await app.deserted()

    async def test_a_drain_ends_the_socket(self, app: GatewayApp) -> None:
        async with exchange(app, "/realtime/v1/ws", kind="websocket") as one:
            await one.until(b'"authenticated"')
            await app.stop()
            await one.over()
            assert b'"reconnect"' in one.text
            assert one.sent[-1]["type"] == "websocket.close"
            assert one.sent[-1]["code"] == 4054
