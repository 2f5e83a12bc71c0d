"""
The WebSocket's beginning: its handshake, its token, and who writes to it from then on.

docs/protocol.md "WebSocket"; `socket_commands` carries out what is asked for later.
"""

import asyncio
from collections.abc import Iterable
from typing import Any

from starlette.routing import WebSocketRoute
from starlette.types import Message
from starlette.websockets import WebSocket, WebSocketDisconnect

from runcast.auth.grant import Grant
from runcast.core.command import Authenticate, Ping, parse_command
from runcast.core.frame import Problem
from runcast.errors import GatewayError, MissingToken
from runcast.hub.log_context import request_id
from runcast.web.asgi_outlet import AsgiOutlet
from runcast.web.envelope import REQUEST_ID
from runcast.web.handover import EXTENSION
from runcast.web.services import Services
from runcast.web.socket_commands import CONNECTION_FORMAT, SocketCommands
from runcast.web.socket_handover import SocketHandover

PROTOCOL = "runcast.v1"
TOKEN_PROTOCOL = "runcast.token."


def websocket_route(services: Services) -> WebSocketRoute:
    """The route of the WebSocket."""

    async def endpoint(websocket: WebSocket) -> None:
        await _serve(websocket, services)

    return WebSocketRoute("/realtime/v1/ws", endpoint)


async def _serve(websocket: WebSocket, services: Services) -> None:
    """Accept, authenticate, and hand over; or follow commands until the connection ends."""
    offered = websocket.scope["subprotocols"]
    await websocket.accept(
        subprotocol=PROTOCOL if PROTOCOL in offered else None,
        headers=[(REQUEST_ID.encode(), (request_id.get() or "").encode())],
    )
    protocol = websocket.scope.get("extensions", {}).get(EXTENSION)
    portable = AsgiOutlet(
        websocket.send,
        messages=_texts,
        closing=_closing,
        transport=None if protocol is None else protocol.transport,
    )
    hub = services.hub
    try:
        hub.admit()
        with hub.sent_elsewhere():
            grant = await _authenticate(websocket, services)
            async with hub.admission.entered(grant.environment_id):
                hub.admit()  # others came meanwhile, or a drain began
                commands = _begin(services, grant, protocol, portable)
    except GatewayError as error:
        portable.write(CONNECTION_FORMAT.encode(Problem(error.code, error.message), None))
        portable.finish(error.close_code, error.code)
        return
    except WebSocketDisconnect:
        return
    if commands is not None:
        await portable.serve(_follow(websocket, commands, portable))


def _begin(
    services: Services, grant: Grant, protocol: Any, portable: AsgiOutlet
) -> SocketCommands | None:
    """Let the hub have the connection; gives who is to be served then, if it is not handed over."""
    outlet: SocketHandover | AsgiOutlet = portable
    if services.allow_handover and SocketHandover.can_take(protocol):
        outlet = SocketHandover(protocol, services.limits.write_buffer_bytes)
    commands = SocketCommands(services, grant, outlet)
    outlet.connection = commands.connection
    commands.begin()
    if isinstance(outlet, AsgiOutlet):
        return commands
    outlet.listen(commands.handle)
    return None


async def _follow(websocket: WebSocket, commands: SocketCommands, outlet: AsgiOutlet) -> None:
    try:
        while not outlet.gone.is_set():
            await commands.handle(await _receive(websocket))
    except WebSocketDisconnect:
        pass


async def _authenticate(websocket: WebSocket, services: Services) -> Grant:
    bearer = services.bearer
    for offered in websocket.scope["subprotocols"]:
        if offered.startswith(TOKEN_PROTOCOL):
            return await bearer.grant_for(offered.removeprefix(TOKEN_PROTOCOL))
    if "authorization" in websocket.headers:
        return await bearer.authenticate(websocket)
    try:
        async with asyncio.timeout(services.limits.authenticate_timeout_seconds):
            command = parse_command(await _receive(websocket))
    except TimeoutError:
        command = Ping()
    if not isinstance(command, Authenticate):
        raise MissingToken(
            'Send {"type": "authenticate", "token": …} first, or the token as a subprotocol.'
        )
    return await bearer.grant_for(command.token)


async def _receive(websocket: WebSocket) -> str | bytes:
    message = await websocket.receive()
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message.get("code", 1006))
    text: str | bytes | None = message.get("text")
    return text if text is not None else message["bytes"]


def _texts(data: bytes) -> Iterable[Message]:
    return [{"type": "websocket.send", "text": line.decode()} for line in data.split(b"\n") if line]


def _closing(code: int, reason: str) -> Message:
    return {"type": "websocket.close", "code": code, "reason": reason}
