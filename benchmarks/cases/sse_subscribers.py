"""
SSE: the cost of a delivery against the number of subscribers, 1 to 20,000.

Measured region: as in sse-fan-out. With few subscribers the gateway's figure is that of the change
itself: reading it from Postgres, matching and encoding it.
"""

from functools import partial

from benchmarks.harness.bench import Bench
from benchmarks.harness.fan_out import Rounds, fan_out
from benchmarks.harness.gateway import sse_gateway
from benchmarks.harness.peers import nchan, raw_uvloop

_DELIVERIES = 40_000  # for each figure, and no fewer rounds than these
_ROUNDS = (4, 30)


async def measure(bench: Bench) -> None:
    bench.record.x_label = "subscribers"
    contestants = [sse_gateway(), raw_uvloop, nchan("sse")]
    counts = bench.subscribers(1, 10, 100, 500, 1000, 2000, 5000, 10_000, 20_000)
    for _ in bench.passes():
        for subscribers in counts:
            many = min(max(_DELIVERIES // subscribers, _ROUNDS[0]), _ROUNDS[1])
            one = partial(
                fan_out,
                bench,
                subscribers=subscribers,
                rounds=Rounds(many, many // 2),
            )
            await bench.contest(contestants, one)
