"""Somebody who follows something for as long as the suite runs, one connection after the other."""

import asyncio
import random
from abc import ABC, abstractmethod

from websockets.exceptions import WebSocketException

from chaos.scene import Scene, Whims

_BACKOFF_SECONDS = (0.05, 0.6)
_MOST_DOUBLED = 4  # times, one for each connection in a row that was lost


class Subscriber(ABC):
    """
    The life of a subscriber: follow, lose or leave the connection, come back.

    Args:
        name: Of this one; its choices follow from it and the seed.
    """

    transport = ""

    def __init__(self, scene: Scene, name: str) -> None:
        self.scene = scene
        self.name = name
        self.dice = random.Random(f"{scene.oracle.seed} {name}")
        self.whims = Whims(scene)

    async def run(self) -> None:
        """Follow until cancelled."""
        counts = self.scene.oracle.counts
        lost = 0
        while True:
            self.whims = Whims.choose(self.scene, self.dice)
            counts["connections"] += 1
            following = asyncio.create_task(self.follow())
            try:
                await self._wait_for(following)
                why = self._why(following)
                counts[f"ended by {why}"] += 1
                lost = min(lost + 1, _MOST_DOUBLED) if why in ("silence", "a break") else 0
            finally:
                following.cancel()
                await asyncio.wait([following])
            backoff = self.dice.uniform(*_BACKOFF_SECONDS) * 2**lost
            await asyncio.sleep(max(self.pause(), backoff))

    @abstractmethod
    async def follow(self) -> None:
        """Follow on one connection until it is over, in whatever way."""

    @abstractmethod
    def rewind(self) -> None:
        """Go back to an earlier cursor."""

    @abstractmethod
    def forget(self) -> None:
        """Begin from the start."""

    @abstractmethod
    def pause(self) -> float:
        """Seconds until the next connection."""

    @abstractmethod
    def object(self, kind: str, expected: str) -> None:
        """Something is wrong with what it was sent."""

    async def _wait_for(self, following: "asyncio.Task[None]") -> None:
        if self.whims.stays is None:
            await asyncio.wait([following])
            return
        ending = asyncio.create_task(self.scene.ending.wait())
        try:
            # Who has a reason to leave at the ending stays instead.
            await asyncio.wait(
                [following, ending],
                timeout=self.whims.stays,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if ending.done():
                await asyncio.wait([following])
        finally:
            ending.cancel()

    def _why(self, following: "asyncio.Task[None]") -> str:
        if not following.done():
            if self.whims.rewinds:
                self.rewind()
            elif self.whims.forgets:
                self.forget()
            return "its reader"
        error = following.exception()
        match error:
            case None:
                return "an answer"
            case TimeoutError():
                return "silence"
            case OSError() | WebSocketException() | EOFError():
                return "a break"
        self.object("unreadable", f"{type(error).__name__}: {error}")
        return "nonsense"
