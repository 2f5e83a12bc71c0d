"""One WebSocket for all feeds of a client: shared, lost, renewed, left, and had nowhere at all."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from runcast import AsyncClient
from runcast.client import RunChanged, UpToDate
from runcast.client.errors import (
    ClientClosed,
    ConnectionLost,
    InvalidArgument,
    NotConfigured,
    PermissionDenied,
    UnexpectedAnswer,
)
from tests.support.gateway_app import until
from tests.support.relay import STRIPPED, Relay, UpgradeRelay, relaying, serving
from tests.support.restartable_gateway import RestartableGateway, restartable_gateway


@pytest.fixture(autouse=True)
def short_linger(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runcast.client.open_socket._LINGER_SECONDS", 0.05)


@pytest.fixture
async def relay(gateway: RestartableGateway) -> AsyncIterator[Relay]:
    async with relaying(gateway.url) as relay:
        yield relay


@pytest.fixture
async def proxy(gateway: RestartableGateway) -> AsyncIterator[UpgradeRelay]:
    async with serving(UpgradeRelay(gateway.url)) as proxy:
        yield proxy


def kinds(gateway: RestartableGateway) -> list[str]:
    """Of the connections on which feeds are carried."""
    return sorted(each.kind for each in gateway.app.gateway.hub.connections)


async def gone(gateway: RestartableGateway) -> None:
    await until(lambda: kinds(gateway) == [], lambda: kinds(gateway))


async def begun(events: AsyncIterator[Any]) -> AsyncIterator[Any]:
    """Read until everything so far was told."""
    while not isinstance(await anext(events), UpToDate):
        pass
    return events


# -- sharing --------------------------------------------------------------------------------------


async def test_feeds_share_a_socket_that_is_closed_after_the_last_one(
    client: AsyncClient, gateway: RestartableGateway
) -> None:
    handle = await client.tasks.trigger("t")
    for _ in range(2):
        feeds = [client.runs.subscribe(handle.id, stay=True) for _ in range(5)]
        readings = [client.streams.read(handle.id, f"key-{number}") for number in range(5)]
        both: list[Any] = [*feeds, *readings]
        for each in both:
            await begun(each.events())
        for each in both:
            assert kinds(gateway) == ["websocket"]
            await each.close()
        await gone(gateway)


async def test_a_full_socket_has_another_beside_it(database_url: str) -> None:
    async with (
        restartable_gateway(database_url, max_subscriptions_per_connection=2) as gateway,
        AsyncClient(gateway.url, gateway.key, transport="websocket") as client,
    ):
        handle = await client.tasks.trigger("t")
        feeds = [client.runs.subscribe(handle.id).events() for _ in range(5)]
        await asyncio.gather(*map(begun, feeds))
        assert kinds(gateway) == ["websocket"] * 3
        await client.runs.cancel(handle.id)
        for feed in feeds:
            assert [e.run.status async for e in feed if isinstance(e, RunChanged)] == ["CANCELED"]


async def test_what_is_too_long_to_be_said_leaves_nothing_behind(
    client: AsyncClient, gateway: RestartableGateway
) -> None:
    with pytest.raises(InvalidArgument):
        await anext(client.runs.subscribe_tags("x" * 70_000).events())
    await gone(gateway)
    assert client._feeds._sockets is not None
    await until(lambda: not client._feeds._sockets._sockets)  # type: ignore[union-attr]


async def test_closing_the_client_ends_all_loops(
    client: AsyncClient, gateway: RestartableGateway
) -> None:
    handle = await client.tasks.trigger("t")
    loops: list[Any] = [client.runs.subscribe_all(), client.streams.read(handle.id, "llm")]
    waiting = [asyncio.ensure_future(anext(await begun(each.events()))) for each in loops]
    idle = await begun(client.runs.subscribe_task("t").events())
    await client.close()
    for each in waiting:
        with pytest.raises(ClientClosed):
            await each
    with pytest.raises(StopAsyncIteration):
        await anext(idle)
    with pytest.raises(ClientClosed):
        await anext(client.runs.subscribe_all().events())
    await gone(gateway)


# -- losing ---------------------------------------------------------------------------------------


async def test_ten_feeds_are_equal_after_cuts_in_a_burst(
    client: AsyncClient, gateway: RestartableGateway, relay: Relay
) -> None:
    chunks = list(range(400))
    handles = [await client.tasks.trigger("t") for _ in range(5)]
    async with AsyncClient(relay.url, gateway.key, transport="websocket") as reader:

        async def follow(run_id: str) -> list[Any]:
            return [run async for run in reader.runs.subscribe(run_id)]

        async def read(run_id: str) -> list[Any]:
            return [part async for part in reader.streams.read(run_id, "llm")]

        following = [asyncio.create_task(follow(each.id)) for each in handles]
        reading = [asyncio.create_task(read(each.id)) for each in handles]
        await until(lambda: kinds(gateway) == ["websocket"])

        async def carry_out(run_id: str) -> None:
            async def source() -> AsyncIterator[int]:
                for chunk in chunks:
                    if run_id == handles[0].id and chunk % 80 == 40:
                        relay.lose()
                        await asyncio.sleep(0)
                        relay.restore()
                    await asyncio.sleep(0)
                    yield chunk

            async with client.runs.take(run_id) as run:
                await run.pipe("llm", source())
                run.metadata.set("chunks", len(chunks))

        await asyncio.gather(*(carry_out(each.id) for each in handles))
        for each in following:
            runs = await each
            revisions = [run.revision or 0 for run in runs]
            assert revisions == sorted(set(revisions))
            assert (runs[-1].status, runs[-1].metadata) == ("COMPLETED", {"chunks": len(chunks)})
        for one in reading:
            assert [(part.offset, part.value) for part in await one] == [(n, n) for n in chunks]
        assert 2 <= relay.connections <= 20


async def test_all_feeds_go_on_after_a_restart(
    client: AsyncClient, gateway: RestartableGateway
) -> None:
    handle = await client.tasks.trigger("t")
    feeds = [await begun(client.runs.subscribe_all().events()) for _ in range(4)]
    waiting = [asyncio.ensure_future(anext(feed)) for feed in feeds]
    await gateway.restart()
    await gateway.app.update(handle.id, status="EXECUTING")
    for each in waiting:
        told = await each
        assert isinstance(told, UpToDate) or told.run.status == "EXECUTING"
    await until(lambda: kinds(gateway) == ["websocket"], lambda: kinds(gateway))


# -- slow readers ---------------------------------------------------------------------------------


async def test_a_slow_reader_of_a_stream_holds_up_nobody_and_misses_nothing(
    client: AsyncClient, gateway: RestartableGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runcast.client.open_socket._MAX_WAITING_BYTES", 20_000)
    chunks = [f"{number}:" + "x" * 2_000 for number in range(400)]
    async with client.runs.start("chat") as run:
        slow = client.streams.read(run.id, "llm").events()
        await begun(slow)
        quick = asyncio.create_task(client.streams.read(run.id, "llm").text())
        await run.pipe("llm", chunks)
    assert await quick == "".join(chunks)
    # The slow one is not even subscribed while it has enough to take.
    await gone(gateway)
    assert [event.value async for event in slow if hasattr(event, "value")] == chunks


async def test_a_slow_follower_gets_the_newest_states(
    client: AsyncClient, gateway: RestartableGateway
) -> None:
    handle = await client.tasks.trigger("t")
    slow = await begun(client.runs.subscribe(handle.id).events())
    quick = await begun(client.runs.subscribe(handle.id).events())
    for step in range(10):
        await gateway.app.update(handle.id, metadata={"step": step})
        assert (await anext(quick)).run.metadata == {"step": step}
    states = [await anext(slow)]
    await gateway.app.finish(handle.id)
    states += [event async for event in slow if isinstance(event, RunChanged)]
    assert [state.run.metadata for state in states] == [{"step": 9}] * 2
    assert states[-1].run.status == "COMPLETED"


async def test_a_snapshot_that_is_too_much_for_its_reader_gets_a_socket_of_its_own(
    client: AsyncClient, gateway: RestartableGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runcast.client.open_socket._MAX_WAITING_BYTES", 20_000)
    batch = await client.tasks.batch_trigger(
        [{"task": "t", "payload": "x" * 3_000} for _ in range(100)]
    )
    other = await begun(client.runs.subscribe_task("none").events())
    found = []
    async with client.runs.subscribe_batch(batch.id) as runs:
        async for run in runs:
            found.append(run.id)
            await asyncio.sleep(0.001)
            if len(found) == 100:
                assert kinds(gateway) == ["websocket"] * 2
                break
    assert sorted(found) == sorted(run.id for run in batch.runs)
    await until(lambda: len(kinds(gateway)) == 1, lambda: kinds(gateway))
    await client.tasks.trigger("none")
    assert isinstance(await anext(other), RunChanged)


# -- tokens ---------------------------------------------------------------------------------------


async def test_a_token_is_renewed_on_the_open_socket(
    client: AsyncClient, gateway: RestartableGateway, relay: Relay
) -> None:
    handle = await client.tasks.trigger("t")
    made: list[str] = []

    async def fresh() -> str:
        made.append(gateway.app.token("read:runs", seconds=600 if made else 4))
        return made[-1]

    async with AsyncClient(relay.url, token=fresh, transport="websocket") as reader:
        runs = await begun(reader.runs.subscribe(handle.id).events())
        parts = await begun(reader.streams.read(handle.id, "llm").events())
        (connection,) = gateway.app.gateway.hub.connections
        expires = connection.deadline
        await until(lambda: connection.deadline > expires + 60)
        await gateway.app.finish(handle.id)
        assert (await anext(runs)).run.status == "COMPLETED"
        assert (await anext(parts)).reason == "finished"
    assert relay.connections == 1
    assert len(made) == 2


async def test_a_factory_that_fails_is_told_to_all_when_the_time_is_over(
    client: AsyncClient, gateway: RestartableGateway
) -> None:
    made: list[str] = []

    def fresh() -> str:
        if made:
            return "not a token"
        made.append(gateway.app.token("read:runs", seconds=1.5))
        return made[0]

    async with AsyncClient(gateway.url, token=fresh, transport="websocket") as reader:

        async def follow() -> None:
            async for _ in reader.runs.subscribe_all():
                raise AssertionError("there are no runs")

        ends = await asyncio.gather(*(follow() for _ in range(3)), return_exceptions=True)
        assert [type(end) for end in ends] == [NotConfigured] * 3


# -- where none can be had ------------------------------------------------------------------------

REFUSALS = {
    "forbidden": b"HTTP/1.1 403 Forbidden\r\ncontent-length: 6\r\n\r\n<html>",
    "plain": b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}",
    "away": b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n",
    "redirect": b"HTTP/1.1 301 Moved\r\nlocation: ws://127.0.0.1:9\r\ncontent-length: 0\r\n\r\n",
    "accepts too much": b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
    "no http": b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    "breaks": b"",
    "passes on without the upgrade": STRIPPED,
}


@pytest.mark.parametrize("answer", REFUSALS.values(), ids=REFUSALS)
async def test_a_proxy_that_refuses_upgrades_is_passed_by_over_sse(
    client: AsyncClient, gateway: RestartableGateway, proxy: UpgradeRelay, answer: bytes
) -> None:
    proxy.answer = answer
    handle = await client.tasks.trigger("t")
    async with AsyncClient(proxy.url, gateway.key) as reader:
        feeds = [await begun(reader.runs.subscribe(handle.id).events()) for _ in range(2)]
        reading = await begun(reader.streams.read(handle.id, "llm").events())
        assert kinds(gateway) == ["sse"] * 3
        assert proxy.upgrades <= 2  # it is remembered
        await gateway.app.finish(handle.id)
        for feed in feeds:
            assert (await anext(feed)).run.status == "COMPLETED"
        assert (await anext(reading)).reason == "finished"


async def test_a_proxy_that_swallows_upgrades_is_passed_by_over_sse(
    client: AsyncClient,
    gateway: RestartableGateway,
    proxy: UpgradeRelay,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("runcast.client.open_socket._OPEN_SECONDS", 0.1)
    proxy.answer = None
    async with AsyncClient(proxy.url, gateway.key) as reader:
        await begun(reader.runs.subscribe_all().events())
        assert kinds(gateway) == ["sse"]


async def test_who_allows_websockets_only_is_told_that_none_can_be_had(
    gateway: RestartableGateway, proxy: UpgradeRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runcast.client.attempts._BACK_OFF_SECONDS", (0.001, 0.001))
    monkeypatch.setattr("runcast.client.follow._BACK_OFF_SECONDS", (0.001, 0.001))
    proxy.answer = REFUSALS["forbidden"]
    async with AsyncClient(proxy.url, gateway.key, transport="websocket") as reader:
        with pytest.raises(ConnectionLost, match="answered with 403"):
            await anext(reader.runs.subscribe_all().events())
    assert proxy.upgrades == 5


async def test_what_a_gateway_itself_refuses_is_an_error(
    gateway: RestartableGateway, proxy: UpgradeRelay
) -> None:
    body = b'{"error":"no","code":"insufficient_scope"}'
    proxy.answer = b"HTTP/1.1 403 Forbidden\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
    async with AsyncClient(proxy.url, gateway.key) as reader:
        with pytest.raises(PermissionDenied, match="no"):
            await anext(reader.runs.subscribe_all().events())
    assert kinds(gateway) == []


async def test_a_websocket_is_tried_again_once_nothing_else_gets_through_either(
    client: AsyncClient, gateway: RestartableGateway, proxy: UpgradeRelay
) -> None:
    proxy.answer = REFUSALS["away"]
    handle = await client.tasks.trigger("t")
    async with AsyncClient(proxy.url, gateway.key) as reader:
        feed = await begun(reader.runs.subscribe(handle.id, stay=True).events())
        assert kinds(gateway) == ["sse"]
        proxy.pass_upgrades()
        waiting = asyncio.ensure_future(anext(feed))
        refused = proxy.refused
        proxy.lose()
        await until(lambda: proxy.refused > refused)
        proxy.restore()
        await until(lambda: kinds(gateway) == ["websocket"], lambda: kinds(gateway))
        await gateway.app.update(handle.id, status="EXECUTING")
        told = await waiting
        while isinstance(told, UpToDate):
            told = await anext(feed)
        assert told.run.status == "EXECUTING"


async def test_a_message_that_is_too_large_for_a_socket_comes_over_sse(
    client: AsyncClient, gateway: RestartableGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runcast.client.open_socket._MAX_MESSAGE_BYTES", 10_000)
    handle = await client.tasks.trigger("t", "x" * 20_000)
    async for run in client.runs.subscribe(handle):
        assert len(run.payload) == 20_000
        break
    async with AsyncClient(gateway.url, gateway.key, transport="websocket") as strict:
        with pytest.raises(UnexpectedAnswer):
            await anext(strict.runs.subscribe(handle).events())


async def test_a_client_with_an_http_client_of_its_own_uses_that(
    gateway: RestartableGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with httpx.AsyncClient() as http, AsyncClient(gateway.url, gateway.key, http=http) as own:
        feed = await begun(own.runs.subscribe_all().events())
        assert kinds(gateway) == ["sse"]
        await feed.aclose()  # type: ignore[attr-defined]
    monkeypatch.setenv("RUNCAST_CLIENT_TRANSPORT", "sse")
    async with AsyncClient(gateway.url, gateway.key) as chosen:
        await begun(chosen.runs.subscribe_all().events())
        assert kinds(gateway) == ["sse"]
    monkeypatch.setenv("RUNCAST_CLIENT_TRANSPORT", "pigeon")
    with pytest.raises(NotConfigured, match="websocket"):
        AsyncClient(gateway.url, gateway.key)
