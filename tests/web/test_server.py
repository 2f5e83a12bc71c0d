"""The server around the application: heads, logs, signals, and processes that end in order."""

import asyncio
import base64
import io
import json
import logging
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from runcast.cli.logs import log_handler
from runcast.errors import ConfigurationError
from runcast.web import server
from runcast.web.listener import join, listen
from runcast.web.server import HttpProtocol
from tests.cli.command_line import RUNCAST, CommandLine
from tests.support.event_feed import following
from tests.support.gateway_app import PATIENCE_SECONDS, GatewayApp, running_app, until
from tests.support.socket_client import connected
from tests.support.wire import request, wired

ALL = "/realtime/v1/runs"


@pytest.fixture
async def app(database_url: str) -> AsyncIterator[GatewayApp]:
    async with running_app(database_url) as running:
        yield running


@pytest.fixture
def short_heads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HttpProtocol, "head_timeout_seconds", 0.2)


class TestHeads:
    async def test_one_that_is_too_large_is_refused(self, app: GatewayApp) -> None:
        for head in (
            request("/healthz", {"x-large": "x" * 66_000}),
            request("/healthz", {f"x-{number}": "x" * 1000 for number in range(70)}),
            request("/healthz?" + "x" * 66_000, {}),
        ):
            async with wired(app.port) as wire:
                await wire.send(head)
                answer = await wire.read_to_end()
                assert answer.startswith(b"HTTP/1.1 431 ")
                assert json.loads(answer.partition(b"\r\n\r\n")[2])["code"] == "payload_too_large"
        await app.deserted()

    async def test_one_that_never_ends_is_cut_off(self, app: GatewayApp) -> None:
        async with wired(app.port) as wire:
            await wire.send(b"GET / HTTP/1.1\r\nx-large: ")
            with pytest.raises(ConnectionError):
                await wire.send(b"x" * 100_000_000)
        await app.deserted()

    async def test_one_that_just_fits_is_served(self, app: GatewayApp) -> None:
        async with wired(app.port) as wire:
            await wire.get("/healthz", {"x-large": "x" * 64_000})
            assert (await wire.read_until(b'"ok"')).startswith(b"HTTP/1.1 200 ")

    @pytest.mark.usefixtures("short_heads")
    async def test_one_that_comes_too_slowly_is_cut_off(self, app: GatewayApp) -> None:
        head = request("/healthz", {})
        for begun in (b"", head[:10], head + head[:10], head + head[:-2]):
            async with wired(app.port) as wire:
                await wire.send(begun)
                if begun.startswith(head):
                    await wire.read_until(b'"ok"')
                await app.deserted()
                await wire.read_to_end()

    @pytest.mark.usefixtures("short_heads")
    async def test_a_body_that_nobody_waits_for_does_not_hold_the_connection(
        self, app: GatewayApp
    ) -> None:
        async with wired(app.port) as wire:
            await wire.send(request("/healthz", {"content-length": "1000000"}) + b"x")
            await wire.read_until(b'"ok"')
            await wire.send(b"x")  # a sign of life that is none
            await app.deserted()

    @pytest.mark.usefixtures("short_heads")
    async def test_feeds_and_sockets_outlive_the_time_for_a_head(self, app: GatewayApp) -> None:
        run_id = await app.insert()
        clock = app.gateway.services.clock
        async with (
            following(app.url, ALL, app.bearer) as feed,
            connected(app.url, app.bearer) as socket,
        ):
            await feed.expect("run", "up-to-date")
            await socket.expect("authenticated")
            begun = clock.now()
            await until(lambda: clock.now() > begun + 0.5)
            await app.update(run_id, metadata={"x": 1})
            await feed.expect("run")
            await socket.send("ping")
            await socket.expect("pong")

    async def test_nonsense_is_refused(self, app: GatewayApp) -> None:
        for nonsense in (b"nonsense\r\n\r\n", b"\x16\x03\x01\x02\x00\x01" * 20, b"GET\r\n\r\n"):
            async with wired(app.port) as wire:
                await wire.send(nonsense)
                assert (await wire.read_to_end()).startswith(b"HTTP/1.1 400 ")
        await app.deserted()


