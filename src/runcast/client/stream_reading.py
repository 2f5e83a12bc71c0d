"""Reading a stream: what ``client.streams.read`` gives."""

from collections.abc import AsyncGenerator, AsyncIterator
from types import TracebackType
from typing import Any, TypeVar
from weakref import WeakSet

from runcast.client.asked import Asked
from runcast.client.errors import PositionLost
from runcast.client.events import Reset
from runcast.client.feeds import Feeds
from runcast.client.json_text import to_json
from runcast.client.stream_feed import From, Part, StreamEvent, StreamFeed

T = TypeVar("T")


class StreamReading:
    """
    The parts of a stream, those that exist and those to come: ``async for part in reading``.

    Lost connections are resumed: every part comes once and in order. Ends when the stream was
    closed, or its run is finished and its writers are gone. Where parts are not kept any more, a
    loop raises `PositionLost`, while ``events()`` tells a `Reset` and goes on.
    """

    def __init__(self, feeds: Feeds, asked: Asked, start: From) -> None:
        self._feeds = feeds
        self._asked = asked
        self._feed = StreamFeed(start)
        self._open: WeakSet[AsyncGenerator[object, None]] = WeakSet()

    @property
    def next_offset(self) -> int | None:
        """The offset of the next part, to begin a later reading with; None: not known yet."""
        return self._feed.next_offset

    def __aiter__(self) -> AsyncIterator[Part]:
        return self._remember(self._parts())

    def events(self) -> AsyncIterator[StreamEvent]:
        """Parts, and `UpToDate`, `Reset` and `End`."""
        return self._remember(self._feeds.follow(self._asked, self._feed))

    async def text(self) -> str:
        """
        Read to the end and join all strings; other values as JSON.

        Raises:
            PositionLost: Not all of it is kept any more.
        """
        return "".join([as_text(part.value) async for part in self])

    async def close(self) -> None:
        """End the connection. For the task that loops over it; cancel any other that does."""
        for each in list(self._open):
            await each.aclose()

    async def __aenter__(self) -> "StreamReading":
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def _parts(self) -> AsyncGenerator[Part, None]:
        events = self._feeds.follow(self._asked, self._feed)
        try:
            async for event in events:
                if isinstance(event, Part):
                    yield event
                elif isinstance(event, Reset):
                    raise PositionLost(event.message, code="position_lost")
        finally:
            await events.aclose()

    def _remember(self, opened: AsyncGenerator[T, None]) -> AsyncGenerator[T, None]:
        self._open.add(opened)
        return self._feeds.remember(opened)


def as_text(value: Any) -> str:
    """A part as text."""
    return value if isinstance(value, str) else to_json(value).decode()
