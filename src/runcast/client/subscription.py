"""Following runs: what the ``subscribe`` methods give."""

from collections.abc import AsyncGenerator, AsyncIterator
from types import TracebackType
from typing import TypeVar
from weakref import WeakSet

from runcast.client.asked import Asked
from runcast.client.events import RunChanged, RunEvent
from runcast.client.feed import RunFeed
from runcast.client.feeds import Feeds
from runcast.client.run import Run

T = TypeVar("T")


class Subscription:
    """
    Runs as they are, then each change: ``async for run in subscription``.

    Lost connections are resumed without a gap. States of a run never go backwards; where this
    reader is slow, states in between are skipped, never the last one. Ends by itself when the one
    run that it is about is finished; others go on until they are left. ``events()`` also tells of
    runs that left, of resets and of being up to date.

    Use it as a context manager, or `close` it, where a loop over it may be left early.
    """

    def __init__(self, feeds: Feeds, asked: Asked, cursor: str | None) -> None:
        self._feeds = feeds
        self._asked = asked
        self._feed = RunFeed(cursor)
        self._open: WeakSet[AsyncGenerator[object, None]] = WeakSet()

    @property
    def cursor(self) -> str | None:
        """Where a later subscription, also of another process, can go on."""
        return self._feed.cursor

    def __aiter__(self) -> AsyncIterator[Run]:
        return self._remember(self._runs())

    def events(self) -> AsyncIterator[RunEvent]:
        """Everything that the feed tells, `RunChanged` and others."""
        return self._remember(self._feeds.follow(self._asked, self._feed))

    async def close(self) -> None:
        """End the connection. For the task that loops over it; cancel any other that does."""
        for each in list(self._open):
            await each.aclose()

    async def __aenter__(self) -> "Subscription":
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def _runs(self) -> AsyncGenerator[Run, None]:
        events = self._feeds.follow(self._asked, self._feed)
        try:
            async for event in events:
                if isinstance(event, RunChanged):
                    yield event.run
        finally:
            await events.aclose()

    def _remember(self, opened: AsyncGenerator[T, None]) -> AsyncGenerator[T, None]:
        self._open.add(opened)
        return self._feeds.remember(opened)
