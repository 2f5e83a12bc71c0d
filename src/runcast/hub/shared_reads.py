"""
Reads for many subscriptions: what is asked at one time in one environment is read together.

After a network loss or a deploy thousands come back at once. Snapshots of many tags, tasks or
batches are one statement, and so are runs by their ids. Who resumes asks for what is new since
some position: what is new since the first of these positions is read, and each is given its part.
Where many feeds resume, all changes of their environment are read for them, if these are few.
Nobody is given an answer that was read before the question came, so sharing is not seen except in
the load.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable, Mapping
from functools import partial, reduce
from typing import Any, TypeAlias, cast

from runcast.core.page import ChangePage, PageKey, SnapshotPart
from runcast.core.position import Position
from runcast.core.run import Run
from runcast.core.selector import Selector
from runcast.errors import BackendError, PositionLost
from runcast.hub.gathering import Answer, Gathering, Question
from runcast.ports import RunReader

# What one statement reads at most: runs by their ids; runs of snapshots, where each snapshot
# counts for some.
_MOST_RUNS = 250
_MOST_SNAPSHOT_RUNS = 2000
_LEAST_SNAPSHOT_RUNS = 40
_RUN_SLOTS = 4
_RUN_PAUSE_SECONDS = 0.05  # requests wait for it too
# So many changes at most are read for many feeds together; where there were more, or it failed,
# this is not tried again for a while.
_TOGETHER = 500
_APART_SECONDS = 1.0
_MAX_APART = 1000

_Reading: TypeAlias = Callable[[list[Question]], Awaitable[Mapping[Question, Answer]]]
_Group: TypeAlias = tuple[str, str]  # a kind of questions, and their environment


class SharedReads:
    """
    The reads of a `RunReader`, shared.

    Args:
        runs: Who is asked.
        slots: Bounds how many pages are read at once; single runs are not held up by them.
        longest_pause: So many seconds at most pages wait for more who ask for some.
        many: So many feeds that resume make the changes of all their environment be read.
    """

    def __init__(
        self,
        runs: RunReader,
        slots: asyncio.Semaphore,
        *,
        longest_pause: float = 0.2,
        many: int = 8,
    ) -> None:
        self._runs = runs
        self._slots = slots
        self._run_slots = asyncio.Semaphore(_RUN_SLOTS)
        self.longest_pause = longest_pause
        self._many = many
        self._gatherings: dict[_Group, dict[Hashable, Gathering[Any, Any]]] = {}
        self._apart_until: OrderedDict[str, float] = OrderedDict()  # by environment
        self.asked = 0
        self.read = 0

    async def read_run(self, environment_id: str, run_id: str) -> Run | None:
        """The run, or None where this environment has no such run."""
        if not run_id.isascii() or "\0" in run_id:
            return None  # no run has such an id, and nobody else is to fail for it
        return await self._ask(
            ("runs", environment_id),
            None,
            run_id,
            partial(self._runs.look_up_runs, environment_id),
            self._run_slots,
            longest_pause=min(_RUN_PAUSE_SECONDS, self.longest_pause),
            most=_MOST_RUNS,
        )

    async def read_snapshot(
        self, selector: Selector, *, after: PageKey | None, limit: int
    ) -> ChangePage:
        """
        One page of all runs that match, as they are now.

        A page of large rows may be shorter than ``limit`` although more follow.
        """
        return await self._ask(
            ("snapshots", selector.environment_id),
            None,
            SnapshotPart(selector, after, limit),
            self._runs.read_snapshots,
            self._slots,
            longest_pause=self.longest_pause,
            most=_MOST_SNAPSHOT_RUNS,
            weigh=lambda part: max(part.limit, _LEAST_SNAPSHOT_RUNS),
        )

    async def read_changes(
        self, selector: Selector, *, since: Position, after: PageKey | None, limit: int
    ) -> ChangePage:
        """As `RunReader.read_changes`."""
        if after is None:
            together = await self._read_changes_together(selector, since)
            if together is not None:
                return together

        async def read(
            positions: list[Position],
        ) -> Mapping[Position, tuple[Position, ChangePage | PositionLost]]:
            common = reduce(Position.common, positions)
            try:
                page = await self._runs.read_changes(
                    selector, since=common, after=after, limit=limit
                )
            except PositionLost as lost:
                return dict.fromkeys(positions, (common, lost))
            return dict.fromkeys(positions, (common, page))

        group = ("changes", selector.environment_id)
        ask = partial(
            self._ask, group, read=read, slots=self._slots, longest_pause=self.longest_pause
        )
        key = _changes_key(selector, since, after, limit)
        common, found = await ask(key, since)
        if common != since and (
            isinstance(found, PositionLost) or found.position.xmax < since.xmax
        ):
            # Theirs may be lost and ours not, or the other way round: share it only with those who
            # stand at the very same position.
            common, found = await ask((*key, since), since)
        if isinstance(found, PositionLost):
            raise found
        return found if common == since else found.since(since)

    async def _read_changes_together(
        self, selector: Selector, since: Position
    ) -> ChangePage | None:
        """Take the part of this selector from all changes of its environment, if these are few."""
        environment = Selector(selector.environment_id)
        resuming = self._gatherings.get(("changes", selector.environment_id), {})
        # Once it is read together, nobody waits with a question of their own: the crowd goes on.
        if selector == environment or (
            len(resuming) < self._many
            and _changes_key(environment, since, None, _TOGETHER) not in resuming
        ):
            return None
        now = asyncio.get_running_loop().time()
        if now < self._apart_until.get(selector.environment_id, 0):
            return None
        try:
            page = await self.read_changes(environment, since=since, after=None, limit=_TOGETHER)
            if page.next is None:
                return page.matching(selector)
        except PositionLost:
            pass  # of all together: this one's need not be
        except BackendError:
            self._keep_apart(selector.environment_id, now)
            raise
        self._keep_apart(selector.environment_id, now)
        return None

    def _keep_apart(self, environment_id: str, now: float) -> None:
        self._apart_until[environment_id] = now + _APART_SECONDS
        while len(self._apart_until) > _MAX_APART:
            self._apart_until.popitem(last=False)

    async def close(self) -> None:
        """Give up what is being read; whoever waits for it hears that the gateway goes away."""
        groups = list(self._gatherings.values())
        for gathering in [each for group in groups for each in group.values()]:
            await gathering.close()

    async def _ask(
        self,
        group: _Group,
        key: Hashable,
        question: Question,
        read: _Reading[Question, Answer],
        slots: asyncio.Semaphore,
        **how: Any,
    ) -> Answer:
        """Ask those who gather under this key; the first one says how it is read."""
        self.asked += 1
        gatherings = self._gatherings.setdefault(group, {})
        gathering = gatherings.get(key)
        if gathering is None:

            async def counted(questions: list[Question]) -> Mapping[Question, Answer]:
                self.read += 1
                return await read(questions)

            gathering = Gathering(counted, slots, partial(self._forget, group, key), **how)
            gatherings[key] = gathering
        return cast("Answer", await gathering.ask(question))

    def _forget(self, group: _Group, key: Hashable) -> None:
        gatherings = self._gatherings[group]
        del gatherings[key]
        if not gatherings:
            del self._gatherings[group]


def _changes_key(
    selector: Selector, since: Position, after: PageKey | None, limit: int
) -> tuple[Hashable, ...]:
    """Who asks for this may stand anywhere in one life of one database."""
    return (selector, since.database, since.incarnation, after, limit)
