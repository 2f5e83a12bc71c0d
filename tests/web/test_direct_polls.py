"""Polls that are answered past ASGI, byte by byte on one connection each."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import orjson
import pytest

from tests.support.gateway_app import PATIENCE_SECONDS, GatewayApp, running_app, until

RUNS = "/realtime/v1/runs?tags=a"
DIRECT, THROUGH_ASGI = ("poll", "handover"), ("poll", "poll")
# What differs from one answer to the next.
_OF_ONE_ANSWER = {"content-length", "date", "x-request-id", "electric-offset", "electric-cursor"}
_OF_ONE_ANSWER |= {"electric-chunk-last-offset", "electric-next-cursor"}


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: Any


@dataclass
class Poller:
    """One connection of a client of shapes; ``headers`` are sent with each request."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    headers: dict[str, str]
    echo: dict[str, str] = field(default_factory=lambda: {"offset": "-1"})

    def ask(self, path: str = RUNS, more_headers: dict[str, str] | None = None) -> None:
        query = "&".join(f"{name}={value}" for name, value in self.echo.items())
        headers = {"host": "x"} | self.headers | (more_headers or {})
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self.writer.write(f"GET {path}&{query} HTTP/1.1\r\n{lines}\r\n".encode())

    async def answer(self) -> Answer:
        async with asyncio.timeout(PATIENCE_SECONDS):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
            status, *lines = head.strip().split("\r\n")
            headers = dict(line.split(": ", 1) for line in lines)
            body = orjson.loads(await self.reader.readexactly(int(headers["content-length"])))
        if "electric-cursor" in headers:
            self.echo = {
                name: headers[f"electric-{name}"] for name in ("handle", "offset", "cursor")
            }
            self.echo["live"] = "true"
        return Answer(int(status.split()[1]), headers, body)


@pytest.fixture
async def app(database_url: str) -> AsyncIterator[GatewayApp]:
    async with running_app(database_url, key_cache_seconds=60) as running:
        yield running


@asynccontextmanager
async def poller(app: GatewayApp, run_id: str) -> AsyncIterator[Poller]:
    """A client that has begun, and whose question is known from its first poll for news."""
    reader, writer = await asyncio.open_connection("127.0.0.1", app.port)
    client = Poller(reader, writer, app.bearing("read:tags:a"))
    try:
        client.ask()
        await client.answer()
        await held(app, client, THROUGH_ASGI)
        await app.update(run_id, metadata={"known": True})
        assert (await client.answer()).status == 200
        yield client
    finally:
        writer.close()


async def held(
    app: GatewayApp, client: Poller, way: tuple[str, str] = DIRECT, **asking: Any
) -> None:
    """Ask, and wait until the poll is held that way."""
    client.ask(**asking)
    counts, requests = app.gateway.hub.counts, int(way == THROUGH_ASGI)
    await until(
        lambda: counts.connections[way] == 1 and app.held["requests"] == requests,
        lambda: (counts.connections, app.held),
    )
    await app.subscribed()


async def test_answers_are_the_same_as_through_asgi(app: GatewayApp) -> None:
    run_id = await app.insert(tags=["a"])
    reader, writer = await asyncio.open_connection("127.0.0.1", app.port)
    client = Poller(reader, writer, app.bearer)  # a secret key, as backends have
    client.ask()
    await client.answer()
    answers = []
    for n, way in enumerate((THROUGH_ASGI, DIRECT, DIRECT)):
        await held(app, client, way, more_headers={"x-request-id": f"poll-{n}"})
        await app.update(run_id, metadata={"n": n})
        answer = await client.answer()
        assert answer.status == 200
        assert answer.body[0]["value"]["metadata"] == f'{{"n": {n}}}'
        assert answer.headers["x-request-id"] == f"poll-{n}"
        answers.append(answer)
    usual, *direct = answers
    for answer in direct:
        same = {name: value for name, value in usual.headers.items() if name not in _OF_ONE_ANSWER}
        assert answer.headers.keys() == usual.headers.keys()
        assert answer.headers | same == answer.headers
    counted = app.gateway.services.requests.answered
    assert counted["GET", "/realtime/v1/runs", "2xx"] == 4
    writer.close()
    await app.deserted()


async def test_a_client_that_leaves_leaves_nothing_behind(app: GatewayApp) -> None:
    async with poller(app, await app.insert(tags=["a"])) as client:
        await held(app, client)
    await app.deserted()


