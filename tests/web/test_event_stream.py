"""SSE connections: their heads, heartbeats and readers of every kind, on both tiers."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from runcast.core.position import parse_cursor
from runcast.hub.subscriber import Subscriber
from runcast.web.listener import listen
from tests.support.event_feed import KEEP_ALIVE, following
from tests.support.gate import Gate
from tests.support.gateway_app import PATIENCE_SECONDS, GatewayApp, running_app, until
from tests.support.needs import missing
from tests.support.wire import Wire, request, wired

ALL = "/realtime/v1/runs"
LAST_CHUNK = b"\r\n0\r\n\r\n"


@pytest.fixture(params=["auto", "portable"])
def transport(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
async def app(transport: str, database_url: str) -> AsyncIterator[GatewayApp]:
    async with running_app(database_url, transport=transport) as running:
        yield running


class TestHead:
    async def test_says_what_proxies_and_browsers_need(
        self, app: GatewayApp, transport: str
    ) -> None:
        async with following(app.url, ALL, app.bearer | {"origin": "https://x"}) as feed:
            await feed.expect("up-to-date")
            headers = feed.response.headers
            (connection,) = app.gateway.hub.connections
        assert feed.response.status_code == 200
        assert headers["content-type"] == "text/event-stream; charset=utf-8"
        assert headers["cache-control"] == "no-store"
        assert headers["x-accel-buffering"] == "no"
        assert headers["access-control-allow-origin"] == "*"
        assert "retry-after" in headers["access-control-expose-headers"]
        assert headers["x-request-id"]
        assert headers["server"] == "runcast"
        # Who sent the next request on a connection that was handed over would get no answer.
        assert headers["connection"] == {"auto": "close"}.get(transport, "keep-alive")
        assert feed.retry == 1000
        assert connection.outlet.tier == {"auto": "handover"}.get(transport, transport)

    async def test_head_requests_get_the_head_alone(self, app: GatewayApp) -> None:
        run_id = await app.insert()
        async with httpx.AsyncClient(base_url=app.url, trust_env=False) as client:
            for path in (ALL, f"{ALL}/{run_id}"):
                answer = await client.head(path, headers=app.bearer)
                assert (answer.status_code, answer.content) == (200, b"")
                assert answer.headers["content-type"].startswith("text/event-stream")
            assert (await client.head(ALL)).status_code == 401
        await app.deserted()

    async def test_a_preflight_allows_a_browser_to_resume(self, app: GatewayApp) -> None:
        async with httpx.AsyncClient(base_url=app.url, trust_env=False) as client:
            answer = await client.options(
                ALL,
                headers={
                    "origin": "https://x",
                    "access-control-request-method": "GET",
                    "access-control-request-headers": "authorization, last-event-id",
                },
            )
        assert answer.status_code == 204
        assert "last-event-id" in answer.headers["access-control-allow-headers"]

    async def test_no_more_connections_than_allowed(
        self, transport: str, database_url: str
    ) -> None:
        async with running_app(database_url, transport=transport, max_connections=1) as app:
            async with following(app.url, ALL, app.bearer) as first:
                await first.expect("up-to-date")
                async with following(app.url, ALL, app.bearer) as second:
                    assert second.response.status_code == 503
                    assert second.response.json()["code"] == "gateway_full"
                    assert second.response.headers["retry-after"]
                    assert second.response.headers["access-control-allow-origin"] == "*"
            await app.deserted()
            async with following(app.url, ALL, app.bearer) as third:
                await third.expect("up-to-date")


class TestHeartbeat:
    async def test_an_idle_feed_is_kept_alive_with_a_cursor(
        self, transport: str, database_url: str
    ) -> None:
        async with running_app(database_url, transport=transport, heartbeat_seconds=0.3) as app:
            async with following(app.url, f"{ALL}?tags=a", app.bearer) as feed:
                before = (await feed.expect("up-to-date")).id
                other = await app.insert(tags=["b"])
                while (event := await feed.next()).id == before:
                    assert event.name == KEEP_ALIVE
                assert event.name == KEEP_ALIVE
                assert event.id
                parse_cursor(event.id)
            path = f"{ALL}?cursor={event.id}"
            async with following(app.url, path, app.bearer) as feed:
                await feed.expect("up-to-date")
                await app.update(other, status="EXECUTING")
                await feed.expect("run")

    async def test_a_busy_feed_needs_none(self, transport: str, database_url: str) -> None:
        async with running_app(database_url, transport=transport, heartbeat_seconds=1) as app:
            run_id = await app.insert()
            clock = app.gateway.services.clock
            async with following(app.url, ALL, app.bearer) as feed:
                await feed.expect("run", "up-to-date")
                (connection,) = app.gateway.hub.connections
                begun = clock.now()
                step = 0
                while clock.now() < begun + 2.5:
                    step += 1
                    asked = clock.now()
                    await app.update(run_id, metadata={"step": step})
                    event = await feed.next()
                    if clock.now() - asked > 0.5:  # not busy, on a busy machine
                        begun = clock.now()
                        connection.outlet.write_count += 1
                    else:
                        assert event.name == "run"


class TestCurl:
    async def test_resumes_as_the_readme_shows(self, app: GatewayApp) -> None:
        curl = shutil.which("curl") or missing("curl", "install it")
        run_id = await app.insert()
        async with following(app.url, f"{ALL}/{run_id}", app.bearer) as feed:
            cursor = (await feed.expect("run", "up-to-date")).id
        await app.update(run_id, metadata={"step": 1})
        process = await asyncio.create_subprocess_exec(
            *(curl, "-N", "-s", "--noproxy", "*"),
            *("-H", f"Authorization: Bearer {app.key}", "-H", f"Last-Event-ID: {cursor}"),
            f"{app.url}{ALL}/{run_id}",
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        async with asyncio.timeout(PATIENCE_SECONDS):
            text = await process.stdout.readuntil(b"event: up-to-date\n")
            await app.finish(run_id)
            text += await process.stdout.read()
            assert await process.wait() == 0
        runs = [json.loads(line[6:]) for line in text.splitlines() if b'"status"' in line]
        assert [run["status"] for run in runs] == ["QUEUED", "COMPLETED"]
        assert runs[0]["metadata"] == {"step": 1}
        assert text.endswith(b'event: end\ndata: {"reason":"finished"}\n\n')


class TestSlowReaders:
    async def test_one_that_takes_nothing_is_dropped_and_holds_up_nobody(
        self, transport: str, database_url: str
    ) -> None:
        # The kernel's own time limit is put out of the way: here it is ours that counts.
        listener = listen("127.0.0.1", 0, stall_timeout_seconds=600)
        async with running_app(
            database_url,
            listener=listener,
            transport=transport,
            stall_timeout_seconds=1,
            write_buffer_bytes=4096,
            heartbeat_seconds=0.5,
        ) as app:
            run_id = await app.insert()
            async with (
                wired(app.port, receive_buffer=4096) as stalled,
                following(app.url, f"{ALL}/{run_id}", app.bearer) as healthy,
            ):
                await stalled.get(ALL, app.bearer)
                await stalled.read_until(b"event: up-to-date")
                await healthy.expect("run", "up-to-date")
                await app.subscribed(2)
                for step in range(30):
                    await app.update(run_id, metadata={"step": step, "x": "y" * 50_000})
                    assert (await healthy.expect("run")).data["metadata"]["step"] == step
                await app.subscribed(1)
                assert app.gateway.hub.counts.closed["slow_consumer"] == 1
                await until(lambda: app.held["sockets"] == 1, lambda: app.held)
                with pytest.raises(ConnectionResetError):
                    await _read_all(stalled)
                assert not stalled.received.endswith(LAST_CHUNK)
                await app.finish(run_id)
                await healthy.expect("run", "end")
                await healthy.ended()
            await app.deserted()

    async def test_the_kernel_drops_one_as_well(self, transport: str, database_url: str) -> None:
        async with running_app(database_url, transport=transport, stall_timeout_seconds=1) as app:
            await app.insert(payload=json.dumps("x" * 3_000_000))
            async with wired(app.port, receive_buffer=4096) as stalled:
                await stalled.get(ALL, app.bearer)
                await stalled.read_until(b"HTTP/1.1 200")
                await app.deserted()

    async def test_a_slow_but_steady_one_is_served_to_the_end(
        self, transport: str, database_url: str
    ) -> None:
        async with running_app(
            database_url,
            transport=transport,
            stall_timeout_seconds=1.5,
            write_buffer_bytes=4096,
        ) as app:
            run_id = await app.insert(payload=json.dumps("x" * 3_000_000))
            clock = app.gateway.services.clock
            async with wired(app.port, receive_buffer=16384) as slow:
                await slow.get(f"{ALL}/{run_id}", app.bearer)
                await slow.read_until(b"event: run")
                begun = clock.now()
                while b"event: up-to-date" not in slow.received[-2000:]:
                    assert await slow.read_some(16384)
                    # Slower than the time limit as a whole; each bit comes soon enough.
                    await asyncio.sleep(0.02)
                assert clock.now() - begun > 1.5
                await app.finish(run_id, payload='"small"')
                assert (await slow.read_to_end()).endswith(LAST_CHUNK)
                assert b'"status":"COMPLETED"' in slow.received[-2000:]

    async def test_one_that_comes_back_finds_the_newest_states_and_no_more_were_kept(
        self, transport: str, database_url: str
    ) -> None:
        async with running_app(
            database_url,
            transport=transport,
            max_backlog_runs=5,
            write_buffer_bytes=4096,
            stall_timeout_seconds=300,
        ) as app:
            many = [await app.insert("hello", tags=["a"]) for _ in range(40)]
            async with (
                wired(app.port, receive_buffer=4096) as slow,
                following(app.url, f"{ALL}?tags=a", app.bearer) as healthy,
            ):
                await slow.get(f"{ALL}?tags=a", app.bearer)
                await slow.read_until(b"event: up-to-date")
                await healthy.until("up-to-date")
                machines = [
                    subscriber.machine
                    for connection in app.gateway.hub.connections
                    for subscriber in connection.subscribers.values()
                    if isinstance(subscriber, Subscriber)
                ]
                # With 3 runs a time the backlog is used, with all at once it overflows.
                for step in range(60):
                    chosen = many[:3] if step % 3 else many
                    await app.sql.execute(
                        "UPDATE runs SET metadata = $1 WHERE id = ANY($2)",
                        json.dumps({"step": step, "x": "y" * 1000}),
                        chosen,
                    )
                    for _ in chosen:
                        await healthy.expect("run")
                    for machine in machines:
                        assert len(machine._backlog or ()) <= 5
                        assert len(machine._outgoing) <= 45
                assert sum(not machine.writable for machine in machines) == 1
                await app.sql.execute("UPDATE runs SET metadata = '{\"last\": true}'")
                last: dict[str, Any] = {}
                while len(last) < 40:
                    await slow.read_some()
                    last = {
                        run["id"]: run for run in _runs(slow) if run["metadata"] == {"last": True}
                    }
                newest: dict[str, int] = {}
                for run in _runs(slow):
                    assert run["revision"] >= newest.get(run["id"], 0)
                    newest[run["id"]] = run["revision"]
                states = sum(run["id"] == many[0] for run in _runs(slow))
                assert states < 60  # what came between was skipped

    async def test_none_holds_up_the_shutdown(self, transport: str, database_url: str) -> None:
        async with running_app(
            database_url, transport=transport, stall_timeout_seconds=3000, heartbeat_seconds=0.1
        ) as app:
            await app.insert(payload=json.dumps("x" * 3_000_000))
            async with (
                wired(app.port, receive_buffer=4096) as stalled,
                wired(app.port, receive_buffer=4096) as other,
            ):
                for wire in (stalled, other):
                    await wire.get(ALL, app.bearer)
                    await wire.read_until(b"HTTP/1.1 200")
                await _someone_is_behind(app, 2)
                async with asyncio.timeout(PATIENCE_SECONDS):
                    await app.stop()
                for wire in (stalled, other):
                    assert not (await wire.read_to_end()).endswith(LAST_CHUNK)
                assert not any(app.held.values())


class TestDepartures:
    async def test_nothing_is_held_for_who_is_gone(self, app: GatewayApp) -> None:
        for _ in range(30):
            await app.insert(tags=["a"])
        head = request(ALL, app.bearer)
        gate = Gate(app)
        async with wired(app.port) as wire:  # in the middle of a snapshot
            await wire.send(head)
            await gate.reached()
            wire.reset()
        async with wired(app.port) as wire:  # before the head is answered, or right then
            await wire.send(head)
            wire.reset()
        async with wired(app.port) as wire:  # before the head is complete
            await wire.send(head[:-4])
            wire.reset()
        async with wired(app.port) as wire:
            await wire.send(head)
        async with wired(app.port) as wire:  # says that it will send nothing more
            await wire.send(head)
            await wire.read_until(b"retry: 1000")
            wire.half_close()
            await wire.read_to_end()
        async with wired(app.port) as wire:
            await wire.send(head)
            wire.half_close()
            await wire.read_to_end()
        async with wired(app.port) as wire:
            wire.half_close()
            await wire.read_to_end()
        await app.deserted()
        gate.open()
        async with following(app.url, ALL, app.bearer) as feed:
            await feed.until("up-to-date")

    async def test_one_that_leaves_while_it_is_behind(
        self, transport: str, database_url: str
    ) -> None:
        async with running_app(database_url, transport=transport, heartbeat_seconds=0.1) as app:
            await app.insert(payload=json.dumps("x" * 3_000_000))
            for leave in (Wire.reset, Wire.half_close):
                async with wired(app.port, receive_buffer=4096) as stalled:
                    await stalled.get(ALL, app.bearer)
                    await _someone_is_behind(app)
                    leave(stalled)
                await app.deserted()

    async def test_a_drain_asks_to_reconnect(self, app: GatewayApp) -> None:
        run_id = await app.insert()
        async with (
            following(app.url, f"{ALL}/{run_id}", app.bearer) as first,
            following(app.url, ALL, app.bearer) as second,
        ):
            await first.expect("run", "up-to-date")
            await second.expect("run", "up-to-date")
            stopping = asyncio.create_task(app.stop())
            for feed in (first, second):
                event = await feed.expect("reconnect")
                assert event.data["code"] == "draining"
                assert event.retry == event.data["delayMs"]
                assert 0 <= event.data["delayMs"] <= 2000
                assert event.id is None
                await feed.ended()
            await stopping


class TestRequests:
    async def test_what_is_pipelined_behind_a_feed_does_no_harm(self, app: GatewayApp) -> None:
        run_id = await app.insert()
        feed = request(f"{ALL}/{run_id}", app.bearer)
        health = request("/healthz", {})
        async with wired(app.port) as wire:
            await wire.send(health + feed)
            await wire.read_until(b"event: up-to-date")
            assert wire.received.count(b"HTTP/1.1 200") == 2
            await wire.send(health * 3)
            await app.finish(run_id)
            await wire.read_until(b"event: end")
            await wire.read_until(LAST_CHUNK)
        await app.deserted()
        async with wired(app.port) as wire:
            other = await app.insert()
            await wire.send(request(f"{ALL}/{other}", app.bearer) + health * 3)
            await wire.read_until(b"event: up-to-date")
            await app.finish(other)
            await wire.read_until(LAST_CHUNK)
        await app.deserted()

    async def test_the_old_http_gets_a_feed_too(self, app: GatewayApp) -> None:
        run_id = await app.insert()
        async with wired(app.port) as wire:
            await wire.get(f"{ALL}/{run_id}", app.bearer, version="1.0")
            await wire.read_until(b"event: up-to-date")
            await app.finish(run_id)
            text = await wire.read_to_end()
            assert b"event: end" in text
            assert b"connection: close" in text
        await app.deserted()

    async def test_a_connection_is_used_again_after_an_error(self, app: GatewayApp) -> None:
        run_id = await app.insert()
        async with wired(app.port) as wire:
            await wire.get(ALL, {})
            await wire.read_until(b'"missing_token"}')
            await wire.get(f"{ALL}/run_none", app.bearer)
            await wire.read_until(b'"not_found"}')
            await wire.get(f"{ALL}/{run_id}", app.bearer)
            await wire.read_until(b"event: up-to-date")
            assert len(app.gateway.hub.connections) == 1
        await app.deserted()

    async def test_a_request_with_a_body_gets_its_feed(self, app: GatewayApp) -> None:
        await app.insert()
        for body in (b"x" * 10, b"x" * 5):
            async with wired(app.port) as wire:
                await wire.send(request(ALL, app.bearer | {"content-length": "10"}) + body)
                await wire.read_until(b"event: up-to-date")
        await app.deserted()


async def _read_all(wire: Wire) -> None:
    while await wire.read_some():
        pass


async def _someone_is_behind(app: GatewayApp, count: int = 1) -> None:
    hub = app.gateway.hub
    await until(lambda: sum(not each.outlet.writable for each in hub.connections) == count)


def _runs(wire: Wire) -> list[dict[str, Any]]:
    """The runs of all events that came completely; chunks end where events do."""
    return [
        json.loads(line[6:])
        for line in wire.received.split(b"\n")[:-1]
        if line.startswith(b"data: ") and line.endswith(b"}") and b'"status"' in line
    ]
