"""`./dev bench`: runs benchmarks, shows their figures, and keeps them as JSON and as pictures."""

import asyncio
import contextlib
import dataclasses
import datetime
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from benchmarks.harness.bench import Bench, Options
from benchmarks.harness.failure import BenchmarkError, Unavailable
from benchmarks.harness.machine import describe, raise_file_limit, require_linux
from benchmarks.harness.plots import plot
from benchmarks.harness.record import Record
from benchmarks.harness.report import show, show_targets
from benchmarks.harness.store import Servers
from benchmarks.registry import Benchmark, all_benchmarks, choose

_RESULTS = Path(__file__).parent / "results"

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
console = Console(width=None if sys.stdout.isatty() else 160)


@app.command()
def main(
    names: Annotated[
        list[str] | None, typer.Argument(help="Which benchmarks to run.", show_default="all")
    ] = None,
    show_list: Annotated[bool, typer.Option("--list", help="Say what there is.")] = False,
    smoke: Annotated[
        bool, typer.Option("--smoke", help="Run through it with very little; figures mean nothing.")
    ] = False,
    passes: Annotated[int, typer.Option(min=1, help="How often each contestant has its turn.")] = 3,
    subscribers: Annotated[
        str, typer.Option(help="Numbers of subscribers, such as 1000,5000.", show_default="varies")
    ] = "",
    out: Annotated[Path, typer.Option(help="Where results go.", file_okay=False)] = _RESULTS,
    pictures: Annotated[bool, typer.Option(help="Draw the results.")] = True,
) -> None:
    """Measure the gateway beside references and peers; only ratios within one run count."""
    if show_list:
        for benchmark in all_benchmarks().values():
            print(f"{benchmark.name:24} {benchmark.summary}")
        return
    # A shell that runs us in the background has Ctrl-C ignored; a plain kill ends in order too.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        require_linux()
        options = Options(
            smoke=smoke,
            passes=passes,
            subscribers=tuple(int(count) for count in subscribers.split(",") if count),
            most_subscribers=raise_file_limit(),
        )
        records = []
        with _folder() as folder, Servers(folder) as servers:
            for benchmark in choose(names or []):
                record = _measured(benchmark, options, servers)
                records.append(record)
                file = out / f"{benchmark.name}{'-smoke' if smoke else ''}.json"
                record.save(file)
                show(console, record)
                if pictures:
                    _draw(record, file)
                console.print(f"{file} ({record.seconds:.0f} s)\n")
        if smoke:
            console.print("This was a smoke run: its figures mean nothing.")
        else:
            show_targets(console, records)
    except BenchmarkError as error:
        notes = getattr(error, "__notes__", [])
        console.print("\n".join([f"bench: {error}", *notes]), style="red", markup=False)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def _measured(benchmark: Benchmark, options: Options, servers: Servers) -> Record:
    record = Record(
        benchmark.name,
        benchmark.measures,
        describe(),
        datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        dataclasses.asdict(options),
    )
    os.sched_setaffinity(0, benchmark.layout.others)
    console.rule(f"[bold]{benchmark.name}")
    console.print(benchmark.summary, highlight=False)
    began = time.perf_counter()
    with asyncio.Runner() as runner:
        runner.run(_run(benchmark, options, record, servers))
    record.seconds = time.perf_counter() - began
    return record


async def _run(benchmark: Benchmark, options: Options, record: Record, servers: Servers) -> None:
    """Run it to its end, or until Ctrl-C; everything that it started ends with it."""
    with _folder() as folder, console.status("starting") as status:
        async with AsyncExitStack() as stack:
            layout = benchmark.layout
            say = status.update if console.is_terminal else _say
            bench = Bench(options, record, folder, layout, servers, say, stack)
            await benchmark.run(bench)


def _say(text: str) -> None:
    console.print(text, highlight=False)


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    """A folder with a path short enough for a socket's, that other users may pass through."""
    with tempfile.TemporaryDirectory(prefix="rcb-", dir="/tmp") as folder:
        path = Path(folder)
        path.chmod(0o755)  # Postgres runs as another user where this one is root
        yield path


def _draw(record: Record, file: Path) -> None:
    try:
        plot(record, file)
    except Unavailable as missing:
        console.print(f"[yellow]no picture: {missing}")


if __name__ == "__main__":
    app()
