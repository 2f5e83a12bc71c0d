"""Listing runs: the filters of the query, and who may see what they pass."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, Field
from starlette.responses import Response

from runcast.core.run_filter import RunFilter
from runcast.core.run_json import list_object
from runcast.core.scope import Resource
from runcast.core.status import PUBLIC_STATUSES, raw_statuses
from runcast.web.bearer import require, require_every
from runcast.web.etag import is_known, runs_etag
from runcast.web.list_query import Texts, created_since, moment, read_turn, split
from runcast.web.operation import Access, Answer, Call, Operation
from runcast.web.responses import json_response
from runcast.web.run_models import RunList
from runcast.web.text_field import ShortText

_MAX_VALUES = 100


def _list_field(name: str, description: str) -> Any:
    return Field(
        default_factory=list,
        alias=f"filter[{name}]",
        max_length=_MAX_VALUES,
        description=description,
    )


StatusWord = Annotated[str, Field(json_schema_extra={"enum": sorted(PUBLIC_STATUSES)})]
Statuses = Annotated[list[StatusWord], BeforeValidator(split)]


class ListRuns(BaseModel):
    """Which runs, and which page of them. Values of one filter are alternatives."""

    size: int = Field(default=25, ge=1, le=100, alias="page[size]", description="Runs on a page.")
    after: ShortText | None = Field(
        default=None, alias="page[after]", description="`pagination.next` of the page before."
    )
    before: ShortText | None = Field(
        default=None, alias="page[before]", description="`pagination.previous` of the page after."
    )
    statuses: Statuses = _list_field("status", "Public statuses.")
    tasks: Texts = _list_field("taskIdentifier", "Ids of tasks.")
    versions: Texts = _list_field("version", "Versions of workers.")
    tags: Texts = _list_field("tag", "Tags; runs with any of them.")
    queues: Texts = _list_field("queue", "Queues; that of a task is task/{task}.")
    machines: Texts = _list_field("machine", "Machines.")
    regions: Texts = _list_field("region", "Regions.")
    is_test: Literal["true", "false"] | None = Field(default=None, alias="filter[isTest]")
    schedule: ShortText | None = Field(default=None, alias="filter[schedule]")
    bulk_action: ShortText | None = Field(default=None, alias="filter[bulkAction]")
    batch: ShortText | None = Field(
        default=None, alias="filter[batch]", description="Id of a batch."
    )
    created_from: ShortText | None = Field(
        default=None,
        alias="filter[createdAt][from]",
        description="ISO 8601 time, or Unix time in milliseconds.",
    )
    created_to: ShortText | None = Field(
        default=None,
        alias="filter[createdAt][to]",
        description="ISO 8601 time, or Unix time in milliseconds.",
    )
    period: ShortText | None = Field(
        default=None,
        alias="filter[createdAt][period]",
        description="A duration such as 1d, back from now.",
    )


async def list_runs(call: Call) -> Response:
    """Give one page of runs; runs that the caller may not read are not among them."""
    query: ListRuns = call.query
    turn = read_turn(query.after, query.before)
    run_filter = _run_filter(call, query)
    _check_access(call, query)
    page = await call.services.runs.list_runs(
        run_filter, older_than=turn.older_than, newer_than=turn.newer_than, limit=query.size
    )
    within = turn.older_than is not None or turn.newer_than is not None
    cursors = turn.pagination(older=page.older, newer=page.newer if within else None)
    etag = runs_etag(call, page.runs, cursors)
    headers = {
        "etag": etag,
        "cache-control": "private, no-cache",
        "vary": "authorization, x-trigger-api-version",
    }
    if is_known(call, etag):
        return Response(status_code=304, headers=headers)
    name = await call.services.keys.environment_name(call.environment_id)
    environment = {"id": call.environment_id, "name": name}
    data = [
        list_object(run, call.api, environment=environment, withhold=call.withheld)
        for run in page.runs
    ]
    return json_response({"data": data, "pagination": cursors}, headers=headers)


def _check_access(call: Call, query: ListRuns) -> None:
    """
    Go on only if every run that passes the filter is one that the caller may read.

    So pages need not be thinned out afterwards. Filters by tag and by batch open lists to tokens
    for those, which the official rules do not: wire/trigger-wire.md 1.5 names tasks alone.
    """
    everything = (Resource("runs"), Resource("tasks"))
    if call.grant.permissions.allows("read", everything):
        return
    for kind, ids in (("tasks", query.tasks), ("tags", query.tags), ("batch", [query.batch])):
        resources = [Resource(kind, each) for each in ids if each]
        if call.grant.permissions.allows_every("read", resources):
            return
    # Refused; the error names what the caller asked for.
    require_every(call.grant, "read", (Resource("tasks", task) for task in query.tasks))
    require(call.grant, "read", *everything)


def _run_filter(call: Call, query: ListRuns) -> RunFilter:
    return RunFilter(
        environment_id=call.environment_id,
        statuses=raw_statuses(query.statuses),
        tasks=tuple(query.tasks),
        tags=tuple(query.tags),
        versions=tuple(query.versions),
        queues=tuple(query.queues),
        machines=tuple(query.machines),
        regions=tuple(query.regions),
        batch_id=query.batch,
        is_test=None if query.is_test is None else query.is_test == "true",
        schedule_id=query.schedule,
        bulk_action_id=query.bulk_action,
        created_from=created_since(call, query.created_from, query.period),
        created_to=moment("filter[createdAt][to]", query.created_to),
    )


OPERATIONS = (
    Operation(
        method="GET",
        path="/api/v1/runs",
        name="listRuns",
        summary="List runs, newest first",
        description="Public tokens may list runs of tasks, with tags, or of a batch that they may "
        "read, and with read:runs all. Poll with If-None-Match.",
        handler=list_runs,
        access=Access.ANY_TOKEN,
        tag="Runs",
        query=ListRuns,
        headers={"if-none-match": "The etag of an earlier answer."},
        answers={
            200: Answer("A page.", RunList, headers={"etag": "For If-None-Match."}),
            304: Answer("Nothing changed since."),
        },
    ),
)
