"""`runcast migrate`: bring the database's schema up to date."""

from typing import Annotated

import typer

from runcast.cli.configuration import read_settings
from runcast.cli.console import result, say
from runcast.cli.loop import run
from runcast.postgres import migrate as migrations
from runcast.postgres.connection import connected
from runcast.settings import Settings


def migrate(
    check: Annotated[
        bool, typer.Option("--check", help="Change nothing; status 1 when something is to be done.")
    ] = False,
) -> None:
    """
    Bring the database of DATABASE_URL up to date.

    Doing it again changes nothing, and any number of gateways may do it at once.
    """
    settings = read_settings()
    if check:
        run(check_schema(settings))
    else:
        run(migrate_database(settings))


async def migrate_database(settings: Settings) -> None:
    """Apply all pending migrations, naming each."""
    async with connected(settings.require_database_url()) as connection:
        applied = await migrations.migrate(connection, schema=settings.schema_name)
    for migration in applied:
        say(f"applied {migration.file_name}")
    if not applied:
        say("the database is up to date")


async def check_schema(settings: Settings) -> None:
    """Name the pending migrations; fail when there are any."""
    async with connected(settings.require_database_url()) as connection:
        found = await migrations.status(connection, schema=settings.schema_name)
    for migration in found.pending:
        result(migration.file_name)
    if found.pending:
        say("these migrations are pending: run `runcast migrate`")
        raise typer.Exit(1)
    say("the database is up to date")
