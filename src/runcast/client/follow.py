"""The loop that follows a feed over as many connections as it takes."""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol, TypeVar

from runcast.client.asked import Asked
from runcast.client.backoff import Backoff
from runcast.client.bearer import Bearer
from runcast.client.errors import TokenExpired
from runcast.client.feed_message import FeedMessage
from runcast.client.gateway_http import ATTEMPTS
from runcast.client.retriable import LaneFull, Retriable

logger = logging.getLogger("runcast.client")

_BACK_OFF_SECONDS = (0.25, 15.0)
_MAX_RENEWALS = 3

T_co = TypeVar("T_co", covariant=True)


class Followed(Protocol[T_co]):
    """A feed's state: what `follow` and the transports need to know of it."""

    delay_seconds: float | None

    def is_over(self) -> bool: ...
    def request_headers(self) -> dict[str, str]: ...
    def subscribe_fields(self) -> dict[str, Any]: ...
    def receive(self, message: FeedMessage) -> T_co | None: ...


class Transport(Protocol):
    """Whatever carries feeds."""

    bearer: Bearer

    def open(
        self, asked: Asked, feed: Followed[object], token: str, *, alone: bool
    ) -> AbstractAsyncContextManager[AsyncIterator[FeedMessage]]:
        """
        Begin at the feed's position, and give what is told from there.

        ``alone``: on a connection that no other feed is on.

        Raises:
            ApiError: The gateway refused, and will again; also from within the context.
            Retriable: It could not be reached, or refused for now; also from within.
            LaneFull: The reader was slower than what came; from within.
        """
        ...


T = TypeVar("T")


async def follow(transport: Transport, asked: Asked, feed: Followed[T]) -> AsyncGenerator[T, None]:
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
    alone = False
    while not feed.is_over():
        opened_alone, alone = alone, False
        token = await transport.bearer.current()
        try:
            async with transport.open(asked, feed, token, alone=opened_alone) as messages:
                connected = True
                async for message in messages:
                    told = feed.receive(message)
                    if told is not None:
                        backoff.reset()
                        renewals = 0
                        yield told
        except TokenExpired:
            renewals += 1
            if not transport.bearer.renewable or renewals > _MAX_RENEWALS:
                raise
            await transport.bearer.renew(token)
            # A factory that keeps tokens may give the same one until it is quite over.
            delay = 0.0 if renewals == 1 else backoff.next_delay()
        except LaneFull as full:
            alone = not full.moved
            delay = 0.0
        except Retriable as error:
            delay = max(backoff.next_delay(), error.wait_seconds)
            if not connected and backoff.failures >= ATTEMPTS:
                raise error.cause from error.cause.__cause__
            logger.info("%s is followed again: %s", asked.path, error.cause.message)
        else:
            delay = backoff.next_delay()
        if feed.is_over():
            return
        if feed.delay_seconds is not None:
            delay, feed.delay_seconds = feed.delay_seconds, None
        await asyncio.sleep(delay)
