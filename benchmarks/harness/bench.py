"""What a benchmark is given: options, servers for as long as it runs, and where figures go."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from benchmarks.harness.failure import BenchmarkError, Unavailable
from benchmarks.harness.gateway import RUN, TAG
from benchmarks.harness.machine import Layout
from benchmarks.harness.record import Record, Sample
from benchmarks.harness.store import Servers, Store, stored
from benchmarks.harness.subject import Contestant

Size = TypeVar("Size", int, float)


@dataclass(frozen=True)
class Options:
    """
    How much is measured.

    Attributes:
        smoke: Run through everything once with very little, to see that it works.
        subscribers: Numbers to use in the place of a benchmark's own.
    """

    smoke: bool = False
    passes: int = 3
    subscribers: tuple[int, ...] = ()
    most_subscribers: int = 20_000  # by the limit of open files

    def few_or(self, few: Size, many: Size) -> Size:
        """A size for a smoke run, or the real one."""
        return few if self.smoke else many


@dataclass
class Bench:
    """The surroundings of one run of one benchmark."""

    options: Options
    record: Record
    folder: Path
    layout: Layout
    servers: Servers
    say: Callable[[str], None]
    stack: AsyncExitStack
    number: int = 0  # of the pass
    _store: Store | None = None
    _smallest_event: int | None = None
    _gone: set[str] = field(default_factory=set)

    def passes(self) -> Iterator[int]:
        """Count the passes; what is measured belongs to the present one."""
        for number in range(1 if self.options.smoke else self.options.passes):
            self.number = number
            yield number

    def subscribers(self, *usual: int) -> list[int]:
        """How many subscribers to measure with, within what the machine allows."""
        if self.options.smoke:
            return [20]
        wanted = self.options.subscribers or usual
        return sorted({min(count, self.options.most_subscribers) for count in wanted})

    def sample(self, contestant: str, metric: str, value: float, x: float = 0.0) -> None:
        """Note a figure of this pass."""
        self.record.samples.append(Sample(contestant, metric, value, x, self.number))

    async def contest(
        self, contestants: list[Contestant], measure: Callable[[Contestant], Awaitable[None]]
    ) -> None:
        """One after the other, A B C; who is missing is noted, and the others go on."""
        for contestant in contestants:
            if contestant.name in self._gone:
                continue
            self.say(f"pass {self.number + 1}: {contestant.name}")
            try:
                await measure(contestant)
            except Unavailable as missing:
                self._gone.add(contestant.name)
                self.record.skipped[contestant.name] = str(missing)
            except BenchmarkError as error:
                error.add_note(f"This was {contestant.name}.")
                raise

    async def store(self) -> Store:
        """The benchmark's database, made when it is first asked for, with the run to watch."""
        if self._store is None:
            self._store = await self.another_store()
            await self._store.add_runs(1, tags=f"array['{TAG}']", prefix=RUN[:-1])
        return self._store

    async def another_store(self, **settings: str) -> Store:
        """A database on a server with these settings of Postgres."""
        server = await asyncio.to_thread(self.servers.get, self.layout, settings)
        return await self.stack.enter_async_context(stored(server))

    async def smallest_event(self) -> int:
        """
        Bytes of the shortest message of the gateway: a run with nothing but a stamp.

        Everybody else sends as many, so that all are measured with the same message.
        """
        if self._smallest_event is None:
            store = await self.store()
            await store.touch(RUN, time.perf_counter_ns())
            self._smallest_event = await store.message_bytes(RUN)
        return self._smallest_event
