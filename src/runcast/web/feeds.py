"""
The run feeds: one run, runs by tag or task, a batch, all runs.

As Server-Sent Events, or with ``offset`` in the protocol of official clients: see `shapes`.
"""

import math
import re
from collections.abc import Awaitable, Callable
from datetime import datetime

from pydantic import Field
from starlette.responses import Response
from starlette.types import ASGIApp

from runcast.auth.grant import Grant
from runcast.core.position import Position, parse_cursor
from runcast.core.run import UNSKIPPABLE_COLUMNS, Run
from runcast.core.scope import Resource
from runcast.core.selector import Selector
from runcast.core.sse import SseFormat
from runcast.core.subscription import Subscription
from runcast.core.timespan import parse_duration
from runcast.core.view import View
from runcast.errors import InvalidParameter, InvalidToken, NotFound, PositionLost
from runcast.hub.connection import Connection
from runcast.hub.form import AudienceKey, Format
from runcast.hub.subscriber import Subscriber
from runcast.web.bearer import require
from runcast.web.event_stream import EventStream
from runcast.web.operation import Access, Answer, Call, Operation
from runcast.web.run_access import readable_run
from runcast.web.services import Services
from runcast.web.shapes import ShapeQuery, answer_shape

_NAME = re.compile(r"[A-Za-z]{1,64}")
_MAX_SKIPPED = 64
# wire/trigger-wire.md 2.1
_SHAPE_TAG = re.compile(r'[^\x00-\x1f\x7f"\\]+')


class FeedQuery(ShapeQuery):
    """What every run feed can be told."""

    skipColumns: str = Field("", description="Fields to leave out, joined with commas.")
    token: str | None = Field(None, description="A public access token, for plain EventSource.")


class OneRunQuery(FeedQuery):
    """What the feed of one run can be told."""

    stay: bool = Field(False, description="Go on when the run is finished.")


class ManyRunsQuery(FeedQuery):
    """What a feed of many runs can be told."""

    tags: str = Field("", description="Only runs that have all of these, joined with commas.")
    task: str | None = Field(None, description="Only runs of this task.")
    createdAt: str | None = Field(
        None, description="Only runs created since: a duration before now, or an ISO 8601 date."
    )


class BatchQuery(FeedQuery):
    """What the feed of a batch can be told."""


async def run_feed(call: Call) -> ASGIApp:
    """Follow one run."""
    query: OneRunQuery = call.query
    refuse_key_in_query(call)
    if query.offset is not None:
        selector = Selector(call.environment_id, run_id=call.path["run"])
        return await _shape(
            call, selector, lambda: readable_run(call.services, call.grant, call.path["run"])
        )
    run = await readable_run(call.services, call.grant, call.path["run"])
    since = _since(call)
    ends = not query.stay
    if ends and await finished_before(call.services, run, since):
        return Response(status_code=204)  # what makes an EventSource stop
    selector = Selector(call.environment_id, run_id=run.id)
    return _stream(call, selector, since, ends_with_run=ends)


async def runs_feed(call: Call) -> ASGIApp:
    """Follow runs by tags, by task, or all."""
    query: ManyRunsQuery = call.query
    refuse_key_in_query(call)
    is_shape = query.offset is not None
    selector = Selector(
        call.environment_id,
        tags=tuple(query.tags.split(",")) if query.tags else (),
        task=query.task,
        created_after=_shape_bound(call) if is_shape else created_after(query.createdAt, call.now),
    )
    if is_shape and any(not _SHAPE_TAG.fullmatch(tag) for tag in selector.tags):
        raise InvalidParameter("tags of official clients have no quotes, backslashes or controls.")
    require_feed(call.grant, selector)
    if is_shape:
        return await _shape(call, selector, _nothing_more)
    return _stream(call, selector, _since(call))


async def batch_feed(call: Call) -> ASGIApp:
    """Follow the runs of a batch."""
    refuse_key_in_query(call)
    selector = Selector(call.environment_id, batch_id=call.path["batch"])
    require_feed(call.grant, selector)
    if call.query.offset is not None:
        return await _shape(call, selector, lambda: _require_batch(call))
    await _require_batch(call)
    return _stream(call, selector, _since(call))


# -- what WebSocket subscriptions check as well ---------------------------------------------------


def require_feed(grant: Grant, selector: Selector) -> None:
    """
    Check that the grant opens a feed of many runs; each run is judged again when it is sent.

    Raises:
        InsufficientScope: It does not.
    """
    resources = []
    if selector.batch_id is not None:
        resources.append(Resource("batch", selector.batch_id))
    elif selector.task is not None:
        resources.append(Resource("tasks", selector.task))
    else:
        resources.append(Resource("tags"))
    resources.extend(Resource("tags", tag) for tag in selector.tags)
    resources.append(Resource("runs"))
    require(grant, "read", *resources)


async def finished_before(services: Services, run: Run, since: Position | None) -> bool:
    """Tell whether whoever stands at ``since`` has seen the end of this run."""
    if since is None or not run.finished:
        return False
    selector = Selector(run.environment_id, run_id=run.id)
    try:
        page = await services.hub.reads.read_changes(selector, since=since, after=None, limit=1)
    except PositionLost:
        return False
    return not page.changes


def created_after(text: str | None, now: float) -> float | None:
    """
    Read the lower bound on creation times, in Unix seconds.

    Raises:
        InvalidParameter: Neither a duration nor a date with a zone.
    """
    if not text:
        return None
    if not text[0].isdigit() or "-" not in text:
        return _before(now, parse_duration(text))
    try:
        date = datetime.fromisoformat(text)
    except ValueError:
        date = None
    if date is None or date.tzinfo is None:
        raise InvalidParameter(
            "createdAt is a duration such as 1h or 7d, or a date such as 2026-01-02T03:04:05Z."
        )
    return date.timestamp()


