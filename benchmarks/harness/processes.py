"""Child processes of a benchmark: started on their cores, read from, and ended with it."""

import asyncio
import contextlib
import os
import re
import signal
from collections.abc import AsyncIterator, Mapping, Sequence, Set
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.harness.failure import BenchmarkError
from benchmarks.harness.machine import on_cores

_START_SECONDS = 30.0
_END_SECONDS = 30.0  # the kernel closes some ten thousand connections
_LISTENING = re.compile(r"(?:listening |http://[^ :]*:)(\d+)")
_LINE_BYTES = 1 << 20


@dataclass
class Child:
    """A running process."""

    process: asyncio.subprocess.Process
    log: Path

    @property
    def pids(self) -> list[int]:
        """The process and all that it started."""
        parent = psutil.Process(self.process.pid)
        return [parent.pid, *(child.pid for child in parent.children(recursive=True))]

    async def line(self, what: str, seconds: float = _START_SECONDS) -> str:
        """
        The next line of its standard output.

        Raises:
            BenchmarkError: It ended, or said nothing in time.
        """
        assert self.process.stdout is not None
        try:
            async with asyncio.timeout(seconds):
                line = await self.process.stdout.readline()
        except TimeoutError:
            raise BenchmarkError(f"{what} said nothing for {seconds:.0f} seconds.") from None
        if not line:
            raise BenchmarkError(f"{what} ended:\n{self.log_tail()}")
        return line.decode()

    async def port(self, what: str) -> int:
        """The port that it says it listens on, in whatever line it says so first."""
        while True:
            if found := _LISTENING.search(await self.line(what)):
                return int(found[1])

    def log_tail(self) -> str:
        """The end of what it wrote to standard error."""
        return self.log.read_text(errors="replace")[-2000:]


@asynccontextmanager
async def running(
    command: Sequence[str | Path],
    *,
    folder: Path,
    cores: Set[int],
    environment: Mapping[str, str] | None = None,
    errors_with_output: bool = False,
) -> AsyncIterator[Child]:
    """
    Run a program for as long as the block; it and its children are killed afterwards.

    Its standard error goes to a file in the folder, unless it shall come with the output.
    """
    log = folder / f"{Path(command[0]).name}-{os.urandom(3).hex()}.log"
    with log.open("wb") as errors, on_cores(cores):
        process = await asyncio.create_subprocess_exec(
            *map(str, command),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT if errors_with_output else errors,
            env={**os.environ, **(environment or {})},
            start_new_session=True,  # Ctrl-C is for us; we end what we started, and nothing else
            limit=_LINE_BYTES,
        )
    child = Child(process, log)
    try:
        yield child
    except BenchmarkError as error:
        if said := child.log_tail():
            error.add_note(f"{Path(command[0]).name} had said:\n{said}")
        raise
    finally:
        await _end(child)


async def _end(child: Child) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        pids = child.pids
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_END_SECONDS):
            await child.process.wait()
