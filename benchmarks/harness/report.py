"""Records as tables in a terminal."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from benchmarks.harness.record import Record
from benchmarks.harness.targets import TARGETS

_TABLES = 10
_COLORS = {"stretch": "bold green", "target": "green", "missed": "red"}


def show(console: Console, record: Record) -> None:
    """The medians of one benchmark."""
    xs = sorted({sample.x for sample in record.samples})
    if len(xs) > _TABLES:  # a curve, of which the picture has the rest
        console.print(f"{len(xs)} points; the first and the last:")
        xs = [xs[0], xs[-1]]
    for x in xs:
        metrics = [metric for metric in record.metrics() if x in record.xs(metric)]
        table = Table(title=f"{record.x_label}: {x:,g}" if record.x_label else None)
        table.add_column()
        for metric in metrics:
            table.add_column(metric, justify="right")
        for contestant in record.contestants():
            medians = [record.median(contestant, metric, x) for metric in metrics]
            if any(value is not None for value in medians):
                table.add_row(contestant, *(number(value) for value in medians))
        console.print(table)
    for name, reason in record.skipped.items():
        console.print(f"left out: {name}: {reason}", style="yellow", markup=False)
    for note in record.notes:
        console.print(note, markup=False)


def show_targets(console: Console, records: Sequence[Record]) -> None:
    """All ratios that targets are about."""
    if not any(record.ratios for record in records):
        return
    table = Table(title="Targets of issue 5")
    for name in ("metric", "naive", "limit", "target", "stretch", "measured", "range", ""):
        table.add_column(name, justify="left" if name in ("metric", "") else "right")
    for record in records:
        for ratio in record.ratios:
            target = TARGETS[ratio.target]
            sign = "≥ " if target.at_least else "≤ "
            table.add_row(
                f"{target.meaning}{', ' + ratio.label if ratio.label else ''}",
                target.naive,
                target.limit,
                f"{sign}{target.target:g}{target.unit}",
                f"{sign}{target.stretch:g}{target.unit}",
                f"{number(ratio.value)}{target.unit}",
                f"{number(ratio.least)} to {number(ratio.most)}",
                f"[{_COLORS[ratio.verdict]}]{ratio.verdict}",
            )
    console.print(table)


def number(value: float | None) -> str:
    """Three digits that matter, and no more zeros than needed."""
    if value is None:
        return ""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"
