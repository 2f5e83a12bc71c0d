"""
Official clients that poll, against SSE on the portable tier.

Measured region: the server's CPU time over whole rounds with readers awake, divided by the
messages that arrived. For a poll that is all of it: the answer, and the next request with its
parsing, its token, its place in the hub. 1,000 subscribers of one tag.
"""

from functools import partial

from benchmarks.harness.bench import Bench
from benchmarks.harness.fan_out import LIVE_CPU, Rounds, fan_out
from benchmarks.harness.gateway import poll_gateway, sse_gateway


async def measure(bench: Bench) -> None:
    bench.record.x_label = "subscribers"
    contestants = [poll_gateway("long-poll"), sse_gateway("portable SSE", transport="portable")]
    for subscribers in bench.subscribers(1000):
        one = partial(fan_out, bench, subscribers=subscribers, rounds=Rounds(0, 15))
        for _ in bench.passes():
            await bench.contest(contestants, one)
        x = float(subscribers)
        bench.record.compare(
            "poll/portable", ("long-poll", LIVE_CPU, x), ("portable SSE", LIVE_CPU, x)
        )
