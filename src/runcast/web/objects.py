"""Objects behind presigned addresses: storing and sending them."""

import asyncio
from collections.abc import AsyncIterator

from pydantic import BaseModel, Field
from starlette.responses import Response, StreamingResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from runcast.auth.presigned import check_address
from runcast.core.object_name import check_object_name
from runcast.core.packet import packet_type
from runcast.errors import NotFound, PayloadTooLarge, RequestTimeout
from runcast.web.operation import Access, Answer, Call, Operation
from runcast.web.presigning import OBJECTS_PATH

_DEFAULT_TYPE = "application/octet-stream"

# Whatever it is that somebody stored, no browser may take it for a page of this gateway.
_AS_DATA = {
    "content-disposition": "attachment",
    "content-security-policy": "default-src 'none'; sandbox",
    "x-content-type-options": "nosniff",
    "cache-control": "private, no-store",
}


class Signed(BaseModel):
    """What makes the address good."""

    expires: str = Field("", description="Unix time in seconds.", max_length=20)
    signature: str = Field("", max_length=128)


async def put_object(call: Call) -> Response:
    """Store the body."""
    environment_id, name = await _checked(call, "PUT")
    kind = packet_type("content-type", call.request.headers.get("content-type", _DEFAULT_TYPE))
    await call.services.objects.write(environment_id, name, kind, _body(call))
    return Response()


async def get_object(call: Call) -> ASGIApp:
    """Send an object."""
    environment_id, name = await _checked(call, "GET")

    async def send_object(scope: Scope, receive: Receive, send: Send) -> None:
        async with call.services.objects.open(environment_id, name) as found:
            if found is None:
                raise NotFound("Nothing was stored under this name.")
            headers = _AS_DATA | {
                "content-type": found.content_type,
                "content-length": str(found.size),
            }
            head_only = scope["method"] == "HEAD"
            response = (
                Response(headers=headers)
                if head_only
                else StreamingResponse(found.pieces, headers=headers)
            )
            await response(scope, receive, send)

    return send_object


async def _checked(call: Call, method: str) -> tuple[str, str]:
    environment_id, name = call.path["environment"], call.path["name"]
    ring = await call.services.keys.key_ring(environment_id)
    check_address(
        ring,
        method,
        call.request.scope["path"],
        expires=call.query.expires,
        signature=call.query.signature,
        now=call.now,
    )
    return environment_id, check_object_name(name)


async def _body(call: Call) -> AsyncIterator[bytes]:
    """The body as it arrives, bounded in size, and in the time that each piece may take."""
    limits = call.services.limits
    size = 0
    pieces = call.request.stream()
    while True:
        try:
            async with asyncio.timeout(limits.request_timeout_seconds):
                piece = await anext(pieces, None)
        except TimeoutError:
            raise RequestTimeout("The object did not arrive in time; send it again.") from None
        if piece is None:
            return
        size += len(piece)
        if size > limits.max_object_bytes:
            raise PayloadTooLarge(f"An object has at most {limits.max_object_bytes} bytes.")
        yield piece


_PARAMETERS = {
    "environment": "Id of the environment.",
    "name": "The name of the object, percent-encoded.",
}

OPERATIONS = (
    Operation(
        method="PUT",
        path=OBJECTS_PATH + "/{environment}/{name}",
        name="putObject",
        summary="Store an object",
        description="At an address that was given for it; the body is the object.",
        handler=put_object,
        access=Access.OPEN,
        tag="Packets",
        path_parameters=_PARAMETERS,
        query=Signed,
        headers={"content-type": "The type of the object, which is given back with it."},
        answers={200: Answer("It is stored.")},
        errors=(401, 404, 408, 413),
    ),
    Operation(
        method="GET",
        path=OBJECTS_PATH + "/{environment}/{name}",
        name="getObject",
        summary="Get an object",
        description="At an address that was given for it.",
        handler=get_object,
        access=Access.OPEN,
        tag="Packets",
        path_parameters=_PARAMETERS,
        query=Signed,
        answers={200: Answer("The object.", media_type=_DEFAULT_TYPE)},
        errors=(401, 404),
    ),
)
