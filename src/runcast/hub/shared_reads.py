"""
Reads for many subscriptions: equal questions that wait at the same time are asked once.

After a network loss or a deploy thousands come back at once and ask for the same, each from where
it stood: what is new since the first of these positions is read, and each is given its part. Nobody
is given an answer that was read before the question came, so sharing is not seen except in the
load. While many ask, the next read waits a little for more of them. Where many questions wait for
what changed, all changes of their environment are read for them together, if these are few.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from contextvars import Context
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from runcast.core.page import ChangePage, PageKey
from runcast.core.position import Position
from runcast.core.run import Run
from runcast.core.selector import Selector
from runcast.errors import Draining, PositionLost
from runcast.hub.unheard import retrieved
from runcast.ports import RunReader

Answer = TypeVar("Answer")

_NO_SLOT = nullcontext()
# Of reads that a crowd asks for; it grows for as long as they come.
_DISTANCE_SECONDS = (0.02, 0.2)
_MAX_CROWDS = 1000
# So many changes at most are read for many questions together; where there were more, this is not
# tried again for a while.
_TOGETHER = 500
_APART_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class _Crowd:
    """How far apart reads of one question are, and when the next one may begin."""

    distance: float
    next_at: float


class SharedReads:
    """
    A `RunReader` that shares the reads of another one.

    Args:
        runs: Who is asked.
        slots: Bounds how many pages are read at once; single runs are not held up by them.
        crowd: So many who ask for one read make the next one of that question wait for more.
        many: So many questions that wait make those for changes be read together.
    """

    def __init__(
        self, runs: RunReader, slots: asyncio.Semaphore, *, crowd: int = 3, many: int = 8
    ) -> None:
        self._runs = runs
        self._slots = slots
        self.crowd = crowd
        self._many = many
        self._apart_until: OrderedDict[str, float] = OrderedDict()  # by environment
        self._reading: dict[Hashable, asyncio.Task[Any]] = {}
        self._next: dict[Hashable, asyncio.Task[Any]] = {}
        self._joined: dict[Hashable, int] = {}  # how many wait for the next read of a question
        self._crowds: OrderedDict[Hashable, _Crowd] = OrderedDict()
        self._common: dict[Hashable, Position] = {}  # what all have seen who wait for a next read
        self.asked = 0
        self.read = 0

    async def read_run(self, environment_id: str, run_id: str) -> Run | None:
        """As `RunReader.read_run`."""
        return await self._share(
            (environment_id, run_id), lambda: self._runs.read_run(environment_id, run_id)
        )

    async def read_snapshot(
        self, selector: Selector, *, after: PageKey | None, limit: int
    ) -> ChangePage:
        """As `RunReader.read_snapshot`."""
        return await self._share(
            (selector, None, after, limit),
            lambda: self._runs.read_snapshot(selector, after=after, limit=limit),
            self._slots,
        )

    async def read_changes(
        self, selector: Selector, *, since: Position, after: PageKey | None, limit: int
    ) -> ChangePage:
        """As `RunReader.read_changes`."""
        if after is None:
            together = await self._read_changes_together(selector, since)
            if together is not None:
                return together
        question = (selector, since.database, since.incarnation, after, limit)
        joined = question in self._next
        self._common[question] = self._common[question].common(since) if joined else since

        async def read() -> tuple[Position, ChangePage | PositionLost]:
            common = self._common.pop(question)
            try:
                page = await self._runs.read_changes(
                    selector, since=common, after=after, limit=limit
                )
            except PositionLost as lost:
                return common, lost
            return common, page

        common, found = await self._share(question, read, self._slots)
        if common == since:
            if isinstance(found, PositionLost):
                raise found
            return found
        if isinstance(found, PositionLost) or found.position.xmax < since.xmax:
            # Theirs may be lost and ours not, or the other way round.
            return await self._read_changes_alone(selector, since, after, limit)
        return found.since(since)

    async def _read_changes_together(
        self, selector: Selector, since: Position
    ) -> ChangePage | None:
        """Take the part of this selector from all changes of its environment, if these are few."""
        environment = Selector(selector.environment_id)
        common = (environment, since.database, since.incarnation, None, _TOGETHER)
        # Once it is read together, nobody waits with a question of their own: the crowd goes on.
        if selector == environment or (len(self._next) < self._many and common not in self._crowds):
            return None
        now = asyncio.get_running_loop().time()
        if now < self._apart_until.get(environment.environment_id, 0):
            return None
        with suppress(PositionLost):
            page = await self.read_changes(environment, since=since, after=None, limit=_TOGETHER)
            if page.next is None:
                return page.matching(selector)
        self._apart_until[environment.environment_id] = now + _APART_SECONDS
        while len(self._apart_until) > _MAX_CROWDS:
            self._apart_until.popitem(last=False)
        return None

    async def _read_changes_alone(
        self, selector: Selector, since: Position, after: PageKey | None, limit: int
    ) -> ChangePage:
        """Share only with those who stand at the very same position."""
        return await self._share(
            (selector, since, after, limit),
            lambda: self._runs.read_changes(selector, since=since, after=after, limit=limit),
            self._slots,
        )

    async def close(self) -> None:
        """Give up what is being read; whoever waits for it hears that the gateway goes away."""
        tasks = [*self._reading.values(), *self._next.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _share(
        self,
        question: Hashable,
        read: Callable[[], Awaitable[Answer]],
        slot: AbstractAsyncContextManager[object] = _NO_SLOT,
    ) -> Answer:
        self.asked += 1
        self._joined[question] = self._joined.get(question, 0) + 1
        task = self._next.get(question)
        if task is None:
            # In a context of its own: it is not of the request that asks first.
            task = asyncio.get_running_loop().create_task(
                self._read(question, read, slot), context=Context()
            )
            task.add_done_callback(retrieved)
            self._next[question] = task
        await _over(task)
        if task.cancelled():
            raise Draining("This gateway is going away; reconnect to reach another one.")
        return cast("Answer", task.result())

    async def _read(
        self,
        question: Hashable,
        read: Callable[[], Awaitable[Answer]],
        slot: AbstractAsyncContextManager[object],
    ) -> Answer:
        """Read once the last read of this question is over; until it begins others may join."""
        try:
            if question in self._reading:
                await _over(self._reading[question])
            await self._keep_distance(question)
            async with slot:
                self.read += 1
                self._reading[question] = self._next.pop(question)
                self._count(question, self._joined.pop(question))
                return await read()
        finally:
            # Whichever of the two this task is: it may have been cancelled while it waited.
            for tasks in (self._next, self._reading):
                if tasks.get(question) is asyncio.current_task():
                    del tasks[question]
                    if tasks is self._next:
                        self._joined.pop(question, None)

    async def _keep_distance(self, question: Hashable) -> None:
        crowd = self._crowds.get(question)
        if crowd is not None:
            await asyncio.sleep(crowd.next_at - asyncio.get_running_loop().time())

    def _count(self, question: Hashable, askers: int) -> None:
        """A read begins for so many."""
        crowd = self._crowds.pop(question, None)
        if askers < self.crowd:
            return
        distance = min(crowd.distance * 2, _DISTANCE_SECONDS[1]) if crowd else _DISTANCE_SECONDS[0]
        next_at = asyncio.get_running_loop().time() + distance
        self._crowds[question] = _Crowd(distance, next_at)
        while len(self._crowds) > _MAX_CROWDS:
            self._crowds.popitem(last=False)


async def _over(task: asyncio.Task[Any]) -> None:
    """Wait for the end of a task that others wait for as well: who leaves does not cancel it."""
    if task.done():
        return
    waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def release(_: asyncio.Task[Any]) -> None:
        if not waiter.done():
            waiter.set_result(None)

    task.add_done_callback(release)
    await waiter
