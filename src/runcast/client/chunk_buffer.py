"""Chunks that a writer keeps until the gateway has them for good. Pure."""

from collections import deque


class ChunkBuffer:
    """
    Chunks that are not acknowledged yet, contiguous, counted from 0 for one writer.

    ``first`` is the index of the oldest chunk that is kept, ``end`` the one after the newest.

    Args:
        max_chunks: It is full with so many.
        max_bytes: Or with so many bytes; one chunk always fits.
    """

    def __init__(self, max_chunks: int, max_bytes: int) -> None:
        self._max_chunks = max_chunks
        self._max_bytes = max_bytes
        self._chunks: deque[bytes] = deque()
        self._bytes = 0
        self.first = 0

    @property
    def end(self) -> int:
        return self.first + len(self._chunks)

    @property
    def full(self) -> bool:
        """Whether a writer has to wait."""
        return len(self._chunks) >= self._max_chunks or self._bytes >= self._max_bytes

    @property
    def half_full(self) -> bool:
        """Whether it is time to have the gateway acknowledge."""
        return 2 * len(self._chunks) >= self._max_chunks or 2 * self._bytes >= self._max_bytes

    def add(self, chunk: bytes) -> None:
        """Keep one more chunk."""
        self._chunks.append(chunk)
        self._bytes += len(chunk)

    def lines(self, start: int, max_bytes: int) -> tuple[bytes, int]:
        """
        Give chunks from an index on as lines, as many as fit but at least one if there is one.

        Returns:
            The lines, and the index behind the last of them.
        """
        lines: list[bytes] = []
        size = 0
        index = start
        while index < self.end and (not lines or size < max_bytes):
            chunk = self._chunks[index - self.first]
            lines += (chunk, b"\n")
            size += len(chunk)
            index += 1
        return b"".join(lines), index

    def acknowledge(self, end: int) -> bool:
        """Forget all chunks before this index; True if there were any."""
        forgotten = False
        while self.first < end and self._chunks:
            self._bytes -= len(self._chunks.popleft())
            self.first += 1
            forgotten = True
        return forgotten
