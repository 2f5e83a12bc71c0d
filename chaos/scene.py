"""What all subscribers and writers of a seed share."""

import asyncio
import random
from dataclasses import dataclass, field

from chaos.oracle import Oracle
from chaos.token import Signer

# Seconds that a connection lasts before its reader leaves it, on average.
_STAY_SECONDS = 25.0


@dataclass
class Scene:
    """
    The deployment as its users meet it, and who judges.

    Attributes:
        silence: Seconds without a byte after which a reader takes its connection for dead.
        ending: No more whims: everybody reads as fast as they can, and stays.
    """

    url: str
    signer: Signer
    oracle: Oracle
    silence: float
    ending: asyncio.Event = field(default_factory=asyncio.Event)

    async def until_ending(self, seconds: float) -> bool:
        """Wait so long, or until the ending; tell whether it came."""
        try:
            async with asyncio.timeout(seconds):
                await self.ending.wait()
        except TimeoutError:
            return False
        return True


@dataclass
class Whims:
    """
    How one reader behaves on one connection.

    Attributes:
        pause: Seconds between two reads.
        sleep: Seconds in which it takes nothing at all, once, some time after it began.
        stays: Seconds until it leaves.
        rewinds: Whether it comes back with an earlier cursor.
        forgets: Whether it comes back with none.
    """

    scene: Scene
    pause: float = 0.0
    sleep: float = 0.0
    stays: float | None = None
    rewinds: bool = False
    forgets: bool = False

    @classmethod
    def choose(cls, scene: Scene, dice: random.Random) -> "Whims":
        """Half of all readers are simply good."""
        stays = dice.expovariate(1 / _STAY_SECONDS) + 0.05
        rewinds, forgets = dice.random() < 0.4, dice.random() < 0.1
        kind = dice.choices(("good", "restless", "slow", "dead"), (50, 30, 13, 7))[0]
        pause, sleep = dice.uniform(0.02, 0.4), dice.uniform(1, 12)
        if scene.ending.is_set():
            return cls(scene)
        scene.oracle.counts[f"{kind} readers"] += 1
        match kind:
            case "restless":
                return cls(scene, stays=stays, rewinds=rewinds, forgets=forgets)
            case "slow":
                return cls(scene, pause=pause, stays=4 * stays, rewinds=rewinds)
            case "dead":
                return cls(scene, sleep=sleep, stays=4 * stays)
        return cls(scene)

    @property
    def prompt(self) -> bool:
        """Whether it reads as fast as things come."""
        return not (self.pause or self.sleep)

    async def hesitate(self) -> None:
        """What it does between two reads."""
        if self.sleep:
            seconds, self.sleep = self.sleep, 0.0
            await self.scene.until_ending(seconds)
        elif self.pause:
            await self.scene.until_ending(self.pause)
