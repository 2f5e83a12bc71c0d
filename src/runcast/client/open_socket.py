"""
One WebSocket that is open, and the feeds on it.

The thin shell around `shared_socket.py`: the connection, its tasks and time.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import suppress
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import (
    ConnectionClosed,
    InvalidHandshake,
    InvalidMessage,
    InvalidProxy,
    InvalidStatus,
    WebSocketException,
)
from websockets.typing import Subprotocol

from runcast.client.attempts import Attempts
from runcast.client.clock import now
from runcast.client.errors import ConnectionLost, UnexpectedAnswer
from runcast.client.feed_message import PART, FeedMessage
from runcast.client.gateway_http import GatewayHttp
from runcast.client.lane import Lane
from runcast.client.retriable import NoWebSocket, Retriable
from runcast.client.shared_socket import SharedSocket, SocketState

logger = logging.getLogger("runcast.client")
# At DEBUG they would write headers, and with them the token.
_quiet = logging.getLogger("runcast.client.websocket")
_quiet.setLevel(logging.WARNING)

_OPEN_SECONDS = 10.0
_LINGER_SECONDS = 5.0
_PING_SECONDS = 20.0
_CLOSE_SECONDS = 1.0
_RENEW_SECONDS = 30.0  # before a token's time is over, if it has as long as that
_MAX_MESSAGE_BYTES = 64 * 1024 * 1024
_MAX_WAITING_BYTES = 2 * 1024 * 1024  # for each feed, until its reader takes it
_TOO_BIG = 1009
_AWAY = frozenset({502, 503, 504})
_RESETS = 2


class Subscribed:
    """One feed on a socket."""

    def __init__(
        self, socket: "OpenSocket", fields: Mapping[str, Any], *, of_runs: bool, alone: bool
    ) -> None:
        self.socket = socket
        self._lane = Lane(of_runs=of_runs, alone=alone, max_bytes=_MAX_WAITING_BYTES)
        self._news = asyncio.Event()
        self._lane.on_news = self._news.set
        self._name = socket.subscribe(fields, self._lane)

    async def begin(self) -> None:
        """
        Wait for the first message.

        Raises:
            Exception: The subscription is over without one; as in `Sockets.subscribe`.
        """
        while not self._lane.heard:
            if self._lane.ended:
                self._lane.take()  # raises what it ended with
                return
            await self._more()

    async def messages(self) -> AsyncGenerator[FeedMessage, None]:
        """
        Give what is told, as fast as it is taken.

        Raises:
            Exception: The subscription is over before its feed.
        """
        while True:
            message = self._lane.take()
            if message is None:
                if self._lane.ended:
                    return
                await self._more()
            elif message.name == "parts":
                parts, offset = message.data
                for index, (value, time) in enumerate(parts, offset):
                    yield FeedMessage(PART, value, f"{time}-{index}")
            else:
                yield message
            if self._lane.alone:
                self.socket.taken.set()

    def leave(self) -> None:
        """Nobody reads on."""
        self.socket.leave(self._name)

    async def _more(self) -> None:
        await self._news.wait()
        self._news.clear()


class OpenSocket:
    """One connection: opened at once, read by a task of its own, closed when nobody needs it."""

    def __init__(
        self,
        http: GatewayHttp,
        attempts: Attempts,
        on_over: "Callable[[OpenSocket], None]",
        *,
        alone: bool,
    ) -> None:
        self.machine = SharedSocket()
        self.taken = asyncio.Event()  # a feed that is alone took something
        self._http = http
        self._url = "ws" + http.base_url.removeprefix("http") + "/realtime/v1/ws"
        self._attempts = attempts
        self._on_over = on_over
        self._alone = alone
        self._lane: Lane | None = None
        self._to_send = asyncio.Event()
        self._authenticated = asyncio.Event()
        self._lingering: asyncio.TimerHandle | None = None
        self._token = ""
        self._task = asyncio.create_task(self._run())

    def takes_more(self, max_subscriptions: int) -> bool:
        """Whether another feed may come."""
        if self._alone or self.machine.state is SocketState.CLOSED:
            return False
        limit = min(max_subscriptions, self.machine.max_subscriptions)
        return self.machine.carried < limit

    def subscribe(self, fields: Mapping[str, Any], lane: Lane) -> str:
        """
        Carry a feed; gives its name here.

        Raises:
            InvalidArgument: What is asked for is too long to be said.
        """
        if self._lingering is not None:
            self._lingering.cancel()
            self._lingering = None
        self._lane = lane
        try:
            name = self.machine.subscribe(fields, lane)
        except BaseException:
            self._linger()
            raise
        self._to_send.set()
        return name

    def leave(self, name: str) -> None:
        """A feed left; after the last one the socket lingers, since another may come soon."""
        self.machine.unsubscribe(name)
        self._to_send.set()
        self._linger()

    async def stop(self) -> None:
        """Close now."""
        self.machine.close()
        self._close_unused()
        await asyncio.wait({self._task})

    def _linger(self) -> None:
        over = self.machine.state is SocketState.CLOSED
        if not over and self.machine.carried == 0 and self._lingering is None:
            wait = 0.0 if self._alone else _LINGER_SECONDS
            self._lingering = asyncio.get_running_loop().call_later(wait, self._close_unused)

    def _close_unused(self) -> None:
        self._on_over(self)
        self._task.cancel()

    # -- the connection -------------------------------------------------------------------------

    async def _run(self) -> None:
        try:
            await self._attempts.turn()
            await self._serve()
        except asyncio.CancelledError:
            self.machine.close()
            raise
        except Exception as error:
            self.machine.close(error)
        finally:
            self._over()

    def _over(self) -> None:
        if self._lingering is not None:
            self._lingering.cancel()
        self._on_over(self)
        if self.machine.heard:
            self._attempts.succeeded()
        failure = self.machine.failure
        if isinstance(failure, Retriable):
            self._attempts.failed(failure.wait_seconds)

    async def _serve(self) -> None:
        self._token = await self._http.bearer.current()
        context = await self._http.ssl_context() if self._url.startswith("wss:") else None
        try:
            connection = await _Connect(
                self._url,
                additional_headers={"Authorization": f"Bearer {self._token}"},
                subprotocols=[Subprotocol("runcast.v1")],
                compression=None,
                ssl=context,
                open_timeout=_OPEN_SECONDS,
                ping_interval=_PING_SECONDS,
                ping_timeout=_PING_SECONDS,
                close_timeout=_CLOSE_SECONDS,
                max_size=_MAX_MESSAGE_BYTES,
                logger=_quiet,
            )
        except (OSError, EOFError, ImportError, WebSocketException) as error:
            raise self._not_opened(error) from error
        helpers = [
            asyncio.create_task(self._write(connection)),
            asyncio.create_task(self._renew_tokens()),
        ]
        try:
            await self._read(connection)
        finally:
            for each in helpers:
                each.cancel()
            await asyncio.wait(helpers)
            await connection.close()

    async def _read(self, connection: ClientConnection) -> None:
        patience = asyncio.timeout(_OPEN_SECONDS)
        try:
            async with patience:
                while self.machine.state is not SocketState.CLOSED:
                    expires_at = self.machine.expires_at
                    self.machine.receive(await connection.recv())
                    if self.machine.state is SocketState.OPEN:
                        patience.reschedule(None)
                        self._attempts.resets = 0
                    if self.machine.expires_at != expires_at:
                        self._authenticated.set()
                    self._to_send.set()  # a full lane leaves
                    await self._room()
        except TimeoutError as error:
            raise NoWebSocket(_no_socket("was opened, and carries nothing", error)) from error
        except ConnectionClosed as closed:
            self._receive_close(closed)

    def _receive_close(self, closed: ConnectionClosed) -> None:
        if closed.sent is not None and closed.sent.code == _TOO_BIG:
            raise NoWebSocket(UnexpectedAnswer("The gateway sent a message of over 64 MiB."))
        code, reason = (closed.rcvd.code, closed.rcvd.reason) if closed.rcvd else (1006, "")
        if code < 4000 and self.machine.state is SocketState.OPENING:
            raise self._reset(closed)
        self.machine.receive_close(code, reason)

    async def _room(self) -> None:
        """Let the readers take what came: a quick one never finds its lane full."""
        await asyncio.sleep(0)
        while self._alone and self._lane is not None and self._lane.full:
            self.taken.clear()
            await self.taken.wait()

    async def _write(self, connection: ClientConnection) -> None:
        with suppress(ConnectionClosed):
            while True:
                await self._to_send.wait()
                self._to_send.clear()
                for text in self.machine.texts_to_send():
                    await connection.send(text)

    async def _renew_tokens(self) -> None:
        """Show a fresh token before the time of the last one is over."""
        bearer = self._http.bearer
        while bearer.renewable:
            await self._authenticated.wait()
            self._authenticated.clear()
            left = (self.machine.expires_at or 0.0) - now()
            if left < 1.0:
                continue  # or else clocks that differ would have us ask without end
            await asyncio.sleep(max(left - _RENEW_SECONDS, left / 2))
            try:
                token = await bearer.renew(self._token)
            except Exception as error:
                logger.warning("a token could not be renewed: %s", type(error).__name__)
                continue  # the time of the last one ends the socket, and says why
            if token != self._token:
                self._token = token
                self.machine.authenticate(token)
                self._to_send.set()

    # -- what went wrong ------------------------------------------------------------------------

    def _not_opened(self, error: Exception) -> Exception:
        if isinstance(error, InvalidStatus):
            answer = error.response
            headers = dict(answer.headers.raw_items())
            refusal = self._http.refusal(answer.status_code, headers, bytes(answer.body or b""))
            if refusal is not None:
                return refusal
            if answer.status_code in _AWAY:
                return self._reset(error)
            return NoWebSocket(_no_socket(f"was answered with {answer.status_code}", error))
        if isinstance(error, InvalidMessage | EOFError | ConnectionResetError):
            return self._reset(error)
        if isinstance(error, InvalidHandshake | InvalidProxy | ImportError | TimeoutError):
            return NoWebSocket(_no_socket(f"failed ({type(error).__name__})", error))
        return self._http.lost(error)

    def _reset(self, error: Exception) -> Exception:
        """
        Judge a connection that came to nothing before the gateway said anything.

        That is a gateway that went away, or something on the way; the latter does it each time.
        """
        self._attempts.resets += 1
        if self._attempts.resets >= _RESETS:
            return NoWebSocket(_no_socket("comes to nothing each time", error))
        return self._http.lost(error)


class _Connect(connect):
    """Goes nowhere else: the key is for this gateway."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


def _no_socket(what: str, cause: Exception) -> ConnectionLost:
    lost = ConnectionLost(
        f"The WebSocket to the gateway {what}: something between here and there does not let it "
        'through. transport="auto" goes on without one.'
    )
    lost.__cause__ = cause
    return lost
