"""The demo: a plain client of the API whose runs are seen in every state."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

import httpx
import pytest

from runcast.cli.demo import produce_demo_runs
from runcast.cli.events import EventReader
from tests.cli.command_line import CommandLine, Ready

_PACE = 0.01


async def events(gateway: Ready, path: str) -> AsyncGenerator[tuple[str, Any], None]:
    """The name and the data of each event of a feed."""
    headers = {"authorization": f"Bearer {gateway.key}"}
    async with (
        httpx.AsyncClient(base_url=gateway.url, headers=headers, trust_env=False) as http,
        http.stream("GET", f"/realtime/v1/{path}", timeout=15) as response,
    ):
        reader = EventReader()
        async for chunk in response.aiter_bytes():
            for event in reader.receive(chunk):
                yield event.name, json.loads(event.data)


async def demo_runs(gateway: Ready) -> AsyncIterator[dict[str, Any]]:
    """Every state of every run that is tagged as the demo's."""
    async with aclosing(events(gateway, "runs?tags=demo")) as feed:
        async for name, run in feed:
            if name == "run":
                yield run


async def parts(gateway: Ready, run: str, key: str) -> AsyncGenerator[Any, None]:
    """The parts of a stream, to its end."""
    async with aclosing(events(gateway, f"streams/{run}/{key}")) as feed:
        async for name, data in feed:
            if name == "message":
                yield data
            elif name == "end":
                return


@pytest.fixture
async def demo(gateway: Ready) -> AsyncIterator[None]:
    task = asyncio.create_task(produce_demo_runs(gateway.url, gateway.key, pace=_PACE))
    yield
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_every_story_comes_to_its_end(demo: None, gateway: Ready) -> None:
    wanted = {"render-video", "import-csv", "import-csv-part", "summarize", "answer-question"}
    statuses: set[str] = set()
    async for run in demo_runs(gateway):
        statuses.add(run["status"])
        if run["status"] == "COMPLETED":
            wanted.discard(run["taskIdentifier"])
        if not wanted and {"QUEUED", "EXECUTING", "DELAYED", "FAILED"} <= statuses:
            break


async def test_children_belong_to_their_parent_and_count_there(demo: None, gateway: Ready) -> None:
    parents: set[str] = set()
    async for run in demo_runs(gateway):
        if run["taskIdentifier"] == "import-csv-part":
            parents.add(run["parentId"])
            assert "batchId" in run
        elif run["id"] in parents and run["metadata"]["imported"] > 0:
            break


async def test_an_answer_is_streamed_beside_its_log(demo: None, gateway: Ready) -> None:
    async for run in demo_runs(gateway):
        if run["taskIdentifier"] == "answer-question" and run["status"] == "COMPLETED":
            break
    tokens = [part async for part in parts(gateway, run["id"], "llm")]
    assert "".join(tokens) == run["output"]["answer"]
    assert len(tokens) == run["metadata"]["tokens"] > 100
    messages = [part["message"] async for part in parts(gateway, run["id"], "log")]
    assert messages[0] == "prompt built"
    assert messages[-1] == "answer complete"


@pytest.mark.chaos
async def test_an_answer_goes_on_where_it_was_when_the_gateway_is_killed(
    command_line: CommandLine, database_url: str
) -> None:
    runcast = command_line.having(DATABASE_URL=database_url)
    words = ("dev", "--no-demo", "--json", "--port")
    with runcast.started(*words, "0") as process:
        gateway = runcast.read_ready(process)
        task = asyncio.create_task(produce_demo_runs(gateway.url, gateway.key, pace=0.3))
        async for run in demo_runs(gateway):
            if "llm" in run.get("streams", ()):
                break
        count = 0
        async with aclosing(parts(gateway, run["id"], "llm")) as stream:
            async for _ in stream:
                count += 1
                if count == 20:
                    break
        process.kill()
    with runcast.started(*words, gateway.url.rpartition(":")[2]) as process:
        runcast.read_ready(process)
        feed = events(gateway, f"runs/{run['id']}")
        states = [data async for name, data in feed if name == "run"]
        tokens = [part async for part in parts(gateway, run["id"], "llm")]
        task.cancel()
        await asyncio.wait([task])
    assert (run["status"], states[-1]["status"]) == ("EXECUTING", "COMPLETED")
    assert "".join(tokens) == states[-1]["output"]["answer"]


async def test_what_an_earlier_demo_left_is_cancelled(gateway: Ready) -> None:
    headers = {"authorization": f"Bearer {gateway.key}"}
    async with httpx.AsyncClient(base_url=gateway.url, headers=headers, trust_env=False) as http:
        body = {"options": {"tags": ["demo"]}}
        ours = (await http.post("/api/v1/tasks/summarize/trigger", json=body)).json()["id"]
        other = (await http.post("/api/v1/tasks/other/trigger", json=body)).json()["id"]
        task = asyncio.create_task(produce_demo_runs(gateway.url, gateway.key, pace=_PACE))
        try:
            async for run in demo_runs(gateway):
                if run["id"] == ours and run["status"] == "CANCELED":
                    break
        finally:
            task.cancel()
            await asyncio.wait([task])
        untouched = (await http.get(f"/api/v3/runs/{other}")).json()
        assert untouched["status"] == "QUEUED"


async def test_it_waits_for_a_gateway_that_is_away() -> None:
    """It asks again when nobody answers, and again when the answer is an error of the server."""
    asked = asyncio.Queue[str]()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.put_nowait((await reader.readline()).decode())
        if asked.qsize() > 1:
            writer.write(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        url = f"http://127.0.0.1:{port}"
        task = asyncio.create_task(produce_demo_runs(url, "tr_dev_key", pace=_PACE))
        for _ in range(3):
            assert (await asked.get()).startswith("GET /api/v1/runs?")
        assert not task.done()
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
