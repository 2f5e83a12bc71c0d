"""A tailer that leaves the reading to another gateway's tailer while that can be relied upon."""

import asyncio
from typing import TYPE_CHECKING, Any

from runcast.core.relaying import RelayStep, Role
from runcast.core.window import Window
from runcast.ports import WindowRelay
from runcast.postgres.tailer import PostgresTailer

if TYPE_CHECKING:
    import asyncpg


class RelayedTailer(PostgresTailer):
    """
    Does what `core.relaying` says: reads alone, reads for all, or takes what the leader read.

    Of what it takes it reads the rows that somebody waits for here, as of its own windows: they are
    never older than the window, nor than what was handed over before.

    Args:
        relay: The way to the other gateways; the rest is that of `PostgresTailer`.
    """

    def __init__(self, url: str, *, relay: WindowRelay, **others: Any) -> None:
        super().__init__(url, **others)
        self._relay = relay
        self._relaying = relay.machine
        self._tails = True
        self._role = relay.machine.role
        relay.on_news = self._wake.set

    async def _begin(self, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        await super()._begin(connection)
        assert self._position is not None
        self._tails = True
        self._relaying.receive_place(self._position, asyncio.get_running_loop().time())
        self._relay.stir()

    def _lost(self) -> None:
        super()._lost()
        self._relaying.receive_lost()
        self._relay.stir()

    def _found(self, window: Window) -> None:
        # Told before our own subscribers get it: the others have to read rows as well.
        self._relaying.receive_read(window, asyncio.get_running_loop().time())
        if self._relaying.role is Role.LEADING:
            self._machine.receive_wanted()  # who knows what the others wait for
            self._relay.stir()

    async def _step(self, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        step = self._relaying.next_step(asyncio.get_running_loop().time())
        if self._relaying.role is not self._role:
            self._role = self._relaying.role
            self._relay.stir()  # who reads alone may want to lead
        if step is RelayStep.TAIL:
            await self._tail(connection)
            return
        if self._tails and self._relaying.role is Role.FOLLOWING:
            self._tails = False
            await self._disarm(connection)
            self._machine.receive_relieved()
            await connection.remove_listener(self._bell, self._rung)
        match step:
            case RelayStep.READ:
                await self._read(connection)
            case RelayStep.TAKE:
                if self._relaying.role is Role.FOLLOWING:  # still, after the wait above
                    await self._take(connection)
            case RelayStep.WAIT:
                if self.caught_up_at is not None:
                    self.caught_up_at = max(self.caught_up_at, self._relaying.heard_at)
                await self._wait(self._relaying.wake_at)

    async def _tail(self, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        if not self._tails:
            self._tails = True
            await connection.add_listener(self._bell, self._rung)
            self._machine.receive_connected(asyncio.get_running_loop().time())
        await super()._step(connection)

    async def _take(self, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        window = self._relaying.take()
        await self._hand_over(connection, window)
        self._stand_at(window.after)
        self._relaying.receive_taken(window)
        self.counts.changes += window.size
