"""
What one subscription of runs holds, as a client would, and the oracle that looks over its shoulder.

Transports tell it what they read; nothing here knows how it was sent.
"""

import random
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from chaos.clock import now
from chaos.oracle import Oracle
from chaos.sight import FINAL, Sight
from chaos.wish import Wish

_TAIL = 60
_BOOKMARKS = 3


@dataclass(frozen=True)
class Bookmark:
    """A cursor, whatever a transport takes for one, and what was held there."""

    cursor: Any
    held: dict[str, Sight]


@dataclass
class Feed:
    """
    One subscription of runs, through all of its connections.

    Attributes:
        tells_departures: Whether this transport says that a run left; shapes do not.
        prompt: Whether its connection is read as fast as it comes.
        held: What it would show.
        newest: The newest state of each run that it was ever sent.
        stay: Whether a feed of one run is asked to stay open when the run is finished.
        delay: Seconds to wait before the next connection.
        asked_at: When it asked on this connection.
        reauthenticated: Whether it brought another token on this connection.
        closing: The last event of the connection, if there was one.
    """

    name: str
    wish: Wish
    oracle: Oracle
    tells_departures: bool = True
    prompt: bool = True
    expires_at: float | None = None
    held: dict[str, Sight] = field(default_factory=dict)
    newest: dict[str, Sight] = field(default_factory=dict)
    cursor: Any = None
    bookmarks: list[Bookmark] = field(default_factory=list)
    up_to_date: bool = False
    stay: bool = True
    delay: float = 0.0
    connections: int = 0
    asked_at: float = 0.0
    reauthenticated: bool = False
    closing: str = ""
    tail: deque[tuple[float, str]] = field(default_factory=lambda: deque(maxlen=_TAIL))

    def begin(self, expires_at: float | None, *, prompt: bool = True) -> None:
        """A connection begins, from the cursor where there is one."""
        self.prompt = prompt
        if self.cursor is None:
            self.held = {}
        self.up_to_date = False
        self.reauthenticated = False
        self.expires_at = expires_at
        self.asked_at = now()
        self.delay = 0.0
        self.closing = ""
        self.connections += 1
        self.note(f"-- asks from {self.cursor or 'the start'}, holding {len(self.held)}")

    def rewind(self, dice: random.Random) -> None:
        """Go back to an earlier cursor, and to what was held there."""
        if self.bookmarks:
            bookmark = dice.choice(self.bookmarks)
            self.cursor, self.held = bookmark.cursor, dict(bookmark.held)
            self.note("-- goes back to an earlier cursor")

    def forget(self) -> None:
        """Begin from the start with the next connection."""
        self.cursor = None

    def run(self, sight: Sight) -> None:
        """A run as it is now."""
        self.note(f"run {sight}")
        self.oracle.see(self, sight)
        self.newest[sight.run_id] = self.held[sight.run_id] = sight

    def gone(self, run_id: str, reason: str) -> None:
        """A run left."""
        self.note(f"gone {run_id} {reason}")
        self.oracle.see_gone(self, run_id, reason)
        self.held.pop(run_id, None)

    def caught_up(self) -> None:
        """Everything so far was told."""
        self.note("up-to-date")
        self.up_to_date = True
        self.oracle.see_caught_up(self)

    def remember(self, cursor: Any) -> None:
        """This is where to resume from."""
        self.cursor = cursor
        self.note(f"cursor {cursor}")
        if len(self.bookmarks) < _BOOKMARKS:
            self.bookmarks.append(Bookmark(cursor, dict(self.held)))
        elif self.oracle.dice.random() < 0.02:
            place = self.oracle.dice.randrange(_BOOKMARKS)
            self.bookmarks[place] = Bookmark(cursor, dict(self.held))

    def reset(self, reason: str) -> None:
        """The cursor could not be continued: forget all."""
        self.note(f"reset {reason}")
        self.oracle.see_reset(self, reason)
        self.held = {}
        self.cursor = None
        self.bookmarks = []
        self.up_to_date = False

    def refused(self, status: int | str) -> None:
        """There is nothing to see here, at least now."""
        self.note(f"refused {status}")
        if status in (403, 404, "insufficient_scope", "not_found"):
            self.held = {}
            self.cursor = None
            self.bookmarks = []
        self.delay = 1.0

    def told(self, name: str, data: dict[str, Any]) -> None:
        """
        One of the events that every transport of ours has, but for `run`.

        ``closing`` says afterwards whether the feed is over on this connection.
        """
        match name:
            case "connection":
                self.note(f"connection {data['id']}")
            case "gone":
                self.gone(data["id"], data["reason"])
            case "up-to-date":
                self.caught_up()
            case "reset":
                self.reset(data["reason"])
            case "end":
                self._end(data["reason"])
            case "expired" | "problem" | "reconnect":
                code = data["code"]
                self.note(f"{name} {code}")
                self.oracle.see_closing(self, name, code)
                self.delay = data.get("delayMs", 0) / 1000
                self.closing = name
                if name == "problem":
                    self.refused(code)
            case _:
                self.oracle.object(self, "unknown event", f"{name} is not in the protocol")

    def note(self, text: str) -> None:
        """Keep for the case that something is wrong."""
        self.tail.append((now(), text))

    def _end(self, reason: str) -> None:
        self.note(f"end {reason}")
        self.closing = "end"
        ended = all(run.status in FINAL for run in self.held.values())
        if not (reason == "finished" and self.held and ended and not self.stay) and not (
            reason == "deleted" and not self.held
        ):
            self.oracle.object(self, "wrong end", f"{reason} while holding {self.held}")
        # From the start, and this time for good: a finished run can still get another tag.
        self.cursor, self.bookmarks, self.stay = None, [], True
        self.delay = 1.0
