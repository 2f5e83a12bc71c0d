"""The newest chunks of a stream that somebody reads, and who reads it live."""

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from contextvars import Context
from dataclasses import replace
from typing import Protocol

from runcast.core.chunk import Chunk, ChunkPage, StreamMove, StreamName, StreamState
from runcast.core.limits import Limits
from runcast.core.stream_format import StreamFormat
from runcast.core.stream_subscription import PartsFrame, Phase, StreamSubscription
from runcast.errors import BackendError
from runcast.hub.counts import Counts
from runcast.hub.seams import Link
from runcast.ports import ChunkLog

logger = logging.getLogger(__name__)

_PAGE_CHUNKS = 2000
_LOOKS_A_LEASE = 6
_RETRY_SECONDS = 0.5


class LiveReader(Protocol):
    """A reader, as the tail that it joined sees it."""

    @property
    def connection(self) -> Link: ...
    @property
    def form(self) -> StreamFormat: ...
    @property
    def machine(self) -> StreamSubscription: ...

    def write_live(self, chunks: Sequence[Chunk], data: bytes) -> bool:
        """Write live chunks that every reader at their offset gets; False if it is not there."""
        ...

    def receive_live(self, chunks: Sequence[Chunk]) -> None:
        """Take live chunks, as far as they fit what was sent."""
        ...

    def receive_state(self, state: StreamState) -> None:
        """Take how far the stream is."""
        ...


