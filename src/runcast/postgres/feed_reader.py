"""What subscriptions read: snapshots of all matching runs, and what changed since a position."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from operator import itemgetter

from runcast.core.page import ChangePage, PageKey, SnapshotPart
from runcast.core.position import Position
from runcast.core.run import Departure, Run, RunChange
from runcast.core.selector import Selector
from runcast.errors import PositionLost
from runcast.postgres.database import Database, Row, Transaction
from runcast.postgres.rows import RUN_BYTES, run_columns, to_departure, to_run
from runcast.postgres.run_query import NEWEST_FIRST, RunQuery, query_of_selector

MAX_DEPARTURES = 10_000
# A page ends before its rows weigh more than this, though it holds at least one.
_PAGE_BYTES = 16 * 1024 * 1024
_DEPARTED_BYTES = 64 * 1024 * 1024
# Up to so many changed runs are sorted; where there are more, they are met on the way.
_FEW = 10_000

_HERE = "snapshot, database, incarnation, horizon, found.part, found.count"
_RUN_AT = 6  # columns of _HERE come before those of the run

READ_RUNS = f"""
    SELECT {run_columns()} FROM @schema@.runs WHERE environment_id = $1 AND id = ANY($2::text[])"""

_LOOK_UP = f"""
    SELECT {run_columns("weighed")}, count FROM (
        SELECT runs.*, count(*) OVER () AS count, row_number() OVER read AS place,
            sum({RUN_BYTES}) OVER read AS bytes
        FROM @schema@.runs WHERE environment_id = $1 AND id = ANY($2::text[])
        WINDOW read AS (ROWS UNBOUNDED PRECEDING)
    ) AS weighed
    WHERE bytes <= $3 OR place = 1"""


class FeedReader:
    """Reads pages of runs together with the very snapshot that they were seen in."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def look_up_runs(
        self, environment_id: str, run_ids: Sequence[str]
    ) -> Mapping[str, Run | None]:
        """The run of each id, or None; as many as are not too large together."""
        if len(run_ids) == 1:  # at half the cost
            rows = await self._database.fetch(READ_RUNS, environment_id, list(run_ids))
        else:
            rows = await self._database.fetch(_LOOK_UP, environment_id, list(run_ids), _PAGE_BYTES)
        found: dict[str, Run | None] = {row["id"]: to_run(row) for row in rows}
        if len(run_ids) == 1 or not rows or rows[0]["count"] == len(rows):
            found.update(dict.fromkeys(run_ids - found.keys()))
        return found

    async def read_snapshots(
        self, parts: Sequence[SnapshotPart]
    ) -> Mapping[SnapshotPart, ChangePage]:
        """
        A page for each part of a snapshot: as many as are not too large together.

        Each is planned with its own values, as if it was read alone; but where several differ in
        nothing but their tags, all look at the same newest runs first.
        """
        arguments: list[object] = []
        tables: list[str] = []
        stretches: dict[tuple[Selector, PageKey | None], str] = {}
        alike = Counter(_without_tags(part) for part in parts)
        for place, part in enumerate(parts):
            query = query_of_selector(part.selector, arguments=arguments)
            if part.after is not None:
                query.older_than(part.after)
            bounds = _without_tags(part)
            if query.tagged and alike[bounds] > 1 and bounds not in stretches:
                stretches[bounds] = f"stretch_{place}"
                tables.append(f"stretch_{place} AS MATERIALIZED ({query.stretch()})")
            page = query.page(part.limit + 1, name=f"page_{place}", stretch=stretches.get(bounds))
            tables.append(page)
        sql = _with_runs(", ".join(tables), [f"page_{place}" for place in range(len(parts))])
        rows = await self._database.fetch(sql, *arguments)
        pages: dict[SnapshotPart, ChangePage] = {}
        for place, group in groupby(rows, key=itemgetter("part")):
            found = list(group)
            if found[0]["id"] is not None or found[0]["count"] == 0:
                pages[parts[place]] = _to_page(found, parts[place].limit)
        return pages

    async def read_changes(
        self, selector: Selector, *, since: Position, after: PageKey | None, limit: int
    ) -> ChangePage:
        """
        One page of what became visible after ``since``, about runs that match or matched.

        The first page carries the departures; a run of theirs that matches again may come once
        more on a later page. A page of large rows may be shorter than ``limit``.

        Raises:
            PositionLost: ``since`` cannot be continued from; start from a snapshot.
        """
        page, here = await self._read_changes(selector, since, after, limit)
        if here != since.incarnation:
            # The server crashed since: read again, from further back.
            page, _ = await self._read_changes(selector, since.in_incarnation(here), after, limit)
        return page

    async def _read_changes(
        self, selector: Selector, since: Position, after: PageKey | None, limit: int
    ) -> tuple[ChangePage, int]:
        """As `read_changes`, and the incarnation of the server."""
        query = query_of_selector(selector)
        if after is not None:
            query.older_than(after)
        sql = _with_runs(_changed_page(query, since, limit + 1))
        if after is not None:
            rows = await self._database.fetch(sql, *query.arguments)
            _check_continuable(since, rows[0])
            return _to_page(rows, limit), rows[0]["incarnation"]
        async with self._database.snapshot() as transaction:
            rows = await transaction.fetch(sql, *query.arguments)
            _check_continuable(since, rows[0])
            page = _to_page(rows, limit)
            departures = await _read_departures(transaction, selector, since)
            if not departures:
                return page, rows[0]["incarnation"]
            known = {change.facets.id for change in page.changes}
            runs = await _read_runs(transaction, selector.environment_id, departures.keys() - known)
        changes = tuple(_with_departures(page.changes, departures, runs))
        return ChangePage(changes, page.position, page.next), rows[0]["incarnation"]


