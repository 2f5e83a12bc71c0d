"""The whole HTTP and WebSocket face as one ASGI application."""

from collections.abc import Iterable, Sequence

from starlette.routing import BaseRoute, Route, Router, compile_path
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocketClose

from runcast.errors import NotFound
from runcast.web.endpoint import Endpoint
from runcast.web.envelope import Envelope
from runcast.web.operation import Operation
from runcast.web.routes import OPERATIONS, openapi_json
from runcast.web.services import Services


def create_asgi(services: Services, extra_routes: Sequence[BaseRoute] = ()) -> ASGIApp:
    """
    Join the table of operations with routes that are none, such as WebSockets and pages.

    Paths arrive here as they were sent; `decode_part` reads a parameter of an extra route.
    """
    openapi_json()  # made now, not while the first request for it waits
    routes = [*_routes(services, OPERATIONS), *extra_routes]
    router = Router(routes, redirect_slashes=False, default=_nothing_here)
    return Envelope(router, services.requests, services.hub.sent_elsewhere)


def _routes(services: Services, operations: Iterable[Operation]) -> list[Route]:
    by_path: dict[str, list[Operation]] = {}
    for operation in operations:
        by_path.setdefault(operation.path, []).append(operation)
    return [_route(services, path, found) for path, found in by_path.items()]


def _route(services: Services, path: str, operations: Sequence[Operation]) -> Route:
    route = Route(path, Endpoint(services, operations))
    if any(operation.takes_rest for operation in operations):
        route.path_regex, route.path_format, route.param_convertors = compile_path(
            f"{path.removesuffix('}')}:path}}"
        )
    return route


async def _nothing_here(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        return await WebSocketClose()(scope, receive, send)
    raise NotFound("There is nothing at this address; /openapi.json lists what there is.")
