"""Storing what a writer sends: while one group of its chunks is stored, the next one gathers."""

import asyncio
from collections.abc import Sequence

from runcast.core.chunk import NewChunk, StreamName
from runcast.errors import BackendError, StreamLost
from runcast.ports import ChunkLog

_GATHERED_CHARACTERS = 256 * 1024  # then the writer is not listened to until they are stored
_GROUP_CHUNKS = 10_000  # of tiny ones that is enough for one call, which others wait for
_COMMIT_RETRIES = 6


class Ingest:
    """Stores the chunks of one connection of a writer, in order."""

    def __init__(self, chunks: ChunkLog, name: StreamName) -> None:
        self._chunks = chunks
        self._name = name
        self._gathered: list[NewChunk] = []
        self._size = 0
        self._storing: asyncio.Task[None] | None = None

    async def put(self, chunks: Sequence[NewChunk]) -> None:
        """
        Take chunks to be stored soon.

        Raises:
            GatewayError: What was put before could not be stored.
        """
        if self._storing is not None and self._storing.done():
            self._storing.result()
            self._storing = None
        self._gathered += chunks
        self._size += sum(len(chunk.text) for chunk in chunks)
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
            group, self._gathered = self._gathered[:_GROUP_CHUNKS], self._gathered[_GROUP_CHUNKS:]
            self._size -= sum(len(chunk.text) for chunk in group)
            await self._store(group)

    async def _store(self, group: list[NewChunk]) -> None:
        """Append; with a writer's indices that is safe to repeat while the database is away."""
        repeatable = group[0].writer is not None
        delay = 0.1
        for attempt in range(_COMMIT_RETRIES):
            try:
                await self._chunks.append(self._name, group)
                return
            except StreamLost:
                raise  # what was put before these is gone: the writer must know
            except BackendError:
                if not repeatable or attempt == _COMMIT_RETRIES - 1:
                    raise
                await asyncio.sleep(delay)
                delay *= 2