def _without_tags(part: SnapshotPart) -> tuple[Selector, PageKey | None]:
    return replace(part.selector, tags=()), part.after


def _changed_page(query: RunQuery, since: Position, limit: int) -> str:
    """As `RunQuery.page`, for runs that changed since a position."""
    parts = _changed_since(query, since)
    # Two scans of an index; put into one OR, they made the planner read the whole table. Where few
    # runs match, it begins with those, and looks each up among the changes.
    changed = " UNION ALL ".join(
        f"""SELECT id, created_at FROM @schema@.runs JOIN (
            SELECT changed_in AS place, run_id FROM @schema@.run_changes WHERE {part}
        ) AS change ON (changed_in, id) = (place, run_id)
        WHERE {part} AND {query.condition}"""
        for part in parts
    )
    return f"""few AS MATERIALIZED (
            SELECT id, created_at FROM ({changed}) AS changed LIMIT {_FEW + 1}
        ), many AS MATERIALIZED (
            SELECT id, created_at FROM @schema@.runs
            WHERE (SELECT count(*) FROM few) > {_FEW}
                AND {query.condition} AND ({" OR ".join(parts)})
            ORDER BY {NEWEST_FIRST} LIMIT {limit}
        ), page AS (
            SELECT id, created_at FROM few WHERE (SELECT count(*) FROM few) <= {_FEW}
            UNION ALL SELECT id, created_at FROM many
            ORDER BY {NEWEST_FIRST} LIMIT {limit}
        )"""


def _changed_since(query: RunQuery, since: Position) -> list[str]:
    """Conditions that share no row and together mean: not seen at that position."""
    parts = [f"changed_in >= {query.argument(since.xmax)}::xid8"]
    if since.in_flight:
        parts.append(f"changed_in = ANY({query.argument(since.in_flight)}::xid8[])")
    return parts