def _before(now: float, seconds: float) -> float:
    """
    So long ago, or up to a hundredth longer: in steps of that.

    Those who ask within a step have equal selectors, and share what is read for them.
    """
    step = max(int(seconds * 10), 1)  # in milliseconds
    bound = int((now - seconds) * 1000)
    return max(bound - bound % step, 0) / 1000  # no database knows times long before 1970


def skipped_columns(services: Services, grant: Grant, asked: str) -> frozenset[str]:
    """
    Say which columns a subscriber does not get: what the token says wins over what is asked.

    Raises:
        InvalidParameter: Too many names, or something that is none.
    """
    names = frozenset(filter(None, (name.strip() for name in asked.split(","))))
    if len(names) > _MAX_SKIPPED or not all(_NAME.fullmatch(name) for name in names):
        raise InvalidParameter("skipColumns is a list of column names, joined with commas.")
    skip = frozenset(grant.skip_columns) or names
    if not grant.is_secret_key:
        skip |= services.limits.withheld_columns
    return frozenset(skip - UNSKIPPABLE_COLUMNS)


async def _shape(
    call: Call, selector: Selector, authorize: Callable[[], Awaitable[object]]
) -> ASGIApp:
    skip = skipped_columns(call.services, call.grant, call.query.skipColumns)
    return await answer_shape(call, selector, skip, authorize)


def _shape_bound(call: Call) -> float | None:
    """As `created_after`; official clients get the usual window where they do not say, or badly."""
    window = call.services.limits.shape_window_seconds
    try:
        bound = created_after(call.query.createdAt, call.now)
    except InvalidParameter:
        bound = None
    if bound is None and window:
        bound = _before(call.now, window)
    # Whole milliseconds: that is what the client brings back.
    return None if bound is None else math.floor(bound * 1000) / 1000


async def _nothing_more() -> None:
    """The grant was all that had to be looked at."""


async def _require_batch(call: Call) -> None:
    if await call.services.runs.read_batch(call.environment_id, call.path["batch"]) is None:
        raise NotFound("There is no such batch in this environment.")


def _stream(
    call: Call, selector: Selector, since: Position | None, *, ends_with_run: bool = False
) -> ASGIApp:
    services, grant = call.services, call.grant
    skip = skipped_columns(services, grant, call.query.skipColumns)
    asked_to_skip = frozenset(filter(None, call.query.skipColumns.split(",")))
    services.hub.admit()

    def carry(connection: Connection, form: Format) -> Subscriber:
        machine = Subscription(
            since=since,
            ends_with_run=ends_with_run,
            limits=services.limits,
        )
        key = AudienceKey(View(selector, grant.permissions), form, ends_with_run)
        return Subscriber(connection, "", key, machine, asked_to_skip=asked_to_skip)

    return EventStream(
        services.hub,
        carry,
        form=lambda chunked: SseFormat(skip, chunked),
        grant=grant,
        allow_handover=services.allow_handover,
        renewable=True,
    )


def _since(call: Call) -> Position | None:
    cursor = call.request.headers.get("last-event-id") or call.query.cursor
    return parse_cursor(cursor) if cursor else None


def refuse_key_in_query(call: Call) -> None:
    """
    Refuse secret keys in addresses, which end up in logs and histories.

    Raises:
        InvalidToken: There is one.
    """
    if call.grant.is_secret_key and "authorization" not in call.request.headers:
        raise InvalidToken(
            "A secret key does not belong into an address: send it in the Authorization header, "
            "or put a public access token here."
        )


_MESSAGES = {"type": "array", "items": {"type": "object", "required": ["headers"]}}
_STREAM = {
    200: Answer(
        "Events `run`, `gone`, `up-to-date` …; with `offset` messages of a shape.",
        None,
        "text/event-stream",
        json_schema=_MESSAGES,
    ),
    409: Answer("Only with `offset`: forget all and begin with -1.", json_schema=_MESSAGES),
}
_HEADERS = {
    "Last-Event-ID": "The cursor of the last event that was seen.",
    "x-trigger-electric-version": "Sent by official clients since 3.3; others get older names of "
    "the headers of shapes as well.",
    "trigger-version": "Version of the official client: with `offset` it decides on details.",
    "x-trigger-api-version": "Clients that do not send it get no statuses newer than themselves.",
}

OPERATIONS = (
    Operation(
        method="GET",
        path="/realtime/v1/runs/{run}",
        name="followRun",
        summary="Follow one run",
        description="Ends when the run is finished. docs/protocol.md describes the events.",
        handler=run_feed,
        access=Access.ANY_TOKEN,
        tag="realtime",
        path_parameters={"run": "Id of the run."},
        query=OneRunQuery,
        headers=_HEADERS,
        answers={**_STREAM, 204: Answer("The run was finished before the cursor.")},
        token_in_query=True,
        errors=(403, 404),
    ),
    Operation(
        method="GET",
        path="/realtime/v1/runs",
        name="followRuns",
        summary="Follow runs by tags, by task, or all",
        handler=runs_feed,
        access=Access.ANY_TOKEN,
        tag="realtime",
        query=ManyRunsQuery,
        headers=_HEADERS,
        answers=_STREAM,
        token_in_query=True,
        errors=(403,),
    ),
    Operation(
        method="GET",
        path="/realtime/v1/batches/{batch}",
        name="followBatch",
        summary="Follow the runs of a batch",
        handler=batch_feed,
        access=Access.ANY_TOKEN,
        tag="realtime",
        path_parameters={"batch": "Id of the batch."},
        query=BatchQuery,
        headers=_HEADERS,
        answers=_STREAM,
        token_in_query=True,
        errors=(403, 404),
    ),
)
