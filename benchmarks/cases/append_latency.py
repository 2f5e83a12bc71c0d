"""
From an append to its reader at 10,000 chunks a second over 200 streams, beside Redis Streams.

Measured region: from just before the chunk is written to a connection to when its reader has it.
"runcast": 200 long POSTs and 200 SSE readers at one gateway, durable in Postgres in between.
"XADD, XREAD": pipelines of redis-py (a log that is synced every second), one process that reads
all 200 streams with XREAD. Chunks fall due every 10 ms. All parts on all cores. A chunk is one
`send` of the writers in Python, about 11 µs, on a connection of its own; of redis-py's pipelines
100 chunks are one.
"""

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

from redis.asyncio import Redis

from benchmarks.harness.bench import Bench
from benchmarks.harness.chunks import chunk, ingesting
from benchmarks.harness.failure import Unavailable
from benchmarks.harness.fan_out import P50, P99, subscribing
from benchmarks.harness.gateway import UP_TO_DATE, serving
from benchmarks.harness.generator import Request
from benchmarks.harness.processes import running
from benchmarks.harness.redis import redis_server
from benchmarks.harness.store import Store
from benchmarks.harness.subject import Subject, get

SPREAD_OUT = True
DELIVERED = "chunks delivered of those sent"
CPU = "CPU of the gateway per chunk (µs)"
_TICK_SECONDS = 0.01
_READER = Path(__file__).parents[1] / "peers" / "xread.py"
_OURS, _REDIS = "runcast", "XADD, XREAD"


async def measure(bench: Bench) -> None:
    store = await bench.store()
    streams = bench.options.few_or(10, 200)
    rate = bench.options.few_or(500, 10_000)
    seconds = bench.options.few_or(0.5, 5.0)
    for _ in bench.passes():
        bench.say(f"pass {bench.number + 1}: {_OURS}")
        await _gateway(bench, store, streams, rate, seconds)
        bench.say(f"pass {bench.number + 1}: {_REDIS}")
        try:
            await _redis(bench, streams, rate, seconds)
        except Unavailable as missing:
            bench.record.skipped[_REDIS] = str(missing)
    bench.record.compare("append-latency/xread", (_OURS, P99, 0), (_REDIS, P99, 0))


async def _gateway(bench: Bench, store: Store, streams: int, rate: int, seconds: float) -> None:
    prefix = f"run_latency{bench.number}_"
    await store.add_runs(streams, prefix=prefix)
    headers = f"Authorization: Bearer {store.key}\r\n"
    paths = [f"/realtime/v1/streams/{prefix}{i}" for i in range(streams)]
    async with serving(bench, store) as gateway, AsyncExitStack() as stack:
        requests = [Request(get(f"{path}/llm", headers)) for path in paths]
        subject = Subject(gateway.port, gateway.pids, "sse", requests, _nothing, UP_TO_DATE)
        readers = await stack.enter_async_context(subscribing(bench, subject))
        writers = [
            await stack.enter_async_context(ingesting(gateway.port, f"{path}/self/llm", headers))
            for path in paths
        ]
        await readers.connect(streams)

        async def append(due: list[int]) -> None:
            for stream in due:
                writers[stream].write(chunk(time.perf_counter_ns()) + b"\n")

        report, sent = await asyncio.gather(
            readers.watch(seconds + 0.5), _paced(append, streams, rate, seconds)
        )
        await asyncio.gather(*(writer.finish() for writer in writers))
    bench.sample(_OURS, P50, report.p50_ms)
    bench.sample(_OURS, P99, report.p99_ms)
    bench.sample(_OURS, DELIVERED, report.deliveries / sent)
    bench.sample(_OURS, CPU, report.cpu_seconds * 1e6 / sent)


async def _redis(bench: Bench, streams: int, rate: int, seconds: float) -> None:
    async with (
        redis_server(bench, str(bench.number)) as address,
        Redis(unix_socket_path=str(address)) as redis,
    ):
        reader_command: list[str | Path] = [
            sys.executable,
            _READER,
            address,
            str(streams),
            str(seconds + 0.5),
        ]
        async with running(
            reader_command, folder=bench.folder, cores=bench.layout.others
        ) as reader:
            await reader.line("The reader of XREAD")

            async def append(due: list[int]) -> None:
                pipeline = redis.pipeline(transaction=False)
                for stream in due:
                    line = chunk(time.perf_counter_ns())
                    pipeline.xadd(f"s:{stream}", {"d": line}, maxlen=5000, approximate=True)
                await pipeline.execute()

            sent = await _paced(append, streams, rate, seconds)
            found = json.loads(await reader.line("The reader of XREAD"))
    bench.sample(_REDIS, P50, found["p50_ms"])
    bench.sample(_REDIS, P99, found["p99_ms"])
    bench.sample(_REDIS, DELIVERED, found["count"] / sent)


async def _paced(
    append: Callable[[list[int]], Awaitable[None]], streams: int, rate: int, seconds: float
) -> int:
    """Append what is due, tick by tick, over all streams in turn; returns how many chunks."""
    began, sent = time.perf_counter(), 0
    for tick in range(int(seconds / _TICK_SECONDS)):
        await asyncio.sleep(max(0.0, began + tick * _TICK_SECONDS - time.perf_counter()))
        due = int((tick + 1) * _TICK_SECONDS * rate) - sent
        await append([(sent + i) % streams for i in range(due)])
        sent += due
    return sent


async def _nothing(stamp: int) -> None:
    """Publishing is up to the writers."""
