"""Subscribers over a WebSocket: several feeds of runs, and streams, on one connection."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import orjson
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from chaos.clock import now
from chaos.feed import Feed
from chaos.http import CONNECT_SECONDS
from chaos.scene import Scene
from chaos.sight import sight_of_object
from chaos.stream_feed import StreamFeed
from chaos.subscriber import Subscriber
from chaos.token import Token
from chaos.wish import Wish

_PASSING_CLOSES = frozenset({1000, 1001, 1006, 1011, 1012, 4001, 4029, 4053, 4054})


class SocketSubscriber(Subscriber):
    """
    Follows several feeds of runs with one token.

    Its wishes have the same scopes: a socket has one token at a time. Tokens that end soon are
    exchanged on the open connection, or not.
    """

    transport = "socket"

    def __init__(self, scene: Scene, name: str, wishes: Sequence[Wish]) -> None:
        super().__init__(scene, name)
        self.by_id = {
            f"s{number}": Feed(f"{name}/{number}", wish, scene.oracle)
            for number, wish in enumerate(wishes)
        }

    @property
    def feeds(self) -> list[Feed]:
        """What it follows."""
        return list(self.by_id.values())

    async def follow(self) -> None:
        token = self._token()
        for feed in self.by_id.values():
            feed.begin(token.expires_at, prompt=self.whims.prompt)
        async with _connected(self.scene, token) as socket:
            for name in self.by_id:
                await self._subscribe(socket, name)
            renewing = asyncio.create_task(self._renew(socket, token))
            try:
                while True:
                    async with asyncio.timeout(self.scene.silence):
                        text = await socket.recv()
                    self._take(orjson.loads(text))
                    await self._come_back(socket)
                    await self.whims.hesitate()
            except ConnectionClosed as closed:
                self._judge_close(closed)
            finally:
                renewing.cancel()
                await asyncio.wait([renewing])

    async def _subscribe(self, socket: ClientConnection, name: str) -> None:
        feed = self.by_id[name]
        command: dict[str, Any] = {"type": "subscribe", "id": name, "runs": feed.wish.asked()}
        if feed.cursor is not None:
            command["cursor"] = feed.cursor
        if feed.wish.skipped:
            command["skipColumns"] = list(feed.wish.skipped)
        if feed.wish.run and feed.stay:
            command["stay"] = True
        await socket.send(orjson.dumps(command).decode())

    def _take(self, message: Mapping[str, Any]) -> None:
        kind = message["type"]
        feed = self.by_id.get(message.get("id", ""))
        match kind:
            case "authenticated" | "pong":
                return
            case "cursor":
                for each in self.by_id.values():
                    if each.up_to_date:
                        each.remember(message["cursor"])
                return
            case "problem" if feed is None:
                # All go on, or a close follows: a newer token may have been refused.
                first = self.feeds[0]
                first.note(f"problem {message[kind]['code']} of the connection")
                first.oracle.see_closing(first, kind, message[kind]["code"])
                return
            case "expired" | "reconnect" if feed is None:
                for each in self.by_id.values():
                    each.told(kind, message[kind])
                return
        if feed is None:
            self.object("unknown event", f"{kind} for {message.get('id')}")
        elif kind == "run":
            feed.run(sight_of_object(message["run"]))
        else:
            feed.told(kind, message.get(kind, {}))
        if feed is not None and "cursor" in message:
            feed.remember(message["cursor"])

    async def _come_back(self, socket: ClientConnection) -> None:
        """Subscribe again, a little later, to what is over while the others go on."""
        for name, feed in self.by_id.items():
            if feed.closing in ("end", "problem"):
                token_ends = feed.expires_at
                feed.begin(token_ends, prompt=self.whims.prompt)
                await asyncio.sleep(0.2)  # the others wait: a client may be busy
                await self._subscribe(socket, name)

    async def _renew(self, socket: ClientConnection, token: Token) -> None:
        """Bring a newer token before the old one ends, most times."""
        while token.expires_at is not None and self.dice.random() < 0.7:
            await asyncio.sleep(max(0.1, token.expires_at - now() - self.dice.uniform(1, 3)))
            token = self._token()
            message = {"type": "authenticate", "token": token.text}
            with contextlib.suppress(ConnectionClosed):
                await socket.send(orjson.dumps(message).decode())
            for feed in self.by_id.values():
                # The older one may be what the gateway goes by, if it did not get this one.
                feed.expires_at = token.expires_at

    def _token(self) -> Token:
        return self.scene.signer.token(next(iter(self.by_id.values())).wish, self.dice)

    def _judge_close(self, closed: ConnectionClosed) -> None:
        code = closed.rcvd.code if closed.rcvd else 1006
        self.scene.oracle.counts[f"close {code}"] += 1
        if code not in _PASSING_CLOSES:
            self.object("unexpected close", f"{code} {closed.rcvd}")

    def rewind(self) -> None:
        for feed in self.by_id.values():
            feed.rewind(self.dice)

    def forget(self) -> None:
        for feed in self.by_id.values():
            feed.forget()

    def pause(self) -> float:
        return max(feed.delay for feed in self.by_id.values())

    def object(self, kind: str, expected: str) -> None:
        self.scene.oracle.object(next(iter(self.by_id.values())), kind, expected)


class SocketReader(Subscriber):
    """Reads one stream over a WebSocket of its own."""

    transport = "socket"

    def __init__(self, scene: Scene, feed: StreamFeed) -> None:
        super().__init__(scene, feed.name)
        self.feed = feed

    async def follow(self) -> None:
        feed = self.feed
        wish = Wish(run=feed.log.run_id, scopes=(f"read:runs:{feed.log.run_id}",))
        token = self.scene.signer.token(wish, self.dice)
        feed.begin()
        stream = {"run": feed.log.run_id, "key": feed.log.key}
        command: dict[str, Any] = {"type": "subscribe", "id": "s", "stream": stream}
        command |= {"from": "start"} if feed.cursor is None else {"cursor": feed.cursor}
        async with _connected(self.scene, token) as socket:
            await socket.send(orjson.dumps(command).decode())
            while not feed.closing:
                async with asyncio.timeout(self.scene.silence):
                    message = orjson.loads(await socket.recv())
                kind = message["type"]
                if kind == "parts":
                    texts = [orjson.dumps(part).decode() for part in message["parts"]]
                    feed.parts(message["offset"], texts, message["cursor"])
                elif kind not in ("authenticated", "cursor"):
                    feed.told(kind, message.get(kind, message))
                await self.whims.hesitate()

    def rewind(self) -> None:
        self.feed.rewind(self.dice)

    def forget(self) -> None:
        self.feed.rewind(self.dice)

    def pause(self) -> float:
        return self.feed.delay

    def object(self, kind: str, expected: str) -> None:
        self.scene.oracle.object(self.feed, kind, expected)


@asynccontextmanager
async def _connected(scene: Scene, token: Token) -> AsyncIterator[ClientConnection]:
    """
    Open a WebSocket, and break it at the end of the block.

    It reads little ahead and answers pings: silence is for the reader to judge.
    """
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            socket = await connect(
                scene.url.replace("http", "ws", 1) + "/realtime/v1/ws",
                additional_headers={"authorization": f"Bearer {token.text}"},
                proxy=None,
                compression=None,
                max_size=None,
                max_queue=4,
                ping_interval=None,
                open_timeout=None,
            )
    except InvalidStatus as refused:
        status = refused.response.status_code
        scene.oracle.counts[f"refused {status} upgrade"] += 1
        raise ConnectionRefusedError(f"the upgrade was answered with {status}") from None
    try:
        yield socket
    finally:
        socket.transport.abort()
        await socket.wait_closed()
