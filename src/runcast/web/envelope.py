"""
What every HTTP answer has in common: CORS, a request id, the server's name, and errors as JSON.

A plain ASGI wrapper: it starts no task, and it only looks at the message that opens a response.
"""

import asyncio
import logging
import re
import secrets
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from runcast.hub.log_context import request_id
from runcast.web.raw_path import with_raw_path
from runcast.web.request_counts import RequestCounts
from runcast.web.responses import error_response

logger = logging.getLogger(__name__)

REQUEST_ID = "x-request-id"
_REQUEST_ID = REQUEST_ID.encode()
_LATER_HEADERS = "runcast.later_headers"

_SANE_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_SANE_HEADER_LIST = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~, -]{1,4096}")
_METHODS = "GET,HEAD,PUT,PATCH,POST,DELETE"
_KNOWN_METHODS = frozenset({*_METHODS.split(","), "OPTIONS"})

# What the official clients and our own send; used when a preflight does not say what it wants.
_REQUEST_HEADERS = (
    "authorization, content-type, if-none-match, last-event-id, trigger-version, "
    "x-trigger-api-version, x-trigger-source, x-trigger-client, x-trigger-branch, "
    "x-trigger-electric-version, x-trigger-realtime-streams-version, "
    "x-trigger-request-idempotency-key, timeout-seconds, x-trigger-stream-start, x-part-id, "
    "x-request-id, traceparent, tracestate, batch-processing-strategy"
)

# Both the star and the names: the star is not understood by every client.
_EXPOSED_HEADERS = (
    "*, etag, retry-after, x-request-id, x-trigger-jwt, x-trigger-jwt-claims, x-ratelimit-limit, "
    "x-ratelimit-remaining, x-ratelimit-reset, x-should-retry, electric-handle, electric-offset, "
    "electric-schema, electric-cursor, electric-up-to-date, x-stream-version"
)

_COMMON_HEADERS = (
    (b"access-control-allow-origin", b"*"),
    (b"access-control-expose-headers", _EXPOSED_HEADERS.encode()),
    (b"server", b"runcast"),
)
_COMMON_LINES = b"".join(b"%b: %b\r\n" % each for each in _COMMON_HEADERS)


class Envelope:
    """
    Wraps the routes; the outermost part of the application.

    Args:
        sent_elsewhere: Makes an error of it that a request is given up: see `Hub`.
    """

    def __init__(
        self,
        app: ASGIApp,
        counts: RequestCounts,
        sent_elsewhere: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self._app = app
        self._counts = counts
        self._sent_elsewhere = sent_elsewhere

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        before = request_id.set(request_id_of(scope["headers"]))
        try:
            if scope["type"] == "http":
                await self._answer(with_raw_path(scope), receive, send)
            else:
                await self._app(with_raw_path(scope), receive, send)
        finally:
            request_id.reset(before)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        common = (*_COMMON_HEADERS, (_REQUEST_ID, (request_id.get() or "").encode()))
        later: dict[str, str] = {}
        scope = {**scope, _LATER_HEADERS: later}
        loop = asyncio.get_running_loop()
        began = loop.time()
        started = is_feed = False

        async def send_with_headers(message: Message) -> None:
            nonlocal started, is_feed
            if message["type"] == "http.response.start":
                started = True
                told = [(name.encode(), value.encode()) for name, value in later.items()]
                message = {**message, "headers": [*message.get("headers", ()), *common, *told]}
                is_feed = _is_event_stream(message["headers"])
                self._count(scope, message["status"], loop.time() - began)
            elif not is_feed:
                self._counts.bytes_written += len(message.get("body", b""))
            await send(message)

        if scope["method"] == "OPTIONS" and _is_preflight(scope):
            await preflight(scope)(scope, receive, send_with_headers)
            return
        try:
            with self._sent_elsewhere():
                await self._app(scope, receive, send_with_headers)
        except ClientDisconnect:
            return
        except Exception as error:
            if started:
                # Too late for an answer: the server cuts the connection, so that nobody takes
                # what was sent for the whole.
                raise
            await error_response(error)(scope, receive, send_with_headers)

    def _count(self, scope: Scope, status: int, seconds: float) -> None:
        """Note how a request is answered; its address is not told, but which route it matched."""
        endpoint = scope.get("endpoint")
        route = getattr(endpoint, "path", "other")
        method = scope["method"] if scope["method"] in _KNOWN_METHODS else "other"
        note_answer(self._counts, method, route, status, seconds)
        if not getattr(endpoint, "is_stream", False):
            self._counts.seconds[method, route].observe(seconds)


def common_header_lines(request: str | None) -> bytes:
    """
    Give the headers that every answer to the request of this id carries.

    For those who write to the connection themselves; all others get them from `Envelope`.
    """
    return b"%b%b: %b\r\n" % (_COMMON_LINES, _REQUEST_ID, (request or "").encode())


def note_answer(
    counts: RequestCounts, method: str, route: str, status: int, seconds: float
) -> None:
    """Count and log an answer, by the template of its address."""
    counts.answered[method, route, f"{status // 100}xx"] += 1
    level = logging.WARNING if status >= 500 else logging.DEBUG
    if logger.isEnabledFor(level):
        logger.log(
            level,
            "%s %s was answered with %d",
            *(method, route, status),
            extra={"seconds": round(seconds, 4)},
        )


def answer_with(scope: Scope, headers: Mapping[str, str]) -> None:
    """Have the answer to this request carry headers, whatever it will be."""
    scope[_LATER_HEADERS].update(headers)


def request_id_of(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """Give the id of a request: its own, if it is fit for logs."""
    for name, value in headers:
        if name == _REQUEST_ID and _SANE_REQUEST_ID.fullmatch(sent := value.decode("latin-1")):
            return sent
    return secrets.token_hex(16)


def preflight(scope: Scope) -> Response:
    """Answer an OPTIONS request: whoever has a token may send anything from anywhere."""
    asked = Headers(scope=scope).get("access-control-request-headers", "")
    return Response(
        status_code=204,
        headers={
            "access-control-allow-methods": _METHODS,
            "access-control-allow-headers": (
                asked if _SANE_HEADER_LIST.fullmatch(asked) else _REQUEST_HEADERS
            ),
            "access-control-max-age": "300",
            "vary": "access-control-request-headers",
        },
    )


def _is_event_stream(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    return any(
        name == b"content-type" and value.startswith(b"text/event-stream")
        for name, value in headers
    )


def _is_preflight(scope: Scope) -> bool:
    return any(name == b"access-control-request-method" for name, _ in scope["headers"])
