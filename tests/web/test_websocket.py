"""The WebSocket over a real socket: tokens, commands, limits, and its ends."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus
from websockets.frames import Frame, Opcode

from runcast.core.position import Position
from runcast.web.listener import listen
from runcast.web.socket_commands import SocketCommands
from tests.support.event_feed import following
from tests.support.gate import Gate
from tests.support.gateway_app import PATIENCE_SECONDS, GatewayApp, running_app, until
from tests.support.socket_client import SocketClient, connected
from tests.support.wire import request, wired

V1 = "runcast.v1"


@pytest.fixture(params=["auto", "portable"])
def tier(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def app(database_url: str, tier: str) -> AsyncIterator[GatewayApp]:
    async with running_app(database_url, heartbeat_seconds=0.5, transport=tier) as running:
        yield running


@pytest.fixture
async def socket(app: GatewayApp) -> AsyncIterator[SocketClient]:
    """A socket of the environment's backend, on which nothing was asked yet."""
    async with connected(app.url, app.bearer) as client:
        await client.expect("authenticated")
        yield client


class TestToken:
    async def test_comes_as_a_subprotocol(self, app: GatewayApp) -> None:
        token = app.token("read:runs")
        offered = [V1, f"runcast.token.{token}"]
        async with connected(app.url, subprotocols=offered) as client:
            assert client.connection.subprotocol == V1
            message = await client.expect("authenticated")
            assert isinstance(message["expiresAt"], int)

    async def test_comes_in_the_header(self, app: GatewayApp) -> None:
        async with connected(app.url, app.bearer) as client:
            assert await client.expect("authenticated") == {"type": "authenticated"}
        async with connected(app.url, app.bearing("read:runs"), subprotocols=()) as client:
            assert client.connection.subprotocol is None
            await client.expect("authenticated")

    async def test_comes_in_the_first_message(self, app: GatewayApp) -> None:
        run_id = await app.insert()
        async with connected(app.url) as client:
            await client.send("authenticate", token=app.token(f"read:runs:{run_id}"))
            await client.expect("authenticated")
            await client.subscribe("x", {"run": run_id})
            assert (await client.expect("run"))["run"]["id"] == run_id

    async def test_the_longest_token_fits_as_a_subprotocol(self, app: GatewayApp) -> None:
        scopes = [f"read:tags:{number:0480}" for number in range(12)]
        token = app.token(*scopes)
        assert 7800 < len(token) <= 8192
        async with connected(app.url, subprotocols=[V1, f"runcast.token.{token}"]) as client:
            await client.expect("authenticated")

    async def test_a_bad_one_is_told_before_the_close(self, app: GatewayApp) -> None:
        for token, code in {
            "nonsense": "invalid_token",
            "tr_dev_" + "x" * 40: "invalid_token",
            app.token("read:runs", secret="tr_dev_" + "x" * 40): "invalid_token",
            "x" * 20_000: "invalid_token",
        }.items():
            async with connected(app.url) as client:
                await client.send("authenticate", token=token)
                assert (await client.problem())["code"] == code
                assert await client.closed() == 4501
        async with connected(app.url, {"authorization": "Bearer nonsense"}) as client:
            assert (await client.problem())["code"] == "invalid_token"
            assert await client.closed() == 4501
        async with connected(app.url, subprotocols=[V1, "runcast.token.nonsense"]) as client:
            assert (await client.problem())["code"] == "invalid_token"
            assert await client.closed() == 4501
        await app.deserted()

    async def test_an_expired_one_asks_for_a_fresh_one(self, app: GatewayApp) -> None:
        token = app.token("read:runs", seconds=0)
        async with connected(app.url, {"authorization": f"Bearer {token}"}) as client:
            expires_at = (await client.expect("authenticated"))["expiresAt"]
            await client.expect("expired")
            assert await client.closed() == 4001
        await past(app, expires_at)
        async with connected(app.url) as client:
            await client.send("authenticate", token=token)
            assert (await client.problem())["code"] == "expired_token"
            assert await client.closed() == 4001

    async def test_anything_else_first_is_refused(self, app: GatewayApp) -> None:
        for first, code, close in (
            ('{"type":"ping"}', "missing_token", 4501),
            ('{"type":"subscribe","id":"x","runs":{}}', "missing_token", 4501),
            ("nonsense", "invalid_command", 4500),
            ('{"type":"authenticate"}', "invalid_command", 4500),
        ):
            async with connected(app.url) as client:
                await client.connection.send(first)
                assert (await client.problem())["code"] == code
                assert await client.closed() == close

    async def test_has_to_come_in_time(self, database_url: str) -> None:
        async with (
            running_app(database_url, authenticate_timeout_seconds=0.1) as app,
            connected(app.url) as client,
        ):
            assert (await client.problem())["code"] == "missing_token"
            assert await client.closed() == 4501

    async def test_never_counts_in_the_address(self, app: GatewayApp) -> None:
        token = app.token("read:runs")
        async with connected(app.url, path=f"/realtime/v1/ws?token={token}") as client:
            await client.send("ping")
            assert (await client.problem())["code"] == "missing_token"

    async def test_there_is_no_socket_elsewhere(self, app: GatewayApp) -> None:
        for path in ("/realtime/v1/runs", "/", "/realtime/v1/ws/x"):
            with pytest.raises(InvalidStatus) as refused:
                async with connected(app.url, app.bearer, path=path):
                    pass
            assert refused.value.response.status_code in (403, 404)
        await app.deserted()


