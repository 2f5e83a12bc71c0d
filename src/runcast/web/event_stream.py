"""Run feeds and streams as a Server-Sent Events response."""

from collections.abc import Callable, Iterator, Mapping
from typing import Generic, TypeVar

from sse_starlette import EventSourceResponse
from starlette.types import Message, Receive, Scope, Send

from runcast.auth.grant import Grant
from runcast.hub.connection import Connection
from runcast.hub.form import Format
from runcast.hub.hub import Hub
from runcast.hub.seams import Carried
from runcast.web.asgi_outlet import AsgiOutlet
from runcast.web.handover import EXTENSION, HandoverOutlet

Form = TypeVar("Form", bound=Format)

# How long an EventSource waits before it reconnects by itself.
_RETRY = b"retry: 1000\n\n"


class EventStream(EventSourceResponse, Generic[Form]):
    """
    sse-starlette's response with another motor: the hub writes, no task and no queue per client.

    Under uvicorn the connection is handed over after the head (`handover`), with any other server,
    over TLS in this process, or where ``allow_handover`` is false, the hub drives ``send``.

    Args:
        carry: Makes what the connection carries, once there is one, in its form.
        form: Of the connection's own messages, with or without chunk framing.
        grant: What the client may do, and until when.
        renewable: Begin with the id by which the token can be renewed.
        only_parts: Leave out what is neither data nor a comment: see `StreamSseFormat`.
    """

    def __init__(
        self,
        hub: Hub,
        carry: Callable[[Connection, Form], Carried],
        *,
        form: Callable[[bool], Form],
        grant: Grant,
        allow_handover: bool,
        renewable: bool = False,
        only_parts: bool = False,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(_nothing(), ping=0, sep="\n", headers=headers)
        self._hub = hub
        self._carry = carry
        self._form = form
        self._grant = grant
        self._allow_handover = allow_handover
        self._renewable = renewable
        self._only_parts = only_parts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._hub.admission.entered(self._grant.environment_id):
            portable = await self._begin(scope, send)
        if portable is not None:
            await portable.serve(_disconnected(receive))

    async def _begin(self, scope: Scope, send: Send) -> AsgiOutlet | None:
        """Send the head, and let the hub have the connection; gives what is to be served then."""
        protocol = scope.get("extensions", {}).get(EXTENSION)
        takes_over = self._allow_handover and HandoverOutlet.can_take(protocol, scope)
        if takes_over and not self._only_parts:
            # Nobody will read another request from it: clients must not send one. Where a clean end
            # means complete this cannot be said: Node.js takes every end for clean then.
            self.headers["connection"] = "close"
        await send(
            {
                "type": "http.response.start",
                "status": self.status_code,
                "headers": self.raw_headers,
            }
        )
        first = b": hello\n\n" if self._only_parts else _RETRY
        await send({"type": "http.response.body", "body": first, "more_body": True})
        if self._allow_handover and HandoverOutlet.can_take(protocol, scope):
            outlet = HandoverOutlet(protocol, self._hub.limits.write_buffer_bytes)
            self._subscribe(outlet, chunked=True)
            return None
        portable = AsgiOutlet(
            send,
            messages=_body,
            closing=_last_body,
            transport=None if protocol is None else protocol.transport,
        )
        self._subscribe(portable, chunked=False)
        return portable

    def _subscribe(self, outlet: HandoverOutlet | AsgiOutlet, *, chunked: bool) -> None:
        form = self._form(chunked)
        connection = Connection(
            self._hub,
            outlet,
            kind="sse",
            form=form,
            grant=self._grant,
            only_parts=self._only_parts,
        )
        outlet.connection = connection
        self._hub.connect(connection)
        if self._renewable:
            connection.introduce()
        connection.add(self._carry(connection, form))


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _body(data: bytes) -> tuple[Message]:
    return ({"type": "http.response.body", "body": data, "more_body": True},)


def _last_body(code: int, reason: str) -> Message:
    return {"type": "http.response.body", "body": b"", "more_body": False}


def _nothing() -> Iterator[bytes]:
    return iter(())
