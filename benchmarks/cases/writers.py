"""
What tracking costs those who write: commits per second of 8 and of 32 writers.

Measured region: pgbench, each writer updating the metadata of one random run of 10,000 in a
transaction of its own, durable, all parts on all cores. "untracked" is the same table without
triggers; "NOTIFY" the same with a row trigger that calls
pg_notify, and a listener; "tracked" the gateway's table with nobody reading; "tracked, gateway"
with a gateway following it; "tracked, followed" with a subscriber of every run at that gateway.
Gateways sleep when the writers begin: all seconds together have their waking in them, and the first
one is shown alone as well.
"""

import asyncio
import statistics
from contextlib import AsyncExitStack

import asyncpg

from benchmarks.harness.bench import Bench
from benchmarks.harness.fan_out import subscribing
from benchmarks.harness.gateway import UP_TO_DATE, serving
from benchmarks.harness.generator import Request
from benchmarks.harness.pgbench import commits
from benchmarks.harness.store import Store
from benchmarks.harness.subject import Subject, get
from benchmarks.harness.untracked import copy_runs

SPREAD_OUT = True
COMMITS = "commits/s"
FIRST, LATER = "commits in the first second", "commits/s after that"
_RUNS = 10_000
_UPDATE = (
    "UPDATE {schema}.runs SET metadata = jsonb_build_object('progress', (:value)::int, 'at', 1) "
    "WHERE id = 'run_b' || (:id)::text"
)
_SCHEMAS = {
    "untracked": "plain",
    "tracked, gateway": "runcast",
    "tracked": "runcast",
    "NOTIFY": "told",
    "tracked, followed": "runcast",
}


async def measure(bench: Bench) -> None:
    bench.record.x_label = "writers"
    store = await bench.store()
    await store.add_runs(_RUNS)
    await copy_runs(store, "plain", notify=False)
    await copy_runs(store, "told", notify=True)
    seconds = bench.options.few_or(1, 5)
    for _ in bench.passes():
        for writers in (8,) if bench.options.smoke else (8, 32):
            for name, schema in _SCHEMAS.items():
                bench.say(f"pass {bench.number + 1}: {name}, {writers} writers")
                await store.connection.execute(f"VACUUM {schema}.runs")
                await store.connection.execute("CHECKPOINT", timeout=120)
                async with AsyncExitStack() as stack:
                    await _accompany(bench, store, name, stack, seconds)
                    update = _UPDATE.format(schema=schema)
                    done = await commits(bench, store.url, update, writers=writers, seconds=seconds)
                bench.sample(name, COMMITS, done.count / seconds, writers)
                if seconds > 1:
                    first, *later = done.by_second
                    bench.sample(name, FIRST, first, writers)
                    bench.sample(name, LATER, statistics.mean(later), writers)
    for writers in (8, 32):
        bench.record.compare(
            f"writers-{writers}",
            ("tracked, gateway", COMMITS, writers),
            ("untracked", COMMITS, writers),
        )


async def _accompany(
    bench: Bench, store: Store, name: str, stack: AsyncExitStack, seconds: float
) -> None:
    """Start whoever follows the writers for so long."""
    if name == "NOTIFY":
        listener = await asyncpg.connect(store.url)
        stack.push_async_callback(listener.close)
        await listener.add_listener("told", lambda *_: None)
    if name.startswith("tracked, "):
        gateway = await stack.enter_async_context(serving(bench, store))
        if name == "tracked, followed":
            authorization = f"Authorization: Bearer {store.key}\r\n"
            requests = [Request(get("/realtime/v1/runs", authorization))]
            subject = Subject(gateway.port, gateway.pids, "sse", requests, _nothing, UP_TO_DATE)
            follower = await stack.enter_async_context(subscribing(bench, subject))
            await follower.connect(1)
            reading = asyncio.create_task(follower.watch(seconds))
            stack.push_async_callback(asyncio.wait, [reading])


async def _nothing(stamp: int) -> None:
    """Publishing is up to pgbench."""
