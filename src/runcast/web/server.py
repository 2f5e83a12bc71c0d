"""
uvicorn, made fit for connections that stay open.

Adds what it leaves out: bounds on request heads in size and time, a way to drop a connection whose
reader has stalled, and a drain before the shutdown.
"""

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable
from itertools import chain
from types import FrameType
from typing import Any, cast

import uvicorn
import websockets.http11
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from runcast.auth.token import MAX_TOKEN_LENGTH
from runcast.core.limits import Limits
from runcast.web.direct_poll import DirectPoll
from runcast.web.direct_polls import DirectPolls
from runcast.web.handover import EXTENSION

_HEAR_LOOK_SECONDS = 0.01
_HEAR_LOOKS = 50
_LAST_REQUESTS_SECONDS = 5.0
_SHUTDOWN_SECONDS = 12  # after that, for the cleaning up
_TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\n"
    b"content-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
)
_TOO_LARGE_BODY = b'{"error":"The request head is too large.","code":"payload_too_large"}'


# A line of a handshake may hold the longest token; `HttpProtocol` has bounded the whole before.
websockets.http11.MAX_LINE_LENGTH = 2 * MAX_TOKEN_LENGTH

_failures = logging.getLogger(f"{__name__}.websocket")
_failures.setLevel(logging.WARNING)


