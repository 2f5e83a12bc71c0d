"""
Durable chunks per second: the gateway's ingest over HTTP, beside plain INSERTs and a peer.

Measured region: from the first byte to the acknowledgement of the last chunk (of about 120 bytes),
fsync on, all parts on all cores. "runcast": 16 writers, each a stream of its own over one long
POST, 100 lines at a time. "one INSERT each": 32 connections, each committing one chunk after the
other. "100 an INSERT": 4 connections, the limit of grouping. "durable-streams": 16 connections,
each posting 100 chunks to a stream of its own, kept in files.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial

import asyncpg

from benchmarks.harness.bench import Bench
from benchmarks.harness.chunks import chunk, ingesting
from benchmarks.harness.failure import Unavailable
from benchmarks.harness.gateway import serving
from benchmarks.harness.http import connected
from benchmarks.harness.peers import durable_streams_server
from benchmarks.harness.store import Store

SPREAD_OUT = True
APPENDS = "durable chunks/s"
_GROUP = 100
_CREATE = """
    DROP TABLE IF EXISTS plain_chunks;
    CREATE TABLE plain_chunks (stream_id bigint, index bigint, data text,
        created_at timestamptz DEFAULT clock_timestamp(), PRIMARY KEY (stream_id, index))
"""
_INSERT = "INSERT INTO plain_chunks (stream_id, index, data) VALUES ($1, $2, $3)"
_INSERT_MANY = """
    INSERT INTO plain_chunks (stream_id, index, data)
    SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::text[])
"""


async def measure(bench: Bench) -> None:
    store = await bench.store()
    seconds = bench.options.few_or(0.3, 5.0)
    ways: dict[str, Callable[[Bench, Store, float], Awaitable[float]]] = {
        "runcast": _gateway,
        "one INSERT each": _one_insert_each,
        "100 an INSERT": _many_an_insert,
        "durable-streams": _durable_streams,
    }
    for _ in bench.passes():
        for name, way in ways.items():
            bench.say(f"pass {bench.number + 1}: {name}")
            try:
                bench.sample(name, APPENDS, await way(bench, store, seconds))
            except Unavailable as missing:
                bench.record.skipped[name] = str(missing)
    bench.record.compare("appends/insert", ("runcast", APPENDS, 0), ("one INSERT each", APPENDS, 0))


async def _gateway(bench: Bench, store: Store, seconds: float) -> float:
    writers = 16
    prefix = f"run_append{bench.number}_"
    await store.add_runs(writers, prefix=prefix)
    lines = (chunk() + b"\n") * _GROUP
    headers = f"Authorization: Bearer {store.key}\r\n"
    # What is in the sockets' buffers has to be committed too before the last answer comes.
    most = bench.options.few_or(1000, 10**9)

    async def write(port: int, number: int, until: float) -> int:
        sent = 0
        path = f"/realtime/v1/streams/{prefix}{number}/self/llm"
        async with ingesting(port, path, headers) as ingest:
            while time.perf_counter() < until and sent < most:
                ingest.write(lines)
                await ingest.drained()
                sent += _GROUP
            await ingest.finish()
        return sent

    async with serving(bench, store) as gateway:
        return await _rate(seconds, [partial(write, gateway.port, i) for i in range(writers)])


async def _one_insert_each(bench: Bench, store: Store, seconds: float) -> float:
    await store.connection.execute(_CREATE)
    text = chunk().decode()

    async def write(number: int, until: float) -> int:
        connection = await asyncpg.connect(store.url)
        sent = 0
        try:
            insert = await connection.prepare(_INSERT)
            while time.perf_counter() < until:
                await insert.fetch(number, sent, text)
                sent += 1
        finally:
            await connection.close()
        return sent

    return await _rate(seconds, [partial(write, i) for i in range(32)])


async def _many_an_insert(bench: Bench, store: Store, seconds: float) -> float:
    await store.connection.execute(_CREATE)
    texts = [chunk().decode()] * _GROUP

    async def write(number: int, until: float) -> int:
        connection = await asyncpg.connect(store.url)
        sent = 0
        try:
            insert = await connection.prepare(_INSERT_MANY)
            while time.perf_counter() < until:
                await insert.fetch([number] * _GROUP, range(sent, sent + _GROUP), texts)
                sent += _GROUP
        finally:
            await connection.close()
        return sent

    return await _rate(seconds, [partial(write, i) for i in range(4)])


async def _durable_streams(bench: Bench, store: Store, seconds: float) -> float:
    body = b"[" + b",".join([chunk()] * _GROUP) + b"]"

    async def write(port: int, number: int, until: float) -> int:
        sent = 0
        path = f"/v1/stream/append{number}"
        async with connected(port) as connection:
            await connection.request("PUT", path)
            while time.perf_counter() < until:
                await connection.post(path, body)
                sent += _GROUP
        return sent

    data = bench.folder / f"durable-streams-{bench.number}"
    async with durable_streams_server(bench, data) as (port, _):
        return await _rate(seconds, [partial(write, port, i) for i in range(16)])


async def _rate(seconds: float, writers: list[Callable[[float], Awaitable[int]]]) -> float:
    """Chunks per second of all writers together, until the last of them is done."""
    began = time.perf_counter()
    sent = await asyncio.gather(*(writer(began + seconds) for writer in writers))
    return sum(sent) / (time.perf_counter() - began)
