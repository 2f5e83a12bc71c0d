"""Deploys without a storm: all gateways restart in turn while many follow and others write."""

import asyncio
import json
import logging
import os
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import asyncpg
import httpx
import pytest

from runcast.core.position import Position, parse_cursor
from runcast.hub.hub import Hub
from tests.support.balancer import Balancer, balancing
from tests.support.gateway_app import until
from tests.support.light_follower import LightFollower
from tests.support.restartable_gateway import RestartableGateway, restartable_gateway
from tests.support.stream_follower import StreamFollower

logger = logging.getLogger(__name__)

FOLLOWERS = int(os.environ.get("RUNCAST_RESTART_FOLLOWERS") or 300)
TAGS = 5
RUNS = [f"run_{number}" for number in range(20)]
STREAMING = "run_s"  # it has a stream, and nobody follows its changes
POLLED = "run_p"
POLLERS = 30
_BACK_OFF_SECONDS = 0.05
_PACE_SECONDS = 0.02 * FOLLOWERS / 300  # this one process delivers and receives everything


class Writer:
    """Changes runs and appends to a stream until the context ends; knows what it wrote."""

    def __init__(self, sql: asyncpg.Connection, balancer: Balancer, key: str) -> None:
        self._sql = sql
        self._url = f"{balancer.url}/realtime/v1/streams/{STREAMING}/self/llm/append"
        self._key = key
        self._over = False
        self.transactions: dict[tuple[str, int], int] = {}  # by run and revision
        self.appended: list[str] = []

    async def __aenter__(self) -> "Writer":
        self._keep(await self._sql.fetch("SELECT id, version, changed_in FROM runs"))
        self._tasks = [asyncio.create_task(each) for each in (self._change(), self._append())]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._over = True
        await asyncio.gather(*self._tasks)

    def _keep(self, rows: list[asyncpg.Record]) -> None:
        for row in rows:
            self.transactions[row["id"], row["version"]] = int(row["changed_in"])

    async def _change(self) -> None:
        dice = random.Random(7)
        while not self._over:
            self._keep(
                await self._sql.fetch(
                    "UPDATE runs SET attempt_count = attempt_count + 1 WHERE id = ANY($1)"
                    " RETURNING id, version, changed_in",
                    dice.sample(RUNS, 2),
                )
            )
            await asyncio.sleep(_PACE_SECONDS)  # without end, but not as fast as they can

    async def _append(self) -> None:
        number = 0
        while not self._over:
            headers = {"authorization": f"Bearer {self._key}", "x-part-id": f"part-{number}"}
            with suppress(httpx.TransportError):
                # Each time another connection, and so another gateway.
                async with httpx.AsyncClient(trust_env=False) as client:
                    answer = await client.post(self._url, headers=headers, content=str(number))
                if answer.status_code == 200:
                    self.appended.append(json.dumps(str(number)))
                    number += 1
            await asyncio.sleep(_PACE_SECONDS)


@asynccontextmanager
async def reading(url: str, key: str) -> AsyncIterator[list[StreamFollower]]:
    """Readers of the stream, who come back at once when they are sent away."""
    readers = [
        StreamFollower(url, STREAMING, key, transport="sse" if number % 2 else "socket")
        for number in range(4)
    ]

    async def keep(reader: StreamFollower) -> None:
        while True:
            await reader.follow()

    tasks = [asyncio.create_task(keep(each)) for each in readers]
    try:
        yield readers
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


