"""`runcast serve`: one gateway, configured by the environment."""

from typing import TYPE_CHECKING, Annotated

import typer

from runcast.cli.configuration import read_settings
from runcast.cli.console import say
from runcast.cli.logs import configure_logs
from runcast.cli.loop import ended_by_signals, run
from runcast.cli.migrate import migrate_database
from runcast.settings import Settings

if TYPE_CHECKING:
    from runcast.app import Listening


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
    migrate: Annotated[
        bool, typer.Option("--migrate", help="Bring the database up to date first.")
    ] = False,
) -> None:
    """
    Run a gateway on the database of DATABASE_URL until SIGINT or SIGTERM.

    All settings are in docs/settings.md; `runcast doctor --settings` prints them.
    """
    settings = read_settings(host=host, port=port)
    settings.require_database_url()
    configure_logs(settings)
    run(_serve(settings, migrate=migrate))


async def _serve(settings: Settings, *, migrate: bool) -> None:
    from runcast.app import serve as serve_gateway  # no other command needs all of it

    with ended_by_signals() as signals_handed_over:
        if migrate:
            await migrate_database(settings)

        async def ready(listening: "Listening") -> None:
            signals_handed_over.set()
            say(f"runcast serves {listening.url}")

        await serve_gateway(settings, on_ready=ready)