class TestLog:
    async def test_a_connection_is_told_of_in_its_end(
        self, app: GatewayApp, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO, logger="runcast")
        run_id = await app.insert()
        async with (
            following(app.url, ALL, app.bearer | {"x-request-id": "feed-1"}) as feed,
            connected(app.url, app.bearer | {"x-request-id": "socket-1"}) as socket,
        ):
            assert feed.response.headers["x-request-id"] == "feed-1"
            handshake = socket.connection.response
            assert handshake is not None
            assert handshake.headers["x-request-id"] == "socket-1"
            await feed.expect("run", "up-to-date")
            await socket.expect("authenticated")
            await app.finish(run_id)
            await feed.expect("run")
        await app.deserted()
        ended = {
            record.request: record  # type: ignore[attr-defined]
            for record in caplog.records
            if record.name == "runcast.hub.hub"
        }
        assert ended.keys() == {"feed-1", "socket-1"}
        assert ended["feed-1"].getMessage() == "sse ended: client"
        assert ended["socket-1"].getMessage() == "websocket ended: client"
        assert vars(ended["feed-1"]).keys() >= {"seconds", "writes", "conflations"}
        assert vars(ended["feed-1"])["writes"] >= 2

    async def test_what_goes_wrong_is_told_with_the_request(
        self, app: GatewayApp, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        handler = log_handler("json", stream := io.StringIO())
        logging.getLogger("runcast").addHandler(handler)

        async def broken(*_: object) -> None:
            raise ValueError("planted")

        monkeypatch.setattr(app.gateway.services.runs, "look_up_runs", broken)
        try:
            async with wired(app.port) as wire:
                await wire.get("/api/v3/runs/run_1", app.bearer | {"x-request-id": "req-1"})
                await wire.read_until(b"errorId")
        finally:
            logging.getLogger("runcast").removeHandler(handler)
        lines = [json.loads(line) for line in stream.getvalue().splitlines()]
        assert [(line["level"], line["request"]) for line in lines] == [
            ("ERROR", "req-1"),
            ("WARNING", "req-1"),
        ]
        assert "planted" in lines[0]["exception"]
        assert lines[1]["message"] == "GET /api/v3/runs/{run} was answered with 500"

    @pytest.mark.parametrize("transport", ["auto", "portable"])
    async def test_tokens_and_keys_never_stand_in_it(
        self, database_url: str, caplog: pytest.LogCaptureFixture, transport: str
    ) -> None:
        """Whatever is asked, well or badly, and however much is logged, in every form."""
        streams = [io.StringIO(), io.StringIO()]
        handlers = [log_handler(*each) for each in zip(("json", "text"), streams, strict=True)]
        for handler in handlers:
            logging.getLogger().addHandler(handler)
        try:
            async with running_app(database_url, transport=transport) as app:
                secrets = await self._ask_everything(app, caplog)
        finally:
            for handler in handlers:
                logging.getLogger().removeHandler(handler)
        assert any(record.name == "uvicorn.error" for record in caplog.records)
        for log in (caplog.text, *(stream.getvalue() for stream in streams)):
            assert "was answered with 401" in log
            assert "sse ended: client" in log
            for name, secret in secrets.items():
                assert secret not in log, name
                assert secret[-20:] not in log, name

    async def _ask_everything(
        self, app: GatewayApp, caplog: pytest.LogCaptureFixture
    ) -> dict[str, str]:
        """Ask in every way, with good and bad tokens, and give these."""
        for name in ("", "uvicorn", "uvicorn.error", "uvicorn.access", "asyncio", "websockets"):
            caplog.set_level(logging.DEBUG, logger=name)
        run_id = await app.insert()
        good = app.token("read:runs")
        secrets = {
            "key": app.key,
            "good": good,
            "forged": app.token("read:runs", secret="tr_dev_" + "x" * 40),
            "damaged": good[:-4] + "AAAA",
            "odd": "tr_dev_" + "q" * 40,
            "strange": "%22%0d%0asecret-text%ff",
        }
        upgrade = {
            "connection": "upgrade",
            "upgrade": "websocket",
            "sec-websocket-version": "13",
            "sec-websocket-key": base64.b64encode(b"x" * 16).decode(),
        }
        socket = "/realtime/v1/ws"
        for secret in secrets.values():
            bearer = {"authorization": f"Bearer {secret}"}
            offer = {"sec-websocket-protocol": f"runcast.v1, runcast.token.{secret}"}
            for head in (
                request(ALL, bearer),
                request(f"{ALL}/{run_id}", bearer),
                request(f"{ALL}/{run_id}?token={secret}", {}),
                request(f"{ALL}/run_none?token={secret}", {}),
                request(f"{ALL}?token={secret}&cursor=nonsense", {}),
                request(f"{ALL}?token={secret}&createdAt=nonsense", {}),
                request(f"{ALL}?token={secret}&offset=-1", {}),
                request(f"/realtime/v1/streams/{run_id}/llm?token={secret}", {}),
                request(f"/nowhere?token={secret}", bearer),
                request(f"/api/v1/runs?token={secret}", bearer),
                request(f"/api/v3/runs/{run_id}", bearer),
                request(socket, bearer | upgrade),
                request(socket, offer | upgrade),
                request(f"{socket}?token={secret}", upgrade),
                request(f"/nowhere?token={secret}", bearer | upgrade),
                request(f"{ALL}?token={secret}", bearer | upgrade | {"upgrade": "nonsense"}),
                request(f"{socket}?token={secret}", upgrade | {"sec-websocket-key": "x"}),
                request(f"{socket}?token={secret}", upgrade | {"x-large": "x" * 20_000}),
                request(f"{ALL}?token={secret}", bearer | {"x-large": "x" * 70_000}),
                request(f"{ALL}?token={secret}", bearer | {"content-length": "nonsense"}),
            ):
                async with wired(app.port) as wire:
                    await wire.send(head)
                    await wire.read_some()
            async with wired(app.port) as wire:
                await wire.send(request(socket, upgrade) + b'\x81\x85\0\0\0\0{"}')
        await app.deserted()
        return secrets


class TestDrain:
    async def test_who_has_just_connected_is_still_answered(self, app: GatewayApp) -> None:
        """The balancer chose us before we left: it may not be cut off without a word."""
        async with wired(app.port) as silent, wired(app.port) as slow:
            head = request("/healthz", {})
            await slow.send(head[:10])
            await until(lambda: app.held["sockets"] == 2)
            stopped = asyncio.create_task(app.stop())
            await until(lambda: app.gateway.hub.draining)
            await silent.send(head)
            await slow.send(head[10:])
            for each in (silent, slow):
                assert b'"ok"' in await each.read_to_end()
            await stopped

    @pytest.mark.parametrize("is_accepted", [False, True])
    async def test_who_connects_in_the_very_moment_is_still_answered(
        self, app: GatewayApp, is_accepted: bool
    ) -> None:
        with socket.create_connection(("127.0.0.1", app.port)) as late:
            if is_accepted:  # between this call and the first step of the drain
                asyncio.get_running_loop().call_soon(app.gateway.stop)
            else:
                app.gateway.stop()
            reader, writer = await asyncio.open_connection(sock=late)
            writer.write(request("/healthz", {}))
            assert b'"ok"' in await reader.read()
            writer.close()
            await app.serving

    async def test_connections_that_proxies_keep_end_first(
        self, app: GatewayApp, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Else they would bring requests that a gateway which goes away has to refuse."""
        over = asyncio.Event()
        monkeypatch.setattr(app.server, "_drain", over.wait)
        monkeypatch.setattr(app.server.config, "timeout_keep_alive", 3600)
        monkeypatch.setattr(HttpProtocol, "head_timeout_seconds", 3600)
        async with wired(app.port) as kept:
            await kept.send(request("/healthz", {}))
            await kept.read_until(b'"ok"')
            app.gateway.stop()
            await kept.read_to_end()
        over.set()

    async def test_who_waits_for_a_database_in_vain_is_sent_elsewhere(
        self, app: GatewayApp, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A regression, found by chaos: they were cut off without an answer."""
        monkeypatch.setattr(server, "_LAST_REQUESTS_SECONDS", 0.05)
        run_id = await app.insert()
        async with wired(app.port) as waiting, AsyncExitStack() as stack:
            await stack.enter_async_context(app.sql.transaction())
            await app.sql.execute("LOCK TABLE runs, environment_keys")
            await waiting.send(request(f"/api/v3/runs/{run_id}", app.bearer))
            socket = await stack.enter_async_context(connected(app.url, headers=app.bearer))
            await until(lambda: app.held["requests"] == 2)
            await app.stop()
            answer = await waiting.read_to_end()
            assert await socket.closed() == 1012
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b'"draining"' in answer
        assert not [each for each in caplog.records if each.levelno >= logging.ERROR]

    async def test_who_says_nothing_does_not_hold_it_up(self, app: GatewayApp) -> None:
        async with wired(app.port):
            await until(lambda: app.held["sockets"] == 1)
            await app.stop()


class TestListen:
    async def test_a_taken_port_is_named(self, app: GatewayApp) -> None:
        with pytest.raises(ConfigurationError, match=str(app.port)):
            listen("127.0.0.1", app.port, stall_timeout_seconds=30)

    async def test_an_address_of_somebody_else_is_refused(self) -> None:
        for host in ("203.0.113.1", "nowhere.invalid"):
            with pytest.raises(ConfigurationError, match=host):
                await asyncio.to_thread(listen, host, 0, stall_timeout_seconds=30)

    async def test_several_share_a_port_and_keep_others_out(self) -> None:
        with (
            listen("127.0.0.1", 0, stall_timeout_seconds=30, shared=True) as first,
            join(first) as second,
            join(first) as silent,
        ):
            port = first.getsockname()[1]
            assert second.getsockname() == silent.getsockname() == ("127.0.0.1", port)
            for shared in (False, True):
                with pytest.raises(ConfigurationError, match=str(port)):
                    listen("127.0.0.1", port, stall_timeout_seconds=30, shared=shared)
            second.listen()
            first.close()
            for _ in range(10):
                async with wired(port):
                    second.accept()[0].close()


class TestSignals:
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    async def test_a_process_sends_its_clients_away_and_ends_in_order(
        self, database_url: str, tmp_path: Path, number: signal.Signals
    ) -> None:
        command = CommandLine(
            tmp_path,
            DATABASE_URL=database_url,
            RUNCAST_DRAIN_SECONDS="0.5",
            RUNCAST_LOG_LEVEL="debug",
        )
        process = await asyncio.create_subprocess_exec(
            *(*RUNCAST, "dev", "--port", "0", "--json", "--no-demo"),
            cwd=tmp_path,
            env=command.environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            assert process.stdout is not None
            async with asyncio.timeout(PATIENCE_SECONDS):
                ready = json.loads(await process.stdout.readline())
            bearer = {"authorization": f"Bearer {ready['secretKey']}"}
            async with (
                following(ready["url"], ALL, bearer) as feed,
                connected(ready["url"], bearer) as socket,
                connected(ready["url"]) as nobody,
                wired(int(ready["url"].rpartition(":")[2])) as idle,
            ):
                await idle.get("/healthz", {})
                await feed.expect("up-to-date")
                await socket.expect("authenticated")
                await socket.subscribe("x", {})
                await socket.expect("up-to-date")
                process.send_signal(number)
                event = await feed.expect("reconnect")
                assert event.retry == event.data["delayMs"]
                await feed.ended()
                await socket.expect("reconnect")
                assert await socket.closed() == 4054
                assert await nobody.closed() == 1012
                await idle.read_to_end()
            async with asyncio.timeout(PATIENCE_SECONDS):
                _, log = await process.communicate()
            assert process.returncode == 0, log.decode()
            assert b"Traceback" not in log
            assert ready["secretKey"].encode() not in log
        finally:
            if process.returncode is None:
                process.kill()
                await process.communicate()

    async def test_a_second_signal_ends_at_once(self, database_url: str, tmp_path: Path) -> None:
        command = CommandLine(tmp_path, DATABASE_URL=database_url, RUNCAST_DRAIN_SECONDS="600")
        process = await asyncio.create_subprocess_exec(
            *(*RUNCAST, "dev", "--port", "0", "--json", "--no-demo"),
            cwd=tmp_path,
            env=command.environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            assert process.stdout is not None
            async with asyncio.timeout(PATIENCE_SECONDS):
                ready = json.loads(await process.stdout.readline())
            bearer = {"authorization": f"Bearer {ready['secretKey']}"}
            async with connected(ready["url"], bearer) as socket:
                await socket.expect("authenticated")
                process.send_signal(signal.SIGTERM)
                # The listening socket is closed first of all.
                port = int(ready["url"].rpartition(":")[2])
                await refused(port)
                process.send_signal(signal.SIGTERM)
                async with asyncio.timeout(PATIENCE_SECONDS):
                    _, log = await process.communicate()
            assert process.returncode == 0, log.decode()
            assert b"Traceback" not in log
        finally:
            if process.returncode is None:
                process.kill()
                await process.communicate()


async def refused(port: int) -> None:
    """Wait until nobody listens on a port."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            try:
                async with wired(port):
                    await asyncio.sleep(0.01)
            except ConnectionRefusedError:
                return
            except ConnectionResetError:
                pass  # it came into the queue of a listener that was being closed
