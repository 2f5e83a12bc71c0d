"""
What happened to every run, as the database saw it commit: a trigger writes it down, this reads it.

The trigger is the suite's own, in a schema `chaos`, on the table of runs; `close` removes both.
"""

import asyncio
import contextlib
from bisect import insort
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import asyncpg

from chaos.clock import now
from chaos.database import CUT_OFF, connect
from chaos.sight import Sight, public_status

_LOOK_SECONDS = 0.25
_GAP_SECONDS = 60.0  # longer than any transaction of our writers lasts

_REMEMBER = """
DROP SCHEMA IF EXISTS chaos CASCADE;
CREATE SCHEMA chaos;
CREATE TABLE chaos.history (
    n bigserial PRIMARY KEY, run_id text, version bigint, updated_at timestamptz, status text,
    task text, tags text[], batch_id text, count integer, deleted boolean);
CREATE FUNCTION chaos.remember() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path TO chaos, pg_catalog, pg_temp AS $$
DECLARE
    run {schema}.runs := CASE WHEN TG_OP = 'DELETE' THEN OLD ELSE NEW END;
BEGIN
    IF run.environment_id = '{environment_id}' THEN
        INSERT INTO history (run_id, version, updated_at, status, task, tags, batch_id, count,
                             deleted)
        VALUES (run.id, run.version, run.updated_at, run.status, run.task, run.tags, run.batch_id,
                (run.metadata->>'count')::integer, TG_OP = 'DELETE');
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER z_chaos AFTER INSERT OR UPDATE OR DELETE ON {schema}.runs
    FOR EACH ROW EXECUTE FUNCTION chaos.remember();
INSERT INTO chaos.history (run_id, version, updated_at, status, task, tags, batch_id, count,
                           deleted)
SELECT id, version, updated_at, status, task, tags, batch_id, (metadata->>'count')::integer, false
FROM {schema}.runs WHERE environment_id = '{environment_id}';
"""
_FORGET = "DROP SCHEMA IF EXISTS chaos CASCADE"
_COLUMNS = """status, task, tags, batch_id,
    to_char(updated_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS') AS updated"""
_HISTORY = f"""SELECT n, run_id, version, count, deleted, {_COLUMNS} FROM chaos.history
    WHERE n > $1 OR n = ANY($2) ORDER BY n"""
_RUNS = f"""SELECT id AS run_id, version, (metadata->>'count')::integer AS count, {_COLUMNS}
    FROM {{schema}}.runs WHERE environment_id = $1"""


@dataclass(frozen=True, slots=True, order=True)
class Entry:
    """One committed change; ``seen_at`` is no earlier than its commit."""

    number: int
    seen_at: float = field(compare=False)
    deleted: bool = field(compare=False)
    sight: Sight = field(compare=False)


@dataclass
class Ledger:
    """
    All committed changes by run, in their order.

    ``read_at``: everything that was committed before that time is here. ``older``: up to this
    number entries tell what was there at the beginning.
    """

    database_url: str
    schema: str
    environment_id: str
    entries: dict[str, list[Entry]] = field(default_factory=dict)
    read_at: float = 0.0
    older: int = 0
    changes: int = 0
    departures: int = 0
    _last: int = 0
    _gaps: dict[int, float] = field(default_factory=dict)

    def current(self, run_id: str, at: float) -> Entry | None:
        """The newest change that was surely committed at that time."""
        for entry in reversed(self.entries.get(run_id, ())):
            if entry.seen_at <= at:
                return entry
        return None

    def since(self, run_id: str, at: float) -> list[Entry]:
        """What a run may have been since that time: its state then, and all later ones."""
        entries = self.entries.get(run_id, [])
        first = len(entries)
        while first and entries[first - 1].seen_at > at:
            first -= 1
        return entries[max(first - 1, 0) :]

    def find(self, sight: Sight) -> Entry | None:
        """The change that a subscriber was shown."""
        for entry in reversed(self.entries.get(sight.run_id, ())):
            if not entry.deleted and sight.fits(entry.sight):
                return entry
        return None

    async def follow(self) -> None:
        """Read on and on, whatever happens to the database."""
        while True:
            with contextlib.suppress(*CUT_OFF):
                async with connect(self.database_url) as sql:
                    while True:
                        await self.read(sql)
                        await asyncio.sleep(_LOOK_SECONDS)
            await asyncio.sleep(_LOOK_SECONDS)

    async def read(self, sql: asyncpg.Connection) -> None:
        """Read what is new, and what others committed meanwhile with smaller numbers."""
        begun = now()
        rows = await sql.fetch(_HISTORY, self._last, list(self._gaps))
        seen_at = now()
        for row in rows:
            self._take(row, seen_at)
        self._gaps = {n: since for n, since in self._gaps.items() if since > begun - _GAP_SECONDS}
        self.read_at = begun

    async def begin(self, sql: asyncpg.Connection) -> None:
        """Write down from now on, beginning with what is there."""
        remember = _REMEMBER.format(schema=self.schema, environment_id=self.environment_id)
        await sql.execute(remember)
        self.older = await sql.fetchval("SELECT coalesce(max(n), 0) FROM chaos.history")
        await self.read(sql)

    async def runs(self) -> dict[str, Sight]:
        """All runs of the environment as they are."""
        async with connect(self.database_url) as sql:
            await self.read(sql)
            rows = await sql.fetch(_RUNS.format(schema=self.schema), self.environment_id)
        return {row["run_id"]: _sight(row) for row in rows}

    def _take(self, row: asyncpg.Record, seen_at: float) -> None:
        number = row["n"]
        for missing in range(self._last + 1, number):
            self._gaps[missing] = seen_at
        self._gaps.pop(number, None)
        self._last = max(self._last, number)
        entries = self.entries.setdefault(row["run_id"], [])
        entry = Entry(number, seen_at, row["deleted"], _sight(row))
        self.changes += 1
        if row["deleted"] or (entries and not entries[-1].sight.tags <= entry.sight.tags):
            self.departures += 1
        insort(entries, entry)


@asynccontextmanager
async def kept(database_url: str, schema: str, environment_id: str) -> AsyncIterator[Ledger]:
    """Keep a ledger for as long as the block."""
    ledger = Ledger(database_url, schema, environment_id)
    async with connect(database_url) as sql:
        await ledger.begin(sql)
    following = asyncio.create_task(ledger.follow())
    try:
        yield ledger
    finally:
        following.cancel()
        await asyncio.wait([following])
        async with connect(database_url) as sql:
            await sql.execute(_FORGET)


def _sight(row: asyncpg.Record) -> Sight:
    return Sight(
        row["run_id"],
        row["version"],
        row["updated"],
        public_status(row["status"]),
        row["task"],
        frozenset(row["tags"]),
        row["batch_id"],
        row["count"],
    )
