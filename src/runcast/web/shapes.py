"""
Run feeds for official clients: one answer after the other, in the Electric shape protocol.

docs/protocol.md "Official clients: shapes". No answer needs what was remembered of another request.
"""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from pydantic import BaseModel, Field
from starlette.types import ASGIApp

from runcast.core.selector import Selector
from runcast.core.shape import ShapeFormat, ShapeSseFormat
from runcast.core.shape_echo import INITIAL_OFFSET, NOW_OFFSET, Echo
from runcast.core.shape_row import Dialect
from runcast.core.status import ApiVersion
from runcast.core.subscription import Subscription
from runcast.hub.connection import Connection
from runcast.hub.form import Format
from runcast.hub.subscriber import Subscriber
from runcast.web.event_stream import EventStream
from runcast.web.operation import Call
from runcast.web.poll_answer import PollAnswer
from runcast.web.services import Services
from runcast.web.shape import Shape, letters, standing


class ShapeQuery(BaseModel):
    """The parameters of the Electric protocol that mean something here."""

    offset: str | None = Field(
        None,
        description="Answer in the Electric shape protocol: -1, or the last `electric-offset`.",
    )
    handle: str = Field("", description="With `offset`: the last `electric-handle`.")
    shape_id: str = Field("", description="The same, from clients of old.")
    cursor: str | None = Field(
        None,
        description="Resume from here; `Last-Event-ID` wins. With `offset`: the last "
        "`electric-cursor`.",
    )
    live: bool = Field(False, description="With `offset`: wait for news.")
    live_sse: bool = Field(False, description="With `live`: news as Server-Sent Events.")
    experimental_live_sse: bool = Field(False, description="The same, from clients of old.")
    expired_handle: str = Field(
        "", description="With `offset`: a handle that was refused and must not be given again."
    )


async def answer_shape(
    call: Call, selector: Selector, skip: frozenset[str], authorize: Callable[[], Awaitable[Any]]
) -> ASGIApp:
    """
    Answer one request of a client that speaks the Electric shape protocol.

    Args:
        call: Its query has an ``offset``.
        selector: What is asked for, the bound on creation times as for a new subscription.
        skip: Columns to leave out.
        authorize: Raises if the caller may not begin this subscription. Whoever goes on with one
            was asked before; each run is judged when it is sent.
    """
    request, services, query = call.request, call.services, call.query
    dialect = Dialect.of(
        versioned=call.api is not ApiVersion.UNVERSIONED,
        trigger_version=request.headers.get("trigger-version"),
    )
    handle, offset = query.handle or query.shape_id, query.offset
    shape = Shape(
        services.hub,
        call.grant,
        selector,
        dialect,
        skip,
        waits=query.live and offset != NOW_OFFSET,
        expired_handle=query.expired_handle,
        legacy="x-trigger-electric-version" not in request.headers,
        route=request.scope["endpoint"].path,
    )
    shape.hub.admit()
    if offset in (INITIAL_OFFSET, NOW_OFFSET):
        await authorize()
        beginning = shape.beginning()
        since = beginning.position if offset == NOW_OFFSET else None
        return PollAnswer(shape, beginning, handle, offset, since=since)
    echo = shape.echo(handle, offset, query.cursor or "")
    if echo is None:
        await authorize()
        shape.hub.counts.resets["unknown_handle"] += 1
        return shape.must_refetch()
    if handle == query.expired_handle:
        echo = replace(echo, letters=letters())
    # In the middle of a snapshot, what changed since its first page is found by polls alone.
    as_stream = query.live_sse or query.experimental_live_sse
    if shape.waits and as_stream and echo.paging is None:
        return _event_stream(services, shape, echo, handle, offset)
    if shape.waits and not as_stream and services.polls is not None:
        services.polls.remember(request.scope, shape, handle, offset, query.cursor or "")
    return PollAnswer(shape, echo, handle, offset, since=echo.position)


def _event_stream(
    services: Services, shape: Shape, echo: Echo, handle: str, offset: str
) -> ASGIApp:
    """The same messages without end, for clients that ask for ``live_sse``."""
    form = ShapeFormat(shape.dialect, shape.skip)

    def carry(connection: Connection, sse: Format) -> Subscriber:
        machine = Subscription(since=echo.position, limits=services.limits)
        key = shape.key(echo, sse)
        return Subscriber(connection, "", key, machine)

    response = EventStream(
        services.hub,
        carry,
        form=lambda chunked: ShapeSseFormat(form, chunked),
        grant=shape.grant,
        allow_handover=services.allow_handover,
    )
    response.headers.update(shape.headers(standing(echo, handle, offset)))
    return response
