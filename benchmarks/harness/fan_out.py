"""One message to many subscribers of one server: what it costs, and how long it takes."""

import statistics
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from benchmarks.harness.bench import Bench
from benchmarks.harness.failure import BenchmarkError
from benchmarks.harness.generator import Generator, Request, generating
from benchmarks.harness.subject import Contestant, Subject

CPU = "CPU per delivery, reader asleep (µs)"
LIVE_CPU = "CPU per delivery, reader awake (µs)"
RATE = "deliveries/s, reader awake"
P50, P99 = "p50 (ms)", "p99 (ms)"
MEMORY = "memory per idle subscriber (KB)"
CONNECT = "CPU per connection set up (µs)"
WIRE = "bytes on the wire per delivery"

_SETTLE_SECONDS = 0.5
_TRIES = 3  # a round that was cut in two, by noise, does not count


@dataclass(frozen=True)
class Rounds:
    """How many messages are sent in each of the two ways."""

    asleep: int = 20
    awake: int = 20
    warm: int = 3


async def fan_out(
    bench: Bench,
    contestant: Contestant,
    *,
    subscribers: int,
    size: int = 0,
    x: float | None = None,
    rounds: Rounds | None = None,
) -> None:
    """
    Start a contestant, subscribe, publish, and note what it took.

    Args:
        size: Bytes of a message; 0 is the gateway's smallest.
        x: What is noted as the varied quantity, when it is not the number of subscribers.
    """
    at = float(subscribers if x is None else x)
    rounds = rounds or Rounds()
    if bench.options.smoke:
        rounds = Rounds(asleep=min(2, rounds.asleep), awake=min(2, rounds.awake), warm=1)
    size = max(size, await bench.smallest_event())
    async with (
        contestant.start(bench, size) as subject,
        subscribing(bench, subject, subject.bystanders or subject.requests) as others,
        subscribing(bench, subject) as generator,
    ):
        if subject.bystanders:
            await others.connect(len(subject.bystanders))
        await _connect(bench, contestant.name, generator, subscribers, at)
        for _ in range(rounds.warm):
            await generator.awake(subject.publish)
        if rounds.asleep:
            costs = []
            for _ in range(rounds.asleep * _TRIES):
                report = await generator.asleep(subject.publish)
                if report.whole and report.deliveries >= subscribers:
                    costs.append(report.cpu_us_per_delivery)
                    bench.sample(contestant.name, WIRE, report.bytes / report.deliveries, at)
                if len(costs) == rounds.asleep:
                    break
            if not costs:
                raise BenchmarkError(f"{contestant.name} was never done with a message in one go.")
            # The lower quartile: noise of other programs only ever adds.
            bench.sample(contestant.name, CPU, _lower_quartile(costs), at)
        if rounds.awake:
            reports = [await generator.awake(subject.publish) for _ in range(rounds.awake)]
            deliveries = sum(report.deliveries for report in reports)
            cpu = sum(report.cpu_seconds for report in reports)
            seconds = sum(report.seconds for report in reports)
            bench.sample(contestant.name, LIVE_CPU, cpu * 1e6 / deliveries, at)
            bench.sample(contestant.name, RATE, deliveries / seconds, at)
            for name, values in (
                (P50, [report.p50_ms for report in reports]),
                (P99, [report.p99_ms for report in reports]),
            ):
                bench.sample(contestant.name, name, statistics.median(values), at)


def subscribing(
    bench: Bench, subject: Subject, requests: Sequence[Request] | None = None
) -> AbstractAsyncContextManager[Generator]:
    """A load generator for a subject, with its requests or others."""
    return generating(
        folder=bench.folder,
        cores=bench.layout.others,
        port=subject.port,
        mode=subject.mode,
        requests=requests or subject.requests,
        pids=subject.pids,
        ready=subject.ready,
    )


async def _connect(
    bench: Bench, name: str, generator: Generator, subscribers: int, at: float
) -> None:
    """Subscribe; memory counts from after a few that came and went, who warm the server up."""
    few = max(1, min(50, subscribers // 5))
    await generator.connect(few)
    await generator.close(few)
    await generator.watch(_SETTLE_SECONDS if not bench.options.smoke else 0.05)
    before = await generator.measure()
    connected = await generator.connect(subscribers)
    after = await generator.watch(_SETTLE_SECONDS if not bench.options.smoke else 0.05)
    bench.sample(name, CONNECT, connected.cpu_seconds * 1e6 / subscribers, at)
    bench.sample(name, MEMORY, (after.memory_kb - before.memory_kb) / subscribers, at)


def _lower_quartile(values: list[float]) -> float:
    return sorted(values)[len(values) // 4]
