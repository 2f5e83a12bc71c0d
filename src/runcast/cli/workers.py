"""
`runcast serve --workers`: starts the workers, starts again those that die, and ends them together.

Each worker is a gateway of its own in a process of its own. We share nothing with it but a socket
pair, over which it says that it is ready; when our end closes, also because we were killed, it
drains and ends. Connections are spread over the workers by the kernel (see `web.listener`): each
has a socket of its own on the port, which we keep open, so that those that wait there survive when
one worker takes the place of another.
"""

import asyncio
import contextlib
import logging
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from runcast.errors import ConfigurationError
from runcast.web.listener import join

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Patience:
    """
    How long workers are waited for, in seconds, and how often one is started again.

    A worker that was not ready, or died within ``stable`` seconds, is started again after ``pause``
    and twice as long each time, up to ``longest_pause``. After ``tries`` such in a row, one that is
    not ready is given up, and with it all.
    """

    ready: float = 60.0
    stable: float = 30.0
    pause: float = 0.5
    longest_pause: float = 30.0
    tries: int = 8

    def pause_after(self, failures: int) -> float:
        """Return how long to wait after so many failures in a row."""
        return 0.0 if failures == 0 else min(self.pause * 2 ** (failures - 1), self.longest_pause)


class Workers:
    """
    Keeps ``count`` workers at work on the port of ``listener``.

    Args:
        command: What starts a worker; flags with its number and its descriptors are added.
        drain_seconds: After so long a worker that was told to end is killed.
    """

    def __init__(
        self,
        count: int,
        listener: socket.socket,
        command: tuple[str, ...],
        *,
        drain_seconds: float,
        patience: Patience | None = None,
    ) -> None:
        self.patience = patience or Patience()
        self.drain_seconds = drain_seconds
        self._restart_wanted = asyncio.Event()
        self._slots = [
            _Slot(self, number, command, listener if number == 1 else join(listener))
            for number in range(1, count + 1)
        ]

    async def run(self, on_ready: Callable[[], None]) -> None:
        """
        Work until cancelled, then end all workers; when cancelled again, at once.

        Raises:
            StartFailed: The first worker was not ready; it has said why.
            ConfigurationError: A worker could not be started again.
        """
        tasks: list[asyncio.Task[None]] = []
        try:
            await self._slots[0].start_first()
            work = [slot.keep() for slot in self._slots]
            work += [self._tell_when_ready(on_ready), self._restart_when_wanted()]
            tasks = [asyncio.create_task(each) for each in work]
            await asyncio.gather(*tasks)
        finally:
            if tasks:
                logger.info("ending the workers")
            for task in tasks:
                task.cancel()
            try:
                await asyncio.gather(*(slot.end() for slot in self._slots))
            finally:
                for slot in self._slots:
                    slot.close()

    def restart(self) -> None:
        """Let a new worker take the place of each, one after the other."""
        self._restart_wanted.set()

    async def _tell_when_ready(self, on_ready: Callable[[], None]) -> None:
        for slot in self._slots:
            await slot.was_ready.wait()
        on_ready()

    async def _restart_when_wanted(self) -> None:
        while True:
            await self._restart_wanted.wait()
            self._restart_wanted.clear()
            logger.info("restarting the workers")
            for slot in self._slots:
                if not await slot.replace():
                    logger.error(
                        "worker %d stays: its successor was not ready. No more are restarted",
                        slot.number,
                    )
                    break
            else:
                logger.info("all workers were restarted")