async def test_a_request_behind_a_poll_is_answered_after_it(app: GatewayApp) -> None:
    run_id = await app.insert(tags=["a"])
    async with poller(app, run_id) as client:
        await held(app, client)
        client.writer.write(b"GET /nothing HTTP/1.1\r\nhost: x\r\n\r\n")
        await app.update(run_id, metadata={"n": 1})
        assert (await client.answer()).body[0]["value"]["id"] == run_id
        assert (await client.answer()).status == 404
        await held(app, client)


async def test_a_large_answer_comes_whole(app: GatewayApp) -> None:
    run_id = await app.insert(tags=["a"])
    async with poller(app, run_id) as client:
        await held(app, client)
        text = "x" * 2_000_000  # more than sockets hold
        await app.update(run_id, metadata={"text": text})
        answer = await client.answer()
        assert answer.body[0]["value"]["metadata"] == f'{{"text": "{text}"}}'
        await until(lambda: not app.held["leaving"])
        await held(app, client)


async def test_a_reader_of_a_large_answer_who_takes_nothing_is_dropped(
    database_url: str,
) -> None:
    async with running_app(database_url, key_cache_seconds=60, stall_timeout_seconds=1) as app:
        run_id = await app.insert(tags=["a"])
        async with poller(app, run_id) as client:
            sock = client.writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            await held(app, client)
            await app.update(run_id, metadata={"text": "x" * 4_000_000})
            await app.deserted()


async def test_a_held_poll_whose_position_is_lost_begins_anew(app: GatewayApp) -> None:
    hub = app.gateway.hub
    async with poller(app, await app.insert(tags=["a"])) as client:
        await held(app, client)
        hub.restart(hub.position, "ahead", "The changefeed lost its place.")
        lost = await client.answer()
        assert (lost.status, lost.body) == (409, [{"headers": {"control": "must-refetch"}}])


async def test_a_held_poll_ends_with_its_token(app: GatewayApp) -> None:
    run_id = await app.insert(tags=["a"])
    async with poller(app, run_id) as client, httpx.AsyncClient(trust_env=False) as backend:
        await held(app, client)
        token = client.headers["authorization"].removeprefix("Bearer ")
        revoked = await backend.post(
            f"{app.url}/api/v1/tokens/revocations", json={"token": token}, headers=app.bearer
        )
        assert revoked.status_code == 200
        for _ in range(2):  # the poll that was held, and the next one
            refused = await client.answer()
            assert (refused.status, refused.body["code"]) == (401, "token_revoked")
            client.ask()


async def test_a_drain_ends_the_connection_with_an_answer(app: GatewayApp) -> None:
    async with poller(app, await app.insert(tags=["a"])) as client:
        await held(app, client)
        await app.stop()
        answer = await client.answer()
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert not await client.reader.read()


async def test_places_of_an_environment_are_kept(database_url: str) -> None:
    async with running_app(
        database_url, key_cache_seconds=60, max_environment_connections=1
    ) as app:
        run_id = await app.insert(tags=["a"])
        async with poller(app, run_id) as client:
            await held(app, client)
            reader, writer = await asyncio.open_connection("127.0.0.1", app.port)
            other = Poller(reader, writer, client.headers, client.echo)
            other.ask()
            assert (await other.answer()).body["code"] == "too_many_connections"
            await app.update(run_id, metadata={"n": 1})
            assert (await client.answer()).status == 200
            other.ask()
            assert (await other.answer()).status == 200
            writer.close()


async def test_what_is_not_plain_goes_the_usual_way(app: GatewayApp) -> None:
    run_id = await app.insert(tags=["a"])
    odd: list[dict[str, Any]] = [
        {"more_headers": {"trigger-version": "3.3.17"}},
        {"more_headers": {"content-length": "0"}},
        {"path": f"{RUNS}&token=none"},
        {"path": f"{RUNS}&cursor="},
        {"path": f"{RUNS}&{'x' * 3000}=1"},
        {"more_headers": {"connection": "close"}},
    ]
    async with poller(app, run_id) as client:
        for n, asking in enumerate(odd):
            await held(app, client, THROUGH_ASGI, **asking)
            await app.update(run_id, metadata={"n": n})
            assert (await client.answer()).status == 200
        assert not await client.reader.read()


async def test_what_fails_goes_the_usual_way(
    app: GatewayApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    def connect(connection: object) -> None:
        monkeypatch.undo()
        raise RuntimeError("once")

    async with poller(app, await app.insert(tags=["a"])) as client:
        monkeypatch.setattr(app.gateway.hub, "connect", connect)
        await held(app, client, THROUGH_ASGI)
