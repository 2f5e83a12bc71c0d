"""
What a change costs the gateway that nobody watches, while 10,000 subscribers watch other runs.

Measured region: the gateway's CPU time from before the changes until its changefeed has read them
all, divided by the number of those it found. "one at a time": 1,000 commits a second, one change
each, for some seconds, so that each read finds few. "500 at a time": transactions of 500 changes,
so that what a read costs in itself is shared. What an idle gateway costs in the same time is taken
off.
"""

import asyncio
from collections.abc import Awaitable, Callable

from benchmarks.harness.bench import Bench
from benchmarks.harness.failure import BenchmarkError
from benchmarks.harness.fan_out import subscribing
from benchmarks.harness.gateway import UP_TO_DATE, Gateway, serving
from benchmarks.harness.generator import Generator, Request
from benchmarks.harness.pgbench import commits
from benchmarks.harness.store import Store
from benchmarks.harness.subject import Subject, get

CPU = "CPU per change (µs)"
_RUNS = 10_000
_BATCH = 500
_RATE = 1000.0
_LOOKS, _SETTLE_SECONDS = 60, 0.5
_ENOUGH = 0.9  # several changes of one run between two reads are found as one
_FOUND = "runcast_changefeed_changes_total"
_UPDATE = (
    "UPDATE runcast.runs SET metadata = jsonb_build_object('progress', (:value)::int) "
    "WHERE id = 'run_b' || (:id)::text"
)


async def measure(bench: Bench) -> None:
    bench.record.x_label = "subscribers"
    store = await bench.store()
    await store.add_runs(_RUNS)
    (subscribers, *_) = bench.subscribers(10_000)
    await store.add_runs(subscribers, prefix="run_watched")
    seconds = bench.options.few_or(1, 5)

    async def one_at_a_time() -> float:
        done = await commits(bench, store.url, _UPDATE, writers=4, seconds=seconds, rate=_RATE)
        return done.count

    async def many_at_a_time() -> float:
        batches = _RUNS // _BATCH  # each run once: what changed twice would be found once
        for batch in range(batches):
            first = batch * _BATCH
            runs = [f"run_b{i}" for i in range(first, first + _BATCH)]
            await store.touch_many(runs, 1)
        return float(batches * _BATCH)

    for _ in bench.passes():
        async with serving(bench, store) as gateway:
            subject = Subject(
                gateway.port,
                gateway.pids,
                "sse",
                _watched(store, subscribers),
                _nothing,
                UP_TO_DATE,
            )
            async with subscribing(bench, subject) as generator:
                bench.say(f"pass {bench.number + 1}: {subscribers} subscribers connect")
                await generator.connect(subscribers)
                idle = await generator.watch(seconds)
                idle_share = idle.cpu_seconds / idle.seconds
                for name, change in (
                    ("one at a time", one_at_a_time),
                    ("500 at a time", many_at_a_time),
                ):
                    bench.say(f"pass {bench.number + 1}: {name}")
                    cost = await _cost(gateway, generator, change, idle_share)
                    bench.sample(name, CPU, cost, float(subscribers))
    values = bench.record.values("500 at a time", CPU, float(subscribers))
    bench.record.judge("unwatched", list(values.values()), "500 a transaction")
    values = bench.record.values("one at a time", CPU, float(subscribers))
    bench.record.judge("unwatched", list(values.values()), "1,000/s, one a transaction")


async def _cost(
    gateway: Gateway,
    generator: Generator,
    change: Callable[[], Awaitable[float]],
    idle_share: float,
) -> float:
    """Microseconds of the gateway's CPU per change, without what an idle one takes."""
    known = await gateway.metric(_FOUND)
    before = await generator.measure()
    loop = asyncio.get_running_loop()
    began = loop.time()
    changes = await change()
    for _ in range(_LOOKS):
        await asyncio.sleep(_SETTLE_SECONDS)
        after = await generator.measure()  # first: answering what follows costs the gateway too
        found = await gateway.metric(_FOUND) - known
        if found >= changes * _ENOUGH:
            cpu = after.cpu_seconds - before.cpu_seconds - idle_share * (loop.time() - began)
            return cpu * 1e6 / found
    raise BenchmarkError("The changefeed did not read all changes.")


def _watched(store: Store, subscribers: int) -> list[Request]:
    authorization = f"Authorization: Bearer {store.key}\r\n"
    return [
        Request(get(f"/realtime/v1/runs/run_watched{i}", authorization)) for i in range(subscribers)
    ]


async def _nothing(stamp: int) -> None:
    """Nobody publishes to the subscribers."""
