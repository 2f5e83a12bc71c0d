"""What /metrics tells of a gateway at work."""

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from runcast.core.tailing import State
from runcast.postgres.database import Database
from tests.support.event_feed import following
from tests.support.gateway_app import GatewayApp, running_app, until
from tests.support.socket_client import connected

ALL = "/realtime/v1/runs"
QUERY = re.compile(r"(select|insert|update|delete) [a-z_]+|select|commit|changefeed [a-z]+")


@pytest.fixture
async def app(database_url: str) -> AsyncIterator[GatewayApp]:
    async with running_app(database_url) as running:
        yield running


async def measured(app: GatewayApp) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Every sample, by its name and labels."""
    async with httpx.AsyncClient(base_url=app.url, trust_env=False) as client:
        text = (await client.get("/metrics")).text
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


class Samples:
    """The samples of one moment."""

    def __init__(self, found: dict[tuple[str, tuple[tuple[str, str], ...]], float]) -> None:
        self._found = found

    def of(self, name: str, **labels: str) -> float:
        """The value of one, 0 where it does not exist yet."""
        return self._found.get((f"runcast_{name}", tuple(sorted(labels.items()))), 0.0)

    def labels(self, name: str, label: str) -> set[str]:
        """All values of a label."""
        return {dict(labels)[label] for found, labels in self._found if found == f"runcast_{name}"}


async def samples(app: GatewayApp) -> Samples:
    return Samples(await measured(app))


async def test_a_change_is_observed_once_for_each_kind_of_connection(app: GatewayApp) -> None:
    run_id = await app.insert(tags=["a"])
    async with (
        following(app.url, ALL, app.bearer) as one,
        following(app.url, f"{ALL}?tags=a", app.bearer) as other,
        connected(app.url, app.bearer) as socket,
    ):
        await one.expect("run", "up-to-date")
        await other.expect("run", "up-to-date")
        await socket.expect("authenticated")
        await socket.subscribe("x", {"task": "hello"})
        await socket.expect("run", "up-to-date")
        found: list[Samples] = []
        for step in range(3):  # the first still finds the run's beginning on its way
            await app.update(run_id, metadata={"step": step})
            for feed in (one, other, socket):
                await feed.expect("run")
            found.append(await samples(app))
    before, _, after = found

    def grown(name: str, **labels: str) -> float:
        return after.of(name, **labels) - before.of(name, **labels)

    for transport in ("sse", "websocket"):
        assert grown("delivery_lag_seconds_count", transport=transport) == 2
        assert grown("delivery_lag_seconds_sum", transport=transport) > 0
    assert grown("deliveries_total") == 6
    assert grown("changes_published_total") == 2
    assert grown("sent_bytes_total", to="connections") > 6 * 100
    assert grown("changefeed_position") > 0


async def test_what_is_open_is_counted_by_kind_until_it_ends(app: GatewayApp) -> None:
    run_id = await app.insert()
    asked: dict[str, Any] = {
        "run": {"run": run_id},
        "tag": {"tags": ["a"]},
        "task": {"task": "hello"},
        "all": {},
    }
    async with (
        connected(app.url, app.bearer) as socket,
        following(app.url, f"/realtime/v1/streams/{run_id}/llm", app.bearer),
        following(app.url, f"{ALL}/{run_id}", app.bearer),
    ):
        await socket.expect("authenticated")
        for kind, selector in asked.items():
            await socket.subscribe(kind, selector)
            await socket.until("up-to-date")
        await socket.send("unsubscribe", id="all")
        await socket.expect("end")
        await app.subscribed(3)
        found = await samples(app)
        open_now = {
            (kind, transport): found.of("subscriptions", kind=kind, transport=transport)
            for kind in (*asked, "stream")
            for transport in ("sse", "websocket")
        }
        assert {of for of, count in open_now.items() if count == 1} == {
            ("run", "websocket"),
            ("tag", "websocket"),
            ("task", "websocket"),
            ("run", "sse"),
            ("stream", "sse"),
        }
        assert found.of("connections", kind="sse", tier="handover") == 2
        assert found.of("connections", kind="websocket", tier="handover") == 1
    await app.deserted()
    counts = app.gateway.hub.counts
    assert not any(counts.subscriptions.values())
    assert not any(counts.connections.values())


async def test_requests_are_counted_by_route_and_never_by_address(app: GatewayApp) -> None:
    run_id = await app.insert()
    async with httpx.AsyncClient(base_url=app.url, headers=app.bearer, trust_env=False) as client:
        await client.get(f"/api/v3/runs/{run_id}")
        await client.get("/api/v3/runs/run_none")
        await client.get(f"/nowhere/{run_id}")
        await client.request("PROPFIND", "/healthz")
        answer = await client.get(f"{ALL}?offset=-1")
        assert answer.status_code == 200
    found = await samples(app)
    route = {"method": "GET", "route": "/api/v3/runs/{run}"}
    assert found.of("requests_total", **route, status="2xx") == 1
    assert found.of("requests_total", **route, status="4xx") == 1
    assert found.of("request_duration_seconds_count", **route) == 2
    assert found.of("requests_total", method="GET", route="other", status="4xx") == 1
    assert found.of("requests_total", method="other", route="/healthz", status="4xx") == 1
    assert found.of("requests_total", method="GET", route=ALL, status="2xx") == 1
    assert ALL not in found.labels("request_duration_seconds_count", "route"), "polls may wait"
    assert found.of("sent_bytes_total", to="requests") > len(answer.content)
    assert run_id not in str(await measured(app))


async def test_chunks_are_counted_where_they_are_stored_and_where_they_go(app: GatewayApp) -> None:
    run_id = await app.insert()
    path = f"/realtime/v1/streams/{run_id}/llm"
    async with (
        httpx.AsyncClient(base_url=app.url, headers=app.bearer, trust_env=False) as client,
        following(app.url, path, app.bearer) as early,
    ):
        for line in (b"1\n", '"äbc"\n'.encode()):
            answer = await client.post(f"/realtime/v1/streams/{run_id}/self/llm", content=line)
            assert answer.status_code == 200, answer.text
            await early.until("message")
        async with following(app.url, path, app.bearer) as late:
            await late.until("message")
            await app.subscribed(2)
            found = await samples(app)
    assert found.of("chunks_appended_total") == 2
    assert found.of("chunk_appended_bytes_total") == 7
    assert found.of("chunks_delivered_total") == 4


async def test_statements_have_a_few_names_and_the_loop_is_timed(app: GatewayApp) -> None:
    run_id = await app.insert()
    async with httpx.AsyncClient(base_url=app.url, headers=app.bearer, trust_env=False) as client:
        await client.post("/api/v1/tasks/hello/trigger", json={"payload": 1})
        for path in ("/api/v1/runs", f"/api/v3/runs/{run_id}", "/api/v1/waitpoints/tokens"):
            await client.get(path)
    async with following(app.url, ALL, app.bearer) as feed:
        await feed.until("up-to-date")
        await app.update(run_id, metadata={"x": 1})
        await feed.expect("run")
    await until(lambda: app.gateway.hub.loop_lag.buckets[-1][1] > 0)
    await until(lambda: app.gateway.tailer.state is State.SLEEPING)  # it has set the bell
    found = await samples(app)
    names = found.labels("query_duration_seconds_count", "query")
    assert {"select runs", "insert runs", "commit"} <= names
    assert {"changefeed window", "changefeed runs", "changefeed bell"} <= names
    assert not [name for name in names if not QUERY.fullmatch(name)]
    assert found.of("event_loop_lag_seconds_count") > 0
    assert found.of("pool_max") == app.gateway.settings.pool_max_connections
    assert found.of("pool_connections", state="idle") > 0


async def test_who_waits_for_a_connection_is_seen(database_url: str) -> None:
    database = Database(database_url, max_connections=1)
    await database.open()
    try:
        async with database.transaction():
            waiting = asyncio.create_task(database.fetch("SELECT 1"))
            await until(lambda: database.figures["waiting"] == 1)
            assert database.figures["busy"] == 1
        await waiting
        assert database.figures == {"busy": 0, "idle": 1, "waiting": 0, "max": 1}
    finally:
        await database.close()
