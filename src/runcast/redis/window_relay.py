"""
Carries the changefeed's windows between gateways: one leads, by leave of Redis, and tells the rest.

The leader's place is a key with its term's name in it that expires. Redis itself passes a message
on only for whose name is there, or takes the free place with it: a leader that was stopped, and
wakes up when another one leads, is refused. Messages are published and kept nowhere. What is lost,
also when the driver makes a new connection and subscribes by itself, leaves a gap that the next
message shows, at the latest the leader's next beat.
"""

import asyncio
import contextlib
import logging
import random
import secrets
from collections.abc import Callable
from typing import Any

from redis.asyncio.client import PubSub

from runcast.core.relaying import Relaying, Role
from runcast.core.window import parse_window
from runcast.errors import BackendError
from runcast.redis.courier import Courier, Script
from runcast.redis.server import ERRORS, RedisServer, translated

logger = logging.getLogger(__name__)

_PING_SECONDS = 1.0
_SILENCE_SECONDS = 3.0  # a connection that does not even answer pings is given up
_RETRY_SECONDS = (0.05, 1.0)
_FAREWELL_SECONDS = 1.0

# Arguments: the term, how long it holds the place in milliseconds, the message.
_LEAD = Script("""
local leader = redis.call('GET', KEYS[1])
if leader and leader ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
redis.call('SPUBLISH', KEYS[1], ARGV[1] .. ' ' .. ARGV[3])
return 1
""")

# Argument: the term. Says farewell, so that nobody has to wait for it to expire.
_LEAVE = Script("""
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[1])
redis.call('SPUBLISH', KEYS[1], ARGV[1] .. ' ')
return 1
""")


class RedisWindowRelay:
    """
    The port `WindowRelay` over Redis.

    Args:
        name: Of the key and channel; the same for those gateways alone that read the same tables.
    """

    def __init__(self, server: RedisServer, machine: Relaying, *, name: str) -> None:
        self.machine = machine
        self.on_news: Callable[[], None] = lambda: None
        self._server = server
        self._courier = Courier(server)
        self._place = name
        self._term = secrets.token_hex(8)
        self._may_lead = False  # whether Redis may still have our name
        self._stirred = asyncio.Event()
        self.reconnects = 0

    def stir(self) -> None:
        """There may be something to say."""
        self._stirred.set()

    async def run(self) -> None:
        """Carry messages until cancelled, then let another one lead."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._hear())
                tasks.create_task(self._speak())
        finally:
            self.machine.receive_deaf()
            self.machine.receive_answer(None)
            if self._may_lead:
                with contextlib.suppress(BackendError, TimeoutError):
                    async with asyncio.timeout(_FAREWELL_SECONDS):
                        await self._leave()
            await self._courier.close()

    # -- what we say ------------------------------------------------------------------------------

    async def _speak(self) -> None:
        loop = asyncio.get_running_loop()
        lease = int(self.machine.pace.silence * 1000)
        while True:
            self._stirred.clear()
            message = self.machine.next_message(loop.time())
            if message is not None:
                await self._lead(lease, message.to_bytes())
            elif self._may_lead and self.machine.role is not Role.LEADING:
                with contextlib.suppress(BackendError):
                    await self._leave()
            else:
                await self._rest(self.machine.speak_at)

    async def _lead(self, lease: int, message: bytes) -> None:
        """Say something as the leader, or become it thereby."""
        led = self.machine.role is Role.LEADING
        self._may_lead = True
        answer: bool | None = None
        with contextlib.suppress(BackendError):
            arguments = [self._term, lease, message]
            answer = bool(
                await self._courier.call(_LEAD, [self._place], arguments, size=len(message))
            )
            self._may_lead = answer
        self.machine.receive_answer(answer)
        if led is not (self.machine.role is Role.LEADING):
            logger.info("this gateway %s for the others", "stopped reading" if led else "reads")
            self.on_news()

    async def _leave(self) -> None:
        self._may_lead = False
        term, self._term = self._term, secrets.token_hex(8)
        await self._courier.call(_LEAVE, [self._place], [term])

    async def _rest(self, until: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(None if until == float("inf") else until):
                await self._stirred.wait()

    # -- what we hear -----------------------------------------------------------------------------

    async def _hear(self) -> None:
        delay = _RETRY_SECONDS[0]
        while True:
            heard_at = self.machine.heard_at
            pubsub: PubSub | None = None
            try:
                async with translated():
                    pubsub = self._server.news(await self._server.shard_of(self._place))
                    await self._listen(pubsub)
            except BackendError as error:
                logger.warning("other gateways cannot be heard, trying again: %s", error.message)
            finally:
                if pubsub is not None:
                    with contextlib.suppress(*ERRORS):
                        await pubsub.aclose()  # type: ignore[no-untyped-call]
            self.reconnects += 1
            self._server.forget_layout()
            self.machine.receive_deaf()
            self._tell()
            heard = self.machine.heard_at != heard_at
            delay = _RETRY_SECONDS[0] if heard else min(2 * delay, _RETRY_SECONDS[1])
            await asyncio.sleep(random.uniform(0.5, 1.0) * delay)

    async def _listen(self, pubsub: PubSub) -> None:
        """Subscribe, and hear, until the connection is lost or silent, or the place moves."""
        loop = asyncio.get_running_loop()
        await pubsub.ssubscribe(self._place)
        heard_at = loop.time()
        while True:
            message = await pubsub.get_message(timeout=_PING_SECONDS)
            if message is not None:
                heard_at = loop.time()
                if message["type"] == "sunsubscribe":
                    return
                if message["type"] == "smessage":
                    self._take(message["data"])
            elif loop.time() - heard_at > _SILENCE_SECONDS:
                raise TimeoutError
            else:
                await pubsub.ping()

    def _take(self, data: Any) -> None:
        term, _, said = data.partition(b" ")
        if term == self._term.encode():
            return
        if not said:
            self.machine.receive_farewell()
        else:
            try:
                window = parse_window(said)
            except ValueError:
                self.machine.receive_stranger()
            else:
                self.machine.receive_window(window, asyncio.get_running_loop().time())
        self._tell()

    def _tell(self) -> None:
        if self.machine.role is Role.ALONE:
            self._stirred.set()  # it may want to lead now
        self.on_news()