def _with_runs(tables: str, pages: Sequence[str] = ("page",)) -> str:
    """
    The whole statement: where pages were read, and their runs, as many as are not too large.

    Of each page there is a row also when there is no run, with the ``count`` of those it should
    have. Where it was read is found out once: left to the planner, that was done for each row.
    """
    ids = " UNION ALL ".join(
        f"SELECT {place} AS part, id FROM {page}" for place, page in enumerate(pages)
    )
    counts = ", ".join(
        f"({place}, (SELECT count(*) FROM {page}))" for place, page in enumerate(pages)
    )
    order = "ids.part, runs.created_at DESC, runs.id DESC"
    return f"""WITH {tables}, here AS MATERIALIZED (
            SELECT pg_current_snapshot()::text AS snapshot,
                @schema@.database_name() AS database,
                @schema@.incarnation_number() AS incarnation,
                coalesce((SELECT horizon FROM @schema@.following), '0') AS horizon
        ), weighed AS (
            SELECT ids.part, runs.*, coalesce(sum({RUN_BYTES}) OVER (
                ORDER BY {order} ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
            ), 0) AS bytes, row_number() OVER (ORDER BY {order}) AS place
            FROM ({ids}) AS ids JOIN @schema@.runs ON runs.id = ids.id
        )
        SELECT {_HERE}, {run_columns("weighed")}
        FROM here CROSS JOIN (VALUES {counts}) AS found (part, count)
        LEFT JOIN weighed ON weighed.part = found.part
            AND (weighed.bytes <= {_PAGE_BYTES} OR weighed.place = 1)
        ORDER BY found.part, weighed.place"""


def _to_page(rows: list[Row], limit: int) -> ChangePage:
    position = _position(rows[0])
    runs = [to_run(row, _RUN_AT) for row in rows[:limit] if row["id"] is not None]
    more = rows[0]["count"] > len(runs)
    return ChangePage(
        tuple(RunChange(run.facets, run) for run in runs),
        position,
        PageKey(runs[-1].created_at, runs[-1].id) if more else None,
    )


def _position(here: Row) -> Position:
    return Position.from_snapshot(here["database"], here["snapshot"], here["incarnation"])


def _check_continuable(since: Position, here: Row) -> None:
    if since.database != here["database"]:
        raise PositionLost(
            "other_database",
            "The cursor is of another database, or of this one before it was restored or promoted.",
        )
    # After a crash it is read again from further back: only that tells.
    if since.incarnation == here["incarnation"] and since.xmax > _position(here).xmax:
        raise PositionLost("ahead", "The cursor is ahead of the database.")
    if here["horizon"] > 0 and not since.sees(here["horizon"]):
        raise PositionLost("too_old", "The cursor is older than what is remembered of departures.")


async def _read_departures(
    transaction: Transaction, selector: Selector, since: Position
) -> dict[str, list[Departure]]:
    """What left the feed, by run and oldest first."""
    query = query_of_selector(selector, id_column="run_id")
    left = " UNION ALL ".join(
        f"SELECT * FROM @schema@.departures WHERE {part} AND {query.condition}"
        for part in _changed_since(query, since)
    )
    rows = await transaction.fetch(
        f"""WITH departed AS (SELECT * FROM ({left}) AS departed LIMIT {MAX_DEPARTURES + 1})
        SELECT departed.*, coalesce({RUN_BYTES}, 0) AS bytes
        FROM departed LEFT JOIN @schema@.runs ON runs.id = departed.run_id
        ORDER BY departed.version""",
        *query.arguments,
    )
    departures: dict[str, list[Departure]] = {}
    weights: dict[str, int] = {}
    for row in rows:
        departures.setdefault(row["run_id"], []).append(to_departure(row))
        weights[row["run_id"]] = row["bytes"]
    if len(rows) > MAX_DEPARTURES or sum(weights.values()) > _DEPARTED_BYTES:
        raise PositionLost("too_many_departures", "More runs left than are told one by one.")
    return departures


async def _read_runs(
    transaction: Transaction, environment_id: str, run_ids: Iterable[str]
) -> dict[str, Run]:
    rows = await transaction.fetch(READ_RUNS, environment_id, list(run_ids))
    return {row["id"]: to_run(row) for row in rows}


def _with_departures(
    changes: Iterable[RunChange], departures: dict[str, list[Departure]], runs: dict[str, Run]
) -> Iterable[RunChange]:
    """Merge departures into the changes of their runs; those of other runs follow."""
    left = dict(departures)
    for change in changes:
        yield RunChange(change.facets, change.run, tuple(left.pop(change.facets.id, ())))
    for run_id, departed in left.items():
        run = runs.get(run_id)
        yield RunChange(run.facets if run else departed[-1].facets, run, tuple(departed))
