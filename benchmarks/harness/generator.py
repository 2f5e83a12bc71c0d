"""The load generator of native/loadgen.c: built when its source changed, driven by lines."""

import asyncio
import hashlib
import json
import os
import shutil
import struct
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence, Set
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from benchmarks.harness.failure import BenchmarkError
from benchmarks.harness.processes import Child, running

_NATIVE = Path(__file__).parents[1] / "native"
_BUILT = _NATIVE / "build"
_ROUND_SECONDS = 60.0

Mode: TypeAlias = Literal["sse", "websocket", "poll"]
Publish: TypeAlias = Callable[[int], Awaitable[None]]
"""Publishes one message that holds ``~<stamp>~``, and returns when the server took it."""


@dataclass(frozen=True)
class Request:
    """What one kind of subscriber sends: the head that connects, and what follows it."""

    head: bytes
    then: bytes = b""


@dataclass(frozen=True)
class Report:
    """What the generator saw during one command; times of the server's processes."""

    connections: int
    ready: int
    lost: int
    seconds: float
    cpu_seconds: float
    memory_kb: int
    deliveries: int
    bytes: int
    p50_ms: float
    p99_ms: float
    max_ms: float
    whole: bool

    @property
    def cpu_us_per_delivery(self) -> float:
        """Microseconds of the server's CPU for each message that arrived."""
        return self.cpu_seconds * 1e6 / max(self.deliveries, 1)


class Generator:
    """Subscribers of one server."""

    def __init__(self, child: Child) -> None:
        self._child = child

    async def connect(self, count: int, *, seconds: float = 60.0) -> Report:
        """Open so many more connections, and wait until all are ready."""
        return await self._ask(f"connect {count} {seconds}", seconds)

    async def close(self, count: int) -> Report:
        """Drop the oldest so many connections."""
        return await self._ask(f"close {count}")

    async def watch(self, seconds: float) -> Report:
        """Read for so long."""
        return await self._ask(f"watch {seconds}", seconds)

    async def measure(self) -> Report:
        """CPU time since the server's start, and its memory."""
        return await self._ask("measure")

    async def asleep(self, publish: Publish) -> Report:
        """One message, read by nobody before the server is done with it."""
        return await self._round("asleep", publish)

    async def awake(self, publish: Publish) -> Report:
        """One message, read while it is sent."""
        return await self._round("awake", publish)

    async def _round(self, kind: str, publish: Publish) -> Report:
        self._say(f"{kind} {_ROUND_SECONDS}")
        await self._answer(_ROUND_SECONDS)
        stamp = time.perf_counter_ns()  # CLOCK_MONOTONIC, as the generator reads it
        await publish(stamp)
        self._say(f"published {stamp}")
        return Report(**await self._answer(_ROUND_SECONDS))

    async def _ask(self, command: str, seconds: float = 0.0) -> Report:
        self._say(command)
        return Report(**await self._answer(seconds))

    def _say(self, line: str) -> None:
        assert self._child.process.stdin is not None
        self._child.process.stdin.write(f"{line}\n".encode())

    async def _answer(self, seconds: float) -> dict[str, Any]:
        answer = json.loads(await self._child.line("The load generator", seconds + 30.0))
        if "error" in answer:
            raise BenchmarkError(f"The load generator: {answer['error']}.")
        assert isinstance(answer, dict)
        return answer


@asynccontextmanager
async def generating(
    *,
    folder: Path,
    cores: Set[int],
    port: int,
    mode: Mode,
    requests: Sequence[Request],
    pids: Sequence[int],
    ready: str | None = None,
) -> AsyncIterator[Generator]:
    """
    Start a generator for a server on 127.0.0.1; its connections are closed with the block.

    Args:
        requests: Connection number i sends the i-th, and begins anew after the last.
        pids: The server's processes, whose time and memory are read.
        ready: What a connection has received when it is ready; None: the head of the answer.
    """
    file = folder / f"requests-{os.urandom(3).hex()}.bin"
    file.write_bytes(
        b"".join(
            struct.pack("<I", len(part)) + part
            for request in requests
            for part in (request.head, request.then)
        )
    )
    command: list[str | Path] = [await asyncio.to_thread(built, "loadgen"), "127.0.0.1", str(port)]
    command += [mode, file, ",".join(map(str, pids)), *([ready] if ready else [])]
    async with running(command, folder=folder, cores=cores) as child:
        yield Generator(child)


def built(name: str) -> Path:
    """
    The program of native/<name>.c, compiled if its source is another than before.

    Raises:
        BenchmarkError: There is no C compiler, or it fails.
    """
    source = _NATIVE / f"{name}.c"
    digest = hashlib.sha256(source.read_bytes()).hexdigest()[:12]
    program = _BUILT / f"{name}-{digest}"
    if program.exists():
        return program
    compiler = shutil.which("gcc") or shutil.which("cc") or shutil.which("clang")
    if compiler is None:
        raise BenchmarkError(
            "A C compiler is needed for the load generator: apt-get install gcc libc6-dev."
        )
    _BUILT.mkdir(exist_ok=True)
    part = program.with_suffix(f".{time.perf_counter_ns()}")  # others may build it as well
    done = subprocess.run([compiler, "-O2", "-o", part, source], capture_output=True, text=True)
    if done.returncode != 0:
        raise BenchmarkError(f"{source.name} cannot be compiled:\n{done.stderr}")
    part.rename(program)
    return program
