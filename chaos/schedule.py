"""What is done to a deployment and when: everything follows from the seed."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

_PAUSE_SECONDS = (0.3, 4.0)


class Dice(random.Random):
    """Chance that follows from a seed; ``pace`` divides all spans of time."""

    def __init__(self, seed: str, pace: float) -> None:
        super().__init__(seed)
        self.pace = pace

    def seconds(self, least: float, most: float) -> float:
        """How long something lasts."""
        return self.uniform(least, most) / self.pace


@dataclass(frozen=True)
class Step:
    """Wait so long, then do this; the fault makes its own choices by the dice."""

    pause: float
    fault: str
    dice: Dice


def schedule(seed: str, faults: Sequence[str], pace: float) -> Iterator[Step]:
    """
    Give steps without end: all faults in some order, then all in another one, and so on.

    Args:
        seed: The same seed and faults give the same steps.
        faults: Names.
        pace: Everything goes so many times as fast.
    """
    dice = Dice(f"schedule {seed}", pace)
    number = 0
    while faults:
        for fault in dice.sample(list(faults), len(faults)):
            number += 1
            yield Step(dice.seconds(*_PAUSE_SECONDS), fault, Dice(f"{seed} {number} {fault}", pace))
