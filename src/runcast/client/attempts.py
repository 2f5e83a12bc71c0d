"""When the next WebSocket may be tried: one failure after the other, however many feeds wait."""

import asyncio

from runcast.client.backoff import Backoff

_BACK_OFF_SECONDS = (0.25, 15.0)


class Attempts:
    """
    Counts what failed, and spaces what follows.

    ``resets``, in a row: connections that came to nothing before the gateway said anything.
    """

    def __init__(self) -> None:
        self.resets = 0
        self._backoff = Backoff(*_BACK_OFF_SECONDS)
        self._not_before = 0.0

    async def turn(self) -> None:
        """Wait until the next attempt may be made."""
        await asyncio.sleep(max(self._not_before - asyncio.get_running_loop().time(), 0.0))

    def failed(self, wait_seconds: float) -> None:
        """A socket was lost, or not had: wait longer than before, and at least for so long."""
        delay = max(self._backoff.next_delay(), wait_seconds)
        self._not_before = asyncio.get_running_loop().time() + delay

    def succeeded(self) -> None:
        """A socket was of use."""
        self._backoff.reset()
