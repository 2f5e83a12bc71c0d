"""Following the database: the thin asyncpg shell around `core.tailing`, on its own connection."""

import asyncio
import logging
import random
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import TYPE_CHECKING

from runcast.core.histogram import Histogram
from runcast.core.position import Position
from runcast.core.run import LARGE_COLUMNS, Departure, RunChange, RunFacets
from runcast.core.tailing import Pace, State, Step, Tailing
from runcast.core.window import Window
from runcast.errors import BackendError
from runcast.ports import ChangeSink
from runcast.postgres.adoption import adopt
from runcast.postgres.changefeed import (
    ARM,
    DISARM,
    HERE,
    INCARNATE,
    KEYS,
    KEYS_A_READ,
    ROWS_ALONG,
    SNAPSHOT,
    WINDOW,
    WINDOW_WITH_ROWS,
    rows_along,
    select_runs,
    to_window,
)
from runcast.postgres.connection import connected
from runcast.postgres.listening import LOST, Row, listening
from runcast.postgres.query_times import QueryTimes
from runcast.postgres.rows import RowValues, to_run

if TYPE_CHECKING:
    import asyncpg

logger = logging.getLogger(__name__)

_RUNS_A_READ = 100
_NOTHING_LARGE: frozenset[str] = frozenset()
_ANSWER_SECONDS = 10.0  # a database that takes longer is given up and connected to anew
_RETRY_SECONDS = (0.05, 3.0)


@dataclass(slots=True)
class TailerCounts:
    """What happened since the start; read by the metrics."""

    reads: int = 0
    changes: int = 0
    reconnects: int = 0


