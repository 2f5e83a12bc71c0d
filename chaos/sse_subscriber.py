"""Subscribers over Server-Sent Events: of runs, and of a stream."""

import orjson

from chaos.feed import Feed
from chaos.http import Answer, get
from chaos.refusal import read_refusal
from chaos.scene import Scene
from chaos.sight import sight_of_event
from chaos.sse import events
from chaos.stream_feed import StreamFeed
from chaos.subscriber import Subscriber
from chaos.wish import Wish

_BUFFER_BYTES = 4096  # what is more waits in the network, where a gateway notices it


class SseSubscriber(Subscriber):
    """Follows runs as a browser's EventSource does."""

    transport = "sse"

    def __init__(self, scene: Scene, name: str, wish: Wish) -> None:
        super().__init__(scene, name)
        self.feed = Feed(name, wish, scene.oracle)

    @property
    def feeds(self) -> list[Feed]:
        """What it follows."""
        return [self.feed]

    async def follow(self) -> None:
        feed = self.feed
        token = self.scene.signer.token(feed.wish, self.dice)
        query, headers = feed.wish.query(), {}
        if token.expires_at is not None and self.dice.random() < 0.2:
            query["token"] = token.text
        else:
            headers["authorization"] = f"Bearer {token.text}"
        if feed.wish.run and feed.stay:
            query["stay"] = "true"
        if feed.cursor is not None and self.dice.random() < 0.5:
            headers["last-event-id"] = feed.cursor
        elif feed.cursor is not None:
            query["cursor"] = feed.cursor
        feed.begin(token.expires_at, prompt=self.whims.prompt)
        async with get(
            self.scene.url + feed.wish.path(),
            query,
            headers,
            silence=self.scene.silence,
            buffer=_BUFFER_BYTES,
        ) as answer:
            if answer.status == 204 and feed.cursor is not None:
                feed.told("end", {"reason": "finished"})
            elif answer.status != 200:
                feed.refused(await read_refusal(answer, feed, feed.oracle, feed))
            else:
                await self._read(answer)
                if not feed.closing:
                    self.object("unexplained end", "the answer was complete without a last event")

    async def _read(self, answer: Answer) -> None:
        feed = self.feed
        async for event in events(answer):
            if event.name == "run":
                feed.run(sight_of_event(event.data))
            elif event.name:
                feed.told(event.name, orjson.loads(event.data))
            if event.cursor:
                feed.remember(event.cursor)
            await self.whims.hesitate()

    def rewind(self) -> None:
        self.feed.rewind(self.dice)

    def forget(self) -> None:
        self.feed.forget()

    def pause(self) -> float:
        return self.feed.delay

    def object(self, kind: str, expected: str) -> None:
        self.scene.oracle.object(self.feed, kind, expected)


class SseReader(Subscriber):
    """Reads one stream."""

    transport = "sse"

    def __init__(self, scene: Scene, feed: StreamFeed) -> None:
        super().__init__(scene, feed.name)
        self.feed = feed

    async def follow(self) -> None:
        feed = self.feed
        wish = Wish(run=feed.log.run_id, scopes=(f"read:runs:{feed.log.run_id}",))
        token = self.scene.signer.token(wish, self.dice)
        headers = {"authorization": f"Bearer {token.text}"}
        feed.begin()
        if feed.cursor is not None:
            headers["last-event-id"] = feed.cursor
        url = f"{self.scene.url}/realtime/v1/streams/{feed.log.run_id}/{feed.log.key}"
        async with get(url, {}, headers, silence=self.scene.silence) as answer:
            if answer.status != 200:
                await read_refusal(answer, feed, feed.oracle, None)
                feed.delay = 0.5
                return
            async for event in events(answer):
                if event.name:
                    feed.told(event.name, orjson.loads(event.data))
                elif event.data and event.cursor:
                    offset = int(event.cursor.partition("-")[2])
                    feed.parts(offset, [event.data.decode()], event.cursor)
                await self.whims.hesitate()
            if not feed.closing:
                self.object("unexplained end", "the answer was complete without a last event")

    def rewind(self) -> None:
        self.feed.rewind(self.dice)

    def forget(self) -> None:
        self.feed.rewind(self.dice)

    def pause(self) -> float:
        return self.feed.delay

    def object(self, kind: str, expected: str) -> None:
        self.scene.oracle.object(self.feed, kind, expected)