class TestRenewal:
    async def test_a_newer_token_keeps_the_connection_alive(self, app: GatewayApp) -> None:
        run_id = await app.insert()
        async with connected(app.url, app.bearing("read:runs", seconds=1)) as client:
            first = (await client.expect("authenticated"))["expiresAt"]
            await client.subscribe("x", {"run": run_id}, stay=True)
            await client.expect("run", "up-to-date")
            await client.send("authenticate", token=app.token("read:runs", seconds=3))
            second = (await client.expect("authenticated"))["expiresAt"]
            assert second > first
            await past(app, first)
            await app.update(run_id, metadata={"late": True})
            assert (await client.expect("run"))["run"]["metadata"] == {"late": True}
            await client.expect("expired")
            assert await client.closed() == 4001
        await app.deserted()

    async def test_a_token_that_ends_earlier_ends_the_connection_earlier(
        self, database_url: str
    ) -> None:
        async with (
            running_app(database_url, heartbeat_seconds=300) as app,
            connected(app.url, app.bearer) as client,
        ):
            await client.expect("authenticated")
            await client.send("authenticate", token=app.token("read:runs", seconds=1))
            await client.expect("authenticated", "expired")
            assert await client.closed() == 4001

    async def test_a_bad_token_changes_nothing(self, app: GatewayApp, socket: SocketClient) -> None:
        run_id = await app.insert()
        environment_id, key = await app.keys.create_environment("other", "Other")
        foreign = app.token("read:runs", secret=key, environment_id=environment_id)
        await socket.subscribe("x", {"run": run_id}, stay=True)
        await socket.expect("run", "up-to-date")
        for token in ("nonsense", foreign, key):
            await socket.send("authenticate", token=token)
            problem = await socket.problem()
            assert (problem["code"], problem["id"]) == ("invalid_token", None)
        await app.finish(run_id)
        assert (await socket.expect("run"))["id"] == "x"

    async def test_other_rights_are_judged_at_once(self, app: GatewayApp) -> None:
        mine = await app.insert(tags=["a", "user_1"], payload='{"secret":1}')
        theirs = await app.insert(tags=["a", "user_2"])
        async with connected(app.url, app.bearing("read:runs")) as client:
            await client.expect("authenticated")
            await client.subscribe("mine", {"run": mine}, stay=True)
            await client.expect("run", "up-to-date")
            await client.subscribe("theirs", {"run": theirs}, stay=True)
            await client.expect("run", "up-to-date")
            await client.subscribe("tagged", {"tags": ["user_1"]})
            await client.expect("run", "up-to-date")
            await client.subscribe("all", {})
            await client.expect("run", "run", "up-to-date")
            narrow = app.token("read:tags:user_1", skip_columns=["payload"])
            await client.send("authenticate", token=narrow)
            await client.expect("authenticated")
            seen: dict[str, list[dict[str, Any]]] = {}
            for _ in range(10):
                message = await client.next()
                seen.setdefault(message["id"], []).append(message)
            assert [each["type"] for each in seen["mine"]] == ["reset", "run", "up-to-date"]
            assert [each["type"] for each in seen["tagged"]] == ["reset", "run", "up-to-date"]
            for name in ("mine", "tagged"):
                assert seen[name][0]["reset"]["reason"] == "token_changed"
                assert "payload" not in seen[name][1]["run"]
            for name in ("theirs", "all"):
                reset, message = seen[name]
                assert reset["reset"]["reason"] == "token_changed"
                assert message["problem"]["code"] == "insufficient_scope"
            await app.update(theirs, metadata={"hidden": 1})
            await app.update(mine, metadata={"x": 1})
            for _ in range(2):
                message = await client.expect("run")
                assert message["id"] in ("mine", "tagged")
                assert message["run"]["id"] == mine
                assert "payload" not in message["run"]

    async def test_the_same_rights_go_on_without_a_reset(self, app: GatewayApp) -> None:
        run_id = await app.insert()
        async with connected(app.url, app.bearing("read:runs")) as client:
            await client.expect("authenticated")
            await client.subscribe("x", {"run": run_id})
            await client.expect("run", "up-to-date")
            await client.send("authenticate", token=app.token("read:runs", seconds=900))
            await client.expect("authenticated")
            await app.finish(run_id)
            await client.expect("run", "end")

    async def test_a_snapshot_on_its_way_stops_with_the_old_rights(self, app: GatewayApp) -> None:
        """Whatever was read under the old token must not be sent under the new one."""
        for _ in range(30):
            await app.insert(tags=["user_1"])
            await app.insert(tags=["user_2"])
        gate = Gate(app)
        async with connected(app.url, app.bearing("read:runs", "read:tags")) as client:
            await client.expect("authenticated")
            await client.subscribe("x", {"tags": ["user_2"]})
            await gate.reached()
            await client.send(
                "authenticate", token=app.token("read:tags:user_1", "read:tags:user_2")
            )
            await client.expect("authenticated")
            message = await client.expect("reset")
            gate.open()
            ids = []
            while (message := await client.next())["type"] == "run":
                ids.append(message["run"]["id"])
            assert message["type"] == "up-to-date"
            assert len(ids) == len(set(ids)) == 30
            await client.send("ping")
            await client.expect("pong")
        await app.deserted()