class PostgresTailer:
    """
    Reads what became visible since its last position, again and again, and hands it to the sink.

    Survives whatever happens to the connection or the server: it connects again for as long as it
    takes, and continues from its last position.

    Args:
        sink: Told of every change that it wants; must not raise.
        on_start: Called with the first position, before anything is handed over.
        on_restart: Called with a new position, a reason and a message when the last one cannot be
            continued: the database is another one.
        on_delete: Called with the ids of runs that were deleted.
    """

    def __init__(
        self,
        url: str,
        *,
        schema: str,
        sink: ChangeSink,
        on_start: Callable[[Position], None],
        on_restart: Callable[[Position, str, str], None],
        on_delete: Callable[[Sequence[str]], None] = lambda run_ids: None,
        pace: Pace | None = None,
    ) -> None:
        self._url = url
        self._schema = schema
        self._bell = f"{schema}_bell"
        self._sink = sink
        self._on_start = on_start
        self._on_restart = on_restart
        self._on_delete = on_delete
        self._machine = Tailing(pace)
        self._window_sql = self._sql(WINDOW)
        self._window_with_rows_sql = self._sql(WINDOW_WITH_ROWS)
        self._expects_few = False  # changes in the next window, and that some are waited for
        self._runs_sql = {
            columns: self._sql(select_runs(columns))
            for columns in map(frozenset, ((), {"payload"}, {"output"}, {"payload", "output"}))
        }
        self._position: Position | None = None
        self._times = QueryTimes()
        # When the position was read, by the database's clock, and how far ours is from that.
        self._asked_at = float("-inf")
        self._offset = 0.0
        self._wake = asyncio.Event()
        self.counts = TailerCounts()
        self.caught_up_at: float | None = None  # loop time at which the last read was answered

    @property
    def state(self) -> State:
        """What the tailer is doing."""
        return self._machine.state

    @property
    def figures(self) -> dict[str, float]:
        """Numbers by name, for the metrics; a feed that never read is infinitely behind."""
        since = float("inf")
        if self.caught_up_at is not None:
            since = asyncio.get_running_loop().time() - self.caught_up_at
        return {
            "reads": self.counts.reads,
            "changes": self.counts.changes,
            "reconnects": self.counts.reconnects,
            "seconds_since_read": since,
            "position": 0 if self._position is None else self._position.xmax,
        }

    @property
    def queries(self) -> Mapping[str, Histogram]:
        """Seconds that statements took, by name."""
        return self._times.seconds

    @property
    def misses(self) -> int:
        """Changes that a re-check found and no bell had told of; should stay 0."""
        return self._machine.misses

    async def run(self) -> None:
        """Follow until cancelled."""
        delay = _RETRY_SECONDS[0]
        while True:
            caught_up_at = self.caught_up_at
            try:
                async with listening(
                    self._url,
                    {self._bell: self._rung},
                    name="tailer",
                    answer_seconds=_ANSWER_SECONDS,
                    on_lost=self._wake.set,
                    # Nothing that is written here, bell and incarnation, outlives a crash.
                    synchronous_commit="off",
                    # Every read is by the one index there is for its condition, also where the
                    # planner takes a third of a table for new, as it does while it does not know
                    # the position. So one plan is good for all positions, and is made once.
                    enable_seqscan="off",
                    max_parallel_workers_per_gather="0",
                    plan_cache_mode="force_generic_plan",
                ) as connection:
                    await self._follow(connection)
            except (*LOST, BackendError) as error:
                logger.warning(
                    "the database is not reachable, trying again: %s", type(error).__name__
                )
            if self.caught_up_at != caught_up_at:
                delay = _RETRY_SECONDS[0]
            self._lost()
            self.counts.reconnects += 1
            await asyncio.sleep(random.uniform(0.5, 1.0) * delay)
            delay = min(delay * 2, _RETRY_SECONDS[1])

    def _rung(self, *_: object) -> None:
        self._machine.receive_bell(asyncio.get_running_loop().time())
        self._wake.set()

    def _lost(self) -> None:
        self._machine.receive_lost()

    async def _follow(self, connection: "asyncpg.Connection[Row]") -> None:
        await self._begin(connection)
        while not connection.is_closed():
            self._wake.clear()
            await self._step(connection)

    async def _begin(self, connection: "asyncpg.Connection[Row]") -> None:
        await self._find_place(connection)
        self._machine.receive_connected(asyncio.get_running_loop().time())

    async def _step(self, connection: "asyncpg.Connection[Row]") -> None:
        loop = asyncio.get_running_loop()
        match self._machine.next_step(loop.time()):
            case Step.READ:
                found, position = await self._read(connection)
                self._machine.receive_window(found, position, loop.time())
            case Step.ARM:
                await self._arm(connection)
            case Step.DISARM:
                await self._disarm(connection)
            case Step.WAIT:
                await self._wait(self._machine.wake_at)

    async def _read(self, connection: "asyncpg.Connection[Row]") -> tuple[int, Position]:
        found, position = await self._read_window(connection)
        self._stand_at(position)
        return found, position

    def _stand_at(self, position: Position) -> None:
        """All up to here was handed over."""
        self._position = position
        self.caught_up_at = asyncio.get_running_loop().time()

    async def _wait(self, until: float) -> None:
        # Many times a second: a timer that wakes us costs less than a timeout around the wait.
        timer = asyncio.get_running_loop().call_at(until, self._wake.set)
        try:
            await self._wake.wait()
        finally:
            timer.cancel()

    async def _find_place(self, connection: "asyncpg.Connection[Row]") -> None:
        """Begin where the database stands now, or see whether the old place is still one."""
        await connection.execute(self._sql(INCARNATE), secrets.randbits(24) + 1)
        began = asyncio.get_running_loop().time()
        row = await self._fetch_one(connection, HERE)
        if self._position is not None and self._position.database != row["database"]:
            async with connected(self._url) as patient:
                await adopt(patient, schema=self._schema)
            began = asyncio.get_running_loop().time()
            row = await self._fetch_one(connection, HERE)
        here = Position.from_snapshot(row["database"], row["snapshot"], row["incarnation"])
        before, self._position = self._position, here
        asked_before, self._asked_at = self._asked_at, row["asked_at"]
        self._offset = began - row["asked_at"]
        if before is None:
            self._on_start(here)
        elif before.database != here.database:
            self._on_restart(
                here, "other_database", "The database was restored, promoted or exchanged."
            )
        else:
            before = before.in_incarnation(here.incarnation)
            if before.xmax > here.xmax:
                self._on_restart(here, "ahead", "The database lost what was sent already.")
            else:
                self._position, self._asked_at = before, asked_before

    # -- one window -----------------------------------------------------------------------------

    async def _read_window(self, connection: "asyncpg.Connection[Row]") -> tuple[int, Position]:
        before = self._position
        assert before is not None
        self.counts.reads += 1
        began = asyncio.get_running_loop().time()
        rows = await self._fetch_window(connection, before)
        self._offset = began - rows[0]["asked_at"]
        found, position = await self._hand_over_all(connection, rows, before)
        self._asked_at = rows[0]["asked_at"]
        return found, position

    async def _fetch_window(
        self, connection: "asyncpg.Connection[Row]", before: Position
    ) -> list[Row]:
        """Read what is new: keys, and with a few of them their rows, which spares a second read."""
        if self._expects_few:
            with self._times.timed("changefeed window"):
                rows = await connection.fetch(
                    self._window_with_rows_sql, before.xmax, before.in_flight
                )
            if len(rows) <= ROWS_ALONG:
                return rows
        with self._times.timed("changefeed window"):
            return await connection.fetch(self._window_sql, before.xmax, before.in_flight)

    async def _hand_over_all(
        self, connection: "asyncpg.Connection[Row]", rows: list[Row], before: Position
    ) -> tuple[int, Position]:
        """Hand over what was read since a position; gives how much it was, and up to where."""
        position = Position.from_snapshot(before.database, rows[0]["snapshot"], before.incarnation)
        if rows[0]["id"] is None:
            self._found(Window(before, position))
            self._sink.publish((), position)
            return 0, position
        if len(rows) > KEYS_A_READ:
            return await self._read_large_window(connection, before)
        window = to_window(rows, before, position)
        self._found(window)
        await self._hand_over(connection, window, rows_along(rows))
        self.counts.changes += len(rows)
        return len(rows), position

    async def _read_large_window(
        self, connection: "asyncpg.Connection[Row]", before: Position
    ) -> tuple[int, Position]:
        """Read a window piece by piece, all of it in one snapshot."""
        found = 0
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            row = await self._fetch_one(connection, SNAPSHOT)
            position = Position.from_snapshot(before.database, row["snapshot"], before.incarnation)
            self._found(Window(before, position, whole=False))
            cursor = await connection.cursor(self._sql(KEYS), before.xmax, before.in_flight)
            while rows := await cursor.fetch(KEYS_A_READ):
                # Until all of it is handed over, a client can only resume from before it.
                await self._hand_over(connection, to_window(rows, before, before))
                found += len(rows)
                self.counts.changes += len(rows)
        self._sink.publish((), position)
        return found, position

    def _found(self, window: Window) -> None:
        """A read found this, and it is about to be handed over."""

    async def _hand_over(
        self,
        connection: "asyncpg.Connection[Row]",
        window: Window,
        along: Mapping[str, RowValues] = MappingProxyType({}),
    ) -> None:
        """Read the runs that somebody waits for, if they did not come along, and publish them."""
        if deleted := [each.facets.id for each in window.departures if each.deleted]:
            self._on_delete(deleted)
        wanted = self._wanted(window)
        self._expects_few = bool(wanted) and window.size <= ROWS_ALONG
        run_ids = list(wanted)
        pieces = [
            run_ids[start : start + _RUNS_A_READ] for start in range(0, len(run_ids), _RUNS_A_READ)
        ]
        for piece in pieces[:-1]:
            self._sink.publish(await self._hydrate(connection, piece, wanted, along), window.before)
        last = await self._hydrate(connection, pieces[-1], wanted, along) if pieces else ()
        self._sink.publish(last, window.after)
        is_read = bool(window.moves) and self._sink.streams_moved(window.moves)
        if wanted or is_read:
            self._machine.receive_wanted()

    def _wanted(self, window: Window) -> dict[str, tuple[RunFacets, list[Departure]]]:
        touched: dict[str, tuple[RunFacets, list[Departure]]] = {
            run.id: (run, []) for run in window.runs
        }
        for departure in window.departures:
            facets = departure.facets
            touched.setdefault(facets.id, (facets, []))[1].append(departure)
        return {
            run_id: (facets, sorted(departures, key=lambda departure: departure.version))
            for run_id, (facets, departures) in touched.items()
            if self._sink.wants(facets, departures) is not None
        }

    async def _hydrate(
        self,
        connection: "asyncpg.Connection[Row]",
        run_ids: Sequence[str],
        wanted: dict[str, tuple[RunFacets, list[Departure]]],
        along: Mapping[str, RowValues],
    ) -> list[RunChange]:
        """
        Take the runs that came along, and read the others, with the large columns that are wanted.

        This may see them a little later than their keys were read. Then they come once more with
        the next window, also for whoever joined in between at its position; a state that was sent
        is never followed by an older one.
        """
        runs = {run_id: to_run(along[run_id]) for run_id in run_ids if run_id in along}
        read = dict.fromkeys(runs, LARGE_COLUMNS)
        while by_columns := self._unread(run_ids, wanted, read):  # somebody may come meanwhile
            for columns, ids in by_columns.items():
                with self._times.timed("changefeed runs"):
                    rows = await connection.fetch(self._runs_sql[columns], ids)
                runs.update((run.id, run) for run in map(to_run, rows))
                read.update(dict.fromkeys(ids, columns))
        changes = []
        for run_id in run_ids:
            facets, departures = wanted[run_id]
            run = runs.get(run_id)
            if run is not None:
                since = self._since(run.updated_at)
                changes.append(RunChange(run.facets, run, tuple(departures), since))
            elif departures:
                changes.append(RunChange(facets, None, tuple(departures)))
        return changes

    def _since(self, changed_at: datetime) -> float:
        """
        A time of our loop before which what was changed then was not committed.

        Nor was it before the last read, which did not see it.
        """
        return self._offset + max(changed_at.timestamp(), self._asked_at)

    def _unread(
        self,
        run_ids: Sequence[str],
        wanted: dict[str, tuple[RunFacets, list[Departure]]],
        read: dict[str, frozenset[str]],
    ) -> dict[frozenset[str], list[str]]:
        """Say of which runs which large columns are still to be read."""
        unread: dict[frozenset[str], list[str]] = {}
        for run_id in run_ids:
            known = read.get(run_id)
            if known == LARGE_COLUMNS:
                continue
            columns = self._sink.wants(*wanted[run_id]) or _NOTHING_LARGE
            if known is None or not columns <= known:
                unread.setdefault(columns | (known or _NOTHING_LARGE), []).append(run_id)
        return unread

    # -- the bell -------------------------------------------------------------------------------

    async def _arm(self, connection: "asyncpg.Connection[Row]") -> None:
        milliseconds = int(self._machine.pace.armed * 1000)
        with self._times.timed("changefeed bell"):
            lapsed = bool((await self._fetch_one(connection, ARM, milliseconds))["lapsed"])
        self._machine.receive_armed(lapsed=lapsed, now=asyncio.get_running_loop().time())

    async def _disarm(self, connection: "asyncpg.Connection[Row]") -> None:
        with self._times.timed("changefeed bell"):
            await self._fetch_one(connection, DISARM)
        self._machine.receive_disarmed()

    async def _fetch_one(
        self, connection: "asyncpg.Connection[Row]", sql: str, *arguments: object
    ) -> Row:
        return (await connection.fetch(self._sql(sql), *arguments))[0]

    def _sql(self, text: str) -> str:
        return text.replace("@schema@", self._schema)
