"""Sending to a run, and how official clients read that and other streams."""

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from runcast.hub.stream_reader import StreamReader
from tests.support.event_feed import EventFeed, following
from tests.support.gateway_app import GatewayApp, running_app

NEW = {"trigger-version": "4.8.3"}
OLD = {"trigger-version": "3.3.17"}


@pytest.fixture
async def app(database_url: str) -> AsyncIterator[GatewayApp]:
    async with running_app(database_url) as running:
        yield running


@pytest.fixture
async def client(app: GatewayApp) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=app.url, trust_env=False) as client:
        yield client


def address(run_id: str, key: str = "chat") -> str:
    return f"/realtime/v1/streams/{run_id}/input/{key}"


async def batch(feed: EventFeed) -> list[dict[str, Any]]:
    """The next event with parts, which must be a batch."""
    event = await feed.next()
    while event.name.startswith(":"):
        event = await feed.next()
    assert event.name == "batch"
    records: list[dict[str, Any]] = event.data["records"]
    assert event.id == str(records[-1]["seq_num"])
    return records


class TestSending:
    async def test_what_is_sent_is_read_at_the_same_address(
        self, app: GatewayApp, client: httpx.AsyncClient
    ) -> None:
        run_id = await app.insert()
        sender = app.bearing(f"write:inputStreams:{run_id}")
        for value in ({"text": "hi ü"}, "plain", None, [1]):
            answer = await client.post(address(run_id), json={"data": value}, headers=sender)
            assert (answer.status_code, answer.json()) == (200, {"ok": True})
        async with following(app.url, address(run_id), app.bearing(f"read:runs:{run_id}")) as feed:
            parts = [(await feed.expect("message")).data for _ in range(4)]
            await feed.expect("up-to-date")
        assert [json.loads(part) for part in parts] == [{"text": "hi ü"}, "plain", None, [1]]

    async def test_it_is_a_stream_that_followers_of_the_run_do_not_see(
        self, app: GatewayApp, client: httpx.AsyncClient
    ) -> None:
        run_id = await app.insert()
        answer = await client.post(address(run_id), json={"data": 1}, headers=app.bearer)
        assert answer.status_code == 200
        streams = "SELECT realtime_streams FROM runs WHERE id = $1"
        assert await app.sql.fetchval(streams, run_id) == []
        path = f"/realtime/v1/streams/{run_id}/$trigger.input:chat"
        async with following(app.url, path, app.bearer) as feed:
            assert (await feed.expect("message")).data == "1"

    async def test_a_part_id_makes_a_repetition_harmless(
        self, app: GatewayApp, client: httpx.AsyncClient
    ) -> None:
        run_id = await app.insert()
        headers = app.bearer | {"x-part-id": "a"}
        for _ in range(2):
            answer = await client.post(address(run_id), json={"data": 1}, headers=headers)
            assert answer.json() == {"ok": True}
        assert await app.sql.fetchval("SELECT count(*) FROM chunks") == 1

    async def test_only_those_may_whose_token_says_so(
        self, app: GatewayApp, client: httpx.AsyncClient
    ) -> None:
        run_id, other = await app.insert(), await app.insert()
        for scope in (f"write:inputStreams:{other}", f"read:runs:{run_id}", f"write:runs:{run_id}"):
            answer = await client.post(
                address(run_id), json={"data": 1}, headers=app.bearing(scope)
            )
            assert answer.status_code == 403
            assert f"write:inputStreams:{run_id}" in answer.json()["error"]
        assert (await client.post(address(run_id), json={"data": 1})).status_code == 401
        sender = app.bearing(f"write:inputStreams:{run_id}")
        assert (await client.get(address(run_id), headers=sender)).status_code == 403

    async def test_what_cannot_be_sent_is_refused_in_words(
        self, app: GatewayApp, client: httpx.AsyncClient
    ) -> None:
        run_id, over = await app.insert(), await app.insert()
        await app.finish(over)
        for path, data, status, code in (
            (address("run_none"), 1, 404, "not_found"),
            (address(over), 1, 400, "stream_closed"),
            (address(run_id, "k" * 510), 1, 400, "invalid_parameter"),
            (address(run_id), '"' * 300_000, 413, "payload_too_large"),
        ):
            answer = await client.post(path, json={"data": data}, headers=app.bearer)
            body = answer.json()
            assert (answer.status_code, body["ok"], body["code"]) == (status, False, code), body
        for content in (b"", b"{}", b"[]", b"{"):
            answer = await client.post(
                address(run_id),
                content=content,
                headers=app.bearer | {"content-type": "application/json"},
            )
            body = answer.json()
            assert (answer.status_code, body["ok"], body["code"]) == (400, False, "invalid_body")
        large = b'{"data":"' + b"x" * 1024 * 1024 + b'"}'
        answer = await client.post(address(run_id), content=large, headers=app.bearer)
        assert (answer.status_code, answer.json()["ok"]) == (413, False)


class TestOfficialReaders:
    async def test_from_4_1_on_get_batches_and_resume_behind_a_number(
        self, app: GatewayApp, client: httpx.AsyncClient
    ) -> None:
        run_id = await app.insert()
        path = f"/realtime/v1/streams/{run_id}/llm"
        written = f"/realtime/v1/streams/{run_id}/self/llm"
        await client.post(written, content=b'{"n":0}\n"one"\ntwo\n', headers=app.bearer)
        async with following(app.url, path, app.bearer | NEW) as feed:
            head = feed.response.headers
            records = await batch(feed)
            await client.post(written, content=b"3\n", headers=app.bearer)
            records += await batch(feed)
        assert head["x-stream-version"] == "v2"
        assert head["cache-control"] == "no-cache"
        assert "x-stream-version" in head["access-control-expose-headers"]
        bodies = [json.loads(record["body"]) for record in records]
        assert [body["data"] for body in bodies] == [{"n": 0}, "one", "two", 3]
        assert [record["seq_num"] for record in records] == [0, 1, 2, 3]
        assert len({body["id"] for body in bodies}) == 4
        async with following(app.url, path, app.bearer | NEW | {"last-event-id": "1"}) as feed:
            again = await batch(feed)
        assert again == records[2:], "the same ids, so that repetitions can be dropped"

    async def test_older_ones_get_one_part_at_a_time(
        self, app: GatewayApp, client: httpx.AsyncClient
    ) -> None:
        run_id = await app.insert()
        path = f"/realtime/v1/streams/{run_id}/llm"
        await client.post(
            f"/realtime/v1/streams/{run_id}/self/llm", content=b'{"n":0}\n', headers=app.bearer
        )
        async with following(app.url, path, app.bearer | OLD) as feed:
            assert feed.response.headers["x-stream-version"] == "v1"
            await feed.expect(": hello", "message")

    @pytest.mark.parametrize(
        ("headers", "seconds"),
        [(NEW, 60.0), (OLD, 60.0), (NEW | {"timeout-seconds": "5"}, 5.0), ({}, None)],
    )
    async def test_are_let_go_after_a_minute_of_silence(
        self, app: GatewayApp, headers: dict[str, str], seconds: float | None
    ) -> None:
        run_id = await app.insert()
        path = f"/realtime/v1/streams/{run_id}/llm"
        async with following(app.url, path, app.bearer | headers) as feed:
            await feed.next()
            (connection,) = app.gateway.hub.connections
            (reader,) = connection.subscribers.values()
            assert isinstance(reader, StreamReader)
            assert reader._timeout_seconds == seconds