class StartFailed(Exception):
    """The first worker ended before it was ready, with this exit status."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class _Slot:
    """The place of one worker, and the process that fills it."""

    def __init__(
        self,
        workers: Workers,
        number: int,
        command: tuple[str, ...],
        listener: socket.socket,
    ) -> None:
        self.number = number
        self.was_ready = asyncio.Event()
        self._workers = workers
        self._command = (*command, "--number", str(number))
        self._listener = listener
        self._serving: _Process | None = None
        self._processes: set[_Process] = set()
        self._starting = asyncio.Lock()

    async def start_first(self) -> None:
        """Start the very first process: when it fails all would, and for the same reason."""
        process = await self._start()
        if process.status is not None:
            raise StartFailed(process.status)

    async def keep(self) -> None:
        """
        Have a process at work, whatever happens to it, until cancelled.

        Raises:
            ConfigurationError: It could not be started, again and again.
        """
        patience, failures = self._workers.patience, 0
        loop = asyncio.get_running_loop()
        while True:
            process = await self._fill()
            begun = loop.time()
            status = await process.ended()
            if self._serving is not process and self._serving is not None:
                failures = 0  # another one took its place
                continue
            was_ready = self._serving is process
            self._serving = None
            logger.warning("worker %d (process %d) %s", self.number, process.pid, _told(status))
            if was_ready and loop.time() - begun >= patience.stable:
                failures = 0
                continue
            failures += 1
            if not was_ready and failures >= patience.tries:
                raise ConfigurationError(
                    f"Worker {self.number} {_told(status)} before it was ready, after {failures} "
                    "failures in a row: the reason stands above. All workers are ended."
                )
            if failures > 1:
                self._leave_port()
            await asyncio.sleep(patience.pause_after(failures))

    async def replace(self) -> bool:
        """
        Start another process, and end the one at work once that one is ready.

        Tells whether it became ready; if not, the old one stays.
        """
        old = self._serving
        async with self._starting:
            new = await self._start()
            if new.status is not None:
                return False
        if old is not None:
            await self._end(old)
        return True

    async def end(self) -> None:
        """End what runs here."""
        await asyncio.gather(*map(self._end, self._processes))

    def close(self) -> None:
        """Leave the port, and nothing behind."""
        for process in self._processes:
            process.kill()
        self._listener.close()

    async def _fill(self) -> "_Process":
        """Give the process at work, or else a new one, which may have ended already."""
        async with self._starting:
            return self._serving or await self._start()

    async def _start(self) -> "_Process":
        """Start a process; it is at work or has ended when this returns."""
        process = await _Process.start(self._command, self._listener)
        self._processes.add(process)
        process.on_end(lambda: self._processes.discard(process))
        within = self._workers.patience.ready
        if await process.becomes_ready(within):
            logger.info("worker %d (process %d) is ready", self.number, process.pid)
            self._serving = process
            self.was_ready.set()
        elif process.was_killed:
            logger.error("worker %d was not ready within %g seconds", self.number, within)
        return process

    async def _end(self, process: "_Process") -> None:
        process.tell_to_end()
        try:
            async with asyncio.timeout(self._workers.drain_seconds):
                await process.ended()
        except TimeoutError:
            logger.error("worker %d (process %d) does not end", self.number, process.pid)
            process.kill()
            await process.ended()

    def _leave_port(self) -> None:
        """Let the others have the connections that would wait here."""
        with self._listener as left:
            self._listener = join(left)


class _Process:
    """One worker from its start to its end."""

    @classmethod
    async def start(cls, command: tuple[str, ...], listener: socket.socket) -> "_Process":
        ours, theirs = socket.socketpair()
        with theirs:
            flags = ("--listener", str(listener.fileno()), "--control", str(theirs.fileno()))
            try:
                process = await asyncio.create_subprocess_exec(
                    *(*command, *flags),
                    stdin=subprocess.DEVNULL,
                    pass_fds=(listener.fileno(), theirs.fileno()),
                )
            except BaseException:
                ours.close()
                raise
        return cls(process, ours)

    def __init__(self, process: asyncio.subprocess.Process, control: socket.socket) -> None:
        control.setblocking(False)
        self.was_killed = False
        self._process = process
        self._control = control
        self._ended = asyncio.create_task(process.wait())
        self._ended.add_done_callback(lambda _: control.close())

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def status(self) -> int | None:
        """Exit status, negative for a signal; None while it runs."""
        return self._process.returncode

    def on_end(self, call: Callable[[], None]) -> None:
        self._ended.add_done_callback(lambda _: call())

    async def ended(self) -> int:
        return await asyncio.shield(self._ended)

    async def becomes_ready(self, seconds: float) -> bool:
        """Wait until it is; if it does not get so in time, it is killed."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(seconds):
                if await loop.sock_recv(self._control, 1):
                    return True
        except TimeoutError:
            self.kill()
        await self.ended()
        return False

    def tell_to_end(self) -> None:
        self._control.close()

    def kill(self) -> None:
        self.was_killed = True
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()


def worker_command(count: int, folder: Path) -> tuple[str, ...]:
    """Return what starts a worker; the working directory is no place to import from."""
    flags = ("--count", str(count), "--folder", str(folder))
    return (sys.executable, "-P", "-m", "runcast", "worker", *flags)


def _told(status: int) -> str:
    return f"was ended by signal {-status}" if status < 0 else f"ended with status {status}"
