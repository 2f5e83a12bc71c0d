"""Records as pictures, PNG and SVG."""

import math
from pathlib import Path
from typing import Any

from benchmarks.harness.failure import Unavailable
from benchmarks.harness.record import Record

_COLUMNS = 3
_INCHES = (6.0, 4.0)


def plot(record: Record, file: Path) -> None:
    """
    Draw each metric: lines where something was varied, bars otherwise.

    Args:
        file: Where to; its ending is replaced by .png and .svg.

    Raises:
        Unavailable: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise Unavailable("matplotlib is missing: pip install -e '.[bench]'") from None
    metrics = record.metrics()
    columns = min(_COLUMNS, len(metrics))
    rows = math.ceil(len(metrics) / columns)
    figure = Figure(figsize=(_INCHES[0] * columns, _INCHES[1] * rows), layout="constrained")
    figure.suptitle(f"{record.benchmark} · {record.machine['cpu']} · {record.started_at[:10]}")
    for place, metric in enumerate(metrics):
        axes = figure.add_subplot(rows, columns, place + 1)
        axes.set_title(metric)
        if len(record.xs(metric)) > 1:
            _lines(axes, record, metric)
        else:
            _bars(axes, record, metric)
    for kind in ("png", "svg"):
        figure.savefig(file.with_suffix(f".{kind}"), dpi=110)


def _lines(axes: Any, record: Record, metric: str) -> None:
    xs = record.xs(metric)
    for contestant in record.contestants():
        found = [(x, record.median(contestant, metric, x)) for x in xs]
        points = [(x, y) for x, y in found if y is not None]
        if points:
            axes.plot(*zip(*points, strict=True), marker="o", markersize=3, label=contestant)
    if min(xs) > 0 and max(xs) / min(xs) > 20:
        axes.set_xscale("log")
    axes.set_ylim(bottom=0)
    axes.set_xlabel(record.x_label)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)


def _bars(axes: Any, record: Record, metric: str) -> None:
    x = record.xs(metric)[0]
    found = {name: record.median(name, metric, x) for name in record.contestants()}
    bars = {name: value for name, value in found.items() if value is not None}
    drawn = axes.barh(list(bars), list(bars.values()))
    axes.bar_label(drawn, fmt="%.3g", padding=3)
    axes.margins(x=0.15)
    axes.invert_yaxis()