class TestCommands:
    async def test_one_socket_carries_many_feeds(
        self, app: GatewayApp, socket: SocketClient
    ) -> None:
        batch = await app.sql.fetchval(
            "INSERT INTO batches (environment_id, run_count) VALUES ($1, 1) RETURNING id",
            app.environment_id,
        )
        feeds: dict[str, dict[str, Any]] = {
            "all": {},
            "tags": {"tags": ["a", "b"]},
            "task": {"task": "hello", "tags": ["a"]},
            "batch": {"batch": batch},
            "since": {"createdAt": "1h"},
        }
        for name, runs in feeds.items():
            await socket.subscribe(name, runs)
            message = await socket.expect("up-to-date")
            assert message["id"] == name
            assert message["cursor"]
        run_id = await app.insert(tags=["b", "a"], batch_id=batch)
        for change in ({}, {"metadata": {"x": 1}}):
            if change:
                await app.update(run_id, **change)
            messages = [await socket.expect("run") for _ in feeds]
            assert {message["id"] for message in messages} == feeds.keys()
            assert {message["run"]["id"] for message in messages} == {run_id}
            assert all(message["cursor"] for message in messages)
        await app.delete(run_id)
        for _ in feeds:
            message = await socket.expect("gone")
            assert message["gone"] == {"id": run_id, "reason": "deleted"}

    async def test_hundreds_of_subscriptions(self, app: GatewayApp, socket: SocketClient) -> None:
        ids = [await app.insert() for _ in range(256)]
        for run_id in ids:
            await socket.subscribe(run_id, {"run": run_id})
        ready: set[str] = set()
        while len(ready) < len(ids):
            message = await socket.next()
            assert message["type"] in ("run", "up-to-date", "cursor")
            if message["type"] == "up-to-date":
                ready.add(message["id"])
        await socket.subscribe("one too many", {})
        problem = await socket.problem()
        assert (problem["code"], problem["id"]) == ("invalid_command", None)
        await socket.subscribe("too-many", {})
        problem = await socket.problem()
        assert (problem["code"], problem["id"]) == ("too_many_subscriptions", "too-many")
        await app.sql.execute("UPDATE runs SET status = 'COMPLETED_SUCCESSFULLY'")
        ended: set[str] = set()
        while len(ended) < len(ids):
            message = await socket.next()
            if message["type"] == "end":
                assert message["end"] == {"reason": "finished"}
                ended.add(message["id"])
        await socket.subscribe("again", {"run": ids[0]})
        await socket.expect("run", "up-to-date", "end")
        assert app.held["audiences"] == 0

    async def test_the_limit_is_that_of_the_settings(self, database_url: str) -> None:
        async with (
            running_app(database_url, max_subscriptions_per_connection=2) as app,
            connected(app.url, app.bearer) as client,
        ):
            await client.expect("authenticated")
            for name in ("a", "b"):
                await client.subscribe(name, {})
                await client.expect("up-to-date")
            await client.subscribe("c", {})
            assert (await client.problem())["code"] == "too_many_subscriptions"
            await client.send("unsubscribe", id="a")
            await client.expect("end")
            await client.subscribe("c", {})
            await client.expect("up-to-date")

    async def test_unsubscribe_and_subscribe_again(
        self, app: GatewayApp, socket: SocketClient
    ) -> None:
        run_id = await app.insert()
        await socket.subscribe("x", {"run": run_id})
        await socket.expect("run", "up-to-date")
        await socket.subscribe("x", {})
        problem = await socket.problem()
        assert (problem["code"], problem["id"]) == ("invalid_request", "x")
        for _ in range(3):
            await socket.send("unsubscribe", id="x")
            message = await socket.expect("end")
            assert (message["id"], message["end"]) == ("x", {"reason": "unsubscribed"})
            await socket.subscribe("x", {"run": run_id})
            await socket.expect("run", "up-to-date")
        await app.update(run_id, metadata={"once": True})
        await socket.expect("run")
        await socket.send("unsubscribe", id="x")
        await socket.expect("end")
        await app.update(run_id, metadata={"unheard": True})
        await socket.send("unsubscribe", id="x")
        problem = await socket.problem()
        assert (problem["code"], problem["id"]) == ("not_found", "x")

    async def test_the_newest_wish_wins_during_a_snapshot(
        self, app: GatewayApp, socket: SocketClient
    ) -> None:
        for _ in range(30):
            await app.insert(tags=["a"])
        gate = Gate(app)
        await socket.subscribe("x", {"tags": ["a"]})
        await gate.reached()
        await socket.send("unsubscribe", id="x")
        await socket.expect("end")
        await socket.subscribe("x", {"tags": ["b"]})
        gate.open()
        await socket.expect("up-to-date")
        await app.insert(tags=["b"])
        assert (await socket.expect("run"))["run"]["tags"] == ["b"]

    async def test_a_finished_run_ends_its_subscription_alone(
        self, app: GatewayApp, socket: SocketClient
    ) -> None:
        first, second = await app.insert(), await app.insert()
        await socket.subscribe("first", {"run": first})
        await socket.expect("run", "up-to-date")
        await socket.subscribe("second", {"run": second}, stay=True)
        await socket.expect("run", "up-to-date")
        await app.caught_up()  # else the end may be told with the position of the beginning
        await app.finish(first)
        last = await socket.expect("run")
        message = await socket.expect("end")
        assert (message["id"], message["end"]) == ("first", {"reason": "finished"})
        await app.finish(second)
        assert (await socket.expect("run"))["id"] == "second"
        await app.update(second, metadata={"late": True})
        await socket.expect("run")
        await socket.subscribe("first", {"run": first}, cursor=last["cursor"])
        await socket.expect("up-to-date")
        message = await socket.expect("end")
        assert (message["id"], message["end"]) == ("first", {"reason": "finished"})

    async def test_a_cursor_of_sse_continues_here_and_back(
        self, app: GatewayApp, socket: SocketClient
    ) -> None:
        run_id = await app.insert(tags=["a"])
        await app.insert(tags=["a"])
        async with following(app.url, "/realtime/v1/runs?tags=a", app.bearer) as feed:
            cursor = (await feed.until("up-to-date")).id
        await app.update(run_id, status="EXECUTING")
        await socket.subscribe("x", {"tags": ["a"]}, cursor=cursor)
        message = await socket.expect("run")
        assert (message["run"]["id"], message["run"]["status"]) == (run_id, "EXECUTING")
        cursor = (await socket.expect("up-to-date"))["cursor"]
        path = f"/realtime/v1/runs?tags=a&cursor={cursor}"
        async with following(app.url, path, app.bearer) as feed:
            await feed.expect("up-to-date")

    async def test_a_cursor_that_cannot_be_continued_resets(
        self, app: GatewayApp, socket: SocketClient
    ) -> None:
        run_id = await app.insert()
        await app.finish(run_id)
        here = app.gateway.hub.position
        cursor = Position(here.database + 1, here.xmax + 1_000_000).cursor()
        await socket.subscribe("x", {"run": run_id}, cursor=cursor)
        message = await socket.expect("reset")
        assert (message["id"], message["reset"]["reason"]) == ("x", "other_database")
        await socket.expect("run", "up-to-date", "end")

    async def test_columns_are_skipped(self, app: GatewayApp, socket: SocketClient) -> None:
        run_id = await app.insert(payload='"secret"')
        await socket.subscribe("x", {"run": run_id}, skipColumns=["payload", "tags", "id"])
        run = (await socket.expect("run"))["run"]
        assert run["id"] == run_id
        assert not {"payload", "tags"} & run.keys()

    async def test_pings_are_answered_and_bytes_are_text(self, socket: SocketClient) -> None:
        await socket.send("ping")
        assert await socket.expect("pong") == {"type": "pong"}
        await socket.connection.send(b'{"type":"ping"}')
        await socket.expect("pong")
        await (await socket.connection.ping())

    async def test_an_idle_socket_learns_a_newer_cursor(
        self, app: GatewayApp, socket: SocketClient
    ) -> None:
        run_id = await app.insert(tags=["a"])
        await socket.subscribe("x", {"tags": ["a"]})
        await socket.expect("run")
        before = (await socket.expect("up-to-date"))["cursor"]
        other = await app.insert(tags=["b"])
        await app.update(other, status="EXECUTING")
        while (message := await socket.expect("cursor"))["cursor"] == before:
            pass
        assert message.keys() == {"type", "cursor"}
        await app.update(run_id, status="EXECUTING")
        await socket.expect("run")
        await socket.subscribe("y", {}, cursor=message["cursor"])
        assert (await socket.expect("run"))["run"]["id"] == run_id
        await socket.expect("up-to-date")

    async def test_what_may_not_be_read_is_told_per_subscription(self, app: GatewayApp) -> None:
        run_id = await app.insert(tags=["user_1"])
        other = await app.insert(tags=["user_2"])
        async with connected(app.url, app.bearing("read:tags:user_1")) as client:
            await client.expect("authenticated")
            for runs, code in (
                ({"run": other}, "insufficient_scope"),
                ({"run": "run_nothere"}, "insufficient_scope"),
                ({}, "insufficient_scope"),
                ({"tags": ["user_2"]}, "insufficient_scope"),
                ({"batch": "batch_none"}, "insufficient_scope"),
                ({"task": "hello"}, "insufficient_scope"),
            ):
                await client.subscribe("x", runs)
                problem = await client.problem()
                assert (problem["code"], problem["id"]) == (code, "x"), runs
            await client.subscribe("x", {"run": run_id})
            await client.expect("run", "up-to-date")

    async def test_mistakes_are_explained_and_change_nothing(
        self, app: GatewayApp, socket: SocketClient
    ) -> None:
        for mistake, code, named in (
            ("nonsense", "invalid_command", None),
            ("[]", "invalid_command", None),
            ("{}", "invalid_command", None),
            ("[" * 5000, "invalid_command", None),
            ('{"type":7}', "invalid_command", None),
            ('{"type":"subscribe"}', "invalid_command", None),
            ('{"type":"subscribe","id":"","runs":{}}', "invalid_command", None),
            ('{"type":"subscribe","id":"a b","runs":{}}', "invalid_command", None),
            (
                json.dumps({"type": "subscribe", "id": "x" * 65, "runs": {}}),
                "invalid_command",
                None,
            ),
            ('{"type":"subscribe","id":"x"}', "invalid_command", "x"),
            ('{"type":"subscribe","id":"x","runs":[]}', "invalid_command", "x"),
            ('{"type":"subscribe","id":"x","runs":{"tgs":[]}}', "invalid_command", "x"),
            ('{"type":"subscribe","id":"x","runs":{"tags":"a"}}', "invalid_command", "x"),
            ('{"type":"subscribe","id":"x","runs":{"run":1}}', "invalid_command", "x"),
            (
                '{"type":"subscribe","id":"x","runs":{"run":"a","tags":["b"]}}',
                "invalid_command",
                "x",
            ),
            ('{"type":"subscribe","id":"x","runs":{},"stay":1}', "invalid_command", "x"),
            ('{"type":"subscribe","id":"x","runs":{},"what":1}', "invalid_command", "x"),
            ('{"type":"subscribe","id":"x","runs":{},"cursor":"nonsense"}', "invalid_cursor", "x"),
            ('{"type":"subscribe","id":"x","runs":{"tags":[""]}}', "invalid_selector", "x"),
            ('{"type":"subscribe","id":"x","runs":{"run":""}}', "invalid_selector", "x"),
            ('{"type":"subscribe","id":"x","runs":{"task":"\\u0000"}}', "invalid_selector", "x"),
            ('{"type":"subscribe","id":"x","runs":{"createdAt":"ä"}}', "invalid_parameter", "x"),
            ('{"type":"subscribe","id":"x","runs":{"run":"run_no"}}', "not_found", "x"),
            ('{"type":"subscribe","id":"x","runs":{"batch":"b"}}', "not_found", "x"),
            (
                '{"type":"subscribe","id":"x","runs":{},"skipColumns":["a b"]}',
                "invalid_parameter",
                "x",
            ),
            ('{"type":"unsubscribe","id":"x"}', "not_found", "x"),
            ('{"type":"ping","id":1}', "invalid_command", None),
        ):
            await socket.connection.send(mistake)
            problem = await socket.problem()
            assert (problem["code"], problem["id"]) == (code, named), mistake
        await socket.connection.send(b"\xff\xfe")
        assert (await socket.problem())["code"] == "invalid_command"
        await socket.subscribe("x", {})
        await socket.expect("up-to-date")
        assert len(app.gateway.hub.connections) == 1

    async def test_a_hundred_messages_of_nonsense_are_enough(
        self, app: GatewayApp, socket: SocketClient
    ) -> None:
        for _ in range(99):
            await socket.connection.send("nonsense")
        for _ in range(99):
            assert (await socket.problem())["code"] == "invalid_command"
        await socket.send("ping")
        await socket.expect("pong")
        for _ in range(100):
            await socket.connection.send("nonsense")
        for _ in range(100):
            assert (await socket.problem())["code"] == "invalid_command"
        assert (await socket.problem())["code"] == "invalid_request"
        assert await socket.closed() == 4500
        await app.deserted()

    async def test_a_message_that_is_too_large_closes(
        self, app: GatewayApp, socket: SocketClient
    ) -> None:
        await socket.connection.send("x" * 65537)
        assert await socket.closed() == 1009
        await app.deserted()


