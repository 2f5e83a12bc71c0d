"""The parent of workers: what it does when they do not start, or die; with little processes."""

import asyncio
import contextlib
import logging
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest

from runcast.cli.workers import Patience, StartFailed, Workers
from runcast.errors import ConfigurationError
from runcast.web.listener import listen
from tests.support.gateway_app import PATIENCE_SECONDS, until

# A worker that does what the next line of the file `plan` says, and serves when there is none.
WORKER = """
import pathlib, socket, sys, time
flags = dict(zip(sys.argv[2::2], sys.argv[3::2]))
folder = pathlib.Path(sys.argv[1])
plan = (folder / "plan").read_text().splitlines()
(folder / "plan").write_text("\\n".join(plan[1:]))
step = plan[0] if plan else "serve"
if step == "fail":
    sys.exit(3)
parent = socket.socket(fileno=int(flags["--control"]))
if step == "sleep":
    time.sleep(60)
if step == "wait":
    (folder / "go").read_text()
parent.send(b".")
if step == "die":
    sys.exit(0)
parent.recv(1)
if step == "stay":
    time.sleep(60)
"""
QUICK = Patience(ready=PATIENCE_SECONDS, stable=60, pause=0.001, longest_pause=0.002, tries=4)


class Family:
    """A parent that runs in this loop, and what its workers are to do."""

    def __init__(self, folder: Path, count: int, patience: Patience, drain_seconds: float) -> None:
        self._plan = folder / "plan"
        self.plan()
        self.workers = Workers(
            count,
            listen("127.0.0.1", 0, stall_timeout_seconds=30, shared=True),
            (sys.executable, "-S", "-E", "-c", WORKER, str(folder)),
            drain_seconds=drain_seconds,
            patience=patience,
        )
        self.ready = asyncio.Event()
        self.running = asyncio.create_task(self.workers.run(self.ready.set))

    def plan(self, *steps: str) -> None:
        self._plan.write_text("\n".join(steps))

    @property
    def processes(self) -> set[int]:
        found = set()
        for each in psutil.Process().children():
            with contextlib.suppress(psutil.NoSuchProcess):  # it ended while we looked
                if WORKER in each.cmdline():
                    found.add(each.pid)
        return found

    async def end(self) -> None:
        self.running.cancel()
        await asyncio.wait({self.running})


@asynccontextmanager
async def family(
    folder: Path,
    *plan: str,
    count: int = 1,
    patience: Patience = QUICK,
    drain_seconds: float = PATIENCE_SECONDS,
) -> AsyncIterator[Family]:
    made = Family(folder, count, patience, drain_seconds)
    made.plan(*plan)
    try:
        yield made
    finally:
        await made.end()
        assert not made.processes


async def replaced(family: Family, before: set[int]) -> None:
    await until(lambda: len(family.processes) == len(before) and not family.processes & before)


async def test_it_is_ready_when_all_workers_are(tmp_path: Path) -> None:
    async with family(tmp_path, count=3) as workers, asyncio.timeout(PATIENCE_SECONDS):
        await workers.ready.wait()
        assert len(workers.processes) == 3


async def test_the_first_worker_shows_whether_they_can_start(tmp_path: Path) -> None:
    async with family(tmp_path, "fail", count=3) as workers:
        with pytest.raises(StartFailed) as failed:
            await workers.running
        assert failed.value.status == 3


async def test_one_that_dies_has_a_successor(tmp_path: Path) -> None:
    async with family(tmp_path, count=2) as workers:
        await workers.ready.wait()
        before = workers.processes
        for each in before:
            psutil.Process(each).kill()
        await replaced(workers, before)


async def test_the_successor_may_fail_too_for_a_while(tmp_path: Path) -> None:
    async with family(tmp_path, count=2) as workers:
        await workers.ready.wait()
        workers.plan("fail", "die", "die", "die", "die", "die", "fail")
        before = workers.processes
        psutil.Process(min(before)).kill()
        await until(lambda: len(workers.processes) == 2 and min(before) not in workers.processes)


async def test_one_that_never_gets_ready_again_is_given_up_with_the_others(tmp_path: Path) -> None:
    async with family(tmp_path, count=2) as workers:
        await workers.ready.wait()
        workers.plan(*["fail"] * 10)
        psutil.Process(min(workers.processes)).kill()
        with pytest.raises(ConfigurationError, match=r"^Worker [12] ended with status 3 before"):
            await workers.running


async def test_one_that_hangs_at_its_start_is_killed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with family(tmp_path, "sleep", patience=Patience(ready=0.1)) as workers:
        with pytest.raises(StartFailed) as failed:
            await workers.running
        assert failed.value.status < 0
    assert "worker 1 was not ready within 0.1 seconds" in caplog.text


async def test_one_that_does_not_end_is_killed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with family(tmp_path, "stay", drain_seconds=0.1) as workers:
        await workers.ready.wait()
    assert "does not end" in caplog.text


async def test_a_second_request_to_end_kills_at_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with family(tmp_path, "stay", drain_seconds=600) as workers:
        await workers.ready.wait()
        workers.running.cancel()
        await until(lambda: "ending the workers" in caplog.text)
        await workers.end()
        await until(lambda: not workers.processes)


async def test_a_restart_replaces_all(tmp_path: Path) -> None:
    async with family(tmp_path, count=2) as workers:
        await workers.ready.wait()
        before = workers.processes
        workers.workers.restart()
        await replaced(workers, before)


async def test_a_restart_stops_at_a_successor_that_is_not_ready(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with family(tmp_path, count=2) as workers:
        await workers.ready.wait()
        workers.plan("fail")
        before = workers.processes
        workers.workers.restart()
        await until(lambda: "its successor was not ready" in caplog.text)
        assert workers.processes == before
        workers.workers.restart()
        await replaced(workers, before)


async def test_one_that_dies_while_its_successor_starts_has_only_that_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with family(tmp_path, count=1) as workers:
        await workers.ready.wait()
        (old,) = workers.processes
        os.mkfifo(tmp_path / "go")
        workers.plan("wait")
        workers.workers.restart()
        # A pipe can be opened for writing once the successor reads from it.
        with await asyncio.to_thread((tmp_path / "go").open, "w"):
            psutil.Process(old).kill()
            await replaced(workers, {old})
            successor = workers.processes
        await until(lambda: caplog.text.count("is ready") == 2, lambda: caplog.text)
        assert workers.processes == successor


def test_pauses_grow_up_to_a_bound() -> None:
    pauses = [Patience().pause_after(failures) for failures in range(10)]
    assert pauses[:4] == [0.0, 0.5, 1.0, 2.0]
    assert pauses[-2:] == [30.0, 30.0]
