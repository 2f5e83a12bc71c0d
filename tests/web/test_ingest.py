"""Storing what a writer sends, without a gateway around it."""

from runcast.core.chunk import NewChunks, StreamName
from runcast.testing import ManualClock, MemoryChunkLog
from runcast.web.ingest import Ingest

NAME = StreamName("run_a", "llm")
TINY = 25_000  # lines that a writer can send in 50 kB


class CountingLog(MemoryChunkLog):
    """Notes how many chunks came with each call."""

    def __init__(self) -> None:
        super().__init__(ManualClock())
        self.calls: list[int] = []

    async def append(self, name: StreamName, chunks: NewChunks) -> int:
        self.calls.append(chunks.count)
        return await super().append(name, chunks)


async def test_one_call_of_the_log_is_bounded_also_for_tiny_chunks() -> None:
    log = CountingLog()
    ingest = Ingest(log, NAME, "w")
    await ingest.put("\n".join(["1"] * TINY))
    await ingest.stored()
    assert log.calls == [10_000, 10_000, 5_000]
    page = await log.read(NAME, 0, max_chunks=TINY + 1, max_bytes=TINY)
    assert len(page.chunks) == TINY


async def test_what_comes_meanwhile_is_stored_with_the_next_call() -> None:
    log = CountingLog()
    ingest = Ingest(log, NAME, "w")
    for _ in range(5):
        await ingest.put("1")
    await ingest.stored()
    assert log.calls == [5]