class TestSlowReaders:
    async def test_one_that_takes_nothing_is_dropped_and_holds_up_nobody(
        self, database_url: str, tier: str
    ) -> None:
        # The kernel's own time limit is put out of the way: here it is ours that counts.
        listener = listen("127.0.0.1", 0, stall_timeout_seconds=600)
        async with (
            running_app(
                database_url,
                transport=tier,
                listener=listener,
                stall_timeout_seconds=1,
                heartbeat_seconds=0.5,
            ) as app,
            wired(app.port, receive_buffer=4096) as stalled,
            connected(app.url, app.bearer) as healthy,
        ):
            run_id = await app.insert()
            await stalled.send(handshake(app.bearer))
            await stalled.read_until(b"authenticated")
            await stalled.send(text_frame({"type": "subscribe", "id": "x", "runs": {}}))
            await stalled.read_until(b'"type":"up-to-date"')
            await healthy.expect("authenticated")
            await healthy.subscribe("x", {"run": run_id})
            await healthy.expect("run", "up-to-date")
            await app.subscribed(2)
            for step in range(30):
                await app.update(run_id, metadata={"step": step, "x": "y" * 50_000})
                assert (await healthy.expect("run"))["run"]["metadata"]["step"] == step
            await app.subscribed(1)
            assert app.gateway.hub.counts.closed["slow_consumer"] == 1
            await until(lambda: app.held["sockets"] == 1, lambda: app.held)
            await stalled.read_to_end()
            with pytest.raises(ConnectionError):  # it was reset, not only closed
                await stalled.send(b"x")
            await app.finish(run_id)
            await healthy.expect("run", "end")

    async def test_a_slow_but_steady_one_is_served_to_the_end(
        self, database_url: str, tier: str
    ) -> None:
        async with running_app(database_url, transport=tier, stall_timeout_seconds=1.5) as app:
            run_id = await app.insert(payload=json.dumps("x" * 3_000_000))
            clock = app.gateway.services.clock
            async with wired(app.port, receive_buffer=16384) as slow:
                await slow.send(handshake(app.bearer))
                await slow.read_until(b"authenticated")
                command = {"type": "subscribe", "id": "x", "runs": {"run": run_id}}
                await slow.send(text_frame(command))
                await slow.read_until(b'"type":"run"')
                begun = clock.now()
                while b'"type":"up-to-date"' not in slow.received[-2000:]:
                    assert await slow.read_some(16384)
                    # Slower than the time limit as a whole; each bit comes soon enough.
                    await asyncio.sleep(0.02)
                assert clock.now() - begun > 1.5
                await app.finish(run_id, payload='"small"')
                await slow.read_until(b'"type":"end"')

    async def test_one_that_sends_but_does_not_read_is_not_listened_to(
        self, database_url: str, tier: str
    ) -> None:
        async with running_app(database_url, transport=tier, stall_timeout_seconds=300) as app:
            await app.insert(payload=json.dumps("x" * 3_000_000))
            async with wired(app.port, receive_buffer=4096) as stalled:
                await stalled.send(handshake(app.bearer))
                await stalled.read_until(b"authenticated")
                for name in ("x", "y"):
                    await stalled.send(text_frame({"type": "subscribe", "id": name, "runs": {}}))
                hub = app.gateway.hub
                await until(lambda: any(not each.outlet.writable for each in hub.connections))
                (connection,) = hub.connections
                # What nobody reads fills the buffers of the kernel, not ours.
                await stalled.fill(text_frame({"type": "ping"}) * 100)
                assert connection.outlet.unsent < 8_000_000
                stalled.reset()
            await app.deserted()

    async def test_none_holds_up_the_shutdown(self, database_url: str, tier: str) -> None:
        async with running_app(database_url, transport=tier, stall_timeout_seconds=3000) as app:
            await app.insert(payload=json.dumps("x" * 3_000_000))
            async with wired(app.port, receive_buffer=4096) as stalled:
                await stalled.send(handshake(app.bearer))
                await stalled.read_until(b"authenticated")
                for name in ("x", "y"):
                    await stalled.send(text_frame({"type": "subscribe", "id": name, "runs": {}}))
                hub = app.gateway.hub
                await until(lambda: any(not each.outlet.writable for each in hub.connections))
                async with asyncio.timeout(PATIENCE_SECONDS):
                    await app.stop()
                assert not any(app.held.values())


