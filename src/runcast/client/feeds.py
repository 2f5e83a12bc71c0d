"""What carries the feeds of a client, and ends them with it."""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Any, Literal, TypeVar
from weakref import WeakSet

import httpx

from runcast.client.asked import Asked
from runcast.client.errors import UnexpectedAnswer
from runcast.client.feed_message import PART, POSITION, FeedMessage
from runcast.client.follow import Followed, follow
from runcast.client.gateway_http import GatewayHttp
from runcast.client.json_text import from_json
from runcast.client.retriable import NoWebSocket, Retriable
from runcast.client.sockets import Sockets
from runcast.client.sse import ServerEvent, SseReader

logger = logging.getLogger("runcast.client")

TransportName = Literal["auto", "websocket", "sse"]
_AVOID_SECONDS = 300.0

# A gateway sends heartbeats every 15 seconds unless set otherwise; a silent line is a dead one.
_TIMEOUT = httpx.Timeout(10.0, read=60.0, pool=None)

T = TypeVar("T")


class Feeds:
    """
    All feeds of one client: on WebSockets that they share, or each over SSE.

    Args:
        http: The gateway.
        transport: ``auto`` takes a WebSocket, and where none can be had SSE, for five minutes or
            until that fares no better.
    """

    def __init__(self, http: GatewayHttp, transport: TransportName) -> None:
        self._http = http
        self.bearer = http.bearer
        self._sockets = None if transport == "sse" else Sockets(http)
        self._may_fall_back = transport == "auto"
        self._avoided_until = 0.0
        self._loops: WeakSet[AsyncGenerator[Any, None]] = WeakSet()

    def follow(self, asked: Asked, feed: Followed[T]) -> AsyncGenerator[T, None]:
        """Loop over a feed; see `runcast.client.follow.follow`."""
        return follow(self, asked, feed)

    def remember(self, loop: AsyncGenerator[T, None]) -> AsyncGenerator[T, None]:
        """End this loop too when the client is closed."""
        self._loops.add(loop)
        return loop

    async def close(self) -> None:
        """End all connections; loops over feeds that no task is in end."""
        if self._sockets is not None:
            await self._sockets.close()
        for each in list(self._loops):
            with suppress(RuntimeError):  # its task is in it, and meets closed connections
                await each.aclose()

    @asynccontextmanager
    async def open(
        self, asked: Asked, feed: Followed[object], token: str, *, alone: bool
    ) -> AsyncIterator[AsyncIterator[FeedMessage]]:
        """Carry a feed; see `runcast.client.follow.Transport`."""
        if self._sockets is None or _moment() < self._avoided_until:
            opened = self._open_sse(asked, feed, token)
        else:
            opened = self._open_socket(self._sockets, asked, feed, alone=alone)
        async with opened as messages:
            yield messages

    @asynccontextmanager
    async def _open_socket(
        self, sockets: Sockets, asked: Asked, feed: Followed[object], *, alone: bool
    ) -> AsyncIterator[AsyncIterator[FeedMessage]]:
        fields = {**asked.fields, **feed.subscribe_fields()}
        try:
            subscribed = await sockets.subscribe(fields, of_runs=asked.of_runs, alone=alone)
            try:
                async with aclosing(subscribed.messages()) as messages:
                    yield messages
            finally:
                subscribed.leave()
        except NoWebSocket as error:
            if self._may_fall_back:
                logger.info("feeds go on over SSE: %s", error.cause.message)
                self._avoided_until = _moment() + _AVOID_SECONDS
            elif isinstance(error.cause, UnexpectedAnswer):
                raise error.cause from error
            raise

    @asynccontextmanager
    async def _open_sse(
        self, asked: Asked, feed: Followed[object], token: str
    ) -> AsyncIterator[AsyncIterator[FeedMessage]]:
        opened = False
        try:
            async with (
                self._http.open(
                    "GET",
                    asked.path,
                    token,
                    params=asked.params,
                    headers={"accept": "text/event-stream", **feed.request_headers()},
                    patience=_TIMEOUT,
                ) as response,
                aclosing(_messages(response)) as messages,
            ):
                opened = True
                yield messages
        except Retriable:
            if not opened and self._sockets is not None:
                self._avoided_until = 0.0
                self._sockets.begin_anew()
            raise


def _moment() -> float:
    return asyncio.get_running_loop().time()


async def _messages(response: httpx.Response) -> AsyncGenerator[FeedMessage, None]:
    if response.status_code == 204:  # there is nothing behind our position
        yield FeedMessage("end", {"reason": "finished"})
        return
    reader = SseReader()
    position: str | None = None
    async for received in response.aiter_bytes():
        for event in reader.receive(received):
            if event.id is not None:
                position = event.id
            yield _message(event)
        if reader.last_id != position:  # heartbeats carry newer ones
            position = reader.last_id
            yield FeedMessage(POSITION, None, position)


def _message(event: ServerEvent) -> FeedMessage:
    try:
        data = from_json(event.data)
    except ValueError:
        if event.name != "message":
            raise UnexpectedAnswer(f"The event {event.name[:40]!a} carries no JSON.") from None
        data = event.data
    return FeedMessage(PART if event.name == "message" else event.name, data, event.id)
