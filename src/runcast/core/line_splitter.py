"""Lines of text out of a body that arrives in pieces, however they are cut."""

from collections.abc import Iterator

from runcast.core.chunk import chunk_text
from runcast.errors import PayloadTooLarge, RequestError


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

    def receive(self, data: bytes) -> Iterator[str]:
        """
        Take what arrived and give the lines that it completes, joined by newlines; no empty ones.

        Raises:
            PayloadTooLarge: A line does not end in time; those before it were given.
            InvalidBody: A line is no chunk, as of `chunk_text`; those before it were given.
        """
        end = data.rfind(b"\n")
        if end >= 0:
            self._parts.append(data[:end])
            yield from self.finish()
            data = data[end + 1 :]
        if data:
            self._parts.append(data)
            self._size += len(data)
            if self._size > self._max_bytes + 1:  # a carriage return may still be taken off
                raise self._too_large()

    def finish(self) -> Iterator[str]:
        """The body is over: a last line without a newline counts."""
        lines = b"".join(self._parts)
        self._parts.clear()
        self._size = 0
        if _is_plain(lines) and len(lines) <= self._max_bytes:
            try:
                yield lines.decode()
                return
            except UnicodeDecodeError:
                pass
        yield from self._one_by_one(lines)

    def _one_by_one(self, lines: bytes) -> Iterator[str]:
        texts: list[str] = []
        refused: RequestError | None = None
        for line in lines.split(b"\n"):
            try:
                if line not in (b"", b"\r"):
                    texts.append(chunk_text(line, self._max_bytes))
            except RequestError as error:
                refused = error
                break
        if texts:
            yield "\n".join(texts)
        if refused is not None:
            raise refused

    def _too_large(self) -> PayloadTooLarge:
        return PayloadTooLarge(f"A chunk has at most {self._max_bytes} bytes; send it in pieces.")


def _is_plain(lines: bytes) -> bool:
    """Whether all of it can be taken as it is: no line is empty or has what may not be in one."""
    return (
        bool(lines)
        and b"\r" not in lines
        and b"\0" not in lines
        and b"\n\n" not in lines
        and not lines.startswith(b"\n")
        and not lines.endswith(b"\n")
    )
