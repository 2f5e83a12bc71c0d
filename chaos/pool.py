"""The runs that writers share, and what they were told became of them."""

import random
from collections import Counter
from dataclasses import dataclass, field

from chaos.sight import Sight


@dataclass
class Pool:
    """
    Runs by id.

    Attributes:
        most: So many runs there may be.
        sure: How often a run was counted up, as writers were told; a lower bound of its count.
        perhaps: How often more, where the answer was lost.
        untold: Runs of which not even the beginning is known any more.
    """

    most: int
    ids: list[str] = field(default_factory=list)
    batches: list[str] = field(default_factory=list)
    sure: Counter[str] = field(default_factory=Counter)
    perhaps: Counter[str] = field(default_factory=Counter)
    untold: set[str] = field(default_factory=set)

    @property
    def full(self) -> bool:
        return len(self.ids) >= self.most

    def add(self, run_id: str) -> None:
        """A run is there, or was there."""
        if run_id not in self.ids:
            self.ids.append(run_id)

    def choose(self, dice: random.Random) -> str:
        """Any of them."""
        return dice.choice(self.ids)

    def objections(self, runs: dict[str, Sight]) -> list[str]:
        """What was acknowledged and is not there, or is there more than once."""
        found = []
        for run_id in self.sure.keys() - self.untold:
            run = runs.get(run_id)
            least = self.sure[run_id]
            if run is None:
                found.append(f"{run_id} is gone, which nobody deleted")
            elif not least <= (run.count or 0) <= least + self.perhaps[run_id]:
                most = least + self.perhaps[run_id]
                found.append(f"{run_id} counts {run.count}, not {least} to {most}")
        return found
