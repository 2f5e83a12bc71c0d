"""The loop that follows a feed over as many connections as it takes."""

import asyncio
import logging
from collections.abc import AsyncGenerator
from typing import Protocol, TypeVar

import httpx

from runcast.client.backoff import Backoff
from runcast.client.errors import TokenExpired
from runcast.client.gateway_http import ATTEMPTS, GatewayHttp, Params, Retriable
from runcast.client.sse import ServerEvent, SseReader

logger = logging.getLogger("runcast.client")

_BACK_OFF_SECONDS = (0.25, 15.0)
_MAX_RENEWALS = 3
# A gateway sends heartbeats every 15 seconds unless set otherwise; a silent line is a dead one.
_TIMEOUT = httpx.Timeout(10.0, read=60.0, pool=None)

T_co = TypeVar("T_co", covariant=True)


class Followed(Protocol[T_co]):
    """A feed's state: what `follow` needs to know of it."""

    delay_seconds: float | None

    def is_over(self) -> bool: ...
    def request_headers(self) -> dict[str, str]: ...
    def receive(self, event: ServerEvent) -> T_co | None: ...
    def receive_position(self, last_id: str | None) -> None: ...


T = TypeVar("T")


async def follow(
    http: GatewayHttp, path: str, params: Params, feed: Followed[T]
) -> AsyncGenerator[T, None]:
    """
    Give the events of a feed until it ends.

    Whoever was connected once is reconnected for as long as it takes; whoever never was gives up
    after five tries.

    Raises:
        ApiError: The gateway refused. A token that expired is exchanged if the client can.
        ConnectionLost: It could not be reached at all.
    """
    backoff = Backoff(*_BACK_OFF_SECONDS)
    connected = False
    renewals = 0
    while not feed.is_over():
        token = await http.bearer.current()
        try:
            async with http.open(
                "GET",
                path,
                token,
                params=params,
                headers={"accept": "text/event-stream", **feed.request_headers()},
                patience=_TIMEOUT,
            ) as response:
                connected = True
                if response.status_code == 204:  # there is nothing behind our position
                    return
                reader = SseReader()
                async for received in response.aiter_bytes():
                    for event in reader.receive(received):
                        told = feed.receive(event)
                        if told is not None:
                            backoff.reset()
                            renewals = 0
                            yield told
                    feed.receive_position(reader.last_id)
        except TokenExpired:
            renewals += 1
            if not http.bearer.renewable or renewals > _MAX_RENEWALS:
                raise
            await http.bearer.renew(token)
            # A factory that keeps tokens may give the same one until it is quite over.
            delay = 0.0 if renewals == 1 else backoff.next_delay()
        except Retriable as error:
            delay = max(backoff.next_delay(), error.wait_seconds)
            if not connected and backoff.failures >= ATTEMPTS:
                raise error.cause from error.cause.__cause__
            logger.info("%s is followed again: %s", path, error.cause.message)
        else:
            delay = backoff.next_delay()
        if feed.is_over():
            return
        if feed.delay_seconds is not None:
            delay, feed.delay_seconds = feed.delay_seconds, None
        await asyncio.sleep(delay)
