"""One reader of a stream: its state machine, its form, and the connection it feeds."""

import asyncio
import logging
import random
from collections.abc import Sequence
from dataclasses import replace

from runcast.core.chunk import Chunk, StreamState
from runcast.core.frame import End, Frame, GoneFrame, Problem, RunFrame, StateFrame
from runcast.core.position import Position
from runcast.core.stream_format import StreamFormat
from runcast.core.stream_subscription import PartsFrame, Phase, StreamSubscription
from runcast.errors import BackendError, InsufficientScope, NotFound
from runcast.hub.form import AudienceKey
from runcast.hub.log_context import request_id
from runcast.hub.seams import Link
from runcast.hub.tail import Tail

logger = logging.getLogger(__name__)

_LONGEST_RETRY_SECONDS = 5.0


class StreamReader:
    """
    Reads along a stream, and watches its run: the run's end may end the stream, and whoever may
    not see the run any more may not read on.

    Args:
        run_key: The run, as an audience of its changes.
        run_over: The run is finished already.
        timeout_seconds: End cleanly when no chunk came for so long; None waits for ever.
    """

    __slots__ = (
        "_last_part_at",
        "_looked_by",
        "_timeout_seconds",
        "connection",
        "form",
        "key",
        "machine",
        "name",
        "session",
        "tail",
    )

    in_feed = False
    kind = "stream"

    def __init__(
        self,
        connection: Link,
        name: str,
        tail: Tail,
        machine: StreamSubscription,
        form: StreamFormat,
        run_key: AudienceKey,
        *,
        timeout_seconds: float | None = None,
    ) -> None:
        self.connection = connection
        self.name = name
        self.tail = tail
        self.machine = machine
        self.form = form
        self.key = run_key
        self.session: asyncio.Task[None] | None = None
        self._timeout_seconds = timeout_seconds
        self._last_part_at = connection.hub.clock.now()
        self._looked_by: AudienceKey | None = None
        machine.writable = connection.outlet.writable

    # -- life -----------------------------------------------------------------------------------

    def start(self) -> None:
        """Receive what is appended from now on, and read what was before."""
        self.connection.hub.watch(self)
        self.tail.add(self)
        self._start_session()

    def stop(self) -> None:
        """Receive nothing more."""
        self.connection.hub.unwatch(self)
        self.tail.remove(self)
        if self.session is not None:
            self.session.cancel()

    def due(self, now: float) -> float:
        """When the reader has waited long enough for a chunk."""
        if self._timeout_seconds is None:
            return float("inf")
        return self._last_part_at + self._timeout_seconds

    def tick(self, now: float) -> None:
        """End, if no chunk came for too long."""
        if now >= self.due(now) and self.machine.phase is Phase.LIVE:
            self.close(End("idle"))

    def renew(self, key: AudienceKey) -> None:
        """Watch the run by this key; nothing more is read before it was seen to allow that."""
        self.connection.hub.unwatch(self)
        self.key = key
        self.connection.hub.watch(self)
        self.machine.read_again()
        self._start_session()

    # -- the run --------------------------------------------------------------------------------

    @property
    def cursor(self) -> str | None:
        """A stream is resumed from its parts' ids, never from a cursor of run feeds."""
        return None

    def receive_window(
        self, frames: Sequence[StateFrame], before: Position, after: Position
    ) -> None:
        """Look at what became of the run."""
        for frame in frames:
            match frame:
                case RunFrame():
                    if frame.run.finished:
                        self._run_finished()
                case GoneFrame(reason="deleted"):
                    self._run_deleted()
                case GoneFrame():
                    self._run_hidden()

    def _run_finished(self) -> None:
        if not self.machine.run_over:
            self.machine.run_over = True
            self.tail.pull()

    def _run_deleted(self) -> None:
        error = NotFound("The run of this stream was deleted.")
        self.close(Problem(error.code, error.message))

    def _run_hidden(self) -> None:
        error = InsufficientScope("The token does not open this run any more.")
        self.close(Problem(error.code, error.message))

    def receive_lost(self, reason: str, message: str) -> None:
        """The changefeed lost its place; a stream's offsets still hold."""
        self.tail.pull()

    # -- chunks ---------------------------------------------------------------------------------

    def write_live(self, chunks: Sequence[Chunk], data: bytes) -> bool:
        """Write live chunks that every reader at their offset gets; False if it is not there."""
        if not self.machine.direct or self.machine.offset != chunks[0].index:
            return False
        now = self.connection.hub.clock.now()
        self._last_part_at = now
        self.machine.skip_to(chunks[-1].index + 1)
        self.connection.write(data, now)
        return True

    def receive_live(self, chunks: Sequence[Chunk]) -> None:
        """Take live chunks, as far as they fit what was sent."""
        self.machine.receive_live(chunks)
        self.flush()

    def receive_state(self, state: StreamState) -> None:
        """Take how far the stream is."""
        self.machine.receive_state(state)
        self.flush()

    def set_writable(self, writable: bool) -> None:
        """The connection can take more, or cannot."""
        self.machine.writable = writable
        if writable:
            self.flush()

    def close(self, frame: Frame) -> None:
        """Send a last frame and leave."""
        self.machine.writable = True
        self.machine.close(frame)
        self.flush()

    def flush(self) -> None:
        """Write what the machine has to send, and do what its phase asks for."""
        if self.connection.closed:
            return
        outgoing = self.machine.frames_to_send()
        if outgoing:
            now = self.connection.hub.clock.now()
            self._last_part_at = now
            if data := self.form.pack(map(self.form.encode, outgoing)):
                self.connection.write(data, now)
                counts = self.connection.hub.counts
                counts.bytes_written += len(data)
                counts.chunks_delivered += sum(
                    len(frame.chunks) for frame in outgoing if isinstance(frame, PartsFrame)
                )
        if self.machine.over:
            last = outgoing[-1] if outgoing else None
            self.connection.leave(self, finished=isinstance(last, End))
        elif self.machine.phase is Phase.READING:
            self._start_session()

    # -- reading --------------------------------------------------------------------------------

    def _start_session(self) -> None:
        if self.session is None and not self.connection.closed:
            self.session = asyncio.get_running_loop().create_task(self._read_along())
            self.session.add_done_callback(self._session_over)

    def _session_over(self, session: asyncio.Task[None]) -> None:
        self.session = None
        if session.cancelled():
            return
        if (error := session.exception()) is not None:
            logger.error(
                "a stream could not be read",
                exc_info=error,
                extra={"request": self.connection.request_id},
            )
            self.connection.abort("error")
        else:
            self.flush()

    async def _read_along(self) -> None:
        """Read the log at the pace of the connection until there is no more."""
        request_id.set(self.connection.request_id)
        retry_after = 0.1
        while self.machine.phase is Phase.READING and not self.connection.closed:
            await self.connection.writable()
            heard = self.tail.heard
            try:
                await self._look_at_run()
                if self._looked_by is not self.key:
                    continue
                page = await self.tail.read(self.machine.offset)
            except BackendError as error:
                logger.warning("chunks could not be read, trying again: %s", error.message)
                await asyncio.sleep(random.uniform(0.5, 1.0) * retry_after)
                retry_after = min(retry_after * 2, _LONGEST_RETRY_SECONDS)
                continue
            retry_after = 0.1
            if self._looked_by is not self.key:  # renewed meanwhile
                continue
            state = page.state
            if self.tail.heard != heard:  # the page may not know of a writer that came
                state = replace(state, has_open_writers=True)
            self.machine.receive_page(page.chunks, state)
            self.tail.joined(self.machine, heard)
            self.flush()

    async def _look_at_run(self) -> None:
        """Once for each key: what happened to the run before we watched it was not told us."""
        if self._looked_by is self.key:
            return
        key, view = self.key, self.key.view
        run_id = self.tail.name.run_id
        run = await self.connection.hub.read_run(view.selector.environment_id, run_id)
        if self.key is not key:
            return
        self._looked_by = key
        if run is None:
            self._run_deleted()
        elif not view.shows(run.facets):
            self._run_hidden()
        elif run.finished:
            self._run_finished()
