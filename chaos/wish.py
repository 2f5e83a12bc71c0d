"""What a subscriber asks for, and what its token lets it see: said here once more, on its own."""

import random
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from chaos.sight import Sight

TASKS = ("t1", "t2", "t3")
TAGS = ("u", "v", "x", "y", "z")
_SKIPPABLE = ("payload", "output", "metadata", "error")


@dataclass(frozen=True)
class Wish:
    """
    A selector, the scopes of its token, and columns that are left out.

    Without scopes it comes with the secret key. ``withheld`` is in the token, ``skipped`` in the
    request.
    """

    run: str | None = None
    tags: tuple[str, ...] = ()
    task: str | None = None
    batch: str | None = None
    scopes: tuple[str, ...] = ()
    withheld: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        """A word for the report."""
        for name in ("run", "batch", "tags", "task"):
            if getattr(self, name):
                return name
        return "all"

    @property
    def hidden(self) -> frozenset[str]:
        """Fields that never come; what a token withholds takes the place of what is asked."""
        # A run without a payload says so: that field is told either way.
        return frozenset(self.withheld or self.skipped) - {"payload"}

    def path(self) -> str:
        """The address of the feed."""
        if self.run:
            return f"/realtime/v1/runs/{self.run}"
        if self.batch:
            return f"/realtime/v1/batches/{self.batch}"
        return "/realtime/v1/runs"

    def query(self) -> dict[str, str]:
        """The parameters of the feed, for HTTP."""
        query = {}
        if self.tags:
            query["tags"] = ",".join(self.tags)
        if self.task:
            query["task"] = self.task
        if self.skipped:
            query["skipColumns"] = ",".join(self.skipped)
        return query

    def asked(self) -> dict[str, Any]:
        """The selector, for the WebSocket."""
        asked: dict[str, Any] = {}
        if self.tags:
            asked["tags"] = list(self.tags)
        one = {"run": self.run, "task": self.task, "batch": self.batch}
        return asked | {name: value for name, value in one.items() if value}

    def shows(self, run: Sight) -> bool:
        """Tell whether this run, as it is there, is asked for and may be seen."""
        if (self.run and self.run != run.run_id) or (self.task and self.task != run.task):
            return False
        if (self.batch and self.batch != run.batch_id) or not run.tags.issuperset(self.tags):
            return False
        if not self.scopes:
            return True
        return any(_allows(kind, name, run) for kind, name in _readable(self.scopes))

    def __str__(self) -> str:
        scopes = " ".join(self.scopes) or "secret key"
        asked = ",".join(f"{name}={value}" for name, value in self.asked().items()) or "all runs"
        return f"{asked} with {scopes}"


@lru_cache(maxsize=4096)
def _readable(scopes: tuple[str, ...]) -> list[tuple[str, str]]:
    """The kinds and names that scopes let read."""
    parts = [f"{scope}:".split(":") for scope in scopes]
    return [(kind, name) for _, kind, name, *_ in parts]


def _allows(kind: str, name: str, run: Sight) -> bool:
    match kind:
        case "runs":
            return not name or name == run.run_id
        case "tasks":
            return not name or name == run.task
        case "tags":
            return name in run.tags if name else bool(run.tags)
        case "batch":
            return run.batch_id is not None and name in ("", run.batch_id)
    raise ValueError(kind)


def choose_wish(dice: random.Random, runs: list[str], batches: list[str]) -> Wish:
    """A wish of any kind: with the key, or with a token as wide, narrower, or on another side."""
    tag, task = dice.choice(TAGS), dice.choice(TASKS)
    other = f"read:tags:{dice.choice(TAGS)}"
    withheld = tuple(name for name in _SKIPPABLE if dice.random() < 0.1)
    skipped = tuple(name for name in _SKIPPABLE if dice.random() < 0.1)

    def wish(*scopes: str, **asked: Any) -> Wish:
        chosen = scopes if dice.random() < 0.85 else ()
        return Wish(**asked, scopes=chosen, withheld=withheld if chosen else (), skipped=skipped)

    match dice.choices(("run", "tags", "task", "batch", "all"), (30, 35, 15, 12, 8))[0]:
        case "run":
            run = dice.choice(runs)
            # A token for another thing that the run has at times: it comes and goes with it.
            return wish(dice.choice((f"read:runs:{run}", other, f"read:tasks:{task}")), run=run)
        case "tags" if dice.random() < 0.3:
            both = tuple(sorted({tag, dice.choice(TAGS)}))
            return wish(f"read:tags:{both[0]}", tags=both)
        case "tags":
            return wish(f"read:tags:{tag}", *([other] if dice.random() < 0.3 else []), tags=(tag,))
        case "task":
            tags = (tag,) if dice.random() < 0.3 else ()
            return wish(
                f"read:tasks:{task}", *(f"read:tags:{each}" for each in tags), task=task, tags=tags
            )
        case "batch":
            batch = dice.choice(batches)
            return wish(dice.choice((f"read:batch:{batch}", "read:batch")), batch=batch)
        case _:
            return wish("read:runs")
