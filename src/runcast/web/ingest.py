"""Storing what a writer sends: while one group of its chunks is stored, the next one gathers."""

import asyncio
from collections.abc import Iterator

from runcast.core.chunk import NewChunks, StreamName
from runcast.errors import BackendError, StreamLost
from runcast.ports import ChunkLog

_GATHERED_CHARACTERS = 256 * 1024  # then the writer is not listened to until they are stored
_GROUP_CHUNKS = 10_000  # of tiny ones that is enough for one call, which others wait for
_COMMIT_RETRIES = 6


class Ingest:
    """
    Stores the chunks of one connection of a writer, in order.

    Args:
        writer: Whose chunks are counted; None counts none.
        index: The writer's index of the first chunk.
    """

    def __init__(
        self, chunks: ChunkLog, name: StreamName, writer: str | None = None, index: int = 0
    ) -> None:
        self._chunks = chunks
        self._name = name
        self._writer = writer
        self._index = index
        self._gathered: list[str] = []
        self._size = 0
        self._storing: asyncio.Task[None] | None = None

    async def put(self, lines: str) -> None:
        """
        Take chunks, one a line, to be stored soon.

        Raises:
            GatewayError: What was put before could not be stored.
        """
        if self._storing is not None and self._storing.done():
            self._storing.result()
            self._storing = None
        self._gathered.append(lines)
        self._size += len(lines)
        if self._storing is None:
            self._storing = asyncio.create_task(self._store_all())
        if self._size > _GATHERED_CHARACTERS:
            await self.stored()

    async def stored(self) -> None:
        """
        Wait until all that was put is durable.

        Raises:
            GatewayError: It could not be stored.
        """
        if self._storing is not None:
            await asyncio.shield(self._storing)  # whoever stops listening, stores what it heard

    async def _store_all(self) -> None:
        while self._gathered:
            lines, self._gathered, self._size = "\n".join(self._gathered), [], 0
            for group in _groups(lines):
                chunks = NewChunks(group, self._writer, self._index)
                await self._store(chunks)
                self._index += chunks.count

    async def _store(self, chunks: NewChunks) -> None:
        """Append; with a writer's indices that is safe to repeat while the database is away."""
        delay = 0.1
        for attempt in range(_COMMIT_RETRIES):
            try:
                await self._chunks.append(self._name, chunks)
                return
            except StreamLost:
                raise  # what was put before these is gone: the writer must know
            except BackendError:
                if chunks.writer is None or attempt == _COMMIT_RETRIES - 1:
                    raise
                await asyncio.sleep(delay)
                delay *= 2


def _groups(lines: str) -> Iterator[str]:
    if lines.count("\n") < _GROUP_CHUNKS:
        yield lines
        return
    texts = lines.split("\n")
    for start in range(0, len(texts), _GROUP_CHUNKS):
        yield "\n".join(texts[start : start + _GROUP_CHUNKS])
