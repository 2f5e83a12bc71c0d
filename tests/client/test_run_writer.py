"""Carrying out runs: taking, finishing and failing them, and their metadata."""

import asyncio
from typing import Any

import pytest

from runcast import AsyncClient
from runcast.client import RunChanged
from runcast.client.errors import (
    IllegalTransition,
    InvalidArgument,
    NotFound,
    PayloadTooLarge,
    RunOver,
)
from tests.support.restartable_gateway import RestartableGateway, restartable_gateway


async def test_a_run_of_ones_own_is_created_carried_out_and_completed(
    client: AsyncClient, gateway: RestartableGateway
) -> None:
    async with client.runs.start("work", {"n": 2}, tags=["a"]) as run:
        assert (run.payload, run.run.tags, run.run.status) == ({"n": 2}, ("a",), "EXECUTING")
        async with AsyncClient(gateway.url, token=run.public_access_token) as reader:
            assert (await reader.runs.retrieve(run.id)).status == "EXECUTING"
        await run.finish({"twice": 4})
    done = await client.runs.retrieve(run.id)
    assert (done.status, done.output) == ("COMPLETED", {"twice": 4})


async def test_leaving_completes_a_run_that_was_not_finished(client: AsyncClient) -> None:
    handle = await client.tasks.trigger("work")
    async with client.runs.take(handle) as run:
        await run.add_tags("taken")
    done = await client.runs.retrieve(handle.id)
    assert (done.status, done.output, done.tags) == ("COMPLETED", None, ("taken",))


async def test_an_exception_fails_the_run_and_goes_on(client: AsyncClient) -> None:
    handle = await client.tasks.trigger("work")

    async def work() -> None:
        async with client.runs.take(handle.id) as run:
            run.metadata.set("reached", True)
            _ = 1 / 0

    with pytest.raises(ZeroDivisionError):
        await work()
    failed = await client.runs.retrieve(handle.id)
    assert failed.error is not None
    assert (failed.status, failed.error.name) == ("FAILED", "ZeroDivisionError")
    assert failed.metadata == {"reached": True}


async def test_a_run_can_be_failed_with_a_message(client: AsyncClient) -> None:
    async with client.runs.start("work") as run:
        await run.fail("the model is away")
    failed = await client.runs.retrieve(run.id)
    assert failed.error is not None
    assert (failed.status, failed.error.message) == ("FAILED", "the model is away")
    with pytest.raises(RunOver):
        await run.finish()


async def test_a_worker_that_is_cancelled_leaves_a_failed_run(client: AsyncClient) -> None:
    handle = await client.tasks.trigger("work")
    taken = asyncio.Event()

    async def work() -> None:
        async with client.runs.take(handle.id):
            taken.set()
            await asyncio.Event().wait()

    worker = asyncio.create_task(work())
    await taken.wait()
    worker.cancel()
    with pytest.raises(asyncio.CancelledError):
        await worker
    run = await client.runs.retrieve(handle.id)
    assert (run.status, run.error and run.error.name) == ("FAILED", "CancelledError")


async def test_a_run_that_is_over_cannot_be_taken_nor_completed(client: AsyncClient) -> None:
    handle = await client.tasks.trigger("work")
    with pytest.raises(IllegalTransition):
        async with client.runs.take(handle.id):
            await client.runs.cancel(handle.id)
    assert (await client.runs.retrieve(handle.id)).status == "CANCELED"
    with pytest.raises(IllegalTransition):
        async with client.runs.take(handle.id):
            raise AssertionError("entered")
    with pytest.raises(NotFound):
        async with client.runs.take("run_unknown"):
            raise AssertionError("entered")


async def test_metadata_is_sent_together_and_nothing_is_lost(client: AsyncClient) -> None:
    handle = await client.tasks.trigger("work", metadata={"old": 1, "log": ["a"]})
    async with client.runs.take(handle.id) as run:
        changes = run.metadata.delete("old").append("log", "b").remove("log", "a")
        for step in range(500):
            changes.set("step", step).increment("count").decrement("count", 0.5)
        changes.set("$.deep.er", (1, 2))
        expected = {"log": ["b"], "step": 499, "count": 250.0, "deep": {"er": [1, 2]}}
        assert run.metadata.current() == expected
        assert run.metadata.get("step") == 499
    assert (await client.runs.retrieve(handle.id)).metadata == expected


