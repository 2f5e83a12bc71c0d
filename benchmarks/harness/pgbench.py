"""pgbench, the load generator of Postgres: so many writers, each one statement after the other."""

import asyncio
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from benchmarks.harness.bench import Bench
from benchmarks.harness.failure import BenchmarkError, Unavailable
from benchmarks.harness.machine import on_cores
from runcast.postgres.binaries import find_binaries

_COMMITS = re.compile(r"^number of transactions actually processed: (\d+)", re.MULTILINE)
_PROGRESS = re.compile(r"^progress: [\d.]+ s, ([\d.]+) tps", re.MULTILINE)
_THREADS = 2


@dataclass(frozen=True)
class Commits:
    """How many commits there were, and how many in each full second, one after the other."""

    count: int
    by_second: list[float]


async def commits(
    bench: Bench,
    url: str,
    statement: str,
    *,
    writers: int,
    seconds: int,
    rate: float | None = None,
) -> Commits:
    """
    Let writers commit one statement after the other.

    Args:
        statement: May use ``:id``, a random number from 0 to 9,999, and ``:value``.
        rate: Commits per second, if not as many as they can.
    """
    script = bench.folder / "pgbench.sql"
    script.write_text(f"\\set id random(0, 9999)\n\\set value random(1, 1000000)\n{statement};\n")
    options = ["-n", "-M", "prepared", "-c", str(writers), "-j", str(min(writers, _THREADS))]
    options += ["-T", str(seconds), "-P", "1", "-f", str(script)]
    if rate is not None:
        options += ["-R", str(rate)]
    with on_cores(bench.layout.others):
        process = await asyncio.create_subprocess_exec(
            _program(),
            *options,
            url,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
    try:
        said, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    found = _COMMITS.search(said.decode())
    if found is None:
        raise BenchmarkError(f"pgbench failed:\n{errors.decode()[-2000:]}")
    return Commits(int(found[1]), [float(each) for each in _PROGRESS.findall(errors.decode())])


def _program() -> Path:
    ours = find_binaries().folder / "pgbench"
    if ours.exists():
        return ours
    if found := shutil.which("pgbench"):
        return Path(found)
    raise Unavailable("pgbench is missing: apt-get install postgresql-contrib")
