"""
News of streams from other gateways: one connection for each server of Redis, however many streams.

News are a hint. What they tell of is read; whenever a subscription begins, also when the driver
made a new connection and subscribed by itself, its stream is read too, because what was published
in between is lost; and now and then all streams are looked at, which bounds every mistake.
"""

import asyncio
import contextlib
import logging
import random
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import Any

from redis.asyncio.client import PubSub

from runcast.core.chunk import StreamMove, StreamName
from runcast.errors import BackendError
from runcast.redis.courier import Courier
from runcast.redis.server import ERRORS, RedisServer, translated
from runcast.redis.stream_keys import StreamKeys
from runcast.redis.stream_scripts import LOOK

logger = logging.getLogger(__name__)

_LOOK_SECONDS = 10.0
_PING_SECONDS = 3.0
_SILENCE_SECONDS = 8.0  # a connection that does not even answer pings is given up
_RETRY_SECONDS = (0.05, 2.0)
_CHANNELS_A_COMMAND = 500


class StreamNews:
    """
    Follows the streams that somebody reads here.

    News under this gateway's own name are passed over: what it did it tells itself, and sooner.
    """

    def __init__(self, server: RedisServer, reads: Courier, keys: StreamKeys) -> None:
        self.on_move: Callable[[Sequence[StreamMove]], object] = lambda moves: None
        self._server = server
        self._reads = reads
        self._keys = keys
        self.gateway = secrets.token_hex(6)  # the name that it publishes under
        self._followers: Counter[StreamName] = Counter()
        self._heads: dict[str, StreamName] = {}
        self._told: dict[StreamName, tuple[int, int, bool]] = {}
        self._shards: dict[str, _Shard] = {}
        self._places: dict[str, _Shard] = {}  # of each head, who listens for it
        self._arrived: dict[str, None] = {}  # heads that nobody listens for yet
        self._someone_came = asyncio.Event()
        self.reconnects = 0
        self.misses = 0  # what was found by looking, and no news had told of

    @property
    def connected(self) -> bool:
        """Whether news of all followed streams can arrive."""
        return not self._arrived and all(shard.connected for shard in self._shards.values())

    def follow(self, name: StreamName) -> None:
        """Tell of this stream from now on."""
        self._followers[name] += 1
        if self._followers[name] == 1:
            self._arrive(self._keys.head(name), name)

    def unfollow(self, name: StreamName) -> None:
        """One reader fewer."""
        self._followers[name] -= 1
        if self._followers[name] > 0:
            return
        del self._followers[name]
        head = self._keys.head(name)
        self._heads.pop(head, None)
        self._told.pop(name, None)
        self._arrived.pop(head, None)
        if (shard := self._places.pop(head, None)) is not None:
            shard.leave(head)

    def _arrive(self, head: str, name: StreamName) -> None:
        self._heads[head] = name
        self._arrived[head] = None
        self._someone_came.set()

    def tell(self, move: StreamMove) -> None:
        """Tell the hub of what this gateway itself did."""
        told = self._told.get(move.name)
        if told is not None and move.next_index is not None:
            self._told[move.name] = (told[0], max(told[1], move.next_index), told[2])
        self.on_move([move])

    def doubt(self, name: StreamName) -> None:
        """An append was not answered: read the stream, and listen if it is done later after all."""
        self.gateway = secrets.token_hex(6)
        self.look(name)

    def look(self, name: StreamName) -> None:
        """Let the stream be read: what became of it is not known."""
        self.on_move([StreamMove(name, None, False)])

    async def run(self) -> None:
        """Follow until cancelled."""
        self._shards, self._places = {}, {}
        self._arrived = dict.fromkeys(self._heads)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._look_around())
            while True:
                try:
                    while self._arrived:
                        await self._place(next(iter(self._arrived)), tasks)
                except BackendError as error:
                    logger.warning("streams cannot be followed, trying again: %s", error.message)
                    await asyncio.sleep(_RETRY_SECONDS[1])
                    continue
                self._someone_came.clear()
                await self._someone_came.wait()

    async def _place(self, head: str, tasks: asyncio.TaskGroup) -> None:
        """Let the server that has a stream tell of it."""
        address = await self._server.shard_of(head)
        self._arrived.pop(head, None)
        if head not in self._heads:
            return  # its last reader left meanwhile
        shard = self._shards.get(address)
        if shard is None:
            shard = self._shards[address] = _Shard(self, self._server, address)
            tasks.create_task(shard.run())
        self._places[head] = shard
        shard.join(head)

    # -- what the connections hear ----------------------------------------------------------------

    def subscribed(self, head: str) -> None:
        """From now on news of a stream arrive; what was before, they did not tell."""
        if (name := self._heads.get(head)) is not None:
            self.look(name)

    def moved_away(self, head: str) -> None:
        """The stream has another server now."""
        self._server.forget_layout()
        self._places.pop(head, None)
        if (name := self._heads.get(head)) is not None:
            self._arrive(head, name)

    def heard(self, head: str, news: bytes) -> None:
        """Something happened to a stream."""
        name = self._heads.get(head)
        if name is None:
            return
        generation, reached, closed, gateway = news.split(b" ", 3)
        state = (int(generation), int(reached), closed == b"1")
        told, self._told[name] = self._told.get(name), state
        if gateway.decode() == self.gateway:
            return
        if told is None or told[0] != state[0]:
            self.look(name)  # it may have begun anew, and be as long as before
        else:
            self.on_move([StreamMove(name, state[1], state[2])])

    # -- looking ----------------------------------------------------------------------------------

    async def _look_around(self) -> None:
        while True:
            pause = _LOOK_SECONDS if self._server.answers else _RETRY_SECONDS[1]
            await asyncio.sleep(random.uniform(0.5, 1.0) * pause)
            with contextlib.suppress(BackendError):
                await self.look_at_all()

    async def look_at_all(self, *, patience_seconds: float = 1.0) -> None:
        """
        Look whether something happened to any stream that was not told, nor soon will be.

        Raises:
            BackendError: Redis does not answer.
        """
        heads = dict(self._heads)
        # Also without a stream: so it is known whether Redis answers.
        answers = await asyncio.gather(
            *(self._reads.call(LOOK, [head], []) for head in heads or [self._keys.run("")])
        )
        found = {
            name: (generation, reached, bool(closed))
            for name, (generation, reached, closed) in zip(heads.values(), answers, strict=False)
        }
        before = {name: self._told.get(name) for name in found}
        silent = [name for name, state in found.items() if before[name] != state]
        if not silent:
            return
        await asyncio.sleep(patience_seconds)
        for name in silent:
            if name not in self._followers or self._told.get(name) != before[name]:
                continue
            self.misses += before[name] is not None
            self._told[name] = found[name]
            self.look(name)


