"""
SSE: the cost of a delivery against the size of a message.

Measured region: as in sse-fan-out, with 500 subscribers. The bytes are in the run's metadata, so
the gateway reads them from Postgres and encodes them, once for all.
"""

from functools import partial

from benchmarks.harness.bench import Bench
from benchmarks.harness.fan_out import Rounds, fan_out
from benchmarks.harness.gateway import sse_gateway
from benchmarks.harness.peers import nchan, raw_uvloop

_SIZES = (0, 1024, 4096, 16_384, 65_536, 200_000)


async def measure(bench: Bench) -> None:
    bench.record.x_label = "bytes"
    contestants = [sse_gateway(), raw_uvloop, nchan("sse")]
    (subscribers, *_) = bench.subscribers(500)
    smallest = await bench.smallest_event()
    for _ in bench.passes():
        for size in _SIZES[: bench.options.few_or(1, len(_SIZES))]:
            one = partial(
                fan_out,
                bench,
                subscribers=subscribers,
                size=size,
                x=max(size, smallest),
                rounds=Rounds(15, 10),
            )
            await bench.contest(contestants, one)
