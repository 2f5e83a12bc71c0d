"""One timer for the heartbeats, expiries and stalls of all connections."""

import asyncio
from collections.abc import Callable
from typing import Protocol

from runcast.core.histogram import Histogram
from runcast.ports import Clock

TICK_SECONDS = 0.25


class Timed(Protocol):
    """Something that wants to be looked at from time to time."""

    def tick(self, now: float) -> float | None:
        """Do what is due; return the next due time in Unix seconds, or None when over."""
        ...


class Wheel:
    """Slots of a quarter of a second; an entry costs one list item, not a timer."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._slots: dict[int, list[Timed]] = {}
        self._last = int(clock.now() / TICK_SECONDS)
        self._timer: asyncio.TimerHandle | None = None
        self.lag = Histogram()

    def __len__(self) -> int:
        return sum(len(slot) for slot in self._slots.values())

    def add(self, timed: Timed, at: float) -> None:
        """Look at ``timed`` at this time or up to one tick before, never earlier than next tick."""
        slot = max(int(at / TICK_SECONDS), self._last + 1)
        self._slots.setdefault(slot, []).append(timed)

    def turn(self, on_error: Callable[[Exception], None]) -> None:
        """Look at everything that is due."""
        now = self._clock.now()
        current = int(now / TICK_SECONDS)
        if current - self._last > 4 * len(self._slots) + 4:  # the clock leapt, or we were stopped
            due = sorted(slot for slot in self._slots if slot <= current)
        else:
            due = [slot for slot in range(self._last + 1, current + 1) if slot in self._slots]
        self._last = current  # also back: what is added after the clock was set is for its new time
        for slot in due:
            for timed in self._slots.pop(slot):
                try:
                    again = timed.tick(now)
                except Exception as error:  # one connection's trouble is not the others'
                    on_error(error)
                    continue
                if again is not None:
                    self.add(timed, again)

    def keep_up(self, on_error: Callable[[Exception], None]) -> None:
        """Look at what is due, if that was not done in this quarter of a second."""
        if int(self._clock.now() / TICK_SECONDS) > self._last:
            self.turn(on_error)

    def start(self, on_error: Callable[[Exception], None]) -> None:
        """Turn by itself on the running loop until `stop`."""
        loop = asyncio.get_running_loop()

        def tick(due: float) -> None:
            now = loop.time()
            self.lag.observe(max(now - due, 0.0))  # loops round the time of their timers
            self._timer = loop.call_at(now + TICK_SECONDS, tick, now + TICK_SECONDS)
            self.turn(on_error)

        first = loop.time() + TICK_SECONDS
        self._timer = loop.call_at(first, tick, first)

    def stop(self) -> None:
        """Stop turning."""
        if self._timer is not None:
            self._timer.cancel()
