"""One poll of an official client: how the hub is asked, and what is told."""

import asyncio
from typing import Any

from starlette.types import Receive, Scope, Send

from runcast.core.page import Paging
from runcast.core.position import Position
from runcast.core.shape import ShapeFormat, messages_body
from runcast.core.shape_echo import NOW_OFFSET, Echo
from runcast.core.shape_row import shape_schema
from runcast.core.subscription import Subscription
from runcast.errors import BackendError, Draining
from runcast.hub.connection import Connection
from runcast.hub.outlet import Outlet
from runcast.hub.poll import Poll
from runcast.web.handover import EXTENSION
from runcast.web.poll_outlet import PollOutlet
from runcast.web.poll_response import PollResponse
from runcast.web.shape import Shape, standing


class PollAnswer:
    """
    The answer to one poll: what there is to tell, once there is something or time is up.

    A response that breaks off ends the subscription of an official client for good. So nothing is
    sent before all of it is there, and what is large is answered in parts, each of its own.

    Args:
        handle: As the client brought it back.
        offset: The same.
        since: What the client has; None: nothing.
    """

    __slots__ = ("_echo", "_handle", "_offset", "_shape", "_since", "poll")

    def __init__(
        self, shape: Shape, echo: Echo, handle: str, offset: str, *, since: Position | None
    ) -> None:
        self._shape = shape
        self._echo = echo
        self._handle = handle
        self._offset = offset
        self._since = since
        self.poll: Poll | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        protocol: Any = scope.get("extensions", {}).get(EXTENSION)
        outlet = PollOutlet(None if protocol is None else protocol.transport)
        async with self._shape.hub.admission.entered(self._shape.grant.environment_id):
            self.ask(outlet)
        listening = asyncio.ensure_future(_disconnected(receive))
        listening.add_done_callback(lambda _: outlet.done.set())
        try:
            await outlet.done.wait()
            if not listening.done():
                outlet.answering = True
                await self.response(aborted=outlet.aborted)(scope, receive, send)
        finally:
            listening.cancel()
            self.over()

    def ask(self, outlet: Outlet) -> None:
        """Let the hub look for an answer, which finishes the outlet."""
        shape, hub, echo = self._shape, self._shape.hub, self._echo
        since, paging = self._since, echo.paging
        if since is None:
            key = shape.key(echo, ShapeFormat(shape.dialect, shape.skip, snapshot=True))
        else:
            key = shape.key_of_news(echo)
        connection = Connection(hub, outlet, kind="poll", form=key.form, grant=shape.grant)
        machine = Subscription(since=since, paging=paging, limits=hub.limits)
        waits = shape.waits and since is not None and paging is None
        if waits and since is not None and hub.is_exactly_at(since):
            # No need to ask the database: what the changefeed has yet to find ends the waiting.
            machine.receive_page((), since, None)
        poll = Poll(connection, key, machine, waits=waits)
        hub.connect(connection)
        connection.add(poll)
        self.poll = poll

    @property
    def request_id(self) -> str | None:
        """Of the request that it was asked with."""
        return None if self.poll is None else self.poll.connection.request_id

    def over(self) -> None:
        """All is sent, or the client is gone."""
        if self.poll is not None:
            self.poll.connection.outlet_closed()

    def response(self, *, aborted: bool) -> PollResponse:
        """
        Say what was found.

        Raises:
            TokenRevoked: The grant was taken back meanwhile.
            BackendError: Nothing can be said.
            Draining: The same, for this gateway goes away.
        """
        hub, poll = self._shape.hub, self.poll
        assert poll is not None
        # A poll may have found something, or waited for a slow client, before it was revoked.
        hub.revocations.check(self._shape.grant, hub.clock.now())
        if poll.lost is not None:
            return self._shape.must_refetch()
        if aborted:
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

    def _told(self, poll: Poll, position: Position) -> PollResponse:
        """All there is up to a position."""
        if not poll.messages and self._since is not None and self._echo.paging is None:
            return self._nothing(position)
        echo = self._echo.at(position)
        return self._answer(echo, echo.handle, echo.offset, poll.messages)

    def _told_a_part(self, poll: Poll, paging: Paging) -> PollResponse:
        """As much as fits into one answer; without ``up-to-date`` the client asks on at once."""
        echo = self._echo.at(paging.first, paging)
        return self._answer(echo, echo.handle, echo.offset, poll.messages, up_to_date=False)

    def _nothing(self, position: Position) -> PollResponse:
        """Nothing new up to a position: the client stands where it stood, but for the cursor."""
        echo, shape = self._echo.at(position), self._shape
        begins = self._offset == NOW_OFFSET
        if begins or position.incarnation != self._echo.position.incarnation:
            return self._answer(echo, echo.handle, echo.offset, [])
        handle = echo.handle if self._handle == shape.expired_handle else self._handle
        return self._answer(echo, handle, self._offset, [])

    def _answer(
        self,
        echo: Echo,
        handle: str,
        offset: str,
        messages: list[bytes],
        *,
        up_to_date: bool = True,
    ) -> PollResponse:
        found = standing(echo, handle, offset)
        shape = self._shape
        if not shape.waits:
            found["electric-schema"] = shape_schema(shape.dialect, shape.skip).decode()
        if up_to_date:
            found["electric-up-to-date"] = "true"
        headers = shape.headers(found)
        if shape.hub.draining:
            headers["connection"] = "close"  # the next request goes to another gateway
        return PollResponse(messages_body(messages, up_to_date=up_to_date), headers)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