class Tail:
    """
    Follows one stream for all its readers: what is appended is read once and encoded once a form.

    Keeps the newest chunks within a budget of bytes, so that readers which fall a little behind
    do not read the log.
    """

    __slots__ = (
        "_again",
        "_budget",
        "_closed",
        "_counts",
        "_end",
        "_generation",
        "_limits",
        "_log",
        "_next_index",
        "_pulling",
        "_recent",
        "_recheck",
        "_slots",
        "_sure",
        "_tails",
        "heard",
        "name",
        "readers",
    )

    def __init__(
        self,
        name: StreamName,
        log: ChunkLog,
        limits: Limits,
        tails: dict[StreamName, "Tail"],
        slots: asyncio.Semaphore,
        counts: Counts,
    ) -> None:
        self.name = name
        self.readers: dict[LiveReader, None] = {}
        self._log = log
        self._limits = limits
        self._tails = tails
        self._slots = slots
        self._counts = counts
        self.heard = 0  # how often something was heard of the stream or its run
        self._end: int | None = None  # all live readers have what is below
        self._next_index = 0  # how far the stream is known to be
        self._generation = 0  # of the stream, once it was read
        self._sure = True  # that the stream is still the one that was read
        self._closed = False
        self._recent: deque[Chunk] = deque()
        self._budget = limits.stream_tail_bytes
        self._pulling: asyncio.Task[None] | None = None
        self._again = False
        self._recheck: asyncio.TimerHandle | None = None

    def add(self, reader: LiveReader) -> None:
        """A reader came."""
        if not self.readers:
            self._tails[self.name] = self
            self._log.follow(self.name)
        self.readers[reader] = None

    def remove(self, reader: LiveReader) -> None:
        """A reader left; the last one takes the tail along."""
        if reader not in self.readers:
            return
        del self.readers[reader]
        if not self.readers:
            self._log.unfollow(self.name)
            if self._tails.get(self.name) is self:
                del self._tails[self.name]
            if self._pulling is not None:
                self._pulling.cancel()
            if self._recheck is not None:
                self._recheck.cancel()

    def moved(self, move: StreamMove) -> None:
        """The stream grew, or something else about it changed."""
        if move.next_index is None:
            self._sure = self._end is None
            self.pull()
            return
        # Read at least once: by its generation it is known again when it begins anew.
        known = self._generation and move.next_index == self._end == self._next_index
        self._next_index = max(self._next_index, move.next_index)
        if known and not move.closed and not any(each.machine.run_over for each in self.readers):
            return  # `appended` told it already, and who else writes matters to nobody
        self.pull()

    def appended(self, chunks: Sequence[Chunk]) -> None:
        """Take chunks that were just stored; beyond a gap they are read when the news comes."""
        self.heard += 1
        self._next_index = max(self._next_index, chunks[-1].index + 1)
        if self._end == chunks[0].index and self._sure:
            self._deliver(chunks)

    def abort(self) -> None:
        """Drop the connections of all readers."""
        for reader in list(self.readers):
            reader.connection.abort("error")

    def joined(self, machine: StreamSubscription, heard: int) -> None:
        """
        A reader read a page; if that was the last, it goes live or reads what came meanwhile.

        Args:
            heard: As it was before the page was read.
        """
        if machine.phase is not Phase.LIVE or machine.offset is None:
            return
        known = max(self._next_index, self._end or 0)
        if known > machine.offset:
            machine.receive_state(StreamState(next_index=known))
            return
        if self._end is None or self._end < machine.offset:
            self._end = machine.offset
            self._forget_recent()
        # What was told meanwhile was told to those who were live, and nobody tells when the
        # writers of a finished run are gone with their gateway.
        if self.heard != heard or machine.run_over:
            self.pull()

    async def read(self, offset: int | None) -> ChunkPage:
        """
        Read what follows an offset, from memory if it is there; None reads only how far it is.

        Raises:
            BackendError: The log does not answer.
        """
        if offset is not None and self._recent and self._recent[0].index <= offset:
            known = [chunk for chunk in self._recent if chunk.index >= offset]
            if known:
                state = StreamState(
                    next_index=self._next_index,
                    closed=self._closed,
                    has_open_writers=True,
                    generation=self._generation,
                )
                return ChunkPage(known, state)
        async with self._slots:  # however many come back at once, some connections stay free
            return await self._read_log(offset or 0, 0 if offset is None else _PAGE_CHUNKS)

    def pull(self) -> None:
        """Read what is new for the live readers, and whether the stream is over."""
        self.heard += 1
        if self._end is None:
            return  # readers on their way look again when they join
        if self._pulling is not None:
            self._again = True
            return
        # In a context of its own: it is not of the request that happens to begin it.
        self._pulling = asyncio.get_running_loop().create_task(self._pull(), context=Context())
        self._pulling.add_done_callback(self._pulled)

    def _pulled(self, pulling: asyncio.Task[None]) -> None:
        self._pulling = None
        if not pulling.cancelled() and (error := pulling.exception()) is not None:
            logger.error("a stream could not be followed", exc_info=error)
            self.abort()
        elif self._again and self.readers:
            self.pull()  # asked for between its end and now

    async def _pull(self) -> None:
        while True:
            self._again = False
            assert self._end is not None
            try:
                page = await self._read_log(self._end, _PAGE_CHUNKS)
            except BackendError:
                await asyncio.sleep(_RETRY_SECONDS)
                continue
            self._sure = self._sure or not self._again
            fresh = [chunk for chunk in page.chunks if chunk.index >= self._end]
            if fresh:
                self._deliver(fresh)
            # A page that was asked for before the news came may not know them.
            if self._end >= page.state.next_index and not self._again:
                self._settle(replace(page.state, next_index=self._end))
                return

    async def _read_log(self, offset: int, max_chunks: int) -> ChunkPage:
        known = max(self._next_index, self._end or 0)
        page = await self._log.read(
            self.name,
            offset,
            max_chunks=max_chunks,
            max_bytes=self._limits.stream_page_bytes,
        )
        generation = page.state.generation
        if page.state.next_index < known or 0 != self._generation != generation != 0:
            self._begin_anew(page.state)
        self._generation = generation
        self._next_index = max(self._next_index, page.state.next_index)
        self._closed |= page.state.closed
        return page

    def _begin_anew(self, state: StreamState) -> None:
        """The stream is another one: deleted for its age and begun again, or restored."""
        self._next_index = state.next_index
        self._closed = False
        if self._end is not None:
            self._end = state.next_index
        self._forget_recent()
        for reader in list(self.readers):
            reader.receive_state(state)

    def _forget_recent(self) -> None:
        self._recent.clear()
        self._budget = self._limits.stream_tail_bytes

    def _deliver(self, chunks: Sequence[Chunk]) -> None:
        self._end = chunks[-1].index + 1
        self._keep(chunks)
        encoded: dict[StreamFormat, bytes] = {}
        written = 0
        for reader in list(self.readers):
            form = reader.form
            data = encoded.get(form)
            if data is None:
                data = encoded[form] = form.pack([form.encode(PartsFrame(chunks))])
            if reader.write_live(chunks, data):
                self._counts.bytes_written += len(data)
                written += 1
            else:
                reader.receive_live(chunks)
        self._counts.chunks_delivered += written * len(chunks)

    def _keep(self, chunks: Sequence[Chunk]) -> None:
        if self._recent and self._recent[-1].index + 1 != chunks[0].index:
            self._forget_recent()
        self._recent.extend(chunks)
        self._budget -= sum(len(chunk.text) for chunk in chunks)
        while self._recent and self._budget < 0:
            self._budget += len(self._recent.popleft().text)

    def _settle(self, state: StreamState) -> None:
        """All chunks are delivered: tell the readers how the stream stands."""
        for reader in list(self.readers):
            reader.receive_state(state)
        waits = any(reader.machine.run_over for reader in self.readers)
        if waits and state.has_open_writers and self._recheck is None:
            # A gateway that was killed cannot tell that its writers are gone.
            delay = self._limits.stream_lease_seconds / _LOOKS_A_LEASE
            self._recheck = asyncio.get_running_loop().call_later(delay, self._look_again)

    def _look_again(self) -> None:
        self._recheck = None
        self.pull()
