"""
What 1, 2, 4 and 8 gateways cost Postgres, each reading the changes or one for all through Redis.

Measured region: some seconds of 100 commits a second (not waiting for the disk), each of one of
1,000 runs, every one of which has a subscriber at one of the gateways: CPU time of all processes
of Postgres, the writer's included, and of all gateways, and transactions that were not the
writer's, each divided by the commits; and the time from just before the UPDATE is sent to when the
subscriber has read the message, as the median over the gateways. "at rest": Postgres' CPU time in
so many seconds without a commit. All parts on all cores.
"""

import asyncio
import statistics
import time
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import asyncpg
import psutil

from benchmarks.harness.bench import Bench
from benchmarks.harness.fan_out import P50, P99, subscribing
from benchmarks.harness.gateway import UP_TO_DATE, Gateway, bearer, serving
from benchmarks.harness.generator import Request
from benchmarks.harness.redis import redis_server
from benchmarks.harness.store import Store, message
from benchmarks.harness.subject import Subject, get
from benchmarks.harness.waiting import until

SPREAD_OUT = True
POSTGRES, GATEWAYS = "Postgres CPU per change (µs)", "CPU of all gateways per change (µs)"
STATEMENTS = "transactions of gateways per change"
AT_REST = "Postgres CPU at rest (ms/s)"
_RELAYED, _EACH = "relayed", "each reads"
_RATE = 100
_COUNTED_SECONDS = 1.2  # after so long a backend has told of all its transactions
_COUNT = "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()"


async def measure(bench: Bench) -> None:
    bench.record.x_label = "gateways"
    store = await bench.store()
    (runs, *_) = bench.subscribers(1000)
    await store.add_runs(runs)
    for _ in bench.passes():
        for count in (2,) if bench.options.smoke else (1, 2, 4, 8):
            for name in (_EACH, _RELAYED):
                bench.say(f"pass {bench.number + 1}: {count} gateways, {name}")
                await _gateways(bench, store, name, count, runs)


async def _gateways(bench: Bench, store: Store, name: str, count: int, runs: int) -> None:
    seconds = bench.options.few_or(0.3, 6.0)
    x = float(count)
    async with AsyncExitStack() as stack:
        settings = {}
        if name == _RELAYED:
            server = redis_server(bench, f"{bench.number}-{count}")
            address = await stack.enter_async_context(server)
            settings = {"relay": "on", "redis_url": f"unix://{address}"}
        gateways = [
            await stack.enter_async_context(serving(bench, store, **settings)) for _ in range(count)
        ]
        if name == _RELAYED:
            await until("one leads, the others follow", partial(_settled, gateways))
        generators = []
        for number, gateway in enumerate(gateways):
            watched = range(number, runs, count)
            requests = [_request(store, run) for run in watched]
            subject = Subject(gateway.port, gateway.pids, "sse", requests, _nothing, UP_TO_DATE)
            generator = await stack.enter_async_context(subscribing(bench, subject))
            await generator.connect(len(watched))
            generators.append(generator)
        connection = await asyncpg.connect(store.url, server_settings={"synchronous_commit": "off"})
        stack.push_async_callback(connection.close)
        settle = bench.options.few_or(0.1, _COUNTED_SECONDS)
        await asyncio.sleep(settle)
        postgres = _processes(connection.get_server_pid())
        before = _cpu_seconds(postgres)
        await asyncio.sleep(seconds)
        at_rest = (_cpu_seconds(postgres) - before) / seconds
        counted = await store.connection.fetchval(_COUNT)
        before = _cpu_seconds(postgres)
        reports = asyncio.gather(*(each.watch(seconds + 0.3) for each in generators))
        sent = await _write(connection, runs, seconds)
        after = _cpu_seconds(postgres)
        seen = await reports
        await asyncio.sleep(settle)
        transactions = await store.connection.fetchval(_COUNT) - counted - sent
    bench.sample(name, POSTGRES, (after - before) * 1e6 / sent, x)
    bench.sample(name, GATEWAYS, sum(each.cpu_seconds for each in seen) * 1e6 / sent, x)
    bench.sample(name, STATEMENTS, transactions / sent, x)
    bench.sample(name, AT_REST, at_rest * 1e3, x)
    bench.sample(name, P50, statistics.median(each.p50_ms for each in seen), x)
    bench.sample(name, P99, statistics.median(each.p99_ms for each in seen), x)
    bench.sample(name, "messages per commit", sum(each.deliveries for each in seen) / sent, x)


async def _settled(gateways: list[Gateway]) -> bool:
    counts = [
        [await gateway.metric(f'runcast_relay_role{{role="{role}"}}') for gateway in gateways]
        for role in ("leading", "following")
    ]
    return list(map(sum, counts)) == [1, len(gateways) - 1]


def _request(store: Store, run: int) -> Request:
    scope = f"read:runs:run_b{run}"
    return Request(get(f"/realtime/v1/runs/run_b{run}", bearer(store, scope=scope)))


async def _write(connection: asyncpg.Connection, runs: int, seconds: float) -> int:
    """Commit at a steady rate; returns how often."""
    update = await connection.prepare("UPDATE runcast.runs SET metadata = $2 WHERE id = $1")
    began, sent = time.perf_counter(), 0
    while (due := began + sent / _RATE) < began + seconds:
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        await update.fetch(f"run_b{sent % runs}", message(time.perf_counter_ns(), 0))
        sent += 1
    return sent


def _processes(backend: int) -> list[psutil.Process]:
    """All processes of a server of Postgres, of which one backend is known."""
    postmaster = psutil.Process(backend).parent()
    assert postmaster is not None
    return [postmaster, *postmaster.children(recursive=True)]


def _cpu_seconds(processes: list[psutil.Process]) -> float:
    return sum(map(_nanoseconds, processes)) / 1e9


def _nanoseconds(process: psutil.Process) -> int:
    try:
        return int(Path(f"/proc/{process.pid}/schedstat").read_text().split()[0])
    except FileNotFoundError:
        return 0  # it ended: what it did is lost, in all contestants alike


async def _nothing(stamp: int) -> None:
    """Publishing is up to the writer."""
