"""Items out of newline-delimited JSON that arrives in pieces; those that are too large are cut."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import orjson

_HEAD_BYTES = 4096
_TEXT = r'"(?:[^"\\]|\\.)*"'
_HEAD = re.compile(
    rf'\s*{{\s*(?:"index"\s*:\s*(?P<index>\d{{1,9}})\s*,\s*"task"\s*:\s*(?P<task>{_TEXT})'
    rf'|"task"\s*:\s*(?P<task_2>{_TEXT})\s*,\s*"index"\s*:\s*(?P<index_2>\d{{1,9}}))\s*[,}}]'
)


@dataclass(frozen=True, slots=True)
class OversizedItem:
    """The beginning of an item that was too large to be kept."""

    head: bytes

    def index_and_task(self) -> tuple[int, str] | None:
        """Which item it was, if it begins with that, as the items of clients do."""
        match = _HEAD.match(self.head.decode(errors="replace"))
        if match is None:
            return None
        try:
            task = orjson.loads(match["task"] or match["task_2"])
        except orjson.JSONDecodeError:
            return None
        return int(match["index"] or match["index_2"]), task


class ItemSplitter:
    """
    Collects bytes and gives out whole lines; keeps no more than one unfinished line.

    Args:
        max_bytes: Longest line, its newline not counted.
    """

    __slots__ = ("_head", "_max_bytes", "_parts", "_size")

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._parts: list[bytes] = []
        self._size = 0
        self._head: bytes | None = None  # of the line that is being thrown away

    def receive(self, data: bytes) -> Iterator[bytes | OversizedItem]:
        """Take what arrived and give the lines that it completes; no blank ones."""
        *ended, rest = data.split(b"\n")
        for part in ended:
            self._add(part)
            yield from self.finish()
        self._add(rest)

    def finish(self) -> Iterator[bytes | OversizedItem]:
        """The line is over, also the last one without a newline."""
        if self._head is not None:
            yield OversizedItem(self._head)
        elif (line := b"".join(self._parts)).strip():
            yield line
        self._parts.clear()
        self._size = 0
        self._head = None

    def _add(self, part: bytes) -> None:
        self._size += len(part)
        if self._head is not None:
            return
        if part:
            self._parts.append(part)
        if self._size > self._max_bytes:
            self._head = b"".join(self._parts)[:_HEAD_BYTES]
            self._parts.clear()
