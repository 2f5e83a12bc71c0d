"""The gateways of the deployment, each a `runcast serve` of its own."""

import asyncio
import os
import struct
import sys
import urllib.request
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

from chaos.fault import Fault
from chaos.local.process import Process
from chaos.schedule import Dice

_ERROR = " ERROR "
_SKEW = Path(__file__).parent / "skew"


class Gateways:
    """Gateways that are killed, stopped where they are, deployed anew, and told wrong times."""

    def __init__(self, processes: Sequence[Process], clocks: Sequence[Path]) -> None:
        self.processes = processes
        self._clocks = clocks
        self._read = dict.fromkeys(processes, 0)

    def faults(self) -> Iterable[Fault]:
        """What can be done to them."""
        return (
            Fault("gateway: kill -9", "gateways", self._kill),
            Fault("gateway: stopped", "gateways", self._stop, holds_back=True),
            Fault("gateways: rolling restart", "gateways", self._roll),
            Fault("gateway: clock set ahead", "clocks", self._set_ahead, holds_back=True),
            Fault("gateway: clock set back", "clocks", self._set_back, holds_back=True),
        )

    def errors(self) -> list[str]:
        """What they logged as errors since this was asked last. Blocks for as long as reading."""
        found = []
        for process, position in self._read.items():
            with process.log.open("rb") as log:
                log.seek(position)
                lines = log.read().decode(errors="replace").splitlines()
                self._read[process] = log.tell()
            found += [f"{process.name}: {line}" for line in lines if _ERROR in line]
        return found

    async def _kill(self, dice: Dice) -> None:
        gateway = dice.choice(self.processes)
        gateway.kill()
        await gateway.ended()
        await asyncio.sleep(dice.seconds(0, 3))
        await gateway.start()

    async def _stop(self, dice: Dice) -> None:
        gateway = dice.choice(self.processes)
        gateway.pause()
        try:
            await asyncio.sleep(dice.seconds(0.5, 8))
        finally:
            gateway.resume()

    async def _roll(self, dice: Dice) -> None:
        for gateway in dice.sample(self.processes, len(self.processes)):
            await gateway.stop()
            await gateway.start()

    async def _set_ahead(self, dice: Dice) -> None:
        await self._set(dice, dice.uniform(1, 3600))

    async def _set_back(self, dice: Dice) -> None:
        # Tokens are good for longer by as much, which the oracle has to bear with.
        await self._set(dice, dice.uniform(-8, -1))

    async def _set(self, dice: Dice, seconds: float) -> None:
        clock = dice.choice(self._clocks)
        _write(clock, seconds)
        try:
            await asyncio.sleep(dice.seconds(1, 10))
        finally:
            _write(clock, 0.0)


@asynccontextmanager
async def running(
    ports: Sequence[int], folder: Path, environment: Mapping[str, str]
) -> AsyncIterator[Gateways]:
    """A gateway on each of the ports for as long as the block."""
    async with AsyncExitStack() as stack:
        processes, clocks = [], []
        for number, port in enumerate(ports):
            clock = folder / f"clock-{number + 1}"
            _write(clock, 0.0)
            clocks.append(clock)
            path = os.pathsep.join(filter(None, [str(_SKEW), os.environ.get("PYTHONPATH")]))
            own = {"CHAOS_CLOCK": str(clock), "PYTHONPATH": path}
            command = [sys.executable, "-m", "runcast", "serve", "--port", str(port)]
            process = Process(
                f"gateway-{number + 1}",
                command,
                folder,
                partial(_serves, port),
                {**environment, **own},
            )
            stack.push_async_callback(process.ended)
            stack.callback(process.kill)
            processes.append(process)
        await asyncio.gather(*(process.start() for process in processes))
        yield Gateways(processes, clocks)


def _write(clock: Path, seconds: float) -> None:
    """Set how wrong a clock is: in place, because the gateway has the file mapped."""
    clock.touch()
    with clock.open("r+b") as file:
        file.write(struct.pack("d", seconds))


def _serves(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=1) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
