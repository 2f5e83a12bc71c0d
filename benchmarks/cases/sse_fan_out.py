"""
One message to N subscribers over SSE, beside references and peers.

Measured region: from before the message is published until every thread of the server has nothing
left to do, while the subscribers do not read: CPU time of the server's processes by the scheduler's
accounting, divided by the deliveries. For the gateway that includes what the tailer reads from
Postgres (not the CPU of Postgres), matching, judging by the token's scopes, encoding with its
cursor, and one write a subscriber; for the peers the request that published. Then the same with
readers awake: rate, and latency from before publishing (for the gateway: before the UPDATE, so with
a durable commit) to each subscriber. Memory is what N idle subscribers add. Everybody sends a
message of the same size, that of the gateway's smallest.
"""

from functools import partial

from benchmarks.harness.bench import Bench
from benchmarks.harness.fan_out import CPU, Rounds, fan_out
from benchmarks.harness.gateway import sse_gateway
from benchmarks.harness.peers import (
    c_epoll,
    durable_streams,
    nchan,
    node_http,
    raw_uvloop,
    sse_starlette,
)


async def measure(bench: Bench) -> None:
    bench.record.x_label = "subscribers"
    contestants = [
        sse_gateway(),
        raw_uvloop,
        nchan("sse"),
        sse_gateway("runcast portable", transport="portable"),
        c_epoll,
        sse_starlette,
        node_http,
        durable_streams,
    ]
    for subscribers in bench.subscribers(1000, 5000):
        rounds = Rounds() if subscribers <= 2000 else Rounds(8, 8)
        one = partial(fan_out, bench, subscribers=subscribers, rounds=rounds)
        for _ in bench.passes():
            await bench.contest(contestants, one)
        label, x = f"{subscribers} subscribers", float(subscribers)
        ours, raw = ("runcast", CPU, x), ("raw uvloop", CPU, x)
        bench.record.compare("sse/raw", ours, raw, label)
        bench.record.compare("sse/nchan", ours, ("nchan", CPU, x), label)
        bench.record.compare("portable/raw", ("runcast portable", CPU, x), raw, label)
