"""Which benchmarks there are: one for each file in `cases`."""

import importlib
import inspect
import pkgutil
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from benchmarks import cases
from benchmarks.harness.bench import Bench
from benchmarks.harness.failure import BenchmarkError
from benchmarks.harness.machine import PINNED, SPREAD, Layout


@dataclass(frozen=True)
class Benchmark:
    """One file of `cases`: its ``measure``, and its docstring, which says what that measures."""

    name: str
    measures: str
    run: Callable[[Bench], Awaitable[None]]
    layout: Layout

    @property
    def summary(self) -> str:
        return self.measures.splitlines()[0]


def all_benchmarks() -> dict[str, Benchmark]:
    """Every benchmark by name: that of its file, with dashes."""
    found = [_load(module.name) for module in pkgutil.iter_modules(cases.__path__)]
    return {benchmark.name: benchmark for benchmark in found}


def choose(names: list[str]) -> list[Benchmark]:
    """
    The benchmarks of these names, or all.

    Raises:
        BenchmarkError: There is none of a name.
    """
    known = all_benchmarks()
    if unknown := [name for name in names if name not in known]:
        raise BenchmarkError(
            f"There is no benchmark {', '.join(unknown)}; there are: {', '.join(known)}."
        )
    return [known[name] for name in names or known]


def _load(module_name: str) -> Benchmark:
    module = importlib.import_module(f"{cases.__name__}.{module_name}")
    # A benchmark of throughput, in which all parts share all cores, says SPREAD_OUT = True.
    layout = SPREAD if getattr(module, "SPREAD_OUT", False) else PINNED
    return Benchmark(
        module_name.replace("_", "-"),
        inspect.cleandoc(module.__doc__ or ""),
        module.measure,
        layout,
    )
