"""The command line: one file per command; every error that is ours ends in one readable line."""

import sys
from typing import Annotated

import typer

from runcast.cli import keys, token
from runcast.cli.console import fail, result
from runcast.cli.dev import dev
from runcast.cli.doctor import doctor
from runcast.cli.migrate import migrate
from runcast.cli.serve import serve
from runcast.cli.tail import tail
from runcast.cli.version import own_version
from runcast.cli.worker import worker
from runcast.errors import ConfigurationError, GatewayError, RequestError

app = typer.Typer(
    name="runcast",
    help="Follow background runs live: Postgres to Server-Sent Events and WebSockets.",
    epilog="To begin: runcast dev",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (dev, serve, migrate, tail, doctor):
    app.command()(command)
app.add_typer(token.app, name="token")
app.command(hidden=True)(worker)
app.add_typer(keys.app, name="keys")

_FAILED = 1
_USED_WRONGLY = 2


def _show_version(wanted: bool) -> None:
    if wanted:
        result(f"runcast {own_version()}")
        raise typer.Exit


@app.callback()
def _global_options(
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", callback=_show_version, is_eager=True),
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line; status 2 for wrong usage, 1 when a command failed."""
    try:
        app()
    except (ConfigurationError, RequestError) as error:
        fail(error.message)
        sys.exit(_USED_WRONGLY)
    except GatewayError as error:
        fail(error.message)
        sys.exit(_FAILED)
