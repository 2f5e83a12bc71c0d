"""
One message to N WebSockets, beside nginx with nchan.

Measured region: as in sse-fan-out; each socket has authenticated with a public token and holds one
subscription. No compression on either side.
"""

from functools import partial

from benchmarks.harness.bench import Bench
from benchmarks.harness.fan_out import CPU, Rounds, fan_out
from benchmarks.harness.gateway import websocket_gateway
from benchmarks.harness.peers import nchan


async def measure(bench: Bench) -> None:
    bench.record.x_label = "subscribers"
    contestants = [websocket_gateway(), nchan("websocket")]
    for subscribers in bench.subscribers(1000, 5000):
        rounds = Rounds() if subscribers <= 2000 else Rounds(8, 8)
        one = partial(fan_out, bench, subscribers=subscribers, rounds=rounds)
        for _ in bench.passes():
            await bench.contest(contestants, one)
        x = float(subscribers)
        bench.record.compare(
            "websocket/nchan", ("runcast", CPU, x), ("nchan", CPU, x), f"{subscribers} subscribers"
        )
