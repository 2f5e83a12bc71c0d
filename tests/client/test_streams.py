"""Streams: what a producer tees, and what readers get, through every loss of the connection."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from runcast import AsyncClient, Part
from runcast.client import End, Reset, UpToDate
from runcast.client.errors import (
    ConnectionLost,
    InvalidArgument,
    NotFound,
    PayloadTooLarge,
    PositionLost,
    StreamClosed,
)
from tests.support.gateway_app import until
from tests.support.restartable_gateway import RestartableGateway, restartable_gateway

pytestmark = pytest.mark.usefixtures("each_transport")

CHUNKS: list[Any] = [
    "plain",
    "",
    "two\nlines\r\nand a separator \u2028",
    "NUL \0 and half a pair \ud83d",
    "".join(map(chr, range(0x20, 0x250))) + "😀",
    '{"looks": "like JSON"}',
    "123",
    0,
    -1.5,
    2**80,
    True,
    None,
    [],
    {"delta": {"content": "ü"}, "n": [1, None]},
]


async def tokens(chunks: list[Any]) -> AsyncIterator[Any]:
    """A model that streams."""
    for chunk in chunks:
        await asyncio.sleep(0)
        yield chunk


async def test_what_is_teed_is_read_as_it_was(client: AsyncClient) -> None:
    async with client.runs.start("chat") as run:
        teed = [chunk async for chunk in run.stream("llm", tokens(CHUNKS))]
        assert teed == CHUNKS
        assert await run.pipe("copy", CHUNKS) == len(CHUNKS)
    for key in ("llm", "copy"):
        parts = [part async for part in client.streams.read(run.id, key)]
        assert [part.offset for part in parts] == list(range(len(CHUNKS)))
        for part, chunk in zip(parts, CHUNKS, strict=True):
            assert (part.value, type(part.value)) == (chunk, type(chunk))
            assert abs(part.appended_at - datetime.now(UTC)) < timedelta(minutes=5)
    assert (await client.runs.retrieve(run.id)).status == "COMPLETED"


async def test_chunks_are_read_while_they_are_written(client: AsyncClient) -> None:
    async with client.runs.start("chat") as run:
        reading = client.streams.read(run.id, "llm").events()
        assert isinstance(await anext(reading), UpToDate)
        async with run.writer("llm") as writer:
            for word in ("one", "two"):
                await writer.write(word)
                part = await anext(reading)
                assert isinstance(part, Part)
                assert part.value == word
        await run.close_stream("llm")
        assert await anext(reading) == End("closed")
        with pytest.raises(StopAsyncIteration):
            await anext(reading)


async def test_followers_of_the_run_see_its_streams(client: AsyncClient) -> None:
    async with client.runs.start("chat") as run:
        await run.append("log", "first")
        await run.pipe("llm", ["a"])
    runs = [run async for run in client.runs.subscribe(run.id)]
    assert set(runs[-1].streams) == {"log", "llm"}


async def test_texts_are_joined(client: AsyncClient) -> None:
    async with client.runs.start("chat") as run:
        await run.pipe("llm", ["Once", " upon", {"a": 1}, " time"])
        await run.append("log", 'line "1"\n')
        await run.append("log", "line 2")
    assert await client.streams.read(run.id, "llm").text() == 'Once upon{"a":1} time'
    assert await client.streams.read(run.id, "log").text() == 'line "1"\nline 2'


async def test_reading_begins_where_it_is_told(client: AsyncClient) -> None:
    async with client.runs.start("chat") as run:
        await run.pipe("llm", list(range(5)))
        latest = client.streams.read(run.id, "llm", "latest").events()
        assert isinstance(await anext(latest), UpToDate)
        await run.pipe("llm", [5])
        part = await anext(latest)
        assert isinstance(part, Part)
        assert (part.offset, part.value) == (5, 5)
    for start in (0, 3, 6):
        reading = client.streams.read(run.id, "llm", start)
        assert [part.value async for part in reading] == list(range(start, 6))
        assert reading.next_offset == 6 or start == 6
        assert [part async for part in reading] == []
    for wrong in (-1, True, "end", 1.5):
        with pytest.raises(InvalidArgument):
            client.streams.read(run.id, "llm", wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("existing", [0, 3])
async def test_reading_from_the_latest_misses_nothing_if_the_connection_breaks_at_once(
    client: AsyncClient, gateway: RestartableGateway, existing: int
) -> None:
    async with client.runs.start("chat") as run:
        await run.pipe("llm", list(range(existing)))
        latest = client.streams.read(run.id, "llm", "latest").events()
        assert isinstance(await anext(latest), UpToDate)
        await gateway.stop()
        await gateway.start()
        await run.pipe("llm", [existing])
        part = await anext(event async for event in latest if isinstance(event, Part))
        assert (part.offset, part.value) == (existing, existing)


async def test_parts_that_are_gone_are_told(client: AsyncClient) -> None:
    async with client.runs.start("chat") as run:
        await run.pipe("llm", ["a", "b"])
    events = [event async for event in client.streams.read(run.id, "llm", 7).events()]
    assert [type(event) for event in events] == [Reset, Part, Part, UpToDate, End]
    with pytest.raises(PositionLost):
        await client.streams.read(run.id, "llm", 7).text()


async def test_a_writer_whose_connection_breaks_loses_and_doubles_nothing(
    client: AsyncClient, gateway: RestartableGateway
) -> None:
    chunks = [f"{number} " for number in range(3_000)]
    async with client.runs.start("chat") as run:
        count = 0
        async for _ in run.stream("llm", tokens(chunks)):
            count += 1
            if count % 400 == 250:
                await asyncio.sleep(0.01)
                gateway.cut()
        assert count == len(chunks)
    parts = [part async for part in client.streams.read(run.id, "llm")]
    assert [part.value for part in parts] == chunks


async def test_a_reader_whose_connection_breaks_gets_every_part_once(
    client: AsyncClient, gateway: RestartableGateway
) -> None:
    chunks = list(range(1_500))
    async with client.runs.start("chat") as run:

        async def read() -> list[Any]:
            found = []
            async for part in client.streams.read(run.id, "llm"):
                found.append(part.value)
                if part.offset % 200 == 77:
                    gateway.cut()
            return found

        reading = [asyncio.create_task(read()) for _ in range(3)]
        await run.pipe("llm", tokens(chunks))
    for task in reading:
        assert await task == chunks


async def test_streams_go_on_through_a_restart(
    client: AsyncClient, gateway: RestartableGateway
) -> None:
    async with client.runs.start("chat") as run:
        reading = asyncio.create_task(client.streams.read(run.id, "llm").text())
        written = ""
        async for chunk in run.stream("llm", tokens([f"{number};" for number in range(200)])):
            written += chunk
            if chunk == "100;":
                await gateway.restart()
    assert await reading == written


async def test_a_writer_waits_when_nothing_is_acknowledged(
    client: AsyncClient, gateway: RestartableGateway
) -> None:
    written = 0
    async with client.runs.start("chat") as run, run.writer("llm") as writer:
        await writer.write(0)
        await writer.flush()
        await gateway.stop()

        async def write() -> None:
            nonlocal written
            for number in range(1, 1_501):
                await writer.write(number)
                written = number

        writing = asyncio.create_task(write())
        await until(lambda: written == 1_000, lambda: written)
        for _ in range(100):
            await asyncio.sleep(0)
        assert written == 1_000
        await gateway.start()
        await writing
    parts = [part.value async for part in client.streams.read(run.id, "llm")]
    assert parts == list(range(1_501))


async def test_a_writer_that_is_killed_and_started_again_doubles_nothing(
    client: AsyncClient, gateway: RestartableGateway
) -> None:
    handle = await client.tasks.trigger("chat")
    first = await client.runs.take(handle).__aenter__()
    writer = first.writer("llm", name="attempt")
    for number in range(50):
        await writer.write(number)
    await writer.flush()
    await writer.write("not acknowledged")
    await writer.abandon()  # nothing else is told to the gateway
    await first.metadata.stop()
    again = [*range(50), "not acknowledged", *range(50, 60)]
    async with (
        AsyncClient(gateway.url, gateway.key) as reborn,
        reborn.runs.take(handle) as run,
    ):
        assert 50 <= await run.writer("llm", name="attempt").resume() <= 51
        await run.pipe("llm", again, name="attempt")
        resumed = run.writer("llm", name="attempt")
        assert await resumed.resume() == 61
        await resumed.write("more")
    parts = [part.value async for part in client.streams.read(handle, "llm")]
    assert parts == [*again, "more"]


async def test_two_writers_to_one_stream_interleave(client: AsyncClient) -> None:
    async with client.runs.start("chat") as run:
        await asyncio.gather(
            run.pipe("llm", tokens([["a", n] for n in range(100)])),
            run.pipe("llm", tokens([["b", n] for n in range(100)])),
        )
    values = [part.value async for part in client.streams.read(run.id, "llm")]
    assert len(values) == 200
    for name in ("a", "b"):
        assert [n for who, n in values if who == name] == list(range(100))


async def test_a_child_streams_into_its_root(client: AsyncClient) -> None:
    root = await client.tasks.trigger("root")
    async with client.runs.start("child", parent_run_id=root.id) as run:
        await run.pipe("llm", ["up"], target="root")
        await run.append("llm", "and up", target="parent")
    await client.runs.update(root.id, status="COMPLETED")
    assert await client.streams.read(root.id, "llm").text() == "upand up"


async def test_a_loop_that_is_left_early_stores_what_it_got(client: AsyncClient) -> None:
    async with client.runs.start("chat") as run:
        async for chunk in run.stream("llm", tokens(["a", "b", "c"])):
            if chunk == "b":
                break
    assert await client.streams.read(run.id, "llm").text() == "ab"


async def test_a_source_that_fails_fails_the_run_and_keeps_what_came(client: AsyncClient) -> None:
    async def broken() -> AsyncIterator[str]:
        yield "a"
        raise LookupError("the model is gone")

    with pytest.raises(LookupError):
        async with client.runs.start("chat") as run:
            await run.pipe("llm", broken())
    assert await client.streams.read(run.id, "llm").text() == "a"
    assert (await client.runs.retrieve(run.id)).status == "FAILED"


async def test_a_closed_stream_takes_no_more(client: AsyncClient) -> None:
    async with client.runs.start("chat") as run:
        await run.append("llm", "a")
        await run.close_stream("llm")
        with pytest.raises(StreamClosed):
            await run.append("llm", "b")
        with pytest.raises(StreamClosed):
            await run.pipe("llm", ["b"])
    assert await client.streams.read(run.id, "llm").text() == "a"


async def test_a_run_cancelled_by_somebody_stops_its_writer(client: AsyncClient) -> None:
    run = await client.runs.start("chat").__aenter__()
    writer = run.writer("llm")
    await client.runs.cancel(run.id)
    await writer.write("late")
    with pytest.raises(StreamClosed):
        await writer.flush()
    with pytest.raises(StreamClosed):
        await run.finish()
    assert (await client.runs.retrieve(run.id)).status == "CANCELED"


async def test_a_chunk_over_the_limit_is_an_error_and_the_rest_is_kept(database_url: str) -> None:
    async with (
        restartable_gateway(database_url, max_chunk_bytes=1024) as gateway,
        AsyncClient(gateway.url, gateway.key) as client,
        client.runs.start("chat") as run,
    ):
        await run.pipe("llm", ["x" * 1022])
        with pytest.raises(PayloadTooLarge, match="1024"):
            await run.pipe("llm", ["x" * 1023])
        with pytest.raises(InvalidArgument, match="The chunk"):
            await run.pipe("llm", [float("nan")])
        await run.close_stream("llm")
        assert await client.streams.read(run.id, "llm").text() == "x" * 1022


async def test_models_and_dataclasses_are_streamed_as_objects(client: AsyncClient) -> None:
    class Chunk:
        """What SDKs of model providers stream: a pydantic model."""

        def model_dump(self, *, mode: str) -> dict[str, Any]:
            return {"mode": mode}

    async with client.runs.start("chat") as run:
        await run.pipe("llm", [Chunk(), datetime(2030, 1, 1, tzinfo=UTC)])
    values = [part.value async for part in client.streams.read(run.id, "llm")]
    assert values == [{"mode": "json"}, "2030-01-01T00:00:00+00:00"]


async def test_a_token_of_the_run_reads_its_streams(
    client: AsyncClient, gateway: RestartableGateway
) -> None:
    async with client.runs.start("chat") as run:
        await run.pipe("llm", ["hello"])
    async with AsyncClient(gateway.url, token=run.public_access_token) as reader:
        assert await reader.streams.read(run.id, "llm").text() == "hello"
    with pytest.raises(NotFound):
        await client.streams.read("run_unknown", "llm").text()


async def test_a_gateway_that_stays_away_ends_the_writer(
    client: AsyncClient, gateway: RestartableGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runcast.client.stream_writer._BACK_OFF_SECONDS", (0.001, 0.001))
    async with client.runs.start("chat") as run:
        writer = run.writer("llm")
        await gateway.stop()
        await writer.write("a")
        with pytest.raises(ConnectionLost):
            await writer.flush()
        with pytest.raises(ConnectionLost):
            await writer.write("b")
        await gateway.start()
        await run.fail("no stream")
