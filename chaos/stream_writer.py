"""Streams that come and go: each has a run, some writers, some readers, and an end."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator

import httpx

from chaos.clock import now
from chaos.pool import Pool
from chaos.scene import Scene
from chaos.stream_log import StreamLog, line_text
from chaos.streams import Streams
from chaos.writer import RestWriter

_KEYS = ("llm", "logs")
_TRIES_SECONDS = 0.3
_LINES = (20, 120)
_AT_ONCE = (1, 30)


class StreamWriter:
    """
    One of the writers of a stream: sends its lines in several requests, each as it goes on.

    It asks how far it is before each of them, as a writer does that lost its connection.
    """

    def __init__(self, scene: Scene, http: httpx.AsyncClient, log: StreamLog, name: str) -> None:
        self.scene = scene
        self.log = log
        self.name = name
        self.dice = random.Random(f"{scene.oracle.seed} {name}")
        self.tail: list[tuple[float, str]] = []
        self._http = http
        lines = range(self.dice.randrange(*_LINES))
        log.sent[name] = [line_text(name, i, "~" * self.dice.randrange(200)) for i in lines]
        log.stored[name] = []
        self._path = f"/realtime/v1/streams/{log.run_id}/self/{log.key}"

    async def run(self) -> None:
        """Write until all of it is stored, as far as one is told."""
        texts = self.log.sent[self.name]
        while True:
            begin = await self._stored()
            if begin is not None:
                if begin >= len(texts):
                    return
                await self._send(begin, begin + self.dice.randrange(*_AT_ONCE))
            await asyncio.sleep(self.dice.uniform(0, _TRIES_SECONDS))

    async def _stored(self) -> int | None:
        """How many of the lines the gateway says it has; None if it says nothing."""
        headers = {"x-client-id": self.name}
        begun = now()
        with contextlib.suppress(httpx.TransportError, OSError):
            answer = await self._http.head(self._path, headers=headers)
            if answer.status_code == 200:
                count = int(answer.headers["x-last-chunk-index"]) + 1
                self._note_stored(count, begun)
                return count
            self._judge(answer.status_code, "")
        return None

    async def _send(self, begin: int, end: int) -> None:
        headers = {"x-client-id": self.name, "x-resume-from-chunk": str(begin)}
        texts = self.log.sent[self.name][begin:end]
        begun = now()
        try:
            answer = await self._http.post(self._path, content=self._said(texts), headers=headers)
        except (httpx.TransportError, OSError):
            return
        if answer.status_code == 200:
            self.scene.oracle.counts["chunks stored"] += len(texts)
            self._note_stored(begin + len(texts), begun)
        else:
            self._judge(answer.status_code, answer.text)

    async def _said(self, texts: list[str]) -> AsyncIterator[bytes]:
        for text in texts:
            yield text.encode() + b"\n"
            if self.dice.random() < 0.3:
                await self.scene.until_ending(self.dice.expovariate(10))

    def _note_stored(self, count: int, asked_at: float) -> None:
        """Remember that it was told, and since when; what is not there any more is sent again."""
        times = self.log.stored[self.name]
        if count < len(times):
            self.scene.oracle.counts["chunks told to be lost"] += len(times) - count
            if not self.log.lost_at:
                self._object("lost chunks", f"{count} stored, after {len(times)} were told to be")
            del times[count:]
        times.extend([asked_at] * (count - len(times)))

    def _judge(self, status: int, text: str) -> None:
        self.scene.oracle.counts[f"stream {status}"] += 1
        if status not in (429, 502, 503, 504):
            self._object("refused", f"{status} {text[:200]}")

    def _object(self, kind: str, expected: str) -> None:
        self.scene.oracle.object(self, kind, f"{self.log.name} {self.name}: {expected}")


class StreamHost(RestWriter):
    """Keeps one stream alive after the other; the last one begins when all faults are over."""

    def __init__(self, scene: Scene, pool: Pool, streams: Streams, name: str) -> None:
        super().__init__(scene, pool, name, 1.0)
        self._streams = streams
        self._number = 0

    async def run(self) -> None:
        async with self.http:
            is_last = False
            while not is_last:
                is_last = self.scene.ending.is_set()
                await self._one_stream()

    async def _one_stream(self) -> None:
        body: dict[str, object] = {"payload": {}}
        answer = await self.ask_until_told("POST", "/api/v1/tasks/stream/trigger", body)
        if answer is None or not answer.is_success:
            return
        self._number += 1
        log = StreamLog(answer.json()["id"], self.dice.choice(_KEYS))
        names = [f"{self.name}-{self._number}-{n}" for n in range(self.dice.randrange(1, 4))]
        writers = [StreamWriter(self.scene, self.http, log, name) for name in names]
        self._streams.open(log)
        async with asyncio.TaskGroup() as group:
            for writer in writers:
                group.create_task(writer.run())
        log.closed = True
        if self.dice.random() < 0.5:
            path = f"/realtime/v1/streams/{log.run_id}/self/{log.key}/close"
            await self.ask_until_told("POST", path, {})
        else:
            await self.ask_until_told(
                "PATCH", f"/api/v1/runs/{log.run_id}", {"status": "COMPLETED"}
            )
