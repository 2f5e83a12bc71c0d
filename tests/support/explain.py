"""A database that looks at the plan of every statement before it runs it."""

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

from runcast.postgres.database import Database, Row, Transaction

_EXPLAIN = "EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) "
# Of these, no read may ever look at every row.
_LARGE_TABLES = frozenset({"runs", "run_changes", "departures"})


class ExplainingDatabase(Database):
    """Statements of `fetch` and of snapshots are explained; the plans are in ``seen``."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.seen: list[dict[str, Any]] = []

    async def fetch(self, sql: str, *arguments: object) -> list[Row]:
        (row,) = await super().fetch(_EXPLAIN + sql, *arguments)
        self.seen.append(json.loads(row[0])[0]["Plan"])
        return await super().fetch(sql, *arguments)

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Transaction]:
        async with super().snapshot() as transaction:
            yield _ExplainingTransaction(transaction, self.seen)

    def tables_read_whole(self) -> set[str]:
        """Names of large tables that some statement really scanned from end to end."""
        return {
            node["Relation Name"]
            for plan in self.seen
            for node in _nodes(plan)
            if node["Node Type"] == "Seq Scan"
            and node["Actual Loops"] > 0
            and node["Relation Name"] in _LARGE_TABLES
        }

    @staticmethod
    def subplans(plan: dict[str, Any]) -> set[str]:
        """Names of the parts of a plan that are carried out for themselves."""
        return {node["Subplan Name"] for node in _nodes(plan) if "Subplan Name" in node}


class _ExplainingTransaction(Transaction):
    def __init__(self, transaction: Transaction, seen: list[dict[str, Any]]) -> None:
        self._transaction = transaction
        self._seen = seen

    async def fetch(self, sql: str, *arguments: object) -> list[Row]:
        (row,) = await self._transaction.fetch(_EXPLAIN + sql, *arguments)
        self._seen.append(json.loads(row[0])[0]["Plan"])
        return await self._transaction.fetch(sql, *arguments)


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from _nodes(child)
