"""
From a commit to those who wait for it: the gateway's SSE beside a LISTEN callback.

Measured region: from just before the UPDATE is sent to when the subscriber has read the message,
at 500 commits a second (not waiting for the disk), each of one of 1,000 runs. SSE: 1,000
subscribers, each of one run, at the gateway. LISTEN: a row trigger calls pg_notify, one connection
of asyncpg gets all of it. All parts on all cores.
"""

import asyncio
import statistics
import time

import asyncpg

from benchmarks.harness.bench import Bench
from benchmarks.harness.fan_out import P50, P99, subscribing
from benchmarks.harness.gateway import UP_TO_DATE, bearer, serving
from benchmarks.harness.generator import Request
from benchmarks.harness.store import Store, message
from benchmarks.harness.subject import Subject, get
from benchmarks.harness.untracked import copy_runs

SPREAD_OUT = True
_RATE = 500
_WRITERS = 4


async def measure(bench: Bench) -> None:
    store = await bench.store()
    (runs, *_) = bench.subscribers(1000)
    await store.add_runs(runs)
    await copy_runs(store, "told", notify=True)
    seconds = bench.options.few_or(0.3, 8.0)
    for _ in bench.passes():
        bench.say(f"pass {bench.number + 1}: SSE")
        await _sse(bench, store, runs, seconds)
        bench.say(f"pass {bench.number + 1}: LISTEN")
        await _listen(bench, store, runs, seconds)
    bench.record.compare("latency/listen", ("runcast", P50, 0), ("LISTEN callback", P50, 0))


async def _sse(bench: Bench, store: Store, runs: int, seconds: float) -> None:
    requests = [
        Request(get(f"/realtime/v1/runs/run_b{i}", bearer(store, scope=f"read:runs:run_b{i}")))
        for i in range(runs)
    ]
    async with serving(bench, store) as gateway:
        subject = Subject(gateway.port, gateway.pids, "sse", requests, _nothing, UP_TO_DATE)
        async with subscribing(bench, subject) as generator:
            await generator.connect(runs)
            report, sent = await asyncio.gather(
                generator.watch(seconds + 0.5), _write(store, "runcast", runs, seconds)
            )
    bench.sample("runcast", P50, report.p50_ms)
    bench.sample("runcast", P99, report.p99_ms)
    bench.sample("runcast", "messages per commit", report.deliveries / sent)


async def _listen(bench: Bench, store: Store, runs: int, seconds: float) -> None:
    latencies: list[float] = []

    def heard(connection: object, pid: int, channel: str, payload: object) -> None:
        stamp = int(str(payload).split("~")[1])
        latencies.append((time.perf_counter_ns() - stamp) / 1e6)

    listener = await asyncpg.connect(store.url)
    try:
        await listener.add_listener("told", heard)
        sent = await _write(store, "told", runs, seconds)
        await asyncio.sleep(0.2)
    finally:
        await listener.close()
    latencies.sort()
    bench.sample("LISTEN callback", P50, statistics.median(latencies))
    bench.sample("LISTEN callback", P99, latencies[int(len(latencies) * 0.99)])
    bench.sample("LISTEN callback", "messages per commit", len(latencies) / sent)


async def _write(store: Store, schema: str, runs: int, seconds: float) -> int:
    """Commit at a steady rate; returns how often."""
    update = f"UPDATE {schema}.runs SET metadata = $2 WHERE id = $1"

    async def writer(number: int) -> int:
        connection = await asyncpg.connect(store.url, server_settings={"synchronous_commit": "off"})
        try:
            statement = await connection.prepare(update)
            began, sent = time.perf_counter(), 0
            while (due := began + sent * _WRITERS / _RATE) < began + seconds:
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                run = (sent * _WRITERS + number) % runs
                await statement.fetch(f"run_b{run}", message(time.perf_counter_ns(), 0))
                sent += 1
            return sent
        finally:
            await connection.close()

    return sum(await asyncio.gather(*map(writer, range(_WRITERS))))


async def _nothing(stamp: int) -> None:
    """Publishing is up to the writers."""