class Poller:
    """Follows one run as official clients do: request by request, each to any gateway."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http
        self.seen: list[str] = []  # metadata of the run, oldest first

    async def follow(self) -> None:
        """Poll until cancelled."""
        query = {"offset": "-1"}
        while True:
            try:
                answer = await self._http.get(f"/realtime/v1/runs/{POLLED}", params=query)
            except httpx.TransportError:
                await asyncio.sleep(_BACK_OFF_SECONDS)
                continue
            if answer.status_code == 503:
                await asyncio.sleep(_BACK_OFF_SECONDS)
                continue
            assert answer.status_code == 200, answer.text
            self.seen += [each["value"]["metadata"] for each in answer.json() if "value" in each]
            echo = {name: answer.headers[f"electric-{name}"] for name in ("handle", "offset")}
            query = {**echo, "cursor": answer.headers["electric-cursor"], "live": "true"}


@asynccontextmanager
async def polling(url: str, key: str) -> AsyncIterator[list[Poller]]:
    """Clients that poll until the context ends."""
    async with (
        httpx.AsyncClient(
            base_url=url,
            headers={"authorization": f"Bearer {key}"},
            limits=httpx.Limits(max_connections=POLLERS),
            timeout=60,
            trust_env=False,
        ) as http,
        asyncio.TaskGroup() as following,
    ):
        pollers = [Poller(http) for _ in range(POLLERS)]
        tasks = [following.create_task(each.follow()) for each in pollers]
        yield pollers
        for task in tasks:
            task.cancel()


@asynccontextmanager
async def reads_held(hubs: list[Hub]) -> AsyncIterator[None]:
    """Let no page be read, as if the database were busy."""
    async with AsyncExitStack() as stack:
        for hub in hubs:
            for _ in range(hub.limits.max_concurrent_catch_ups):
                await stack.enter_async_context(hub._catch_ups)
        yield


def feeds(hubs: list[Hub]) -> int:
    """How many follow runs, but for those who poll."""
    links = (link for hub in hubs for link in hub.connections if link.kind != "poll")
    return sum(each.in_feed for link in links for each in link.subscribers.values())


async def restart(
    gateway: RestartableGateway, others: list[Hub], followers: list[LightFollower]
) -> None:
    """Restart it; all who followed there come back to the others, and cost few reads."""
    leaving = gateway.app.gateway.hub
    moved, told = feeds([leaving]), sum(len(each.told) for each in followers)
    before = [(hub.reads.asked, hub.reads.read) for hub in others]
    async with reads_held(others):
        await gateway.stop()
        await until(lambda: feeds(others) == len(followers), lambda: feeds(others))
    for follower in followers:
        await follower.caught_up()
    assert sum(len(each.told) for each in followers) == told + moved
    asked = sum(hub.reads.asked for hub in others) - sum(asked for asked, _ in before)
    read = sum(hub.reads.read for hub in others) - sum(read for _, read in before)
    logger.info("%d came back, asked %d times, and were answered by %d reads", moved, asked, read)
    assert asked >= moved >= len(followers) // 4
    # Whoever asks for the same shares, wherever it stood: one read for each tag and gateway, and
    # for those who poll; as much again for whoever asked just before or after.
    assert read <= 2 * (TAGS + 1) * len(others)
    await gateway.start()


def check_history(follower: LightFollower, transactions: dict[tuple[str, int], int]) -> None:
    """All that came was written, and what a cursor stands behind did not come again."""
    cursor: Position | None = None
    known: dict[str, int] = {}
    for came in follower.history:
        if isinstance(came, str):
            cursor = parse_cursor(came)
            continue
        run_id, revision = came
        assert came in transactions, follower.summary()
        if known.get(run_id) == revision:
            assert cursor is not None
            assert not cursor.sees(transactions[came]), f"{came} twice on {follower.summary()}"
        known[run_id] = revision


@pytest.mark.slow
@pytest.mark.timeout(180 + FOLLOWERS // 5)
async def test_a_rolling_restart_loses_nothing_and_reads_little(database_url: str) -> None:
    async with AsyncExitStack() as stack:
        gateways = [
            await stack.enter_async_context(
                restartable_gateway(database_url, transport=transport, drain_seconds=5.0)
            )
            for transport in ("auto", "auto", "portable")
        ]
        key, sql = gateways[0].key, gateways[0]._sql
        await sql.execute("SET search_path = runcast")
        for number, run_id in enumerate(RUNS):
            await gateways[0].app.insert(id=run_id, tags=[f"tag{number % TAGS}"])
        await gateways[0].app.insert(id=STREAMING)
        await gateways[0].app.insert(id=POLLED, metadata={"n": 0})
        balancer = await stack.enter_async_context(balancing(each.app.port for each in gateways))
        followers = [
            LightFollower(
                balancer.port,
                key,
                tag=f"tag{number % TAGS}",
                transport="sse" if number % 2 else "socket",
            )
            for number in range(FOLLOWERS)
        ]
        for follower in followers:
            stack.push_async_callback(follower.stop)
        for start in range(0, FOLLOWERS, 100):
            await asyncio.gather(*(each.connect() for each in followers[start : start + 100]))
        readers = await stack.enter_async_context(reading(balancer.url, key))
        pollers = await stack.enter_async_context(polling(balancer.url, key))
        states = ['{"n": 0}']
        await until(lambda: all(each.seen == states for each in pollers))

        async with Writer(sql, balancer, key) as writer:
            for gateway in gateways:
                others = [each.app.gateway.hub for each in gateways if each is not gateway]
                await restart(gateway, others, followers)
                states.append(f'{{"n": {len(states)}}}')
                await gateway.app.update(POLLED, metadata={"n": len(states) - 1})
                await until(lambda: all(each.seen == states for each in pollers))

        rows = await sql.fetch("SELECT id, version, tags[1] AS tag FROM runs")
        for follower in followers:
            await follower.holds({r["id"]: r["version"] for r in rows if r["tag"] == follower.tag})
            check_history(follower, writer.transactions)
        for reader in readers:
            await until(lambda reader=reader: len(reader.texts) >= len(writer.appended))  # type: ignore[misc]
            assert reader.texts == writer.appended
        delays = [delay for each in followers for delay in each.told]
        assert len(set(delays)) > len(delays) / 3, "many come back at the same moment"
