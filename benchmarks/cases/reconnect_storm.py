"""
5,000 subscribers come at once: how many queries Postgres sees, how long it takes, what it costs.

Measured region: from the first connection to the last that is up to date, 200 connections being
opened at any time. "one tag": all of one selector, with 20 runs. "50 tags": as many of each. "own
runs": each of a run of its own. All of them once without a cursor (snapshots) and once with the
cursor that they would have after a restart of the gateway, before which a few runs changed. Queries
are counted in Postgres' log, without those of the tailer, which do not depend on subscribers.
"""

from collections.abc import Callable
from pathlib import Path

import httpx

from benchmarks.harness.bench import Bench
from benchmarks.harness.failure import BenchmarkError
from benchmarks.harness.fan_out import CONNECT, subscribing
from benchmarks.harness.gateway import UP_TO_DATE, Gateway, serving
from benchmarks.harness.generator import Request
from benchmarks.harness.store import Store
from benchmarks.harness.subject import Subject, get

QUERIES, SECONDS = "Postgres queries", "seconds until all are up to date"
_TAGS = 50
_CHANGED = 20
# Twenty runs of each tag: a snapshot of thousands would measure how fast they are encoded.
_TAGGED = f"""
    CASE WHEN g < 20 THEN array['few'] ELSE '{{}}' END
    || CASE WHEN g < {20 * _TAGS} THEN array['tag:' || g % {_TAGS}] ELSE '{{}}' END
"""
_SETTINGS = {"log_statement": "all", "log_line_prefix": "application=%a "}


async def measure(bench: Bench) -> None:
    bench.record.x_label = "subscribers"
    store = await bench.another_store(**_SETTINGS)
    (subscribers, *_) = bench.subscribers(5000)
    await store.add_runs(subscribers, tags=_TAGGED)
    ways: dict[str, Callable[[int], str]] = {
        "one tag": lambda i: "/realtime/v1/runs?tags=few",
        "50 tags": lambda i: f"/realtime/v1/runs?tags=tag:{i % _TAGS}",
        "own runs": lambda i: f"/realtime/v1/runs/run_b{i}",
    }
    for _ in bench.passes():
        for name, path in list(ways.items())[: bench.options.few_or(1, len(ways))]:
            async with serving(bench, store) as gateway:
                cursor = await _cursor(gateway, store)
                await store.touch_many([f"run_b{i}" for i in range(_CHANGED)], 1)
                paths = [path(i) for i in range(subscribers)]
                await _storm(bench, f"{name}, snapshot", gateway, paths, "")
            async with serving(bench, store) as gateway:
                await _storm(
                    bench, f"{name}, resume", gateway, paths, f"Last-Event-ID: {cursor}\r\n"
                )
    for name in [f"{way}, {begin}" for way in ways for begin in ("snapshot", "resume")]:
        values = bench.record.values(name, QUERIES, float(subscribers))
        bench.record.judge("storm", list(values.values()), name)


async def _storm(bench: Bench, name: str, gateway: Gateway, paths: list[str], headers: str) -> None:
    bench.say(f"pass {bench.number + 1}: {name}")
    authorization = f"Authorization: Bearer {gateway.store.key}\r\n"
    requests = [Request(get(path, authorization + headers)) for path in paths]
    subject = Subject(gateway.port, gateway.pids, "sse", requests, _nothing, UP_TO_DATE)
    x = float(len(paths))
    async with subscribing(bench, subject) as generator:
        before = _queries(gateway.store.log)
        connected = await generator.connect(len(paths))
        bench.sample(name, QUERIES, _queries(gateway.store.log) - before, x)
        bench.sample(name, SECONDS, connected.seconds, x)
        bench.sample(name, CONNECT, connected.cpu_seconds * 1e6 / len(paths), x)


async def _cursor(gateway: Gateway, store: Store) -> str:
    headers = {"authorization": f"Bearer {store.key}"}
    url = f"{gateway.url}/realtime/v1/runs?tags=nobody"
    async with (
        httpx.AsyncClient(trust_env=False) as client,
        client.stream("GET", url, headers=headers) as answer,
    ):
        async for line in answer.aiter_lines():
            if line.startswith("id: "):
                return line.removeprefix("id: ")
    raise BenchmarkError("The gateway gave no cursor.")


def _queries(log: Path) -> int:
    """Queries of the gateway's pool in Postgres' log so far; begin and commit are none."""
    with log.open(errors="replace") as lines:
        return sum(line.startswith("application=runcast LOG:  execute ") for line in lines)


async def _nothing(stamp: int) -> None:
    """Nothing is published."""
