"""From rows to values: the columns to select, and what becomes of them."""

from typing import Any, TypeAlias

from runcast.core.run import RUN_COLUMNS, Departure, Run, RunFacets
from runcast.postgres.database import Row

RowValues: TypeAlias = Row | tuple[Any, ...]
"""A row, or one that is a value in another one."""

_COUNT = len(RUN_COLUMNS)
_TAGS = RUN_COLUMNS.index("tags")
_STREAMS = RUN_COLUMNS.index("realtime_streams")

# What a row weighs at most in memory, told without reading its large values.
RUN_BYTES = """(
    coalesce(octet_length(runs.payload), 0) + coalesce(octet_length(runs.output), 0)
    + pg_column_size(runs.metadata) + coalesce(pg_column_size(runs.error), 0)
    + pg_column_size(runs.options)
)"""


def run_columns(table: str = "runs", *, without: frozenset[str] = frozenset()) -> str:
    """The select list that `to_run` reads; columns left out are null."""
    return ", ".join(
        f"NULL::text AS {column}" if column in without else f"{table}.{column}"
        for column in RUN_COLUMNS
    )


def to_run(row: RowValues, first: int = 0) -> Run:
    """Read a run from a row that has `run_columns` from column ``first`` on."""
    values: list[Any] = list(row[first : first + _COUNT])
    values[_TAGS] = tuple(values[_TAGS])
    values[_STREAMS] = tuple(values[_STREAMS])
    return Run(*values)


def to_departure(row: Row) -> Departure:
    """Read a departure from a row of that table."""
    facets = RunFacets(
        row["environment_id"],
        row["run_id"],
        row["task"],
        tuple(row["tags"]),
        row["batch_id"],
        row["created_at"].timestamp(),
    )
    return Departure(facets, row["version"], row["changed_in"], row["deleted"])
