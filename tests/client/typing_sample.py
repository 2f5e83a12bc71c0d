"""What type checkers see; mypy checks it with all tests, nobody runs it."""

from collections.abc import AsyncIterator, Iterator
from typing import assert_type

from runcast import AsyncClient, Client, Part, Run, RunHandle, RunWriter, create_public_token
from runcast.client import (
    Batch,
    BatchHandle,
    Page,
    RunEvent,
    RunMetadata,
    StreamEvent,
    Subscription,
)
from runcast.client.run_metadata import MetadataChanges
from runcast.client.sync import SyncRunWriter, SyncStreamWriter


class Token:
    """What a model streams."""


async def asynchronous(model: AsyncIterator[Token]) -> None:
    async with AsyncClient(token=lambda: "token") as client:
        assert_type(client, AsyncClient)
        handle = await client.tasks.trigger("t", {"any": 1}, tags=["a"], machine="micro")
        assert_type(handle, RunHandle)
        assert_type(
            await client.tasks.batch_trigger([{"task": "t", "payload": 1, "delay": "1h"}]),
            BatchHandle,
        )
        assert_type(await client.batches.retrieve("batch"), Batch)
        assert_type(await client.runs.retrieve(handle.id), Run)
        assert_type(await client.runs.list(status="FAILED").page(), Page)
        async for run in client.runs.list(task=["a", "b"]):
            assert_type(run, Run)
        assert_type(client.runs.subscribe(handle), Subscription)
        async for run in client.runs.subscribe_tags("a", since="1h"):
            assert_type(run, Run)
        async for event in client.runs.subscribe_all().events():
            assert_type(event, RunEvent)
        assert_type(await client.create_public_token({"read": {"runs": ["r"]}}), str)
        assert_type(await client.runs.update("r", status="FAILED", error=ValueError()), Run)
        async with client.runs.start("t", 1, ttl=60) as writer:
            assert_type(writer, RunWriter)
            assert_type(writer.metadata.set("a", 1).parent.increment("n"), MetadataChanges)
            assert_type(writer.metadata, RunMetadata)
            async for token in writer.stream("llm", model):
                assert_type(token, Token)
            assert_type(await writer.pipe("llm", [1]), int)
        async for part in client.streams.read(handle, "llm", 3):
            assert_type(part, Part)
        async for step in client.streams.read("r", "llm", "latest").events():
            assert_type(step, StreamEvent)
        # What must not pass.
        await client.tasks.trigger("t", machine="huge")  # type: ignore[arg-type]
        await client.tasks.trigger("t", tag="a")  # type: ignore[call-arg]
        await client.runs.update("r", state="x")  # type: ignore[call-arg]
        await client.tasks.batch_trigger([{"payload": 1}])  # type: ignore[typeddict-item]


def plain(model: Iterator[Token]) -> None:
    assert_type(create_public_token("read:runs", expires="1h"), str)
    with Client("http://gateway", "key") as client:
        handle = client.tasks.trigger("t", {"any": 1}, tags=["a"])
        assert_type(handle, RunHandle)
        assert_type(client.tasks.batch_trigger([{"task": "t"}]), BatchHandle)
        assert_type(client.runs.retrieve(handle.id), Run)
        assert_type(client.runs.update(handle.id, status="FAILED"), Run)
        assert_type(client.create_public_token(["read:runs"], one_time=True), str)
        for run in client.runs.list(tag="a"):
            assert_type(run, Run)
        for run in client.runs.subscribe_task("t", since="1h"):
            assert_type(run, Run)
        for event in client.runs.subscribe(handle).events():
            assert_type(event, RunEvent)
        with client.runs.start("t", ttl=60) as writer:
            assert_type(writer, SyncRunWriter)
            for token in writer.stream("llm", model):
                assert_type(token, Token)
            assert_type(writer.writer("llm"), SyncStreamWriter)
        for part in client.streams.read(handle, "llm"):
            assert_type(part, Part)
        assert_type(client.streams.read("r", "llm").text(), str)
        client.tasks.trigger("t", tag="a")  # type: ignore[call-arg]
        client.runs.subscribe(1)  # type: ignore[arg-type]
