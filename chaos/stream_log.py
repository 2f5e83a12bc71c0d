"""What the writers of one stream sent, and what they were told is stored."""

from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

import orjson


class Line(NamedTuple):
    """A chunk says who wrote it, and which of its writer's chunks it is."""

    writer: str
    number: int


def line_text(writer: str, index: int, padding: str) -> str:
    """A chunk as it is written: compact JSON, so that every transport gives it back as it was."""
    return orjson.dumps({"w": writer, "i": index, "p": padding}).decode()


def line_of(text: str) -> Line:
    """Read a chunk."""
    value = orjson.loads(text)
    return Line(value["w"], value["i"])


@dataclass
class StreamLog:
    """
    One stream.

    Attributes:
        sent: The texts of each writer, whether or not they arrived.
        stored: When each writer asked for what it was told is stored, by index.
        closed: Whether it was closed, or its run finished: nothing more can come.
        lost_at: When the store last lost what it had; what was stored before may be gone.
        final: What the first reader had at the end; all others must have the same.
    """

    run_id: str
    key: str
    sent: dict[str, list[str]] = field(default_factory=dict)
    stored: dict[str, list[float]] = field(default_factory=dict)
    closed: bool = False
    lost_at: float = 0.0
    final: list[str] | None = None

    @property
    def name(self) -> str:
        return f"{self.run_id}/{self.key}"

    def next_index(self, writer: str) -> int:
        """How many chunks the writer was told are stored."""
        return len(self.stored.get(writer, ()))

    def objection_to_next(self, seen: Counter[str], text: str) -> str | None:
        """
        Say what is wrong with a chunk, given how many of each writer came before; else count it.

        After a loss a writer's chunks may begin further on, but never go back.
        """
        line = line_of(text)
        if self.sent.get(line.writer, [])[line.number : line.number + 1] != [text]:
            return f"{text[:80]} was never written like this"
        expected = seen[line.writer]
        if line.number < expected or (line.number > expected and not self.lost_at):
            return f"chunk {line.number} of {line.writer} instead of {expected}"
        seen[line.writer] = line.number + 1
        return None

    def objection_to_end(self, texts: list[str]) -> str | None:
        """Say what is wrong with all that a reader has, now that the stream is over."""
        if not self.closed:
            return "the end came before anybody asked for it"
        found = {line_of(text) for text in texts}
        for writer, times in self.stored.items():
            for index, at in enumerate(times):
                if at > self.lost_at and Line(writer, index) not in found:
                    return f"chunk {index} of {writer} is missing, which was told to be stored"
        if self.final is None or self.lost_at:
            self.final = texts
        elif texts != self.final:
            return f"{len(texts)} chunks that differ from another reader's {len(self.final)}"
        return None
