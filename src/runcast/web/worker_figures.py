"""
What all workers on one port count, told by any of them.

Each worker tells its own figures on a Unix socket in a folder that only they know. Whoever is asked
for all of them asks the others, and labels each figure with its worker.
"""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from runcast.web.metrics import PROCESS

_ANSWER_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class WorkerPlace:
    """Which of how many workers this one is, from 1 on, and the folder where they meet."""

    number: int
    count: int
    folder: Path


class WorkerFigures:
    """The figures of this worker, for the others, and those of the others, for us."""

    def __init__(self, own: CollectorRegistry, place: WorkerPlace) -> None:
        self._own = own
        self._place = place
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        """Tell our figures from now on, in place of the worker that had our number before."""
        path = self._path(self._place.number)
        await asyncio.to_thread(path.unlink, missing_ok=True)
        self._server = await asyncio.start_unix_server(self._tell, path)

    async def close(self) -> None:
        """Tell nobody any more."""
        if self._server is not None:
            self._server.close()

    async def gather(self) -> CollectorRegistry:
        """Ask all; `runcast_worker_up` is 0 for those that do not answer."""
        numbers = range(1, self._place.count + 1)
        found = await asyncio.gather(*map(self._ask, numbers))
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_All(dict(zip(numbers, found, strict=True))))
        return registry

    async def _ask(self, number: int) -> list[Metric] | None:
        if number == self._place.number:
            return list(self._own.collect())
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                reader, writer = await asyncio.open_unix_connection(self._path(number))
                try:
                    return _decode(await reader.read())
                finally:
                    writer.close()
        except (OSError, TimeoutError, ValueError):  # it is starting, busy, or was killed
            return None

    async def _tell(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await PROCESS.look()
        writer.write(_encode(self._own.collect()))
        writer.close()

    def _path(self, number: int) -> Path:
        return self._place.folder / str(number)


class _All(Collector):
    def __init__(self, found: dict[int, list[Metric] | None]) -> None:
        self._found = found

    def collect(self) -> Iterator[Metric]:
        up = GaugeMetricFamily(
            "runcast_worker_up", "1 for a worker that answers", labels=["worker"]
        )
        families: dict[str, Metric] = {}
        for number, metrics in self._found.items():
            up.add_metric([str(number)], float(metrics is not None))
            for metric in metrics or ():
                family = families.setdefault(
                    metric.name, Metric(metric.name, metric.documentation, metric.type)
                )
                family.samples += [
                    sample._replace(labels={**sample.labels, "worker": str(number)})
                    for sample in metric.samples
                ]
        yield up
        yield from families.values()


def _encode(metrics: Any) -> bytes:
    # The json of the standard library: figures may be infinite.
    return json.dumps(
        [
            [metric.name, metric.documentation, metric.type]
            + [[sample.name, sample.labels, sample.value] for sample in metric.samples]
            for metric in metrics
        ]
    ).encode()


def _decode(text: bytes) -> list[Metric]:
    metrics = []
    for name, documentation, kind, *samples in json.loads(text):
        metric = Metric(name, documentation, kind)
        for sample in samples:
            metric.add_sample(*sample)
        metrics.append(metric)
    return metrics
