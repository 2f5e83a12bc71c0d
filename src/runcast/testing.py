"""
What tests use in place of the world: a clock moved by hand, and in memory runs, streams, limits.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from runcast.core.bucket import Bucket, Draw
from runcast.core.chunk import (
    Chunk,
    ChunkPage,
    NewChunks,
    StoredChunks,
    StreamMove,
    StreamName,
    StreamState,
)
from runcast.core.page import ChangePage, PageKey, SnapshotPart
from runcast.core.places import Held, Wish, hold
from runcast.core.position import Position
from runcast.core.rate import Rate
from runcast.core.run import Departure, Run, RunChange
from runcast.core.selector import Selector
from runcast.errors import NotFound, PositionLost, StreamClosed, StreamFull, TooManyStreams
from runcast.ports import Clock


class ManualClock:
    """A clock that stands still until it is moved; see `runcast.ports.Clock`."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self._now = now

    def now(self) -> float:
        """Unix time in seconds."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Let time pass; negative seconds set the clock back."""
        self._now += seconds


@dataclass(frozen=True, slots=True)
class _Row:
    """A run as one change left it; ``run`` is None when that change deleted it."""

    run: Run | None
    changed_in: int


class MemoryRunReader:
    """
    Runs in memory behind the port `RunReader`, with transactions and snapshots like Postgres'.

    What a transaction wrote is seen by the snapshots taken after its commit, whichever began
    first. Every state is kept, so that any snapshot can be read at any later time.

    Args:
        database: Name of the database in positions; those of another one are lost.
    """

    def __init__(self, database: int = 1) -> None:
        self._database = database
        self._next_transaction = 1000
        self._completed = 999  # the highest number of a transaction that is over
        self._running: dict[int, MemoryTransaction] = {}
        self._version = 0
        self._rows: dict[str, list[_Row]] = {}
        self._departures: list[Departure] = []

    # -- writing --------------------------------------------------------------------------------

    def begin(self) -> "MemoryTransaction":
        """Begin a transaction; nobody sees what it writes until it commits."""
        transaction = MemoryTransaction(self, self._next_transaction)
        self._running[transaction.number] = transaction
        self._next_transaction += 1
        return transaction

    def write(self, *runs: Run) -> None:
        """Create or replace runs in a transaction of their own."""
        transaction = self.begin()
        for run in runs:
            transaction.write(run)
        transaction.commit()

    def delete(self, run_id: str) -> None:
        """Delete a run in a transaction of its own."""
        transaction = self.begin()
        transaction.delete(run_id)
        transaction.commit()

    def is_locked(self, run_id: str, *, against: "MemoryTransaction") -> bool:
        """Tell whether a transaction would have to wait for another one to write this run."""
        return any(run_id in other.rows for other in self._running.values() if other is not against)

    # -- reading --------------------------------------------------------------------------------

    @property
    def position(self) -> Position:
        """The snapshot that a statement would take now."""
        xmax = self._completed + 1
        return Position(
            self._database, xmax, tuple(sorted(number for number in self._running if number < xmax))
        )

    def run_at(self, position: Position, run_id: str) -> Run | None:
        """The state of a run that a snapshot sees."""
        for row in reversed(self._rows.get(run_id, ())):
            if position.sees(row.changed_in):
                return row.run
        return None

    def runs_at(self, position: Position) -> list[Run]:
        """All runs that a snapshot sees, newest first."""
        found = (self.run_at(position, run_id) for run_id in self._rows)
        runs = [run for run in found if run is not None]
        return sorted(runs, key=lambda run: (run.created_at, run.id), reverse=True)

    def changes(self, since: Position, at: Position) -> list[RunChange]:
        """What a changefeed finds that goes from one snapshot to a later one."""
        touched: dict[str, list[Departure]] = {
            run_id: []
            for run_id, rows in self._rows.items()
            if any(at.sees(row.changed_in) and not since.sees(row.changed_in) for row in rows)
        }
        for departure in self._departures_between(since, at):
            touched[departure.facets.id].append(departure)
        return [
            _change(self.run_at(at, run_id), departures) for run_id, departures in touched.items()
        ]

    async def look_up_runs(
        self, environment_id: str, run_ids: Sequence[str]
    ) -> Mapping[str, Run | None]:
        """See `RunReader`."""
        here = self.position
        runs = {run.id: run for run in self.runs_at(here) if run.environment_id == environment_id}
        return {run_id: runs.get(run_id) for run_id in run_ids}

    async def read_snapshots(
        self, parts: Sequence[SnapshotPart]
    ) -> Mapping[SnapshotPart, ChangePage]:
        """See `RunReader`."""
        here = self.position
        runs = self.runs_at(here)
        return {part: _page(runs, part.selector, here, part.after, part.limit) for part in parts}

    async def read_changes(
        self, selector: Selector, *, since: Position, after: PageKey | None, limit: int
    ) -> ChangePage:
        """See `RunReader`."""
        here = self.position
        if since.database != here.database:
            raise PositionLost("other_database", "The cursor is of another database.")
        if since.xmax > here.xmax:
            raise PositionLost("ahead", "The cursor is ahead of the database.")
        changed = [run for run in self.runs_at(here) if not since.sees(run.changed_in)]
        page = _page(changed, selector, here, after, limit)
        if after is not None:
            return page
        changes = {change.facets.id: change for change in page.changes}
        for departure in self._departures_between(since, here):
            if selector.matches(departure.facets):
                run_id = departure.facets.id
                known = changes.get(run_id)
                departures = (*known.departures, departure) if known else (departure,)
                changes[run_id] = _change(self.run_at(here, run_id), departures)
        return replace(page, changes=tuple(changes.values()))

    def _departures_between(self, since: Position, at: Position) -> list[Departure]:
        found = [
            departure
            for departure in self._departures
            if at.sees(departure.changed_in) and not since.sees(departure.changed_in)
        ]
        return sorted(found, key=lambda departure: departure.version)

    # -- the transactions' side -----------------------------------------------------------------

    def next_version(self) -> int:
        """Count one more change."""
        self._version += 1
        return self._version

    def end(self, transaction: "MemoryTransaction", *, committed: bool) -> None:
        """Let everybody see what a transaction wrote, or nobody."""
        del self._running[transaction.number]
        self._completed = max(self._completed, transaction.number)
        if committed:
            for run_id, rows in transaction.rows.items():
                self._rows.setdefault(run_id, []).extend(rows)
            self._departures.extend(transaction.departures)


