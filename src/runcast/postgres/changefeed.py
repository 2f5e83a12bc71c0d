"""What the tailer says to the database, about changes and the bell, and what the rows tell."""

from collections.abc import Iterable, Sequence

from runcast.core.chunk import StreamMove, StreamName
from runcast.core.position import Position
from runcast.core.run import LARGE_COLUMNS, Departure, RunFacets
from runcast.core.window import Window
from runcast.postgres.listening import Row
from runcast.postgres.rows import RUN_BYTES, RowValues, run_columns

KEYS_A_READ = 5_000  # a window of more changes is read piece by piece
ROWS_ALONG = 20  # come with the keys, where so few are expected and somebody waits for them
_BYTES_ALONG = 8192  # of such a row at most

_FACETS = "runs.changed_in, id, environment_id, task, tags, batch_id, created_at"

# A stream that moved, in the columns of runs: its run, its key, how far it is, and whether closed.
_MOVE = "changed_in, run_id, NULL, key, NULL, NULL, NULL, next_index, closed_at IS NOT NULL"
_LEFT = "changed_in, run_id, environment_id, task, tags, batch_id, created_at, version, deleted"
_NO_ROW = "NULL::record"
# A large one is read for those alone who wait for it.
_SMALL_ROW = f"CASE WHEN {RUN_BYTES} <= {_BYTES_ALONG} THEN ROW({run_columns()}) END"


def _new(row: str) -> str:
    """
    Read the keys of all runs, departures and streams that became visible since a snapshot.

    Those are at or above its xmax, or of transactions that it listed as in flight. Two index scans
    each; one OR would make the planner read the table.
    """
    # The runs that some of `run_changes` are about: a look-up each, whatever the planner believes.
    changed = f"""
        SELECT {_FACETS}, NULL::bigint AS version, false AS deleted, {row} AS row
        FROM @schema@.run_changes AS change, LATERAL (
            SELECT * FROM @schema@.runs WHERE runs.id = change.run_id LIMIT 1
        ) AS runs
    """
    return f"""
        {changed} WHERE change.changed_in >= $1
        UNION ALL
        {changed} WHERE change.changed_in = ANY($2)
        UNION ALL
        SELECT {_LEFT}, {_NO_ROW} FROM @schema@.departures WHERE changed_in >= $1
        UNION ALL
        SELECT {_LEFT}, {_NO_ROW} FROM @schema@.departures WHERE changed_in = ANY($2)
        UNION ALL
        SELECT {_MOVE}, {_NO_ROW} FROM @schema@.streams WHERE changed_in >= $1
        UNION ALL
        SELECT {_MOVE}, {_NO_ROW} FROM @schema@.streams WHERE changed_in = ANY($2)
    """


KEYS = _new(_NO_ROW)
# By the database's clock, and not after the snapshot of the same statement.
_ASKED_AT = "extract(epoch FROM statement_timestamp())::float8 AS asked_at"


def _window_of(new: str, limit: int) -> str:
    return f"""
        SELECT here.*, found.*
        FROM (SELECT pg_current_snapshot()::text AS snapshot, {_ASKED_AT}) AS here
        LEFT JOIN ({new} LIMIT {limit}) AS found ON true
    """


WINDOW = _window_of(KEYS, KEYS_A_READ + 1)
WINDOW_WITH_ROWS = _window_of(_new(_SMALL_ROW), ROWS_ALONG + 1)

# After a crash of the server its new incarnation gets a number by whoever connects first.
INCARNATE = """
    INSERT INTO @schema@.incarnation (number) VALUES ($1) ON CONFLICT (singleton) DO NOTHING
"""
HERE = f"""
    SELECT @schema@.database_name() AS database, @schema@.incarnation_number() AS incarnation,
        pg_current_snapshot()::text AS snapshot, {_ASKED_AT}
"""
SNAPSHOT = "SELECT pg_current_snapshot()::text AS snapshot"

# Setting the value takes a transaction number under the lock of the sequence's page: a writer that
# looked at the bell before has its number already, and the read that follows sees it in flight.
# Whether the bell had lapsed is read before it is set again; the order of the two is that of the
# sub-selects, each of which a volatile function keeps from being moved.
# For as long as somebody may need the bell there is a shared lock, which ends with its connection.
_BELL_LOCK = "hashtextextended('runcast bell @schema@', 0)"
ARM = f"""
    SELECT armed.before <= extract(epoch FROM clock_timestamp()) * 1000 AS lapsed,
           setval('@schema@.bell', (extract(epoch FROM clock_timestamp()) * 1000)::bigint + $1)
    FROM (
        SELECT last_value AS before, pg_advisory_lock_shared({_BELL_LOCK}) FROM @schema@.bell
        OFFSET 0
    ) AS armed
"""
# Our own locks go first: of several that wake at once the last one finds none. Who arms meanwhile
# waits for its lock, until this statement is over.
DISARM = f"""
    SELECT CASE WHEN pg_try_advisory_xact_lock({_BELL_LOCK}) THEN setval('@schema@.bell', 0) END
    FROM (SELECT pg_advisory_unlock_all() OFFSET 0) AS ours
"""


def select_runs(large_columns: frozenset[str]) -> str:
    """Read runs with some of their large columns."""
    columns = run_columns(without=LARGE_COLUMNS - large_columns)
    return f"SELECT {columns} FROM @schema@.runs WHERE id = ANY($1)"


def to_window(rows: Iterable[Row], before: Position, after: Position) -> Window:
    """Say in our terms what was read."""
    runs: list[RunFacets] = []
    departures: list[Departure] = []
    moves: list[StreamMove] = []
    for row in rows:
        if row["environment_id"] is None:
            name = StreamName(row["id"], row["task"])
            moves.append(StreamMove(name, row["version"], row["deleted"]))
            continue
        facets = RunFacets(
            row["environment_id"],
            row["id"],
            row["task"],
            tuple(row["tags"]),
            row["batch_id"],
            row["created_at"].timestamp(),
        )
        if row["version"] is None:
            runs.append(facets)
        else:
            departures.append(Departure(facets, row["version"], row["changed_in"], row["deleted"]))
    return Window(before, after, tuple(runs), tuple(departures), tuple(moves))


def rows_along(rows: Sequence[Row]) -> dict[str, RowValues]:
    """Pick the rows that came with their keys, by the run's id."""
    if len(rows) > ROWS_ALONG:
        return {}
    return {row["id"]: row["row"] for row in rows if row["row"] is not None}
