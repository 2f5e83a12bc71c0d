"""The store of runs and batches in Postgres, as `runcast.ports` describes it."""

from collections.abc import Sequence

from runcast.core.page import PageKey
from runcast.core.run import Run
from runcast.core.run_filter import RunFilter
from runcast.ports import RunPage, RunStore
from runcast.postgres.feed_reader import READ_RUNS, FeedReader
from runcast.postgres.rows import run_columns, to_run
from runcast.postgres.run_query import (
    NEWEST_FIRST,
    OLDEST_FIRST,
    RunQuery,
    query_of_filter,
)
from runcast.postgres.run_writer import RunWriter
from runcast.postgres.streamed_batches import StreamedBatches

MAX_DESCENDANTS = 10_000

# Lists do not show payloads and outputs, and a page of them could be very large.
_NOT_LISTED = frozenset({"payload", "output"})

_READ_SEED = """
    SELECT coalesce(seed_metadata, '{}') AS seed_metadata
    FROM @schema@.runs WHERE environment_id = $1 AND id = $2"""

_WITH_OBJECT = 100  # an object is usually of one run, and of its replays

_READ_WITH_OBJECT = f"""
    SELECT {run_columns()} FROM @schema@.runs WHERE id IN (
        SELECT id FROM @schema@.runs
        WHERE environment_id = $1 AND payload_type = 'application/store'
            AND md5(payload) = md5($2) AND payload = $2
        UNION
        SELECT id FROM @schema@.runs
        WHERE environment_id = $1 AND output_type = 'application/store'
            AND md5(output) = md5($2) AND output = $2
        LIMIT {_WITH_OBJECT}
    )"""

_READ_CHILDREN = f"""
    SELECT {run_columns()} FROM @schema@.runs WHERE environment_id = $1 AND parent_id = $2
    ORDER BY created_at, number LIMIT $3"""

# UNION, not UNION ALL: parents that plain SQL has made into a circle must end it.
_READ_DESCENDANTS = f"""
    WITH RECURSIVE below AS (
        SELECT id, completed_at FROM @schema@.runs WHERE environment_id = $1 AND parent_id = $2
        UNION
        SELECT runs.id, runs.completed_at
        FROM below JOIN @schema@.runs ON runs.parent_id = below.id
        WHERE runs.environment_id = $1
    )
    SELECT id FROM below WHERE completed_at IS NULL AND id <> $2 LIMIT {MAX_DESCENDANTS}"""


class PostgresRunStore(FeedReader, RunWriter, StreamedBatches, RunStore):
    """
    Runs and batches in Postgres; see `FeedReader`, `RunWriter` and `StreamedBatches` for the rest.

    Nothing is read or written without the environment it belongs to.
    """

    async def read_run(self, environment_id: str, run_id: str) -> Run | None:
        """The run, or None where this environment has no such run."""
        runs = await self.read_runs(environment_id, [run_id])
        return runs[0] if runs else None

    async def read_runs(self, environment_id: str, run_ids: Sequence[str]) -> list[Run]:
        """Those of the runs that exist, in the order asked for."""
        rows = await self._database.fetch(READ_RUNS, environment_id, list(run_ids))
        runs = {row["id"]: to_run(row) for row in rows}
        return [runs[run_id] for run_id in run_ids if run_id in runs]

    async def read_seed_metadata(self, environment_id: str, run_id: str) -> str:
        """The metadata that a run began with, as JSON text of an object."""
        rows = await self._database.fetch(_READ_SEED, environment_id, run_id)
        return rows[0]["seed_metadata"] if rows else "{}"

    async def read_children(self, environment_id: str, run_id: str, *, limit: int) -> list[Run]:
        """Runs triggered by this run, oldest first."""
        rows = await self._database.fetch(_READ_CHILDREN, environment_id, run_id, limit)
        return [to_run(row) for row in rows]

    async def read_runs_with_object(self, environment_id: str, name: str) -> list[Run]:
        """Runs that keep their payload or output in the object store under this name; not all."""
        rows = await self._database.fetch(_READ_WITH_OBJECT, environment_id, name)
        return [to_run(row) for row in rows]

    async def read_descendant_ids(self, environment_id: str, run_id: str) -> list[str]:
        """Ids of the runs below this run that are not finished; at most `MAX_DESCENDANTS`."""
        rows = await self._database.fetch(_READ_DESCENDANTS, environment_id, run_id)
        return [row["id"] for row in rows]

    async def list_runs(
        self,
        run_filter: RunFilter,
        *,
        older_than: PageKey | None = None,
        newer_than: PageKey | None = None,
        limit: int,
    ) -> RunPage:
        """
        One page of the runs that pass the filter, newest first, in either direction.

        ``payload`` and ``output`` of these runs are left out.
        """
        assert older_than is None or newer_than is None, "a page lies on one side of one key"
        query = query_of_filter(run_filter)
        if older_than is not None:
            query.older_than(older_than)
        if newer_than is not None:
            query.newer_than(newer_than)
        order = NEWEST_FIRST if newer_than is None else OLDEST_FIRST
        found = await self._read_page(query, limit + 1, order)
        runs, more = found[:limit], len(found) > limit
        if newer_than is not None:
            runs.reverse()
            older = await self._has_others(run_filter, older_than=runs[-1]) if runs else False
            return _run_page(runs, older=older, newer=more)
        newer = bool(runs and older_than) and await self._has_others(run_filter, newer_than=runs[0])
        return _run_page(runs, older=more, newer=newer)

    async def _read_page(self, query: RunQuery, limit: int, order: str) -> list[Run]:
        sql = f"""WITH {query.page(limit, order)}
            SELECT {run_columns(without=_NOT_LISTED)}
            FROM page JOIN @schema@.runs ON runs.id = page.id
            ORDER BY {", ".join(f"page.{each}" for each in order.split(", "))}"""
        return [to_run(row) for row in await self._database.fetch(sql, *query.arguments)]

    async def _has_others(
        self, run_filter: RunFilter, *, older_than: Run | None = None, newer_than: Run | None = None
    ) -> bool:
        query = query_of_filter(run_filter)
        order = NEWEST_FIRST
        if older_than is not None:
            query.older_than(_page_key(older_than))
        if newer_than is not None:
            query.newer_than(_page_key(newer_than))
            order = OLDEST_FIRST
        sql = f"WITH {query.page(1, order)} SELECT FROM page"
        return bool(await self._database.fetch(sql, *query.arguments))


def _page_key(run: Run) -> PageKey:
    return PageKey(run.created_at, run.id)


def _run_page(runs: list[Run], *, older: bool, newer: bool) -> RunPage:
    return RunPage(
        tuple(runs),
        _page_key(runs[-1]) if older else None,
        _page_key(runs[0]) if newer else None,
    )