class TestConnections:
    async def test_no_more_than_allowed(self, database_url: str) -> None:
        async with running_app(database_url, max_connections=1) as app:
            async with connected(app.url) as early, connected(app.url, app.bearer) as first:
                await first.expect("authenticated")
                async with connected(app.url, app.bearer) as second:
                    assert (await second.problem())["code"] == "gateway_full"
                    assert await second.closed() == 4029
                await early.send("authenticate", token=app.key)
                assert (await early.problem())["code"] == "gateway_full"
                assert await early.closed() == 4029
            await app.deserted()
            async with connected(app.url, app.bearer) as third:
                await third.expect("authenticated")

    async def test_nothing_is_held_for_who_is_gone(self, app: GatewayApp) -> None:
        for _ in range(30):
            await app.insert(tags=["a"])
        gate = Gate(app)
        for bearer in (app.bearer, None):
            async with connected(app.url, bearer) as client:
                if bearer:
                    await client.expect("authenticated")
                    await client.subscribe("x", {})
                    await gate.reached()
                client.connection.transport.abort()
        await app.deserted()

    async def test_half_a_handshake_holds_nothing(self, app: GatewayApp) -> None:
        head = (
            b"GET /realtime/v1/ws HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\n"
            b"connection: upgrade\r\nsec-websocket-version: 13\r\n"
        )
        for rest in (b"\r\n", b"sec-websocket-key: nonsense\r\n\r\n"):
            async with wired(app.port) as wire:
                await wire.send(head + rest)
                assert (await wire.read_to_end()).startswith(b"HTTP/1.1 4")
        many = b"".join(b"x-%d: y\r\n" % number for number in range(200))
        async with wired(app.port) as wire:
            await wire.send(head + many + b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
            assert (await wire.read_to_end()).startswith(b"HTTP/1.1 431 ")
        await app.deserted()

    async def test_a_drain_asks_to_reconnect(self, app: GatewayApp) -> None:
        async with (
            connected(app.url, app.bearer) as idle,
            connected(app.url, app.bearer) as busy,
            connected(app.url) as nobody,
        ):
            await idle.expect("authenticated")
            await busy.expect("authenticated")
            await busy.subscribe("x", {})
            await busy.expect("up-to-date")
            stopping = asyncio.create_task(app.stop())
            for client in (idle, busy):
                message = await client.expect("reconnect")
                assert message["reconnect"]["code"] == "draining"
                assert 0 <= message["reconnect"]["delayMs"] <= 2000
                assert await client.closed() == 4054
            assert await nobody.closed() in (1012, 4054)
            await stopping


class TestFrames:
    """Single frames, as browsers hardly send them, on both tiers."""

    async def test_what_comes_with_the_token_is_not_lost(self, app: GatewayApp) -> None:
        run_id = await app.insert()
        async with wired(app.port) as wire:
            await wire.send(handshake({}))
            await wire.read_until(b"\r\n\r\n")
            await wire.send(
                text_frame({"type": "authenticate", "token": app.key})
                + text_frame({"type": "subscribe", "id": "x", "runs": {"run": run_id}})
                + text_frame({"type": "ping"})
            )
            received = await wire.read_until(b'"type":"up-to-date"')
            await wire.read_until(b'"type":"pong"')
            assert received.index(b"authenticated") < received.index(b'"type":"run"')
        await app.deserted()

    async def test_a_message_may_come_in_pieces(self, app: GatewayApp) -> None:
        async with wired(app.port) as wire:
            await wire.send(handshake(app.bearer))
            await wire.read_until(b"authenticated")
            pieces = [b'{"type"', b':"pi', b'ng"}']
            for place, piece in enumerate(pieces):
                opcode = Opcode.CONT if place else Opcode.TEXT
                frame = Frame(opcode, piece, fin=place == 2).serialize(mask=True)
                for start in range(0, len(frame), 3):  # and each piece in pieces
                    await wire.send(frame[start : start + 3])
                if place == 0:  # control frames may stand in between
                    await wire.send(Frame(Opcode.PING, b"are you there").serialize(mask=True))
                    await wire.read_until(
                        Frame(Opcode.PONG, b"are you there").serialize(mask=False)
                    )
            await wire.read_until(b'{"type":"pong"}')
        await app.deserted()

    async def test_a_close_is_answered(self, app: GatewayApp) -> None:
        async with wired(app.port) as wire:
            await wire.send(handshake(app.bearer))
            await wire.read_until(b"authenticated")
            goodbye = Frame(Opcode.CLOSE, (3000).to_bytes(2, "big") + b"bye")
            await wire.send(goodbye.serialize(mask=True))
            received = await wire.read_to_end()
            assert received.endswith(goodbye.serialize(mask=False))
        await app.deserted()

    async def test_who_hangs_up_is_gone(self, app: GatewayApp) -> None:
        async with wired(app.port) as wire:
            await wire.send(handshake(app.bearer))
            await wire.read_until(b"authenticated")
            wire.half_close()
            await wire.read_to_end()
        await app.deserted()

    @pytest.mark.parametrize(
        "frame",
        [
            Frame(Opcode.TEXT, b"{}").serialize(mask=False),
            Frame(Opcode.CONT, b"{}").serialize(mask=True),
            b"\xf1\x80\0\0\0\0",
        ],
        ids=["not masked", "a second half", "unknown bits"],
    )
    async def test_what_is_no_frame_closes(self, app: GatewayApp, frame: bytes) -> None:
        await assert_closed_for(app, frame, 1002)

    @pytest.mark.parametrize("tier", ["auto"], indirect=True)
    async def test_what_is_no_text_closes(self, app: GatewayApp) -> None:
        """Not portable: uvicorn hangs up without a word."""
        await assert_closed_for(app, Frame(Opcode.TEXT, b"\xff").serialize(mask=True), 1007)

    @pytest.mark.parametrize("tier", ["auto"], indirect=True)
    async def test_a_socket_with_nothing_to_say_is_pinged(self, app: GatewayApp) -> None:
        """Not portable: the server does it by itself, every 20 seconds."""
        async with wired(app.port) as wire:
            await wire.send(handshake(app.bearer))
            await wire.read_until(b"authenticated")
            await wire.read_until(Frame(Opcode.PING, b"").serialize(mask=False))

    async def test_a_command_that_fails_drops_the_connection(
        self,
        app: GatewayApp,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        async def fail(self: object, text: object) -> None:
            raise ValueError("planted")

        monkeypatch.setattr(SocketCommands, "_command", fail)
        async with connected(app.url, app.bearer) as client:
            await client.expect("authenticated")
            await client.send("ping")
            assert await client.closed() in (1006, 1011)
        await app.deserted()
        assert "planted" in caplog.text


async def assert_closed_for(app: GatewayApp, frame: bytes, code: int) -> None:
    """Send bytes on an open socket that end it with a code."""
    async with wired(app.port) as wire:
        await wire.send(handshake(app.bearer))
        await wire.read_until(b"authenticated")
        await wire.send(frame)
        received = await wire.read_to_end()
        assert b"\x88" in received
        assert code.to_bytes(2, "big") in received[received.rindex(b"\x88") :]
    await app.deserted()


def handshake(headers: dict[str, str]) -> bytes:
    """The head of a request for a WebSocket."""
    upgrade = {
        "connection": "upgrade",
        "upgrade": "websocket",
        "sec-websocket-version": "13",
        "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    return request("/realtime/v1/ws", headers | upgrade)


def text_frame(message: dict[str, Any]) -> bytes:
    """One message as a client sends it."""
    return Frame(Opcode.TEXT, json.dumps(message).encode()).serialize(mask=True)


async def past(app: GatewayApp, moment: float) -> None:
    """Wait until the gateway's clock has passed a moment."""
    await until(lambda: app.gateway.services.clock.now() > moment)
