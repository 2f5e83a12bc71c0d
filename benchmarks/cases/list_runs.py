"""
`GET /api/v1/runs` at a million runs: newest first, by tag and more.

Measured region: from the request to the whole answer of 25 runs, over one kept connection, one
request after the other, with a secret key. "user:77" has one run in 20,000, "all" every run, "old"
one in 500, "nobody" none.
"""

import statistics
import time

from benchmarks.harness.bench import Bench
from benchmarks.harness.failure import BenchmarkError
from benchmarks.harness.fan_out import P50, P99
from benchmarks.harness.gateway import serving
from benchmarks.harness.http import connected
from benchmarks.harness.many_runs import grow

_QUERIES = {
    "tag user:77": "filter[tag]=user:77",
    "tag all": "filter[tag]=all",
    "tag old": "filter[tag]=old",
    "tag nobody": "filter[tag]=nobody",
    "tag and status": "filter[tag]=user:77&filter[status]=EXECUTING",
    "task": "filter[taskIdentifier]=task-7",
    "no filter": "",
}


async def measure(bench: Bench) -> None:
    bench.record.x_label = "runs in the table"
    store = await bench.store()
    runs = bench.options.few_or(300, 1_000_000)
    await grow(bench, store, 0, runs)
    requests = bench.options.few_or(5, 100)
    headers = f"Authorization: Bearer {store.key}\r\n"
    async with serving(bench, store) as gateway, connected(gateway.port) as connection:
        for _ in bench.passes():
            for name, query in _QUERIES.items():
                bench.say(f"pass {bench.number + 1}: {name}")
                took = []
                for _ in range(requests):
                    began = time.perf_counter()
                    path = f"/api/v1/runs?page[size]=25&{query}"
                    status, body = await connection.request("GET", path, headers=headers)
                    took.append((time.perf_counter() - began) * 1000)
                    if status != 200:
                        raise BenchmarkError(f"{path} was answered {status}: {body[:300]!r}")
                took.sort()
                bench.sample(name, P50, statistics.median(took), runs)
                bench.sample(name, P99, took[int(len(took) * 0.99)], runs)
