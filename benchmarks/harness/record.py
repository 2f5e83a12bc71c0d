"""What a benchmark found: samples, ratios, and where and when, as JSON."""

import dataclasses
import json
import statistics
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.harness.targets import TARGETS


@dataclass(frozen=True)
class Sample:
    """One figure of one contestant in one pass; ``x`` is what was varied, if anything was."""

    contestant: str
    metric: str
    value: float
    x: float
    number: int  # of the pass


@dataclass(frozen=True)
class Ratio:
    """A figure that a target is about: the median over the passes, and their range."""

    target: str
    label: str
    value: float
    least: float
    most: float
    verdict: str


@dataclass
class Record:
    """The result of one benchmark."""

    benchmark: str
    measures: str  # the benchmark's docstring: what is inside the measured region
    machine: dict[str, object]
    started_at: str
    options: dict[str, object]
    x_label: str = ""
    samples: list[Sample] = field(default_factory=list)
    ratios: list[Ratio] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def values(self, contestant: str, metric: str, x: float = 0.0) -> dict[int, float]:
        """Figures by pass."""
        return {
            sample.number: sample.value
            for sample in self.samples
            if (sample.contestant, sample.metric, sample.x) == (contestant, metric, x)
        }

    def median(self, contestant: str, metric: str, x: float = 0.0) -> float | None:
        """The median over the passes; None without any."""
        values = self.values(contestant, metric, x)
        return statistics.median(values.values()) if values else None

    def contestants(self) -> list[str]:
        """In the order in which they came."""
        return list(dict.fromkeys(sample.contestant for sample in self.samples))

    def metrics(self) -> list[str]:
        return list(dict.fromkeys(sample.metric for sample in self.samples))

    def xs(self, metric: str) -> list[float]:
        """What was varied, ascending."""
        return sorted({sample.x for sample in self.samples if sample.metric == metric})

    def judge(self, target: str, values: list[float], label: str = "") -> None:
        """Hold one figure for each pass against a target."""
        if values:
            value = statistics.median(values)
            verdict = TARGETS[target].judge(value)
            self.ratios.append(Ratio(target, label, value, min(values), max(values), verdict))

    def compare(
        self,
        target: str,
        one: tuple[str, str, float],
        other: tuple[str, str, float],
        label: str = "",
    ) -> None:
        """
        Hold the ratio of two figures (contestant, metric, x) against a target.

        The ratio is taken within each pass, where both met the same noise.
        """
        ours, theirs = self.values(*one), self.values(*other)
        ratios = [ours[number] / theirs[number] for number in ours if theirs.get(number)]
        self.judge(target, ratios, label)

    def save(self, file: Path) -> None:
        """Write all of it as JSON."""
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(dataclasses.asdict(self), indent=1) + "\n")
