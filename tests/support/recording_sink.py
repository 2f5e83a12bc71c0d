"""A tailer whose sink writes down all that it is given, and checks what must always hold."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from runcast.core.chunk import StreamMove
from runcast.core.position import Position
from runcast.core.run import LARGE_COLUMNS, Departure, Run, RunChange, RunFacets
from runcast.core.tailing import Pace, State
from runcast.postgres.tailer import PostgresTailer

# Longer than anything here should take on a busy machine; only failures wait for it.
PATIENCE_SECONDS = 45.0


@dataclass
class RecordingSink:
    """
    Keeps the newest state of each run and every change; ``wanted`` None takes all runs.

    A change may be told again, when a run changes while its row is read or when a follower has read
    for itself what is relayed to it later: that is counted (``told_again``), and not a change.

    ``columns`` are the large ones that are wanted, at each question after the other; the last for
    good. Between two starts no run may go back to an older version.
    """

    wanted: set[str] | None = None
    columns: list[frozenset[str]] = field(default_factory=lambda: [LARGE_COLUMNS])
    runs: dict[str, Run] = field(default_factory=dict)
    changes: list[RunChange] = field(default_factory=list)
    windows: list[tuple[int, Position]] = field(default_factory=list)
    told_again: int = 0
    restarts: list[str] = field(default_factory=list)
    position: Position | None = None
    _versions: dict[str, set[int]] = field(default_factory=dict)
    _published: asyncio.Event = field(default_factory=asyncio.Event)

    def begin(self, position: Position) -> None:
        assert self.position is None
        self.position = position
        self._published.set()

    def restart(self, position: Position, reason: str, message: str) -> None:
        assert message
        self.restarts.append(reason)
        self.position = position
        self.runs.clear()
        self._versions.clear()
        self._published.set()

    def wants(self, facets: RunFacets, departures: Sequence[Departure]) -> frozenset[str] | None:
        if self.wanted is not None and facets.id not in self.wanted:
            return None
        return self.columns.pop(0) if len(self.columns) > 1 else self.columns[0]

    def publish(self, changes: Sequence[RunChange], position: Position) -> None:
        assert self.position is not None
        crashed = position.incarnation != self.position.incarnation  # then it steps back a little
        assert crashed or position.covers(self.position)
        self.position = position
        before = len(self.changes)
        for change in changes:
            run_id = change.facets.id
            assert self.wanted is None or run_id in self.wanted
            versions = {departure.version for departure in change.departures}
            versions |= {change.run.version} if change.run else set()
            told = self._versions.setdefault(run_id, set())
            assert max(told, default=0) <= max(versions), run_id
            if versions <= told:
                self.told_again += 1
            else:
                self.changes.append(change)
            told |= versions
            if change.run is None:
                assert change.departures[-1].deleted
                self.runs.pop(run_id, None)
            else:
                self.runs[run_id] = change.run
        self.windows.append((len(self.changes) - before, position))
        self._published.set()

    def streams_moved(self, moves: Sequence[StreamMove]) -> bool:
        """Streams are not followed here."""
        return False

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait, bounded, until something is true after a read of the tailer."""
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                while not holds():
                    self._published.clear()
                    await self._published.wait()
        except TimeoutError:
            raise AssertionError(
                f"did not come true: {len(self.runs)} runs, {len(self.changes)} changes"
            ) from None

    async def has(self, *run_ids: str) -> None:
        """Wait until these runs have come."""
        await self.until(lambda: self.runs.keys() >= set(run_ids))

    async def passed(self, position: Position) -> None:
        """Wait until the tailer has read all that was visible at a position."""
        await self.until(lambda: self.position is not None and self.position.covers(position))

    def changes_of(self, run_id: str) -> list[RunChange]:
        return [change for change in self.changes if change.facets.id == run_id]


@dataclass
class Following:
    """A tailer at work, and its sink."""

    tailer: PostgresTailer
    sink: RecordingSink

    async def asleep(self) -> None:
        """Wait until it sleeps: after that only a bell wakes it, or a re-check."""
        await self.sink.until(lambda: self.tailer.state is State.SLEEPING)


@asynccontextmanager
async def following(
    database_url: str,
    *,
    pace: Pace | None = None,
    wanted: set[str] | None = None,
    kind: Callable[..., PostgresTailer] = PostgresTailer,
) -> AsyncIterator[Following]:
    """Follow a database for as long as the context lasts; starts where it stands now."""
    sink = RecordingSink(wanted)
    tailer = kind(
        database_url,
        schema="runcast",
        sink=sink,
        on_start=sink.begin,
        on_restart=sink.restart,
        pace=pace,
    )
    task = asyncio.create_task(tailer.run())
    try:
        await sink.until(lambda: sink.position is not None)
        yield Following(tailer, sink)
    finally:
        if not task.done():
            task.cancel()
        with suppress(asyncio.CancelledError):
            await task
