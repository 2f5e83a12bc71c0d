"""What tests use in place of the world: a clock that is moved by hand, and runs in memory."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from runcast.core.page import ChangePage, PageKey
from runcast.core.position import Position
from runcast.core.run import Departure, Run, RunChange
from runcast.core.selector import Selector
from runcast.errors import PositionLost


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
    Runs in memory behind the port `RunReader`, with transactions and snapshots as Postgres has them.

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

    async def read_run(self, environment_id: str, run_id: str) -> Run | None:
        """See `RunReader`."""
        run = self.run_at(self.position, run_id)
        return run if run is not None and run.environment_id == environment_id else None

    async def read_snapshot(
        self, selector: Selector, *, after: PageKey | None, limit: int
    ) -> ChangePage:
        """See `RunReader`."""
        here = self.position
        return _page(self.runs_at(here), selector, here, after, limit)

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