class MemoryTransaction:
    """Changes of runs that are seen all at once, or never. Made by `MemoryRunReader.begin`."""

    def __init__(self, reader: MemoryRunReader, number: int) -> None:
        self.number = number
        self.rows: dict[str, list[_Row]] = {}
        self.departures: list[Departure] = []
        self._reader = reader

    def write(self, run: Run) -> None:
        """Create or replace a run; ``version`` and ``changed_in`` are given anew."""
        old = self._current(run.id)
        run = replace(run, version=self._reader.next_version(), changed_in=self.number)
        self.rows.setdefault(run.id, []).append(_Row(run, self.number))
        if old is not None and not set(old.tags) <= set(run.tags):
            self._depart(old, deleted=False)

    def delete(self, run_id: str) -> None:
        """Delete a run, if there is one."""
        old = self._current(run_id)
        if old is not None:
            self.rows.setdefault(run_id, []).append(_Row(None, self.number))
            self._depart(old, deleted=True)

    def commit(self) -> None:
        """Let everybody see the changes."""
        self._reader.end(self, committed=True)

    def abort(self) -> None:
        """Undo the changes."""
        self._reader.end(self, committed=False)

    def _current(self, run_id: str) -> Run | None:
        if self._reader.is_locked(run_id, against=self):
            raise RuntimeError(f"{run_id} is locked by another transaction; end that one first.")
        if run_id in self.rows:
            return self.rows[run_id][-1].run
        return self._reader.run_at(self._reader.position, run_id)

    def _depart(self, old: Run, *, deleted: bool) -> None:
        version = self._reader.next_version()
        self.departures.append(Departure(old.facets, version, self.number, deleted))


