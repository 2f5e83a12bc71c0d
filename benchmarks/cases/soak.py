"""
Ten minutes of coming and going: does the gateway's memory stay where it is?

Measured region: the proportional set size of the gateway's process every few seconds, while 1,000
SSE subscribers of a tag and 200 WebSockets are there, one in fifty is exchanged for a new one each
second, and 50 runs a second change, some of which come and end. The slope is that of the second
half, when all pools and caches have their size.
"""

import asyncio
import statistics
import time

from benchmarks.harness.bench import Bench
from benchmarks.harness.fan_out import subscribing
from benchmarks.harness.gateway import (
    TAG,
    UP_TO_DATE,
    feed_requests,
    serving,
    socket_requests,
)
from benchmarks.harness.generator import Generator
from benchmarks.harness.store import Store
from benchmarks.harness.subject import Subject

MEMORY, SLOPE = "memory (MB)", "slope of the second half (KB a minute)"
_RUNS = 500
_CHANGES = 50
_SHARE = 50
_STEP_SECONDS = 1.0
_FINISH = """
    UPDATE runcast.runs SET status = 'COMPLETED_SUCCESSFULLY'
    WHERE id = (SELECT id FROM runcast.runs WHERE status = 'EXECUTING' AND id LIKE 'run_soak%'
                ORDER BY id LIMIT 1)
"""


async def measure(bench: Bench) -> None:
    bench.record.x_label = "seconds"
    store = await bench.store()
    tags = f"array['{TAG}']"
    await store.add_runs(_RUNS, tags=tags, prefix="run_soak0_")
    (subscribers, *_) = bench.subscribers(1000)
    sockets = max(1, subscribers // 5)
    seconds = bench.options.few_or(2, 600)
    async with serving(bench, store, heartbeat_seconds="15") as gateway:
        sse = Subject(gateway.port, gateway.pids, "sse", feed_requests(store), _nothing, UP_TO_DATE)
        socket = Subject(
            gateway.port, gateway.pids, "websocket", socket_requests(store), _nothing, UP_TO_DATE
        )
        async with subscribing(bench, sse) as feeds, subscribing(bench, socket) as many:
            await feeds.connect(subscribers)
            await many.connect(sockets)
            began = time.perf_counter()
            points: list[tuple[float, float]] = []
            step = 0
            while (elapsed := time.perf_counter() - began) < seconds:
                bench.say(f"soaking: {elapsed:.0f} of {seconds} seconds")
                step += 1
                await asyncio.gather(
                    _exchange(feeds, max(1, subscribers // _SHARE)),
                    _exchange(many, max(1, sockets // _SHARE)),
                    _change(store, step),
                )
                memory = (await feeds.measure()).memory_kb
                points.append((elapsed, memory))
                bench.sample("runcast", MEMORY, memory / 1024, round(elapsed))
    later = points[len(points) // 2 :]
    if len(later) > 1:
        slope = statistics.linear_regression(*zip(*later, strict=True)).slope * 60
        bench.record.notes.append(f"{SLOPE}: {slope:.1f}")


async def _exchange(generator: Generator, count: int) -> None:
    await generator.close(count)
    await generator.connect(count)
    await generator.watch(_STEP_SECONDS)


async def _change(store: Store, step: int) -> None:
    """A second of changes: progress, a run that ends, a run that comes."""
    for i in range(_CHANGES):
        await store.touch(f"run_soak0_{(step * _CHANGES + i) % _RUNS}", time.perf_counter_ns())
    await store.connection.execute(_FINISH)
    await store.add_runs(1, tags=f"array['{TAG}']", prefix=f"run_soak{step}_")


async def _nothing(stamp: int) -> None:
    """Changes are made beside."""
