"""Programs that end however they like: nothing hangs, and nothing is complained of."""

import asyncio
import os
import sys
from pathlib import Path

import pytest

from tests.support.restartable_gateway import RestartableGateway

pytestmark = pytest.mark.usefixtures("each_transport")

LEFT = """
import asyncio
from runcast import AsyncClient

async def main():
    async with AsyncClient() as client:
        await client.tasks.trigger("t")
        async for run in client.runs.subscribe_all():
            break
        events = client.runs.subscribe_all().events()
        await anext(events)
        reading = client.streams.read(run.id, "llm").events()
        await anext(reading)

asyncio.run(main())
"""

UNCLOSED = """
from runcast import Client
client = Client()
client.tasks.trigger("t")
for run in client.runs.subscribe_all():
    break
events = client.runs.subscribe_all().events()
next(events)
"""

INTERRUPTED = """
import asyncio
from runcast import AsyncClient

async def work(client, taken):
    async with client.runs.start("t") as run:
        taken.set()
        async for word in run.stream("llm", endless()):
            pass

async def endless():
    while True:
        yield "word"
        await asyncio.sleep(0.001)

async def main():
    taken = asyncio.Event()
    async with AsyncClient() as client:
        working = asyncio.create_task(work(client, taken))
        await taken.wait()
        await asyncio.sleep(0.05)
        working.cancel()
        await asyncio.wait([working])
        (run,) = (await client.runs.list().page()).runs
        assert run.status == "FAILED", run

asyncio.run(main())
"""


# Who never closes a client is told so by Python, but only with warnings switched on.
@pytest.mark.parametrize(
    ("program", "warnings"), [(LEFT, "default"), (UNCLOSED, "ignore"), (INTERRUPTED, "default")]
)
async def test_a_program_ends_without_complaints(
    gateway: RestartableGateway, program: str, warnings: str
) -> None:
    given = {"RUNCAST_URL": gateway.url, "RUNCAST_SECRET_KEY": gateway.key, "PYTHONPATH": "src"}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-W", warnings, "-c", program),
        cwd=Path(__file__).parents[2],
        env=os.environ | given,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    _, complaints = await process.communicate()
    assert (process.returncode, complaints.decode()) == (0, "")