def _change(run: Run | None, departures: Iterable[Departure]) -> RunChange:
    departed = tuple(departures)
    return RunChange(run.facets if run else departed[-1].facets, run, departed)


def _page(
    runs: Iterable[Run], selector: Selector, here: Position, after: PageKey | None, limit: int
) -> ChangePage:
    matching = [
        run
        for run in runs
        if selector.matches(run.facets)
        and (after is None or (run.created_at, run.id) < (after.created_at, after.id))
    ]
    page = matching[:limit]
    more = len(matching) > limit
    return ChangePage(
        tuple(_change(run, ()) for run in page),
        here,
        PageKey(page[-1].created_at, page[-1].id) if more else None,
    )


@dataclass(slots=True, eq=False)
class _Stream:
    """One stream of a `MemoryChunkLog`."""

    generation: int
    chunks: list[Chunk] = field(default_factory=list)
    writers: dict[str, int] = field(default_factory=dict)
    open_until: dict[str, float] = field(default_factory=dict)
    bytes: int = 0
    closed: bool = False
    updated_at: float = 0.0


class MemoryChunkLog:
    """
    Streams in memory behind the port `ChunkLog`.

    Args:
        runs: Ids of the runs that exist; may change. None: every run exists.
        max_streams: Streams a run may have.
        max_stream_bytes: Bytes a stream may have.
        lease_seconds: How long `hold_open` holds.
        on_move: Told of every change of a stream, as a changefeed would.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        runs: set[str] | None = None,
        max_streams: int = 100,
        max_stream_bytes: int = 256 * 1024 * 1024,
        lease_seconds: float = 10.0,
        on_move: Callable[[StreamMove], object] = lambda move: None,
    ) -> None:
        self.runs = runs
        self.on_move = on_move
        self.on_append: Callable[[StreamName, StoredChunks], None] = lambda name, stored: None
        self._clock = clock
        self._max_streams = max_streams
        self._max_stream_bytes = max_stream_bytes
        self._lease_seconds = lease_seconds
        self._streams: dict[StreamName, _Stream] = {}
        self._generation = 0

    # -- writing --------------------------------------------------------------------------------

    async def register(self, name: StreamName) -> None:
        """See `ChunkLog`."""
        self._register(name)

    async def append(self, name: StreamName, chunks: NewChunks) -> int:
        """See `ChunkLog`."""
        stream = self._register(name)
        fresh = chunks.after(stream.writers.get(chunks.writer or "", -1))
        if fresh is None:
            return 0
        if stream.closed:
            raise StreamClosed("The stream was closed; nothing can be appended.")
        if stream.bytes + fresh.size > self._max_stream_bytes:
            raise StreamFull(
                f"A stream holds at most {self._max_stream_bytes} bytes; begin another one."
            )
        count, now = fresh.count, int(self._clock.now() * 1000)
        stored = StoredChunks(len(stream.chunks), fresh.lines, now, count, fresh.size)
        stream.chunks.extend(stored.chunks())
        stream.bytes += fresh.size
        if fresh.writer is not None:
            stream.writers[fresh.writer] = fresh.first_index + count - 1
        self.on_append(name, stored)
        self._moved(name, stream)
        return count

    async def last_index(self, name: StreamName, writer: str) -> int:
        """See `ChunkLog`."""
        stream = self._streams.get(name)
        return stream.writers.get(writer, -1) if stream is not None else -1

    async def hold_open(self, name: StreamName, presence: str, *, connected: bool) -> None:
        """See `ChunkLog`."""
        stream = self._register(name)
        if connected:
            stream.open_until[presence] = self._clock.now() + self._lease_seconds
        else:
            stream.open_until.pop(presence, None)
            self._moved(name, stream)

    async def close(self, name: StreamName) -> None:
        """See `ChunkLog`."""
        stream = self._streams.get(name)
        if stream is not None and not stream.closed:
            stream.closed = True
            self._moved(name, stream)

    def follow(self, name: StreamName) -> None:
        """See `ChunkLog`; all moves are told."""

    def unfollow(self, name: StreamName) -> None:
        """See `ChunkLog`."""

    # -- reading --------------------------------------------------------------------------------

    async def read(
        self, name: StreamName, offset: int, *, max_chunks: int, max_bytes: int
    ) -> ChunkPage:
        """See `ChunkLog`."""
        stream = self._streams.get(name)
        if stream is None:
            return ChunkPage((), StreamState())
        page: list[Chunk] = []
        size = 0
        for chunk in stream.chunks[offset : offset + max_chunks]:
            size += len(chunk.text.encode())
            if page and size > max_bytes:
                break
            page.append(chunk)
        state = StreamState(
            0,
            len(stream.chunks),
            stream.closed,
            self._has_open_writers(stream),
            stream.generation,
        )
        return ChunkPage(page, state)

    async def prune(self, *, older_than_seconds: float, limit: int = 100) -> int:
        """Delete streams that nobody wrote to for so long; returns how many of them."""
        before = self._clock.now() - older_than_seconds
        old = sorted(
            (stream.updated_at, name.run_id, name.key)
            for name, stream in self._streams.items()
            if stream.updated_at < before and not self._has_open_writers(stream)
        )[:limit]
        for _, run_id, key in old:
            del self._streams[StreamName(run_id, key)]
        return len(old)

    # -- within ---------------------------------------------------------------------------------

    def _register(self, name: StreamName) -> _Stream:
        if self.runs is not None and name.run_id not in self.runs:
            raise NotFound("There is no such run.")
        stream = self._streams.get(name)
        if stream is None:
            if sum(other.run_id == name.run_id for other in self._streams) >= self._max_streams:
                raise TooManyStreams(f"A run has at most {self._max_streams} streams.")
            self._generation += 1
            stream = self._streams[name] = _Stream(self._generation)
            self._moved(name, stream)
        return stream

    def _moved(self, name: StreamName, stream: _Stream) -> None:
        stream.updated_at = self._clock.now()
        self.on_move(StreamMove(name, len(stream.chunks), stream.closed))

    def _has_open_writers(self, stream: _Stream) -> bool:
        return any(until > self._clock.now() for until in stream.open_until.values())


class MemoryRateLimiter:
    """Buckets in memory behind the port `RateLimiter`."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._buckets: dict[bytes, Bucket] = {}

    async def draw(self, bucket: bytes, wanted: int, rate: Rate) -> Draw:
        """See `RateLimiter`."""
        now = self._clock.now()
        draw = self._buckets.get(bucket, Bucket()).draw(wanted, rate, now)
        self._buckets[bucket] = Bucket(draw.missing, now)
        return draw


class MemoryPlaceStore:
    """Places in memory behind the port `PlaceStore`."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._held: dict[str, dict[str, tuple[int, float]]] = {}  # by environment and gateway

    async def hold(
        self, gateway: str, wishes: Mapping[str, Wish], *, limit: int, lease_seconds: float
    ) -> Mapping[str, Held]:
        """See `PlaceStore`."""
        now = self._clock.now()
        answers = {}
        for name, wish in wishes.items():
            found = self._held.setdefault(name, {})
            counts = {each: count for each, (count, until) in found.items() if until > now}
            own = counts.pop(gateway, 0)
            answers[name], kept = hold(wish, others=sum(counts.values()), own=own, limit=limit)
            found[gateway] = (kept, now + lease_seconds)
        return answers