async def test_metadata_is_flushed_in_the_background(client: AsyncClient) -> None:
    async with client.runs.start("work") as run:
        following = client.runs.subscribe(run.id)
        run.metadata.set("step", 1)
        async for event in following.events():
            if isinstance(event, RunChanged) and event.run.metadata:
                assert event.run.metadata == {"step": 1}
                assert event.run.status == "EXECUTING"
                break
        run.metadata.replace({"all": "new"})
        await run.metadata.flush()
        assert (await client.runs.retrieve(run.id)).metadata == {"all": "new"}


async def test_metadata_reaches_parent_and_root(client: AsyncClient) -> None:
    root = await client.tasks.trigger("root")
    parent = await client.tasks.trigger("parent", parent_run_id=root.id)
    async with client.runs.start("child", parent_run_id=parent.id) as run:
        run.metadata.set("me", 1)
        run.metadata.parent.increment("children").append("names", "c")
        run.metadata.root.increment("below", 2)
    assert (await client.runs.retrieve(run.id)).metadata == {"me": 1}
    assert (await client.runs.retrieve(parent.id)).metadata == {"children": 1, "names": ["c"]}
    assert (await client.runs.retrieve(root.id)).metadata == {"below": 2}


async def test_metadata_waits_for_a_gateway_that_is_away(
    client: AsyncClient, gateway: RestartableGateway
) -> None:
    async with client.runs.start("work") as run:
        run.metadata.increment("n")
        await gateway.stop()
        run.metadata.increment("n").append("log", "x")
        flushing = asyncio.create_task(run.metadata.flush())
        await asyncio.sleep(0)
        await gateway.start()
        await flushing
        run.metadata.increment("n")
    assert (await client.runs.retrieve(run.id)).metadata == {"n": 3, "log": ["x"]}


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.set("a", "\0"),
        lambda m: m.set("a", "\ud800"),
        lambda m: m.set("a", float("nan")),
        lambda m: m.set("__proto__", 1),
        lambda m: m.set("$.", 1),
        lambda m: m.increment("a", "1"),
        lambda m: m.set("a", object()),
        lambda m: m.append("x" * 2000, 1),
    ],
)
async def test_metadata_that_cannot_be_stored_is_refused_where_it_is_set(
    client: AsyncClient, change: Any
) -> None:
    async with client.runs.start("work") as run:
        run.metadata.set("kept", 1)
        with pytest.raises(InvalidArgument):
            change(run.metadata)
    assert (await client.runs.retrieve(run.id)).metadata == {"kept": 1}


async def test_metadata_that_the_gateway_refuses_is_an_error_in_the_end(
    database_url: str,
) -> None:
    async with (
        restartable_gateway(database_url, max_metadata_bytes=2048) as gateway,
        AsyncClient(gateway.url, gateway.key) as client,
    ):
        run = await client.runs.start("work").__aenter__()
        run.metadata.set("a", "x" * 3000)
        with pytest.raises(PayloadTooLarge):
            await run.metadata.flush()
        run.metadata.set("fine", 1)
        await run.metadata.flush()
        run.metadata.set("b", "x" * 3000)
        with pytest.raises(PayloadTooLarge):
            await run.__aexit__(None, None, None)
        failed = await client.runs.retrieve(run.id)
        assert failed.metadata == {"fine": 1}
        assert (failed.status, failed.error and failed.error.name) == ("FAILED", "PayloadTooLarge")


async def test_a_writer_is_entered_once(client: AsyncClient) -> None:
    writer = client.runs.start("work")
    with pytest.raises(RunOver, match="async with"):
        _ = writer.id
    async with writer:
        with pytest.raises(RunOver):
            await writer.__aenter__()
    with pytest.raises(RunOver):
        writer.writer("llm")
