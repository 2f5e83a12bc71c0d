"""All streams of a seed: those that are written now, and those that readers may still want."""

import asyncio
import itertools
import math
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from chaos.clock import now
from chaos.scene import Scene
from chaos.socket_subscriber import SocketReader
from chaos.sse_subscriber import SseReader
from chaos.stream_feed import StreamFeed
from chaos.stream_log import StreamLog

_NEWEST = 12


@dataclass
class Streams:
    """A host opens them, readers choose among the newest."""

    logs: list[StreamLog] = field(default_factory=list)
    opened: asyncio.Event = field(default_factory=asyncio.Event)

    def open(self, log: StreamLog) -> None:
        """From now on it may be read."""
        self.logs.append(log)
        self.opened.set()

    async def kept(self) -> list[StreamLog]:
        """Those that were not lost; waits for one."""
        while not (logs := [log for log in self.logs if not log.lost_at]):
            self.opened.clear()
            await self.opened.wait()
        return logs

    @contextmanager
    def losing(self) -> Iterator[None]:
        """The store forgets what it has: all that was told to be stored by the end may be gone."""
        for log in self.logs:
            log.lost_at = math.inf
        yield
        for log in self.logs:
            log.lost_at = now()


class ReaderOfMany:
    """Reads one stream to its end, then another one, for as long as there are any."""

    def __init__(self, scene: Scene, streams: Streams, name: str) -> None:
        self.scene = scene
        self.name = name
        self.reading: StreamFeed | None = None
        self._streams = streams
        self._dice = random.Random(f"{scene.oracle.seed} {name}")

    @property
    def idle(self) -> bool:
        """Whether there is nothing to wait for; what was lost with its store may never end."""
        reading = self.reading
        return reading is None or reading.finished.is_set() or bool(reading.log.lost_at)

    async def run(self) -> None:
        """Read until the ending, and then one more, that was not lost, to its end."""
        await self._streams.opened.wait()
        is_last = False
        for number in itertools.count():
            if is_last:
                return
            is_last = self.scene.ending.is_set()
            logs = await self._streams.kept() if is_last else self._streams.logs
            log = self._dice.choice(logs[-_NEWEST:])
            feed = self.reading = StreamFeed(f"{self.name}/{number}", log, self.scene.oracle)
            reader = self._dice.choice((SseReader, SocketReader))(self.scene, feed)
            reading = asyncio.create_task(reader.run())
            try:
                await self._read(feed)
            finally:
                reading.cancel()
                await asyncio.wait([reading])

    async def _read(self, feed: StreamFeed) -> None:
        """Wait for its end; after the ending no longer for what was lost with its store."""
        ending = asyncio.create_task(self.scene.ending.wait())
        finished = asyncio.create_task(feed.finished.wait())
        try:
            await asyncio.wait({ending, finished}, return_when=asyncio.FIRST_COMPLETED)
            if not feed.log.lost_at:
                await finished
        finally:
            ending.cancel()
            finished.cancel()
