"""The demo: a plain client of the API whose runs are seen in every state."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from runcast.cli.demo import produce_demo_runs
from runcast.cli.events import EventReader
from tests.cli.command_line import Ready

_PACE = 0.01


async def demo_runs(gateway: Ready) -> AsyncIterator[dict[str, Any]]:
    """Every state of every run that is tagged as the demo's."""
    headers = {"authorization": f"Bearer {gateway.key}"}
    async with (
        httpx.AsyncClient(base_url=gateway.url, headers=headers, trust_env=False) as http,
        http.stream("GET", "/realtime/v1/runs?tags=demo", timeout=15) as response,
    ):
        reader = EventReader()
        async for chunk in response.aiter_bytes():
            for event in reader.receive(chunk):
                if event.name == "run":
                    yield json.loads(event.data)


@pytest.fixture
async def demo(gateway: Ready) -> AsyncIterator[None]:
    task = asyncio.create_task(produce_demo_runs(gateway.url, gateway.key, pace=_PACE))
    yield
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_every_story_comes_to_its_end(demo: None, gateway: Ready) -> None:
    wanted = {"render-video", "import-csv", "import-csv-part", "summarize"}
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
