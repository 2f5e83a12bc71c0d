"""
The state of following runs: messages of the gateway in, typed events and the resume position out.

Pure: the loop around it is in `follow.py`. It outlives connections.
"""

from collections import OrderedDict
from typing import Any

from runcast.client.errors import TokenExpired, UnexpectedAnswer, api_error
from runcast.client.events import End, Reset, RunChanged, RunEvent, RunGone, UpToDate
from runcast.client.feed_message import FeedMessage
from runcast.client.run import Run, run_from

# The same state may come twice around a resume; older ones than so many runs ago do not matter.
_MAX_REVISIONS = 10_000


class RunFeed:
    """
    What one feed of runs told so far.

    Args:
        cursor: Where to resume from; None: with all runs.
    """

    def __init__(self, cursor: str | None = None) -> None:
        self.cursor = cursor
        self._ended = False
        self.delay_seconds: float | None = None
        self._revisions: OrderedDict[str, int] = OrderedDict()

    def is_over(self) -> bool:
        """Whether nothing more will come."""
        return self._ended

    def request_headers(self) -> dict[str, str]:
        """What asks the gateway to go on from here."""
        return {} if self.cursor is None else {"last-event-id": self.cursor}

    def subscribe_fields(self) -> dict[str, Any]:
        """The same on a WebSocket."""
        return {} if self.cursor is None else {"cursor": self.cursor}

    def receive(self, message: FeedMessage) -> RunEvent | None:
        """
        Take one message; None: nothing new in it.

        Raises:
            TokenExpired: The gateway says so; reconnect with a fresh token.
            ApiError: The feed cannot go on.
            UnexpectedAnswer: It cannot be read.
        """
        try:
            told = self._read(message.name, message.data)
        except (KeyError, TypeError) as error:
            raise UnexpectedAnswer(f"The event {message.name[:40]!a} cannot be read.") from error
        if message.position is not None:
            self.cursor = message.position or None
        return told

    def _read(self, name: str, data: Any) -> RunEvent | None:
        match name:
            case "run":
                return self._receive_run(run_from(data))
            case "gone":
                self._revisions.pop(data["id"], None)
                return RunGone(data["id"], data["reason"])
            case "reset":
                self._revisions.clear()
            case "reconnect":
                self.delay_seconds = data["delayMs"] / 1000
        told = common_event(name, data)
        self._ended = self._ended or isinstance(told, End)
        return told

    def _receive_run(self, run: Run) -> RunChanged | None:
        if run.revision is not None:
            if run.revision <= self._revisions.get(run.id, -1):
                return None
            self._revisions[run.id] = run.revision
            self._revisions.move_to_end(run.id)
            if len(self._revisions) > _MAX_REVISIONS:
                self._revisions.popitem(last=False)
        return RunChanged(run)


def common_event(name: str, data: Any) -> UpToDate | Reset | End | None:
    """
    Read what feeds of runs and of streams have in common; None: nothing to tell.

    Raises:
        TokenExpired: The event says so.
        ApiError: The event is a problem.
    """
    match name:
        case "up-to-date":
            return UpToDate()
        case "reset":
            return Reset(data["reason"], data["message"])
        case "end":
            return End(data["reason"])
        case "expired":
            raise TokenExpired(data["message"], code=data["code"])
        case "problem":
            raise api_error(data["message"], code=data["code"])
    return None  # an event that is newer than this package
