"""Figures of several workers, told by any of them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from runcast.web import worker_figures
from runcast.web.worker_figures import WorkerFigures, WorkerPlace
from tests.support.postgres import temporary_folder


@asynccontextmanager
async def telling(folder: Path, number: int, registry: CollectorRegistry) -> AsyncIterator[str]:
    """Be a worker of three."""
    figures = WorkerFigures(registry, WorkerPlace(number, 3, folder))
    await figures.open()
    try:
        yield generate_latest(await figures.gather()).decode()
    finally:
        await figures.close()


def counting(count: int) -> CollectorRegistry:
    registry = CollectorRegistry()
    Counter("runcast_x", "Of tests.", ["kind"], registry=registry).labels("a").inc(count)
    Gauge("runcast_y", "Of tests.", registry=registry).set(float("inf"))
    Histogram("runcast_z", "Of tests.", buckets=(1, 2), registry=registry).observe(1.5)
    return registry


async def test_each_figure_says_whose_it_is() -> None:
    with temporary_folder() as folder:
        async with telling(folder, 1, counting(7)), telling(folder, 2, counting(8)) as told:
            lines = told.splitlines()
    for line in (
        'runcast_x_total{kind="a",worker="1"} 7.0',
        'runcast_x_total{kind="a",worker="2"} 8.0',
        'runcast_y{worker="1"} +Inf',
        'runcast_z_bucket{le="2.0",worker="1"} 1.0',
        'runcast_worker_up{worker="1"} 1.0',
        'runcast_worker_up{worker="2"} 1.0',
        'runcast_worker_up{worker="3"} 0.0',
    ):
        assert line in lines
    assert lines.count("# TYPE runcast_x_total counter") == 1


async def test_a_successor_tells_in_the_place_of_the_one_before() -> None:
    with temporary_folder() as folder:
        async with telling(folder, 1, counting(7)):
            async with telling(folder, 1, counting(9)):
                pass
            async with telling(folder, 1, counting(1)), telling(folder, 2, counting(2)) as told:
                assert 'runcast_x_total{kind="a",worker="1"} 1.0' in told


async def test_one_that_hangs_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_figures, "_ANSWER_SECONDS", 0.05)
    over = asyncio.Event()

    async def hang(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await over.wait()
        writer.close()

    with temporary_folder() as folder:
        server = await asyncio.start_unix_server(hang, folder / "2")
        async with telling(folder, 1, counting(7)) as told:
            assert 'runcast_worker_up{worker="2"} 0.0' in told
        over.set()
        server.close()