class _Shard:
    """The subscriptions on one server."""

    def __init__(self, news: StreamNews, server: RedisServer, address: str) -> None:
        self._news = news
        self._server = server
        self._address = address
        self._heads: set[str] = set()
        self._coming: dict[str, None] = {}
        self._leaving: dict[str, None] = {}
        self._changed = asyncio.Event()
        self.connected = False

    def join(self, head: str) -> None:
        """Listen for a stream."""
        self._heads.add(head)
        self._coming[head] = None
        self._leaving.pop(head, None)
        self._changed.set()

    def leave(self, head: str) -> None:
        """Listen for a stream no more."""
        self._heads.discard(head)
        if head in self._coming:
            del self._coming[head]
        else:
            self._leaving[head] = None
            self._changed.set()

    async def run(self) -> None:
        """Stay connected until cancelled, while there is something to hear."""
        delay = _RETRY_SECONDS[0]
        while True:
            self.connected = not self._heads
            while not self._heads:
                self._changed.clear()
                await self._changed.wait()
            self.connected = False
            pubsub = self._server.news(self._address)
            try:
                async with translated():
                    await self._listen(pubsub)
            except BackendError as error:
                logger.warning("news of streams are lost, trying again: %s", error.message)
                self._news.reconnects += 1
                self._give_back()
                delay = _RETRY_SECONDS[0] if self.connected else min(2 * delay, _RETRY_SECONDS[1])
                self.connected = False
                await asyncio.sleep(random.uniform(0.5, 1.0) * delay)
            finally:
                with contextlib.suppress(*ERRORS):
                    await pubsub.aclose()  # type: ignore[no-untyped-call]

    def _give_back(self) -> None:
        """Let it be asked which node of a cluster has the streams now."""
        if self._address:
            heads, self._heads = self._heads, set()
            for head in heads:
                self._news.moved_away(head)

    async def _listen(self, pubsub: PubSub) -> None:
        """Subscribe, and hear, until the connection is lost or silent."""
        loop = asyncio.get_running_loop()
        self._coming, self._leaving = dict.fromkeys(self._heads), {}
        await self._subscribe(pubsub)
        heard_at = loop.time()
        async with _beside(self._keep_subscribed(pubsub)) as subscribing:
            while self._heads:
                if subscribing.done():
                    subscribing.result()  # raises what it failed with
                message = await pubsub.get_message(timeout=_PING_SECONDS)
                if message is not None:
                    heard_at = loop.time()
                    self.connected = True
                    self._hear(message)
                elif loop.time() - heard_at > _SILENCE_SECONDS:
                    raise TimeoutError
                else:
                    await pubsub.ping()

    async def _keep_subscribed(self, pubsub: PubSub) -> None:
        while True:
            self._changed.clear()
            await self._subscribe(pubsub)
            await self._changed.wait()

    async def _subscribe(self, pubsub: PubSub) -> None:
        together = 1 if self._address else _CHANNELS_A_COMMAND  # a cluster takes them one by one
        while self._coming:
            heads = list(self._coming)[:together]
            for head in heads:
                del self._coming[head]
            await pubsub.ssubscribe(*heads)
        while self._leaving:
            heads = list(self._leaving)[:together]
            for head in heads:
                del self._leaving[head]
            await pubsub.sunsubscribe(*heads)

    def _hear(self, message: dict[str, Any]) -> None:
        channel = message["channel"]
        head = channel.decode() if isinstance(channel, bytes) else ""
        match message["type"]:
            case "smessage":
                self._news.heard(head, message["data"])
            case "ssubscribe":
                self._news.subscribed(head)
            case "sunsubscribe" if head in self._heads and head not in self._coming:
                self._heads.discard(head)
                self._news.moved_away(head)


@contextlib.asynccontextmanager
async def _beside(work: Coroutine[Any, Any, None]) -> AsyncIterator[asyncio.Task[None]]:
    """Work beside the block, for no longer than it lasts."""
    task = asyncio.create_task(work)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
