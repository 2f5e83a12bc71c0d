"""A program of the deployment: started, stopped where it is, killed, and started again."""

import asyncio
import os
import random
import signal
import socket
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from chaos.failure import ChaosError

_START_SECONDS = 60.0
_END_SECONDS = 30.0
_LOOK_SECONDS = 0.02


def free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago, and are not given to connections by chance later."""
    ports: set[int] = set()
    while len(ports) < count:
        port = random.SystemRandom().randrange(10_000, 32_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            ports.add(port)
    return list(ports)


def takes_connections(port: int) -> bool:
    """Whether somebody listens there."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


async def until(holds: Callable[[], bool], what: str, seconds: float = _START_SECONDS) -> None:
    """
    Wait for something that another process brings about and does not tell.

    Raises:
        ChaosError: It does not come true.
    """
    try:
        async with asyncio.timeout(seconds):
            # Another process sets no event for us.
            while not await asyncio.to_thread(holds):  # noqa: ASYNC110
                await asyncio.sleep(_LOOK_SECONDS)
    except TimeoutError:
        raise ChaosError(f"{what} within {seconds:.0f} seconds.") from None


class Process:
    """
    One program; ``log`` has all that it ever said.

    Args:
        name: For errors.
        ready: Tells whether it does its work.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        folder: Path,
        ready: Callable[[], bool],
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        self._command = [str(word) for word in command]
        self._ready = ready
        # Who is killed would leave torn measurements of coverage.
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("COVERAGE_")}
        self._environment = inherited | dict(environment or {})
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        """Start it, again where it ends at once, as an init system does; wait until it is ready."""
        await until(self._is_ready, f"{self.name} did not start (see {self.log.name})")

    def kill(self) -> None:
        """kill -9, of its children too."""
        for process in self._family():
            process.kill()

    def pause(self) -> None:
        """Stop it where it is: its connections stay, nothing answers."""
        for process in self._family():
            process.suspend()

    def resume(self) -> None:
        for process in self._family():
            process.resume()

    async def ended(self) -> None:
        """Wait until it is gone."""
        process = self._process
        if process is not None:
            await asyncio.to_thread(process.wait, _END_SECONDS)

    async def stop(self) -> None:
        """Ask it to end, as whoever deploys does, and wait; then it is killed."""
        if self._process is None or self._process.poll() is not None:
            return
        self.resume()
        self._process.send_signal(signal.SIGTERM)
        try:
            await self.ended()
        except subprocess.TimeoutExpired:
            self.kill()
            await self.ended()

    def _is_ready(self) -> bool:
        if self._process is None or self._process.poll() is not None:
            with self.log.open("ab") as log:
                self._process = subprocess.Popen(
                    self._command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=self._environment,
                    start_new_session=True,  # Ctrl-C is for us
                )
        return self._ready()

    def _family(self) -> list[psutil.Process]:
        if self._process is None or self._process.poll() is not None:
            return []
        try:
            parent = psutil.Process(self._process.pid)
            return [parent, *parent.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []
