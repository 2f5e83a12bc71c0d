"""What one reader of a stream has, and the oracle that looks over its shoulder."""

import asyncio
import random
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Any

from chaos.clock import now
from chaos.oracle import Oracle
from chaos.stream_log import StreamLog, line_of

_TAIL = 40


@dataclass
class StreamFeed:
    """
    One reader of one stream, through all of its connections.

    Attributes:
        texts: The chunks it has, by offset.
        cursors: The id that came with each of them, where there was one.
        finished: The stream is over, and was judged.
    """

    name: str
    log: StreamLog
    oracle: Oracle
    texts: list[str] = field(default_factory=list)
    cursors: list[str | None] = field(default_factory=list)
    seen: Counter[str] = field(default_factory=Counter)
    finished: asyncio.Event = field(default_factory=asyncio.Event)
    delay: float = 0.0
    connections: int = 0
    closing: str = ""
    tail: deque[tuple[float, str]] = field(default_factory=lambda: deque(maxlen=_TAIL))

    @property
    def cursor(self) -> str | None:
        """Where to resume from."""
        return self.cursors[-1] if self.cursors else None

    def begin(self) -> None:
        """A connection begins, behind what is here."""
        while self.cursors and self.cursors[-1] is None:
            self._cut(len(self.texts) - 1)
        self.delay = 0.0
        self.closing = ""
        self.connections += 1
        self.note(f"-- asks for {self.log.name} from {self.cursor or 'the start'}")

    def rewind(self, dice: random.Random) -> None:
        """Forget some of the last chunks, to get them once more."""
        if self.texts:
            self._cut(dice.randrange(len(self.texts)))
            self.note(f"-- goes back to {len(self.texts)}")

    def parts(self, offset: int, texts: list[str], cursor: str) -> None:
        """Chunks with their offsets; the cursor is that of the last one."""
        self.oracle.counts["chunks delivered"] += len(texts)
        self.note(f"parts {offset}+{len(texts)} {cursor}")
        if offset != len(self.texts):
            self._object("offset", f"{offset} instead of {len(self.texts)}")
        for text in texts:
            if wrong := self.log.objection_to_next(self.seen, text):
                self._object("wrong chunk", wrong)
            self.texts.append(text)
            self.cursors.append(None)
        self.cursors[-1] = cursor

    def told(self, name: str, data: dict[str, Any]) -> None:
        """A named event."""
        self.note(f"{name} {data}")
        match name:
            case "connection":
                pass
            case "up-to-date":
                if data["offset"] != len(self.texts):
                    self._object("offset", f"up to date at {data['offset']}: {len(self.texts)}")
            case "reset":
                self.oracle.see_stream_reset(self, data["reason"], lost=bool(self.log.lost_at))
                self._cut(0)
            case "end":
                self.closing = "end"
                self.finished.set()
                self.oracle.counts["streams read to their end"] += 1
                if wrong := self.log.objection_to_end(self.texts):
                    self._object("stream differs", wrong)
            case "expired" | "problem" | "reconnect":
                self.closing = name
                self.delay = data.get("delayMs", 0) / 1000
                self.oracle.see_closing(self, name, data["code"])
            case _:
                self._object("unknown event", f"{name} is not in the protocol")

    def note(self, text: str) -> None:
        """Keep for the case that something is wrong."""
        self.tail.append((now(), text))

    def _cut(self, length: int) -> None:
        del self.texts[length:], self.cursors[length:]
        self.seen.clear()
        for text in self.texts:
            line = line_of(text)
            self.seen[line.writer] = line.number + 1

    def _object(self, kind: str, expected: str) -> None:
        self.oracle.object(self, kind, f"{self.log.name}: {expected}")
