"""What was done, what was survived, and what was not: as JSON, and as a short table."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import orjson
from rich.console import Console
from rich.table import Table

from chaos.oracle import Oracle, Violation


@dataclass
class Report:
    """
    One run of the suite, all seeds together.

    Attributes:
        faults: How often each one was survived, by name.
        resets: Subscriptions that had to begin anew, by reason.
        counts: Everything else.
        log: Each fault, when it began (Unix time) and how many seconds it took.
    """

    url: str
    seeds: list[str]
    subscribers: int
    seconds: float = 0.0
    faults: Counter[str] = field(default_factory=Counter)
    resets: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)
    violations: list[Violation] = field(default_factory=list)
    log: list[tuple[float, float, str]] = field(default_factory=list)

    def take(self, oracle: Oracle) -> None:
        """Add what was seen with one seed."""
        self.violations += oracle.violations
        self.counts += oracle.counts
        self.resets += oracle.resets

    def save(self, file: Path) -> None:
        """Write it down as JSON."""
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(orjson.dumps(self, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS))

    def show(self, console: Console) -> None:
        """Print it, violations last."""
        for title, counter in (
            ("fault", self.faults),
            ("reset", self.resets),
            ("what happened", self.counts),
        ):
            if counter:
                table = Table(title, "times", box=None)
                for name, times in sorted(counter.items()):
                    table.add_row(name, str(times))
                console.print(table)
        for violation in self.violations:
            console.print(str(violation), style="red", markup=False, highlight=False)
        found = sum(times for name, times in self.counts.items() if name.startswith("violation"))
        console.print(
            f"{sum(self.faults.values())} faults in {self.seconds:.0f} seconds,"
            f" {self.subscribers} subscribers, seeds {', '.join(self.seeds)}:"
            f" {found or 'no'} violations"
        )
