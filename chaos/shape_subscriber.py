"""Subscribers by the official shape protocol; docs/protocol.md "Official clients: shapes"."""

from dataclasses import dataclass, replace

import orjson

from chaos.feed import Feed
from chaos.http import Answer, get
from chaos.refusal import read_refusal
from chaos.scene import Scene
from chaos.sight import sight_of_row
from chaos.subscriber import Subscriber
from chaos.token import Token
from chaos.wish import Wish

_OFFICIAL = {
    "x-trigger-electric-version": "1.0.0-beta.1",
    "x-trigger-api-version": "2025-07-16",
}


@dataclass(frozen=True)
class Echo:
    """
    What an answer gave, to be brought back with the next request.

    Attributes:
        waits: The next request may wait for news.
        begun: When the first part of an answer in parts was asked for, in the midst of one: all
            parts together tell what was there then.
    """

    handle: str
    offset: str
    cursor: str
    waits: bool
    begun: float | None = None

    def query(self) -> dict[str, str]:
        """The parameters of the next request; who has not got all yet asks on at once."""
        query = {"handle": self.handle, "offset": self.offset, "cursor": self.cursor}
        return query | ({"live": "true"} if self.waits else {})

    def __str__(self) -> str:
        return f"{self.handle} {self.offset} {self.cursor}"


class ShapeSubscriber(Subscriber):
    """Follows runs as the official clients do, one request after the other."""

    transport = "poll"

    def __init__(self, scene: Scene, name: str, wish: Wish) -> None:
        super().__init__(scene, name)
        self.feed = Feed(name, wish, scene.oracle, tells_departures=False)

    @property
    def feeds(self) -> list[Feed]:
        """What it follows."""
        return [self.feed]

    async def follow(self) -> None:
        """Poll with one token until something is in the way; each request is a connection."""
        token = self.scene.signer.token(self.feed.wish, self.dice)
        while await self._poll(token):
            await self.whims.hesitate()

    async def _poll(self, token: Token) -> bool:
        """Ask once; tells whether to ask on."""
        feed = self.feed
        echo: Echo | None = feed.cursor
        asked = {"offset": "-1"} if echo is None else echo.query()
        feed.begin(token.expires_at, prompt=self.whims.prompt)
        if echo is not None and echo.begun is not None:
            feed.asked_at = echo.begun
        async with get(
            self.scene.url + feed.wish.path(),
            feed.wish.query() | asked,
            _OFFICIAL | {"authorization": f"Bearer {token.text}"},
            silence=max(self.scene.silence, 30.0),
        ) as answer:
            if answer.status == 409:
                await answer.body()
                feed.reset("must-refetch")
            elif answer.status != 200:
                feed.refused(await read_refusal(answer, feed, feed.oracle, feed))
                return False
            else:
                self._take(answer, await answer.body(), waited="live" in asked)
        return True

    def _take(self, answer: Answer, body: bytes, *, waited: bool) -> None:
        feed = self.feed
        whole = False
        for message in orjson.loads(body):
            if "value" in message:
                feed.run(sight_of_row(message["value"], feed.wish.batch))
            else:
                whole = message["headers"]["control"] == "up-to-date"
        headers = answer.headers
        if whole != ("electric-up-to-date" in headers):
            self.object("unreadable", "body and headers differ on up-to-date")
        if whole and not waited:
            # A poll that waited may be answered by less than was committed when it asked.
            feed.caught_up()
        echo = Echo(
            headers["electric-handle"],
            headers["electric-offset"],
            headers["electric-cursor"],
            waits=whole,
            begun=None if whole else feed.asked_at,
        )
        if whole:
            feed.remember(echo)
        else:
            feed.cursor = echo

    def rewind(self) -> None:
        """Also asks anew at once, without waiting, so that what it has can be judged."""
        self.feed.rewind(self.dice)
        if self.feed.cursor is not None:
            self.feed.cursor = replace(self.feed.cursor, waits=False)

    def forget(self) -> None:
        self.feed.forget()

    def pause(self) -> float:
        return self.feed.delay

    def object(self, kind: str, expected: str) -> None:
        self.scene.oracle.object(self.feed, kind, expected)
