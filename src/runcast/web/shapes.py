"""
Run feeds for official clients: one answer after the other, in the Electric shape protocol.

docs/protocol.md "Official clients: shapes". Nothing is remembered between two requests.
"""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from pydantic import BaseModel, Field
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from runcast.core.page import Paging
from runcast.core.position import Position
from runcast.core.selector import Selector
from runcast.core.shape import MUST_REFETCH, ShapeFormat, ShapeSseFormat, messages_body
from runcast.core.shape_echo import INITIAL_OFFSET, NOW_OFFSET, Echo, parse_echo, shape_name
from runcast.core.shape_row import Dialect, shape_schema
from runcast.core.status import ApiVersion
from runcast.core.subscription import Subscription
from runcast.core.view import View
from runcast.errors import BackendError, Draining
from runcast.hub.connection import Connection
from runcast.hub.form import AudienceKey, Format
from runcast.hub.hub import Hub
from runcast.hub.poll import Poll
from runcast.hub.subscriber import Subscriber
from runcast.web.event_stream import EventStream
from runcast.web.handover import EXTENSION
from runcast.web.operation import Call
from runcast.web.poll_outlet import PollOutlet

_SLICE_BYTES = 64 * 1024
_COMMON = {"cache-control": "no-store"}

# What clients before 3.3 look for, who do not send `x-trigger-electric-version`.
_LEGACY_NAMES = {
    "electric-handle": "electric-shape-id",
    "electric-offset": "electric-chunk-last-offset",
    "electric-cursor": "electric-next-cursor",
    "electric-up-to-date": "electric-chunk-up-to-date",
}


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


@dataclass(frozen=True, slots=True)
class Shape:
    """What is asked for by one request, and by whom."""

    call: Call
    selector: Selector
    dialect: Dialect
    skip: frozenset[str]

    @property
    def hub(self) -> Hub:
        return self.call.services.hub

    @property
    def query(self) -> ShapeQuery:
        query: ShapeQuery = self.call.query
        return query

    @property
    def waits(self) -> bool:
        """Whether an answer without news is held back."""
        return self.query.live and self.query.offset != NOW_OFFSET

    @property
    def handle(self) -> str:
        """As the client brought it back."""
        return self.query.handle or self.query.shape_id

    @property
    def name(self) -> str:
        return shape_name(self.selector, self.call.grant.scopes)

    def echo(self) -> Echo | None:
        """Where the client stands; None where it has to begin anew."""
        echo = parse_echo(self.handle, self.query.offset or "", self.query.cursor or "")
        if echo is None or echo.shape != self.name:
            return None
        return echo if echo.position.database == self.hub.position.database else None

    def beginning(self) -> Echo:
        """Where a new subscription stands."""
        return Echo(self.name, _letters(), self.selector.created_after, self.hub.position)

    def view(self, echo: Echo) -> View:
        """What is shown: the bound on creation times is the one that the client began with."""
        selector = replace(self.selector, created_after=echo.created_after)
        return View(selector, self.call.grant.permissions)

    def headers(self, found: dict[str, str]) -> dict[str, str]:
        """Headers of an answer, by the names that the client knows."""
        if "x-trigger-electric-version" in self.call.request.headers:
            return _COMMON | found
        old = {_LEGACY_NAMES[name]: value for name, value in found.items() if name in _LEGACY_NAMES}
        return _COMMON | found | old


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
    headers = call.request.headers
    dialect = Dialect.of(
        versioned=call.api is not ApiVersion.UNVERSIONED,
        trigger_version=headers.get("trigger-version"),
    )
    shape = Shape(call, selector, dialect, skip)
    shape.hub.admit()
    if shape.query.offset == INITIAL_OFFSET:
        await authorize()
        return PollAnswer(shape, shape.beginning(), since=None)
    if shape.query.offset == NOW_OFFSET:
        await authorize()
        beginning = shape.beginning()
        return PollAnswer(shape, beginning, since=beginning.position)
    echo = shape.echo()
    if echo is None:
        await authorize()
        shape.hub.counts.resets["unknown_handle"] += 1
        return _must_refetch(shape)
    if shape.handle == shape.query.expired_handle:
        echo = replace(echo, letters=_letters())
    # In the middle of a snapshot, what changed since its first page is found by polls alone.
    as_stream = shape.query.live_sse or shape.query.experimental_live_sse
    if shape.waits and as_stream and echo.paging is None:
        return _event_stream(shape, echo)
    return PollAnswer(shape, echo, since=echo.position)


