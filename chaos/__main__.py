"""`./dev chaos`: breaks a deployment for some time, and says what came of it."""

import asyncio
import contextlib
import datetime
import resource
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from chaos.clock import now
from chaos.deployment import Deployment, remote
from chaos.failure import ChaosError
from chaos.local.deployment import local
from chaos.report import Report
from chaos.storm import Plan, Storm

_RESULTS = Path(__file__).parent / "results"

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
console = Console(width=None if sys.stdout.isatty() else 160)


@app.command()
def main(
    minutes: Annotated[float, typer.Option(help="Of faults, shared by the seeds.")] = 5,
    subscribers: Annotated[int, typer.Option(min=8, help="Subscriptions at the same time.")] = 300,
    seeds: Annotated[str, typer.Option(help="What is done follows from these.")] = "1,2,3,4",
    url: Annotated[
        str, typer.Option(help="Of the deployment.", show_default="one of its own")
    ] = "",
    key: Annotated[
        str, typer.Option(envvar="RUNCAST_SECRET_KEY", help="Of an environment for this alone.")
    ] = "",
    database: Annotated[
        str, typer.Option(envvar="DATABASE_URL", help="For writers by SQL, and a stricter judge.")
    ] = "",
    schema: Annotated[str, typer.Option(help="Where runcast's tables are there.")] = "runcast",
    heartbeat: Annotated[float, typer.Option(help="RUNCAST_HEARTBEAT_SECONDS there.")] = 15,
    changes: Annotated[float, typer.Option(help="Of runs, a second.")] = 40,
    pace: Annotated[float, typer.Option(help="Faults come so many times as fast.")] = 1,
    out: Annotated[Path, typer.Option(help="Where the report goes.", file_okay=False)] = _RESULTS,
) -> None:
    """Break a deployment, and look whether anything was lost, doubled or shown wrongly."""
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    names = [seed.strip() for seed in seeds.split(",") if seed.strip()]
    plan = Plan(subscribers, 60 * minutes / max(len(names), 1), changes=changes, pace=pace)
    report = Report(url or "local", names, subscribers)
    began = now()
    try:
        with _folder() as folder:
            deployment = (
                remote(url, key, database or None, schema, heartbeat) if url else local(folder)
            )
            fails = True
            try:
                asyncio.run(_run(deployment, names, plan, report))
                fails = bool(report.violations)
            finally:
                if fails and not url:
                    console.print(f"logs of the deployment: {_keep(folder, out)}")
            report.seconds = now() - began
    except ChaosError as error:
        console.print(f"chaos: {error}", style="red", markup=False)
        raise typer.Exit(2) from None
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    file = out / f"{datetime.datetime.now(datetime.UTC):%Y-%m-%dT%H%M%S}.json"
    report.save(file)
    report.show(console)
    console.print(str(file))
    raise typer.Exit(1 if report.violations else 0)


async def _run(
    deployment: AbstractAsyncContextManager[Deployment],
    seeds: list[str],
    plan: Plan,
    report: Report,
) -> None:
    with console.status("starting") as status:
        say = status.update if console.is_terminal else _say
        async with deployment as running:
            for seed in seeds:
                await Storm(running, seed, plan, report, say).run()


def _say(text: str) -> None:
    console.print(f"{datetime.datetime.now(datetime.UTC):%H:%M:%S} {text}", highlight=False)


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    """A folder with a path short enough for a socket's, that other users may pass through."""
    with tempfile.TemporaryDirectory(prefix="rcc-", dir="/tmp") as folder:
        path = Path(folder)
        path.chmod(0o755)  # Postgres runs as another user where this one is root
        yield path


def _keep(folder: Path, out: Path) -> Path:
    """Save the logs, which go with the folder otherwise."""
    kept = out / f"logs-{datetime.datetime.now(datetime.UTC):%Y-%m-%dT%H%M%S}"
    kept.mkdir(parents=True)
    for log in folder.rglob("*.log"):
        (kept / log.name).write_bytes(log.read_bytes())
    return kept


if __name__ == "__main__":
    app()
