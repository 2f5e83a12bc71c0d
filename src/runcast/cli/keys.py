"""`runcast keys`: environments and the secret keys of each."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from runcast.auth.keys import SigningKey
from runcast.cli.clock import now
from runcast.cli.configuration import read_settings
from runcast.cli.console import result, say
from runcast.cli.environments import find_environment, opened_key_store
from runcast.cli.loop import run
from runcast.core.timespan import parse_timespan
from runcast.settings import Settings

app = typer.Typer(
    help="List environments, create one, or give one a new secret key.", no_args_is_help=True
)

_SHOWN_CHARACTERS = 4


@app.command("list")
def list_environments(
    show: Annotated[bool, typer.Option("--show", help="Print the keys in full.")] = False,
) -> None:
    """List all environments with their keys, each key cut short unless --show."""
    run(_list(read_settings(), show=show))


@app.command()
def create(
    slug: Annotated[str, typer.Argument(help="Short name, such as prod: a-z, 0-9 and dashes.")],
    name: Annotated[str | None, typer.Option(help="A name for people.")] = None,
) -> None:
    """Create an environment and print its secret key."""
    run(_create(read_settings(), slug, name or slug))


@app.command()
def rotate(
    slug: Annotated[str, typer.Argument(help="Environment that gets a new key.")],
    grace: Annotated[
        str, typer.Option(metavar="SPAN", help='How long the old keys still work, such as "24h".')
    ] = "24h",
) -> None:
    """Give an environment a new secret key and print it; the old ones end after the grace."""
    run(_rotate(read_settings(), slug, parse_timespan(grace)))


async def _list(settings: Settings, *, show: bool) -> None:
    async with opened_key_store(settings) as store:
        environments = await store.list_environments()
        for environment in environments:
            result(f"{environment.slug}  {environment.id}  {environment.name}")
            ring = await store.read_key_ring(environment.id)
            for key in ring.usable_keys(now()) if ring else ():
                result(f"    {key.secret if show else _shortened(key.secret)}  {_state(key)}")
    if not environments:
        say("no environment yet: `runcast keys create prod` makes one")


async def _create(settings: Settings, slug: str, name: str) -> None:
    async with opened_key_store(settings) as store:
        environment_id, key = await store.create_environment(slug, name)
    say(f"created {slug} ({environment_id}); its secret key:")
    result(key)


async def _rotate(settings: Settings, slug: str, grace_seconds: float) -> None:
    async with opened_key_store(settings) as store:
        environment = await find_environment(store, slug)
        key = await store.rotate_key(environment.id, grace_seconds)
    say(f"older keys of {slug} work for another {grace_seconds:.0f} seconds; the new one:")
    result(key)


def _shortened(key: str) -> str:
    prefix, underscore, _ = key.rpartition("_")
    return f"{prefix}{underscore}…{key[-_SHOWN_CHARACTERS:]}"


def _state(key: SigningKey) -> str:
    if key.expires_at is None:
        return "active"
    end = datetime.fromtimestamp(key.expires_at, UTC)
    return f"retired, works until {end:%Y-%m-%d %H:%M:%S} UTC"