class PollAnswer:
    """
    The answer to one poll: waits for what there is to tell, if it may, and tells it.

    A response that breaks off ends the subscription of an official client for good. So nothing is
    sent before all of it is there, and what is large is answered in parts, each of its own.
    """

    def __init__(self, shape: Shape, echo: Echo, *, since: Position | None) -> None:
        self._shape = shape
        self._echo = echo
        self._since = since

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        protocol: Any = scope.get("extensions", {}).get(EXTENSION)
        outlet = PollOutlet(None if protocol is None else protocol.transport)
        async with self._shape.hub.admission.entered(self._shape.call.environment_id):
            poll = self._ask(outlet)
        listening = asyncio.ensure_future(_disconnected(receive))
        listening.add_done_callback(lambda _: outlet.done.set())
        try:
            await outlet.done.wait()
            if not listening.done():
                outlet.answering = True
                await self._response(poll, outlet)(scope, receive, send)
        finally:
            listening.cancel()
            poll.connection.outlet_closed()

    def _ask(self, outlet: PollOutlet) -> Poll:
        """Let the hub look for an answer."""
        shape, hub, paging = self._shape, self._shape.hub, self._echo.paging
        form = ShapeFormat(shape.dialect, shape.skip, snapshot=self._since is None)
        connection = Connection(hub, outlet, kind="poll", form=form, grant=shape.call.grant)
        machine = Subscription(since=self._since, paging=paging, limits=hub.limits)
        waits = shape.waits and self._since is not None and paging is None
        if waits and self._since is not None and hub.is_exactly_at(self._since):
            # No need to ask the database: what the changefeed has yet to find ends the waiting.
            machine.receive_page((), self._since, None)
        key = AudienceKey(shape.view(self._echo), form, ends_with_run=False)
        poll = Poll(connection, key, machine, waits=waits)
        hub.connect(connection)
        connection.add(poll)
        return poll

    def _response(self, poll: Poll, outlet: PollOutlet) -> ASGIApp:
        hub = self._shape.hub
        # A poll may have found something, or waited for a slow client, before it was revoked.
        hub.revocations.check(self._shape.call.grant, hub.clock.now())
        if poll.lost is not None:
            return _must_refetch(self._shape)
        if outlet.aborted:
            raise BackendError("The runs could not be read; try again.")
        if poll.position is not None:
            return self._told(poll, poll.position)
        if poll.messages and poll.paging is not None:
            return self._told_a_part(poll, poll.paging)
        if self._shape.waits and self._since is not None and self._echo.paging is None:
            return self._nothing(self._echo.position)
        if self._shape.hub.draining:
            raise Draining("This gateway is going away; ask again to reach another one.")
        raise BackendError("The runs could not be read in time; try again.")

    def _told(self, poll: Poll, position: Position) -> ASGIApp:
        """All there is up to a position."""
        if not poll.messages and self._since is not None and self._echo.paging is None:
            return self._nothing(position)
        echo = replace(self._echo, position=position, paging=None)
        return self._answer(echo, echo.handle, echo.offset, poll.messages)

    def _told_a_part(self, poll: Poll, paging: Paging) -> ASGIApp:
        """As much as fits into one answer; without ``up-to-date`` the client asks on at once."""
        echo = replace(self._echo, position=paging.first, paging=paging)
        return self._answer(echo, echo.handle, echo.offset, poll.messages, up_to_date=False)

    def _nothing(self, position: Position) -> ASGIApp:
        """Nothing new up to a position: the client stands where it stood, but for the cursor."""
        echo, shape = replace(self._echo, position=position), self._shape
        begins = shape.query.offset == NOW_OFFSET
        if begins or position.incarnation != self._echo.position.incarnation:
            return self._answer(echo, echo.handle, echo.offset, [])
        handle = echo.handle if shape.handle == shape.query.expired_handle else shape.handle
        return self._answer(echo, handle, shape.query.offset or "", [])

    def _answer(
        self,
        echo: Echo,
        handle: str,
        offset: str,
        messages: list[bytes],
        *,
        up_to_date: bool = True,
    ) -> ASGIApp:
        found = _standing(echo, handle, offset)
        shape = self._shape
        if not shape.waits:
            found["electric-schema"] = shape_schema(shape.dialect, shape.skip).decode()
        if up_to_date:
            found["electric-up-to-date"] = "true"
        headers = shape.headers(found)
        if shape.hub.draining:
            headers["connection"] = "close"  # the next request goes to another gateway
        return _Sliced(messages_body(messages, up_to_date=up_to_date), headers)


class _Sliced:
    """A JSON response in slices, so that a reader who takes nothing can be told from a slow one."""

    def __init__(self, pieces: list[bytes], headers: dict[str, str]) -> None:
        self._pieces = pieces
        self._headers = headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        size = sum(map(len, self._pieces))
        head = Response(headers=self._headers, media_type="application/json")
        head.headers["content-length"] = str(size)
        await send({"type": "http.response.start", "status": 200, "headers": head.raw_headers})
        for data in self._slices():
            await send({"type": "http.response.body", "body": data, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    def _slices(self) -> Iterator[bytes]:
        waiting = bytearray()
        for piece in self._pieces:
            waiting += piece
            if len(waiting) >= _SLICE_BYTES:
                yield bytes(waiting)
                waiting.clear()
        if waiting:
            yield bytes(waiting)


def _must_refetch(shape: Shape) -> Response:
    """Let the client forget what it has and begin anew; its parser wants a list."""
    headers = shape.headers({"electric-handle": shape.beginning().handle})
    return Response(b"[" + MUST_REFETCH + b"]", 409, headers, media_type="application/json")


def _event_stream(shape: Shape, echo: Echo) -> ASGIApp:
    """The same messages without end, for clients that ask for ``live_sse``."""
    services = shape.call.services
    form = ShapeFormat(shape.dialect, shape.skip)

    def carry(connection: Connection, sse: Format) -> Subscriber:
        machine = Subscription(since=echo.position, limits=services.limits)
        key = AudienceKey(shape.view(echo), sse, ends_with_run=False)
        return Subscriber(connection, "", key, machine)

    response = EventStream(
        services.hub,
        carry,
        form=lambda chunked: ShapeSseFormat(form, chunked),
        grant=shape.call.grant,
        allow_handover=services.allow_handover,
    )
    found = _standing(echo, shape.handle, shape.query.offset or "")
    response.headers.update(shape.headers(found))
    return response


def _standing(echo: Echo, handle: str, offset: str) -> dict[str, str]:
    return {
        "electric-handle": handle,
        "electric-offset": offset,
        "electric-cursor": f"{echo.cursor}.{_letters()}",
    }


def _letters() -> str:
    return secrets.token_hex(4)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
