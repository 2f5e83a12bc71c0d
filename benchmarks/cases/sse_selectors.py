"""
SSE: the cost of a delivery against the number of distinct selectors.

Measured region: as in sse-fan-out; 1,000 subscribers get each message. "all match" spreads them
over S selectors that all match the run, so that it is judged and encoded S times. "others" puts
them on one selector, and S more subscribers watch other tags and get nothing.
"""

from functools import partial

from benchmarks.harness.bench import Bench
from benchmarks.harness.fan_out import Rounds, fan_out
from benchmarks.harness.gateway import TAG, bearer, feed_requests, gateway
from benchmarks.harness.generator import Request
from benchmarks.harness.store import Store
from benchmarks.harness.subject import get

_SELECTORS = (1, 10, 100, 1000)
_ALONE, _OTHERS = "all match", "others"


async def measure(bench: Bench) -> None:
    bench.record.x_label = "selectors"
    (subscribers, *_) = bench.subscribers(1000)
    for _ in bench.passes():
        for selectors in _SELECTORS[: bench.options.few_or(1, len(_SELECTORS))]:
            one = partial(
                fan_out,
                bench,
                subscribers=subscribers,
                x=selectors,
                rounds=Rounds(15, 10),
            )
            contestants = [
                gateway(_ALONE, "sse", requests=partial(_matching, selectors)),
                gateway(
                    _OTHERS, "sse", requests=feed_requests, bystanders=partial(_other, selectors)
                ),
            ]
            await bench.contest(contestants, one)


def _matching(selectors: int, store: Store) -> list[Request]:
    """Feeds of the tag; a bound on the creation time that differs makes another selector."""
    token = bearer(store)
    since = [f"&createdAt=2020-01-01T00:00:{i % 60:02d}.{i:06d}Z" for i in range(selectors)]
    path = f"/realtime/v1/runs?tags={TAG}&skipColumns=payload"
    return [Request(get(path + more, token)) for more in since]


def _other(selectors: int, store: Store) -> list[Request]:
    token = f"Authorization: Bearer {store.key}\r\n"
    return [Request(get(f"/realtime/v1/runs?tags=other:{i}", token)) for i in range(selectors)]