class HttpProtocol(HttpToolsProtocol):
    """
    Shows itself to the application, and bounds the head of each request in size and time.

    Requests that ``polls`` takes never come to the application.
    """

    polls: DirectPolls | None = None

    max_head_bytes = Limits().max_header_bytes
    head_timeout_seconds = 15.0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.access_log = False  # whoever listens to uvicorn's logger: it would write tokens
        self._head_bytes = 0
        self._in_head = True
        self._head_timer: asyncio.TimerHandle | None = None
        self._poll: DirectPoll | None = None  # the last one that was taken

    @property
    def is_asking(self) -> bool:
        """Whether the head of a request is on its way, or has to be: nothing was asked yet."""
        return self._in_head

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._start_head_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_head_timer()
        super().connection_lost(exc)
        if self._poll is not None:
            self._poll.client_left()

    def data_received(self, data: bytes) -> None:
        if self._in_head:
            self._head_bytes += len(data)
            # What comes with the head in one read may be body already, so a read of the usual
            # size is allowed on top; the bound is for heads that never end.
            if self._head_bytes > self.max_head_bytes + 262144:
                self._refuse_head()
                return
        super().data_received(data)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = True
        self._head_bytes = 0
        cast("dict[str, Any]", self.scope)["extensions"] = {EXTENSION: self}

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._stop_head_timer()
        size = len(self.url) + sum(map(len, chain.from_iterable(self.headers)))
        if size > self.max_head_bytes:
            self._refuse_head()
        elif not self._is_taken():
            super().on_headers_complete()

    def _is_taken(self) -> bool:
        if self.polls is None or (poll := self.polls.take(self)) is None:
            return False
        self._poll = poll
        self.cycle = cast("RequestResponseCycle", poll)
        return True

    def on_response_complete(self) -> None:
        # Also for what may be left of the body that nobody read.
        if not self.pipeline and not self.transport.is_closing():
            self._start_head_timer()
        super().on_response_complete()

    def on_body(self, body: bytes) -> None:
        if self.cycle is not None:  # None after a refused head
            super().on_body(body)

    def on_message_complete(self) -> None:
        if self.cycle is not None:
            super().on_message_complete()

    def _refuse_head(self) -> None:
        if not getattr(self.cycle, "response_complete", True):
            self.transport.abort()  # in the middle of an answer there is no place for another
        elif not self.transport.is_closing():
            self.transport.write(_TOO_LARGE % (len(_TOO_LARGE_BODY), _TOO_LARGE_BODY))
            self.transport.close()

    def _start_head_timer(self) -> None:
        self._stop_head_timer()
        self._head_timer = self.loop.call_later(self.head_timeout_seconds, self.transport.abort)

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """Shows itself to the application, so that it can take the connection over."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # They would write addresses and headers to the log, and with them tokens.
        self.logger = self.conn.logger = _failures
        self.conn.debug = False

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.handshake_exc is not None and not self.handshake_initiated:
            # An answer is ready, but uvicorn sends none to what is no request.
            self.transport.write(b"".join(self.conn.data_to_send()))
            self.transport.close()

    def shutdown(self) -> None:
        """End it; again is nothing, though the client may not have taken all yet."""
        if not self.transport.is_closing():
            super().shutdown()

    async def run_asgi(self) -> None:
        cast("dict[str, Any]", self.scope["extensions"])[EXTENSION] = self
        await super().run_asgi()


class Server(uvicorn.Server):
    """
    Serves an application until a signal, then drains before it shuts down.

    Args:
        app: The ASGI application.
        polls: Takes requests before the application; None: there is nothing to be taken.
        drain: Ends all open connections in bounded time.
        cut_off: Called when requests that go on after that are given up: what they wait for, and
            would clean up, may hang.
        on_ready: Called once requests are answered.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        limits: Limits,
        polls: DirectPolls | None = None,
        drain: Callable[[], Awaitable[None]],
        cut_off: Callable[[], None],
        on_ready: Callable[[], Awaitable[None]] | None = None,
        forwarded_allow_ips: str | None = None,
    ) -> None:
        fixed = {"max_head_bytes": limits.max_header_bytes, "polls": polls}
        http_class = type("HttpProtocol", (HttpProtocol,), fixed)
        super().__init__(
            uvicorn.Config(
                app,
                http=http_class,
                ws=WebSocketProtocol,
                ws_max_size=limits.max_command_bytes,
                ws_per_message_deflate=False,
                ws_ping_interval=20.0,
                ws_ping_timeout=20.0,
                access_log=False,  # it would write tokens of plain EventSource clients
                log_config=None,
                lifespan="off",
                server_header=False,
                proxy_headers=forwarded_allow_ips is not None,
                forwarded_allow_ips=forwarded_allow_ips,
                timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
            )
        )
        self._drain = drain
        self._cut_off = cut_off
        self._on_ready = on_ready
        self._draining: asyncio.Task[None] | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal: drain first; a second one shuts down at once."""
        self._captured_signals.append(sig)
        if self._draining is not None or not self.started:
            self.should_exit = self.force_exit = True
            return
        self.stop()

    def stop(self) -> None:
        """Drain, then shut down."""
        if self._draining is None:
            self._draining = asyncio.get_running_loop().create_task(self._drain_and_exit())

    async def _drain_and_exit(self) -> None:
        try:
            await self._stop_listening()
            self._let_go_of_the_idle()
            await asyncio.gather(self._drain(), self._hear())
            await self._give_up_requests()
        finally:
            self.should_exit = True

    async def _stop_listening(self) -> None:
        """Let new connections go to another gateway while the old ones end."""
        loop = asyncio.get_running_loop()
        for _ in range(2):  # who waits to be accepted is, and not reset with the socket
            await asyncio.sleep(0)
        for server in self.servers:
            for each in server.sockets:
                loop.remove_reader(each.fileno())
        # asyncio gives up a connection whose server closes in the turn after it was accepted.
        await asyncio.sleep(0)
        for server in self.servers:
            server.close()

    async def _hear(self) -> None:
        """Let those who have just connected say what they want, else they would be cut off."""
        for _ in range(_HEAR_LOOKS):
            connections = list(self.server_state.connections)
            if not any(isinstance(each, HttpProtocol) and each.is_asking for each in connections):
                break
            await asyncio.sleep(_HEAR_LOOK_SECONDS)
        self._let_go_of_the_idle()

    def _let_go_of_the_idle(self) -> None:
        """Let no more requests come where one was answered: proxies keep such connections."""
        for connection in list(self.server_state.connections):
            if isinstance(connection, HttpProtocol) and not connection.is_asking:
                connection.shutdown()

    async def _give_up_requests(self) -> None:
        """Let no request wait for long for what may never come, such as a database that is away."""
        for connection in list(self.server_state.connections):
            if isinstance(connection, WebSocketProtocol):
                connection.shutdown()  # one without a token so far
        if tasks := self.server_state.tasks:
            _, late = await asyncio.wait(tasks, timeout=_LAST_REQUESTS_SECONDS)
            for task in late:
                task.cancel()  # `Envelope` answers it
            if late:
                self._cut_off()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start serving, then tell."""
        await super().startup(sockets)
        if self._on_ready is not None:
            await self._on_ready()
