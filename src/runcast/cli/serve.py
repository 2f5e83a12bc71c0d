"""`runcast serve`: a gateway, or several on one port, configured by the environment."""

import asyncio
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from runcast.cli.configuration import read_settings
from runcast.cli.console import say
from runcast.cli.logs import configure_logs
from runcast.cli.loop import ended_by_signals, run, settle
from runcast.cli.migrate import migrate_database
from runcast.cli.workers import StartFailed, Workers, worker_command
from runcast.errors import ConfigurationError
from runcast.settings import Settings
from runcast.web.listener import listen, url_of

if TYPE_CHECKING:
    from runcast.app import Listening

_AFTER_DRAIN_SECONDS = 20.0  # last requests and cleaning up, where a database does not answer


def serve(
    host: Annotated[
        str | None, typer.Option(help="Address to listen on.", show_default="RUNCAST_HOST")
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            help="Port to listen on; 0 picks a free one.",
            min=0,
            max=65535,
            show_default="RUNCAST_PORT",
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            help="Processes on that port, each a gateway with database connections of its own.",
            min=1,
            max=128,
            show_default="RUNCAST_WORKERS",
        ),
    ] = None,
    migrate: Annotated[
        bool, typer.Option("--migrate", help="Bring the database up to date first.")
    ] = False,
) -> None:
    """
    Run a gateway on the database of DATABASE_URL until SIGINT or SIGTERM.

    With several workers SIGHUP restarts them one after the other.

    All settings are in docs/settings.md; `runcast doctor --settings` prints them.
    """
    settings = read_settings(host=host, port=port, workers=workers)
    settings.require_database_url()
    configure_logs(settings)
    if settings.workers == 1:
        run(_serve(settings, migrate=migrate))
        return
    if sys.platform == "win32":
        raise ConfigurationError("More than one worker needs Linux or macOS.")
    try:
        run(_serve_with_workers(settings, migrate=migrate))
    except StartFailed as failed:
        raise typer.Exit(failed.status if failed.status > 0 else 1) from None


async def _serve(settings: Settings, *, migrate: bool) -> None:
    from runcast.app import serve as serve_gateway  # no other command needs all of it

    with ended_by_signals() as signals_handed_over:
        if migrate:
            await migrate_database(settings)

        async def ready(listening: "Listening") -> None:
            signals_handed_over.set()
            settle()
            say(f"runcast serves {listening.url}")

        await serve_gateway(settings, on_ready=ready)


async def _serve_with_workers(settings: Settings, *, migrate: bool) -> None:
    with ended_by_signals(), meeting_place() as folder:
        if migrate:
            await migrate_database(settings)
        limits = settings.limits
        listener = listen(
            settings.host,
            settings.port,
            stall_timeout_seconds=limits.stall_timeout_seconds,
            shared=True,
        )
        workers = Workers(
            settings.workers,
            listener,
            worker_command(settings.workers, folder),
            drain_seconds=limits.drain_seconds + _AFTER_DRAIN_SECONDS,
        )
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, workers.restart)
        url = url_of(listener)
        await workers.run(lambda: say(f"runcast serves {url} with {settings.workers} workers"))


@contextmanager
def meeting_place() -> Iterator[Path]:
    """A folder for the sockets over which workers tell each other what they count."""
    try:
        # A path of a socket has to be short.
        parent = tempfile.gettempdir() if len(tempfile.gettempdir()) < 64 else "/tmp"
        folder = tempfile.TemporaryDirectory(
            prefix="runcast-", dir=parent, ignore_cleanup_errors=True
        )
    except OSError as error:
        raise ConfigurationError(
            f"The workers need a temporary directory, and none could be made: {error.strerror}. "
            "Let TMPDIR name a directory that can be written to."
        ) from error
    with folder as path:
        yield Path(path)
