"""
Frames as messages of the Electric shape protocol; docs/protocol.md "Official clients: shapes".

Every message about a run holds its whole row, so it means the same as an insert or as an update.
That a run left the feed cannot be said: clients ignore it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import orjson

from runcast.core.frame import Frame, GoneFrame, KeepAlive, Reset, RunFrame, UpToDate
from runcast.core.position import parse_cursor
from runcast.core.run import Run
from runcast.core.shape_echo import whole_offset
from runcast.core.shape_row import Dialect, shape_row
from runcast.core.sse import chunk

UP_TO_DATE: Final = b'{"headers":{"control":"up-to-date"}}'
MUST_REFETCH: Final = b'{"headers":{"control":"must-refetch"}}'


@dataclass(frozen=True, slots=True)
class ShapeFormat:
    """
    How one kind of poll wants its runs: in which dialect, and without which columns.

    ``snapshot`` makes every run an insert. Equal formats get equal bytes.
    """

    dialect: Dialect
    skip: frozenset[str]
    snapshot: bool = False

    def encode(self, frame: Frame, cursor: str | None) -> bytes:
        """The message about a run; nothing for other frames, which are answers of their own."""
        return frame.encoded(self, self._message) if isinstance(frame, RunFrame) else b""

    def pack(self, events: Iterable[bytes]) -> bytes:
        """Messages as they stand in a list."""
        return b",".join(filter(None, events))

    def _message(self, run: Run) -> bytes:
        created = self.snapshot or run.updated_at == run.created_at
        return orjson.dumps(
            {
                "key": f'"public"."TaskRun"/"{run.id}"',
                "value": shape_row(run, self.dialect, self.skip),
                "headers": {"operation": "insert" if created else "update"},
            }
        )


@dataclass(frozen=True, slots=True)
class ShapeSseFormat:
    """
    The same messages as Server-Sent Events, where a client asks for ``live_sse``.

    The client resumes from what ``up-to-date`` names; of a cursor it keeps the number before the
    first underscore, see `shape_echo.whole_offset`.
    """

    shape: ShapeFormat
    chunked: bool

    @property
    def skip(self) -> frozenset[str]:
        """Columns of runs that are not encoded."""
        return self.shape.skip

    def encode(self, frame: Frame, cursor: str | None) -> bytes:
        """Events of one frame; a cursor says that the client is up to date."""
        match frame:
            case RunFrame():
                events = _event(self.shape.encode(frame, None))
            case Reset():
                events = _event(MUST_REFETCH)
            case GoneFrame() | UpToDate():
                events = b""
            case KeepAlive():
                return b": keep-alive\n\n"
            case _:
                return b""  # the response ends, and the next one says why
        if cursor is not None:
            events += _event(_up_to_date(whole_offset(parse_cursor(cursor))))
        return events

    def pack(self, events: Iterable[bytes]) -> bytes:
        """Events as they are written to the connection, in one piece."""
        joined = b"".join(events)
        return chunk(joined) if self.chunked and joined else joined


def messages_body(messages: Iterable[bytes], *, up_to_date: bool) -> list[bytes]:
    """The pieces of a JSON array of messages; ``up_to_date`` ends it, or more is to be asked."""
    pieces = [b"["]
    for message in messages:
        pieces += (message, b",")
    if up_to_date:
        pieces.append(UP_TO_DATE)
    elif len(pieces) > 1:
        pieces.pop()
    pieces.append(b"]")
    return pieces


def _event(message: bytes) -> bytes:
    return b"data: " + message + b"\n\n"


def _up_to_date(number: str) -> bytes:
    headers = {"control": "up-to-date", "global_last_seen_lsn": number}
    return orjson.dumps({"headers": headers})
