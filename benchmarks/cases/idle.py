"""
Memory and CPU of subscribers to whom nothing happens.

Measured region: the proportional set size of the server's processes before and after N subscribers
came (a few came and went before, to warm the server up), divided by N; and the server's CPU time
over some seconds in which nothing is published, with the usual heartbeats (15 seconds for the
gateway's SSE, 20 for its WebSockets' pings), per subscriber and second. What the kernel holds for
each connection, some KB on either side, is in nobody's figure.
"""

from functools import partial

from benchmarks.harness.bench import Bench
from benchmarks.harness.fan_out import CONNECT, MEMORY, subscribing
from benchmarks.harness.gateway import sse_gateway, websocket_gateway
from benchmarks.harness.peers import nchan, node_http, raw_uvloop, sse_starlette
from benchmarks.harness.subject import Contestant

IDLE_CPU = "CPU per subscriber and second (µs)"
_SETTLE_SECONDS = 1.0
_FEW = 5000  # with more, only ours and nchan


async def measure(bench: Bench) -> None:
    bench.record.x_label = "subscribers"
    sse = sse_gateway("runcast SSE", heartbeat_seconds="15")
    socket = websocket_gateway("runcast WebSocket")
    everybody = [sse, socket, nchan("sse"), raw_uvloop, sse_starlette, node_http]
    for subscribers in bench.subscribers(5000, 20_000):
        contestants = everybody if subscribers <= _FEW else everybody[:3]
        one = partial(_idle, bench, subscribers=subscribers)
        for _ in bench.passes():
            await bench.contest(contestants, one)
        label, x = f"{subscribers} subscribers", float(subscribers)
        for target, contestant in (("sse-memory", sse), ("websocket-memory", socket)):
            values = list(bench.record.values(contestant.name, MEMORY, x).values())
            bench.record.judge(target, values, label)


async def _idle(bench: Bench, contestant: Contestant, *, subscribers: int) -> None:
    async with (
        contestant.start(bench, 0) as subject,
        subscribing(bench, subject) as generator,
    ):
        few = max(1, min(50, subscribers // 5))
        await generator.connect(few)
        await generator.close(few)
        before = await generator.watch(_SETTLE_SECONDS if not bench.options.smoke else 0.05)
        connected = await generator.connect(subscribers)
        after = await generator.watch(_SETTLE_SECONDS if not bench.options.smoke else 0.05)
        memory = (after.memory_kb - before.memory_kb) / subscribers
        x = float(subscribers)
        bench.sample(contestant.name, MEMORY, memory, x)
        bench.sample(contestant.name, CONNECT, connected.cpu_seconds * 1e6 / subscribers, x)
        if bench.number == 0:  # once: it takes long, and heartbeats are the same in each pass
            idle = await generator.watch(bench.options.few_or(0.1, 15.0))
            cost = idle.cpu_seconds * 1e6 / subscribers / idle.seconds
            bench.sample(contestant.name, IDLE_CPU, cost, x)
