"""Lines out of a body that arrives in pieces, however they are cut."""

from collections.abc import Iterator

from runcast.errors import PayloadTooLarge


class LineSplitter:
    """
    Collects bytes and gives out whole lines; keeps no more than one unfinished line.

    Args:
        max_bytes: Longest line, its newline not counted.
    """

    __slots__ = ("_max_bytes", "_parts", "_size")

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._parts: list[bytes] = []
        self._size = 0

    def receive(self, data: bytes) -> Iterator[bytes]:
        """
        Take what arrived and give the lines that it completes, without newlines; no empty ones.

        Raises:
            PayloadTooLarge: A line does not end in time; those before it were given.
        """
        *ended, rest = data.split(b"\n")
        for part in ended:
            self._add(part)
            if line := self._take():
                yield line
        self._add(rest)

    def finish(self) -> Iterator[bytes]:
        """The body is over: a last line without a newline counts."""
        if line := self._take():
            yield line

    def _add(self, part: bytes) -> None:
        self._size += len(part)
        if self._size > self._max_bytes + 1:  # a carriage return may still be taken off
            raise PayloadTooLarge(
                f"A chunk has at most {self._max_bytes} bytes; send it in pieces."
            )
        if part:
            self._parts.append(part)

    def _take(self) -> bytes:
        line = b"".join(self._parts)
        self._parts.clear()
        self._size = 0
        return line if line != b"\r" else b""
