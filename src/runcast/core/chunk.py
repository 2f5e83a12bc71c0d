"""Chunks of a stream: what writers append, and what readers get."""

from collections.abc import Sequence
from dataclasses import dataclass

from runcast.errors import InvalidBody, InvalidParameter, PayloadTooLarge

MAX_KEY_BYTES = 512
MAX_WRITER_BYTES = 256
# What clients send to a run is kept in streams of their own; wire/trigger-wire.md 3.7.
_INPUT_PREFIX = "$trigger.input:"


@dataclass(frozen=True, slots=True)
class StreamName:
    """
    A stream: a run and a key.

    Raises:
        InvalidParameter: The key is empty, too long, or not storable text.
    """

    run_id: str
    key: str

    def __post_init__(self) -> None:
        _check_name("The key of a stream", self.key, MAX_KEY_BYTES)

    @classmethod
    def of_input(cls, run_id: str, key: str) -> "StreamName":
        """Name the stream that takes what is sent to a run under a key."""
        return cls(run_id, f"{_INPUT_PREFIX}{key}")

    @property
    def announced(self) -> bool:
        """Whether followers of the run see its key: they would read along, as it were output."""
        return not self.key.startswith(_INPUT_PREFIX)


@dataclass(frozen=True, slots=True)
class NewChunks:
    """
    Chunks as a writer sends them, one a line: at least one, none of them empty.

    ``writer`` and ``first_index`` say which of which writer the first one is, counted from 0: a
    chunk that is sent again is stored once. Without a writer every chunk is new.
    """

    lines: str
    writer: str | None = None
    first_index: int = 0

    @property
    def count(self) -> int:
        return self.lines.count("\n") + 1

    @property
    def size(self) -> int:
        """Bytes of their texts."""
        return _size(self.lines) - self.lines.count("\n")

    def after(self, last_index: int) -> "NewChunks | None":
        """Leave out what of the writer is stored, which is all up to this index; None: all."""
        known = last_index + 1 - self.first_index
        if self.writer is None or known <= 0:
            return self
        if known >= self.count:
            return None
        return NewChunks(self.lines.split("\n", known)[known], self.writer, last_index + 1)


@dataclass(frozen=True, slots=True)
class Chunk:
    """One chunk as it was stored. ``appended_at`` is Unix time in milliseconds."""

    index: int
    text: str
    appended_at: int

    @property
    def size(self) -> int:
        """Bytes of its text."""
        return _size(self.text)


@dataclass(frozen=True, slots=True)
class StoredChunks:
    """Chunks that were stored together, one a line; ``first_index`` is that of the first one."""

    first_index: int
    lines: str
    appended_at: int
    count: int
    size: int

    def chunks(self) -> list[Chunk]:
        """Give each by itself."""
        return [
            Chunk(index, text, self.appended_at)
            for index, text in enumerate(self.lines.split("\n"), self.first_index)
        ]


@dataclass(frozen=True, slots=True)
class StreamState:
    """
    How far a stream is: chunks from ``first_index`` up to, not including, ``next_index``.

    ``has_open_writers``: more may come by itself, because some writer is connected.
    ``generation`` is another number once the stream was deleted or lost and began anew; 0: unknown.
    """

    first_index: int = 0
    next_index: int = 0
    closed: bool = False
    has_open_writers: bool = False
    generation: int = 0


@dataclass(frozen=True, slots=True)
class ChunkPage:
    """Chunks in order, and the state of their stream when they were read."""

    chunks: Sequence[Chunk]
    state: StreamState


@dataclass(frozen=True, slots=True)
class StreamMove:
    """
    A stream changed: it grew, was closed, or lost a writer.

    ``next_index`` None: what became of it is not known, so that it has to be read.
    """

    name: StreamName
    next_index: int | None
    closed: bool


def check_writer(writer: str) -> str:
    """
    Let through what can name a writer.

    Raises:
        InvalidParameter: Empty, too long, or not storable text.
    """
    _check_name("The id of a writer", writer, MAX_WRITER_BYTES)
    return writer


def chunk_text(line: bytes, max_bytes: int) -> str:
    """
    Read one line of a writer, without its newline.

    JSON text carries all of Unicode, NUL and lone surrogates included, in its escapes; it is kept
    as it is. What is not JSON is kept as text.

    Raises:
        PayloadTooLarge: More than ``max_bytes``.
        InvalidBody: Not UTF-8, or with a raw NUL or carriage return.
    """
    line = line.removesuffix(b"\r")
    if len(line) > max_bytes:
        raise PayloadTooLarge(
            f"A chunk has at most {max_bytes} bytes, not {len(line)}; send it in pieces."
        )
    if b"\0" in line or b"\r" in line:
        raise InvalidBody(
            "A chunk is one line of JSON or text; write NUL and carriage returns as JSON escapes."
        )
    try:
        return line.decode()
    except UnicodeDecodeError:
        raise InvalidBody("A chunk is UTF-8 text; send other bytes as Base64.") from None


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


def _check_name(what: str, name: str, max_bytes: int) -> None:
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        size = 0
    if not 0 < size <= max_bytes or any(ord(character) < 32 for character in name):
        raise InvalidParameter(
            f"{what} has 1 to {max_bytes} bytes of UTF-8 and no control characters."
        )
