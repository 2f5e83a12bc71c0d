"""Following runs: live, late, again, and through every loss of the connection."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from runcast import AsyncClient
from runcast.client import End, Reset, Run, RunChanged, RunGone, Subscription, UpToDate
from runcast.client.errors import ConnectionLost, NotFound, PermissionDenied, TokenExpired
from tests.support.gateway_app import until
from tests.support.restartable_gateway import RestartableGateway, restartable_gateway

pytestmark = pytest.mark.usefixtures("each_transport")


class Seen:
    """What a subscription gave so far, read by a task of its own."""

    def __init__(self, subscription: Subscription) -> None:
        self.events: list[Any] = []
        self._more = asyncio.Event()
        self.reading = asyncio.create_task(self._read(subscription))

    async def _read(self, subscription: Subscription) -> None:
        async for event in subscription.events():
            self.events.append(event)
            self._more.set()

    async def until(self, *wanted: Any) -> None:
        """Wait until these came, each after the one before."""
        while True:
            rest = iter(self.events)
            if all(any(_is(event, each) for event in rest) for each in wanted):
                return
            self._more.clear()
            waiting = asyncio.create_task(self._more.wait())
            await asyncio.wait({self.reading, waiting}, return_when=asyncio.FIRST_COMPLETED)
            if self.reading.done() and not self._more.is_set():
                waiting.cancel()
                self.reading.result()
                raise AssertionError(f"{wanted} did not come: {self.events}")

    @property
    def states(self) -> list[tuple[str, str]]:
        return [(e.run.id, e.run.status) for e in self.events if isinstance(e, RunChanged)]

    async def stop(self) -> None:
        self.reading.cancel()
        await asyncio.wait({self.reading})


def _is(event: Any, wanted: Any) -> bool:
    if isinstance(wanted, tuple):
        return isinstance(event, RunChanged) and (event.run.id, event.run.status) == wanted
    return isinstance(event, wanted)


async def test_a_run_is_followed_to_its_end(client: AsyncClient) -> None:
    handle = await client.tasks.trigger("t", {"n": 1})
    runs: list[Run] = []
    async for run in client.runs.subscribe(handle):
        runs.append(run)
        if run.status == "QUEUED":
            await client.runs.update(handle.id, status="EXECUTING")
        elif run.status == "EXECUTING":
            await client.runs.update(handle.id, status="COMPLETED", output={"ok": True})
    assert [run.status for run in runs] == ["QUEUED", "EXECUTING", "COMPLETED"]
    assert (runs[-1].payload, runs[-1].output) == ({"n": 1}, {"ok": True})
    assert [run.revision for run in runs] == sorted({run.revision or 0 for run in runs})


async def test_events_tell_what_plain_runs_cannot(
    client: AsyncClient, gateway: RestartableGateway
) -> None:
    handle = await client.tasks.trigger("t", tags=["a", "b"])
    seen = Seen(client.runs.subscribe_tags("a", "b", since="1h"))
    await seen.until((handle.id, "QUEUED"), UpToDate)
    await client.runs.update(handle.id, tags=["a"])
    await seen.until(RunGone)
    assert [e.reason for e in seen.events if isinstance(e, RunGone)] == ["unmatched"]
    await client.runs.update(handle.id, tags=["a", "b"])
    await seen.until(RunGone, (handle.id, "QUEUED"))
    await seen.stop()


@pytest.mark.parametrize("by", ["task", "batch", "all", "tags"])
async def test_many_runs_are_followed_and_others_are_not(client: AsyncClient, by: str) -> None:
    batch = await client.tasks.batch_trigger([{"task": "t", "tags": "x"}] * 2)
    await client.tasks.trigger("other")
    subscription = {
        "task": lambda: client.runs.subscribe_task("t"),
        "batch": lambda: client.runs.subscribe_batch(batch.id),
        "all": lambda: client.runs.subscribe_all(skip_columns=["payload"]),
        "tags": lambda: client.runs.subscribe_tags("x", task="t"),
    }[by]()
    expected = 3 if by == "all" else 2
    async with subscription as runs:
        found = set()
        async for run in runs:
            found.add(run.id)
            if len(found) == expected:
                break
    assert {run.id for run in batch.runs} <= found


async def test_a_subscription_survives_a_restart_and_misses_nothing(
    client: AsyncClient, gateway: RestartableGateway
) -> None:
    one, two = [await client.tasks.trigger("t") for _ in range(2)]
    seen = Seen(client.runs.subscribe_task("t"))
    await seen.until((one.id, "QUEUED"), UpToDate)
    await gateway.app.update(one.id, status="EXECUTING")
    await seen.until((one.id, "EXECUTING"))
    await gateway.restart()
    await gateway.app.update(two.id, status="EXECUTING")
    await gateway.app.finish(one.id)
    await seen.until((two.id, "EXECUTING"), (one.id, "COMPLETED"))
    assert not any(isinstance(event, Reset) for event in seen.events)
    assert len(seen.states) == len(set(seen.states)) == 5
    await seen.stop()


async def test_connections_that_break_in_a_burst_lose_and_repeat_nothing(
    client: AsyncClient, gateway: RestartableGateway
) -> None:
    handle = await client.tasks.trigger("t")
    seen = Seen(client.runs.subscribe(handle.id))
    await seen.until((handle.id, "QUEUED"))
    for step in range(30):
        await gateway.app.update(handle.id, metadata={"step": step})
        if step % 7 == 3:
            gateway.cut()
    await gateway.app.finish(handle.id)
    await seen.until(End)
    revisions = [e.run.revision or 0 for e in seen.events if isinstance(e, RunChanged)]
    assert revisions == sorted(set(revisions))
    last = [e.run for e in seen.events if isinstance(e, RunChanged)][-1]
    assert (last.status, last.metadata) == ("COMPLETED", {"step": 29})


async def test_a_run_that_finished_while_disconnected_ends_the_loop(
    client: AsyncClient, gateway: RestartableGateway
) -> None:
    handle = await client.tasks.trigger("t")
    seen = Seen(client.runs.subscribe(handle.id))
    await seen.until((handle.id, "QUEUED"), UpToDate)
    await gateway.stop()
    await gateway.finish(handle.id)
    await gateway.start()
    await seen.until((handle.id, "COMPLETED"), End)
    await seen.reading


async def test_a_finished_run_is_told_once_and_a_later_look_ends_at_once(
    client: AsyncClient,
) -> None:
    handle = await client.tasks.trigger("t")
    await client.runs.cancel(handle.id)
    subscription = client.runs.subscribe(handle.id)
    assert [run.status async for run in subscription] == ["CANCELED"]
    assert [run async for run in subscription] == []
    again = client.runs.subscribe(handle.id, cursor=subscription.cursor)
    assert [run async for run in again] == []


async def test_a_cursor_goes_on_in_another_process(
    client: AsyncClient, gateway: RestartableGateway
) -> None:
    handle = await client.tasks.trigger("t")
    first = client.runs.subscribe_task("t")
    async for event in first.events():
        if isinstance(event, UpToDate):
            break
    await gateway.app.update(handle.id, status="EXECUTING")
    async with AsyncClient(gateway.url, gateway.key) as elsewhere:
        async for run in elsewhere.runs.subscribe_task("t", cursor=first.cursor):
            assert run.status == "EXECUTING"
            break


async def test_an_expired_token_is_exchanged_where_there_is_a_factory(
    client: AsyncClient, gateway: RestartableGateway
) -> None:
    handle = await client.tasks.trigger("t")
    made: list[str] = []

    async def fresh() -> str:
        seconds = 0.2 if not made else 600
        made.append(gateway.app.token(f"read:runs:{handle.id}", seconds=seconds))
        return made[-1]

    async with AsyncClient(gateway.url, token=fresh) as reader:
        seen = Seen(reader.runs.subscribe(handle.id))
        await seen.until((handle.id, "QUEUED"), UpToDate)
        await until(lambda: len(made) == 2, lambda: made)
        await gateway.app.finish(handle.id)
        await seen.until((handle.id, "COMPLETED"), End)
    assert len(made) == 2
    assert seen.states == [(handle.id, "QUEUED"), (handle.id, "COMPLETED")]


async def test_without_a_factory_expiry_is_an_error(
    client: AsyncClient, gateway: RestartableGateway
) -> None:
    handle = await client.tasks.trigger("t")
    token = gateway.app.token(f"read:runs:{handle.id}", seconds=0.2)
    async with AsyncClient(gateway.url, token=token) as reader:
        with pytest.raises(TokenExpired) as expired:
            _ = [run async for run in reader.runs.subscribe(handle.id)]
        assert expired.value.code == "expired_token"
        with pytest.raises(TokenExpired):
            await _retrieve_for_ever(reader, handle.id)  # feeds end a moment before the token


async def _retrieve_for_ever(reader: AsyncClient, run_id: str) -> None:
    while True:
        await reader.runs.retrieve(run_id)


async def test_a_factory_that_gives_dead_tokens_is_not_asked_for_ever(
    client: AsyncClient, gateway: RestartableGateway
) -> None:
    handle = await client.tasks.trigger("t")
    dead = gateway.app.token("read:runs", seconds=0.1)
    made = 0

    def stale() -> str:
        nonlocal made
        made += 1
        return dead

    async with AsyncClient(gateway.url, token=dead) as reader:
        with pytest.raises(TokenExpired):
            await _retrieve_for_ever(reader, handle.id)
    async with AsyncClient(gateway.url, token=stale) as reader:
        with pytest.raises(TokenExpired):
            _ = [run async for run in reader.runs.subscribe(handle.id)]
        with pytest.raises(TokenExpired):
            await reader.runs.retrieve(handle.id)
    assert made < 10


async def test_refusals_are_raised_at_once(
    client: AsyncClient, gateway: RestartableGateway
) -> None:
    with pytest.raises(NotFound):
        _ = [run async for run in client.runs.subscribe("run_unknown")]
    token = gateway.app.token("read:tags:a")
    async with AsyncClient(gateway.url, token=token) as reader:
        with pytest.raises(PermissionDenied):
            _ = [run async for run in reader.runs.subscribe_all()]


async def test_a_gateway_that_is_not_there_is_an_error_and_not_a_silence(
    client: AsyncClient, gateway: RestartableGateway
) -> None:
    await gateway.stop()
    with pytest.raises(ConnectionLost, match="cannot be reached"):
        _ = [run async for run in client.runs.subscribe_all()]


async def test_closing_ends_a_loop(client: AsyncClient, gateway: RestartableGateway) -> None:
    await client.tasks.trigger("t")
    async with client.runs.subscribe_all() as runs:
        async for _ in runs:
            break
    hub = gateway.app.gateway.hub
    await until(lambda: not hub.connections)


@pytest.fixture
async def impatient(database_url: str) -> AsyncIterator[RestartableGateway]:
    async with restartable_gateway(database_url, heartbeat_seconds=0.05) as gateway:
        yield gateway


async def test_heartbeats_move_the_cursor_of_a_quiet_feed(impatient: RestartableGateway) -> None:
    async with AsyncClient(impatient.url, impatient.key) as client:
        handle = await client.tasks.trigger("t", tags=["mine"])
        subscription = client.runs.subscribe(handle.id)
        seen = Seen(subscription)
        await seen.until(UpToDate)
        before = subscription.cursor
        while subscription.cursor == before:
            await client.tasks.trigger("other")
            await asyncio.sleep(0.05)
        assert len(seen.states) == 1
        await seen.stop()
