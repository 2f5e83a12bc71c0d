"""Conditions on runs, and the shapes of queries that page through them newest first."""

from runcast.core.page import PageKey
from runcast.core.run_filter import RunFilter
from runcast.core.selector import Selector

NEWEST_FIRST = "created_at DESC, id DESC"
OLDEST_FIRST = "created_at, id"

# Common tags are met within the newest few thousand runs, rare ones are few by their index.
_NEAR = 5000


class RunQuery:
    """
    A condition on runs with its arguments, to which those of other conditions may be added.

    ``bounds`` are what an index in page order can be entered by; ``rest`` is looked at row by
    row. Only the latter holds tags, which have an index of their own that knows no order.
    """

    def __init__(self, arguments: list[object] | None = None) -> None:
        self.bounds: list[str] = []
        self.rest: list[str] = []
        self.tagged = False
        self.arguments: list[object] = [] if arguments is None else arguments

    def argument(self, value: object) -> str:
        """Add an argument; returns how SQL refers to it."""
        self.arguments.append(value)
        return f"${len(self.arguments)}"

    def bound(self, condition: str, value: object) -> None:
        self.bounds.append(condition.format(self.argument(value)))

    def narrow(self, condition: str, value: object) -> None:
        self.rest.append(condition.format(self.argument(value)))

    def narrow_tags(self, condition: str, value: object) -> None:
        self.narrow(condition, value)
        self.tagged = True

    def older_than(self, key: PageKey) -> None:
        self._beyond("<", key)

    def newer_than(self, key: PageKey) -> None:
        self._beyond(">", key)

    def _beyond(self, side: str, key: PageKey) -> None:
        moment, run_id = self.argument(key.created_at), self.argument(key.id)
        self.bounds.append(f"(created_at, id) {side} ({moment}::timestamptz, {run_id}::text)")

    @property
    def condition(self) -> str:
        return " AND ".join((*self.bounds, *self.rest))

    def stretch(self, order: str = NEWEST_FIRST, columns: str = "id, created_at, tags") -> str:
        """The first runs within the bounds, where pages by tags are looked for before all else."""
        return f"""SELECT {columns} FROM @schema@.runs
            WHERE {" AND ".join(self.bounds)} ORDER BY {order} LIMIT {_NEAR}"""

    def page(
        self,
        limit: int,
        order: str = NEWEST_FIRST,
        *,
        name: str = "page",
        stretch: str | None = None,
    ) -> str:
        """
        The table expressions that end in this one: id and creation of the first ``limit`` runs.

        By tags there are two ways that are each terrible at times: along the page order (for
        rare tags it reads everything) and by the tag index (for common ones it sorts everything).
        So the first is tried over a bounded stretch, and the second where that was not enough.
        ``stretch`` names a table of these runs that other pages use as well.
        """
        if not self.tagged:
            return f"""{name} AS (
                SELECT id, created_at FROM @schema@.runs
                WHERE {self.condition} ORDER BY {order} LIMIT {limit}
            )"""
        rest = " AND ".join(self.rest)
        near, far = f"{name}_near", f"{name}_far"
        stretch = stretch or f"({self.stretch(order, '*')}) AS stretch"
        return f"""{near} AS MATERIALIZED (
                SELECT id, created_at FROM {stretch}
                WHERE {rest} ORDER BY {order} LIMIT {limit}
            ), {far} AS MATERIALIZED (
                SELECT id, created_at FROM @schema@.runs
                WHERE (SELECT count(*) FROM {near}) < {limit} AND {self.condition}
            ), {name} AS (
                SELECT id, created_at FROM {near} WHERE (SELECT count(*) FROM {near}) = {limit}
                UNION ALL SELECT id, created_at FROM {far}
                ORDER BY {order} LIMIT {limit}
            )"""


def query_of_selector(
    selector: Selector, *, id_column: str = "id", arguments: list[object] | None = None
) -> RunQuery:
    """The runs that a selector matches; or rows with the same facts about runs."""
    query = RunQuery(arguments)
    query.bound("environment_id = {}", selector.environment_id)
    if selector.run_id is not None:
        query.bound(f"{id_column} = {{}}", selector.run_id)
    if selector.task is not None:
        query.bound("task = {}", selector.task)
    if selector.batch_id is not None:
        query.bound("batch_id = {}", selector.batch_id)
    if selector.created_after is not None:
        query.bound("created_at >= to_timestamp({}::double precision)", selector.created_after)
    if selector.tags:
        query.narrow_tags("tags @> {}::text[]", selector.tags)
    return query


def query_of_filter(run_filter: RunFilter) -> RunQuery:
    """The runs that a filter passes."""
    query = RunQuery()
    query.bound("environment_id = {}", run_filter.environment_id)
    if run_filter.batch_id is not None:
        query.bound("batch_id = {}", run_filter.batch_id)
    if run_filter.created_from is not None:
        query.bound("created_at >= {}", run_filter.created_from)
    if run_filter.created_to is not None:
        query.bound("created_at <= {}", run_filter.created_to)
    if len(run_filter.tasks) == 1:
        query.bound("task = {}", run_filter.tasks[0])
    elif run_filter.tasks:
        query.narrow("task = ANY({}::text[])", run_filter.tasks)
    if run_filter.tags:
        query.narrow_tags("tags && {}::text[]", run_filter.tags)
    for column, values in (
        ("status", run_filter.statuses),
        ("worker_version", run_filter.versions),
        ("queue", run_filter.queues),
        ("machine", run_filter.machines),
        ("region", run_filter.regions),
    ):
        if values:
            query.narrow(f"{column} = ANY({{}}::text[])", values)
    if run_filter.is_test is not None:
        query.narrow("is_test = {}", run_filter.is_test)
    # Neither has a column: they are among the options that a run was triggered with.
    if run_filter.schedule_id is not None:
        query.narrow("options ->> 'scheduleId' = {}", run_filter.schedule_id)
    if run_filter.bulk_action_id is not None:
        query.narrow("options ->> 'bulkActionId' = {}", run_filter.bulk_action_id)
    return query
