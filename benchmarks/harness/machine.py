"""The machine that is measured on: its cores, its limits, and what it is called in a record."""

import contextlib
import importlib.metadata
import os
import platform
import resource
import subprocess
import sys
from collections.abc import Iterator, Set
from dataclasses import dataclass
from pathlib import Path

from benchmarks.harness.failure import BenchmarkError

_SPARE_FILES = 150  # what a server has open beside its subscribers
_PACKAGES = ("asyncpg", "sse-starlette", "starlette", "uvicorn", "uvloop", "websockets")

_ALL = frozenset(os.sched_getaffinity(0)) if sys.platform == "linux" else frozenset({0})


@dataclass(frozen=True)
class Layout:
    """Which cores the server under test may use, and which all else."""

    server: frozenset[int]
    others: frozenset[int]


# The server under test has one core for itself; the load generator, the publisher and Postgres
# have the others, so that what a delivery costs does not depend on who reads it.
PINNED = Layout(frozenset({min(_ALL)}), _ALL - {min(_ALL)} or _ALL)

# Everybody may run everywhere: for throughput of all parts together.
SPREAD = Layout(_ALL, _ALL)


def require_linux() -> None:
    """
    Refuse other systems.

    Raises:
        BenchmarkError: CPU time is read from Linux' scheduler.
    """
    if sys.platform != "linux" or not Path("/proc/self/schedstat").exists():
        raise BenchmarkError(
            "The benchmarks run on Linux alone: they read the scheduler's accounting in /proc "
            "(kernel option CONFIG_SCHED_INFO)."
        )


def raise_file_limit() -> int:
    """Allow as many open files as this user may; returns how many subscribers fit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard - _SPARE_FILES


@contextlib.contextmanager
def on_cores(cores: Set[int]) -> Iterator[None]:
    """Let what is started inside of the block run on these cores alone, for its whole life."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def describe() -> dict[str, object]:
    """What a reader of a record needs to know about where it was made."""
    return {
        "cpu": _cpu_model(),
        "cores": len(_ALL),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in _PACKAGES},
        "commit": _commit(),
        "load": [round(load, 2) for load in os.getloadavg()],
    }


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _commit() -> str:
    answer = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
    )
    return answer.stdout.strip() or "unknown"
