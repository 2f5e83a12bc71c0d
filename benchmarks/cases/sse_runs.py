"""
SSE: the cost of a delivery against the number of runs in the table, to a million.

Measured region: as in sse-fan-out, with 500 subscribers of one tag; the runs that are there beside
are of other tags. What it shows is whether the tailer's read depends on the size of the table.
"""

from functools import partial

from benchmarks.harness.bench import Bench
from benchmarks.harness.fan_out import Rounds, fan_out
from benchmarks.harness.gateway import sse_gateway
from benchmarks.harness.many_runs import grow

_RUNS = (1000, 10_000, 100_000, 1_000_000)


async def measure(bench: Bench) -> None:
    bench.record.x_label = "runs in the table"
    store = await bench.store()
    (subscribers, *_) = bench.subscribers(500)
    there = 0
    for runs in (200,) if bench.options.smoke else _RUNS:
        await grow(bench, store, there, runs)
        there = runs
        one = partial(fan_out, bench, subscribers=subscribers, x=runs, rounds=Rounds(15, 10))
        for _ in bench.passes():
            await bench.contest([sse_gateway()], one)
