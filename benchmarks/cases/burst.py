"""
16 runs changed by one transaction, against one run changed: what joining of frames is worth.

Measured region: as in sse-fan-out, for 1,000 subscribers of one tag. A delivery is one run's
message, so a burst is 16 deliveries for each subscriber.
"""

from functools import partial

from benchmarks.harness.bench import Bench
from benchmarks.harness.fan_out import CPU, Rounds, fan_out
from benchmarks.harness.gateway import feed_requests, gateway
from benchmarks.harness.store import Store

_DEEP = 16
_RUNS = [f"run_burst{i}" for i in range(_DEEP)]


async def measure(bench: Bench) -> None:
    bench.record.x_label = "subscribers"
    await (await bench.store()).add_runs(_DEEP, tags="array['burst']", prefix="run_burst")
    requests = partial(feed_requests, tag="burst")
    contestants = [
        gateway("16 at once", "sse", requests=requests, publish=_sixteen),
        gateway("one", "sse", requests=requests, publish=_one),
    ]
    for subscribers in bench.subscribers(1000):
        one = partial(fan_out, bench, subscribers=subscribers, rounds=Rounds(15, 10))
        for _ in bench.passes():
            await bench.contest(contestants, one)
        x = float(subscribers)
        bench.record.compare("burst", ("16 at once", CPU, x), ("one", CPU, x))


async def _sixteen(store: Store, stamp: int, padding: int) -> None:
    await store.touch_many(_RUNS, stamp)


async def _one(store: Store, stamp: int, padding: int) -> None:
    await store.touch(_RUNS[0], stamp, padding)
