"""
What one feed was sent on a shared WebSocket, and its reader has yet to take.

Bounded, because one reader must neither hold up the others nor fill the memory: of runs only the
newest states wait, and where that is too much as well the lane ends with `LaneFull`. Its reader
then takes what there is, and the feed goes on from its position. Pure: the event that a reader
waits for is set by ``on_news``.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

from runcast.client.feed_message import POSITION, FeedMessage
from runcast.client.retriable import LaneFull

_MESSAGE_BYTES = 500  # what one costs beside its text


@dataclass(slots=True)
class _Waiting:
    message: FeedMessage
    size: int


class Lane:
    """
    Takes messages until it is ended, or full.

    Args:
        of_runs: Newer states of a run take the place of older ones.
        alone: The only one on its socket, which waits while this is full: it never ends for that.
        max_bytes: How much may wait; the message that goes beyond is still taken.
    """

    def __init__(
        self, *, of_runs: bool, alone: bool = False, max_bytes: int = 2 * 1024 * 1024
    ) -> None:
        self.of_runs = of_runs
        self.alone = alone
        self.on_news: Callable[[], None] = _nothing
        self.ended = False
        self.heard = False
        self._failure: Exception | None = None
        self._moved = False  # there was a position to go on from
        self._max_bytes = max_bytes
        self._bytes = 0
        self._waiting: deque[_Waiting] = deque()
        self._runs: dict[str, _Waiting] = {}  # those of them that hold a state of a run

    @property
    def full(self) -> bool:
        """Whether no more may wait."""
        return self._bytes > self._max_bytes and len(self._waiting) > 1

    def receive(self, message: FeedMessage, size: int) -> None:
        """
        Take a message, whose text is so long.

        Raises:
            KeyError: It is about a run, and does not say which.
            TypeError: It is about a run, and is no object.
        """
        if self.ended:
            return
        self.heard = True
        if message.name == "reset":
            self._forget()
        self._moved = self._moved or bool(message.position)
        run_id = message.data["id"] if message.name in ("run", "gone") else None
        if message.name == POSITION and self._waiting and self._last.name == POSITION:
            self._waiting[-1].message = message
        elif run_id is not None and (older := self._runs.get(run_id)):
            self._exchange(older, message, size)
        else:
            self._append(message, size)
            if run_id is not None:
                self._runs[run_id] = self._waiting[-1]
        if self.full and not self.alone:
            self.end(LaneFull(moved=self._moved))
        self.on_news()

    def end(self, failure: Exception | None = None) -> None:
        """Nothing more will come; what waits is taken first, and the failure raised then."""
        if not self.ended:
            self.ended = True
            self._failure = failure
            self.on_news()

    def take(self) -> FeedMessage | None:
        """
        Give the oldest message; None: there is none now, or any more.

        Raises:
            Exception: What the lane was ended with.
        """
        if not self._waiting:
            if self._failure is not None:
                raise self._failure
            return None
        taken = self._waiting.popleft()
        self._bytes -= taken.size
        if taken.message.name in ("run", "gone"):
            del self._runs[taken.message.data["id"]]
        return taken.message

    @property
    def _last(self) -> FeedMessage:
        return self._waiting[-1].message

    def _append(self, message: FeedMessage, size: int) -> None:
        self._waiting.append(_Waiting(message, size + _MESSAGE_BYTES))
        self._bytes += size + _MESSAGE_BYTES

    def _exchange(self, older: _Waiting, message: FeedMessage, size: int) -> None:
        """
        Put a newer state where the older one waits, so that being up to date stays true of it.

        The older one's position is as good as it was: from there the newer one comes again. That
        of the newer one counts only behind all that waits.
        """
        self._bytes += size + _MESSAGE_BYTES - older.size
        older.size = size + _MESSAGE_BYTES
        older.message = replace(message, position=older.message.position)
        if message.position is not None:
            if self._last.name == POSITION:
                self._waiting[-1].message = FeedMessage(POSITION, None, message.position)
            else:
                self._append(FeedMessage(POSITION, None, message.position), 0)

    def _forget(self) -> None:
        self._moved = False
        self._waiting.clear()
        self._runs.clear()
        self._bytes = 0


def _nothing() -> None:
    """Nobody waits."""
