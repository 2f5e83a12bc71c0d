"""`runcast token`: mint a public access token, or revoke some."""

import secrets
from typing import Annotated, Any

import typer

from runcast.auth.token import mint_token
from runcast.cli.clock import now
from runcast.cli.configuration import read_settings
from runcast.cli.console import result
from runcast.cli.environments import opened_key_store
from runcast.cli.gateway_api import client, post_json
from runcast.cli.loop import run
from runcast.cli.revocations import lift, list_revocations, revoke
from runcast.core.timespan import resolve_expiration
from runcast.errors import ConfigurationError, InvalidParameter, InvalidToken

app = typer.Typer(invoke_without_command=True)
app.command("revoke")(revoke)
app.command("revocations")(list_revocations)
app.command("lift")(lift)


@app.callback()
def token(
    context: typer.Context,
    run_id: Annotated[
        list[str] | None, typer.Option("--run", metavar="ID", help="Read this run. Repeatable.")
    ] = None,
    tag: Annotated[
        list[str] | None,
        typer.Option("--tag", metavar="TAG", help="Read runs with this tag. Repeatable."),
    ] = None,
    task: Annotated[
        list[str] | None,
        typer.Option("--task", metavar="TASK", help="Read runs of this task. Repeatable."),
    ] = None,
    batch: Annotated[
        list[str] | None,
        typer.Option("--batch", metavar="ID", help="Read runs of this batch. Repeatable."),
    ] = None,
    read_all: Annotated[
        bool, typer.Option("--read-all", help="Read every run of the environment.")
    ] = False,
    write_run: Annotated[
        list[str] | None,
        typer.Option("--write-run", metavar="ID", help="Write to this run. Repeatable."),
    ] = None,
    trigger: Annotated[
        list[str] | None,
        typer.Option("--trigger", metavar="TASK", help="Trigger this task. Repeatable."),
    ] = None,
    scope: Annotated[
        list[str] | None,
        typer.Option("--scope", metavar="SCOPE", help="Any other scope, as it is. Repeatable."),
    ] = None,
    one_time: Annotated[
        bool, typer.Option("--one-time", help="The token can trigger only once.")
    ] = False,
    expires: Annotated[
        str, typer.Option(metavar="SPAN", help='When it ends: "1h", "15 minutes", Unix time.')
    ] = "15m",
    skip_columns: Annotated[
        str | None,
        typer.Option(metavar="NAMES", help="Fields to withhold, such as payload,output."),
    ] = None,
    subject: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Whom it is for: all tokens of one subject can be revoked."
        ),
    ] = None,
    key: Annotated[
        str,
        typer.Option(
            envvar="RUNCAST_SECRET_KEY",
            metavar="KEY",
            help="Secret key of the environment; the variable keeps it out of process lists.",
            show_default=False,
        ),
    ] = "",
    environment: Annotated[
        str | None,
        typer.Option(
            "--environment",
            metavar="ID",
            help="Id of the key's environment: then neither database nor gateway is needed.",
        ),
    ] = None,
    url: Annotated[
        str | None,
        typer.Option(
            envvar="RUNCAST_URL", metavar="URL", help="Let this gateway mint it over HTTP."
        ),
    ] = None,
) -> None:
    """
    Mint a public access token and print it.

    Signed here when --environment is given; by the gateway of --url when that is; otherwise the
    database of DATABASE_URL tells which environment the key belongs to.
    """
    if context.invoked_subcommand is not None:
        return
    if not key:
        raise ConfigurationError("Give a secret key with RUNCAST_SECRET_KEY or --key.")
    scopes = [
        *(["read:runs"] if read_all else []),
        *(f"read:runs:{each}" for each in run_id or ()),
        *(f"read:tags:{each}" for each in tag or ()),
        *(f"read:tasks:{each}" for each in task or ()),
        *(f"read:batch:{each}" for each in batch or ()),
        *(f"write:runs:{each}" for each in write_run or ()),
        *(f"trigger:tasks:{each}" for each in trigger or ()),
        *(scope or ()),
    ]
    if not scopes:
        raise InvalidParameter(
            "Without scopes a token allows nothing: add --run, --tag, --task or --read-all."
        )
    columns = [name for each in (skip_columns or "").split(",") if (name := each.strip())]
    expiration = _expiration(expires)
    if url and environment is None:
        result(run(_mint_over_http(url, key, scopes, expiration, one_time, columns, subject)))
        return
    minted_at = now()
    result(
        mint_token(
            secret=key,
            environment_id=environment or run(_read_environment_id(key)),
            scopes=scopes,
            expires_at=resolve_expiration(expiration, now=minted_at),
            now=minted_at,
            one_time=one_time,
            skip_columns=columns,
            token_id=secrets.token_hex(8),
            subject=subject,
        )
    )


def _expiration(text: str) -> str | int:
    """Take a text of digits for Unix time: a time span has a unit."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else text


async def _mint_over_http(
    url: str,
    key: str,
    scopes: list[str],
    expiration: str | int,
    one_time: bool,
    columns: list[str],
    subject: str | None,
) -> str:
    body: dict[str, Any] = {
        "scopes": scopes,
        "expirationTime": expiration,
        "oneTimeUse": one_time,
        "realtime": {"skipColumns": columns},
        "subject": subject,
    }
    async with client(url, key) as http:
        answer = await post_json(http, "/api/v1/auth/public-tokens", body)
    return str(answer["token"])


async def _read_environment_id(key: str) -> str:
    settings = read_settings()
    if settings.database_url is None:
        raise ConfigurationError(
            "Whose key this is, the database knows: set DATABASE_URL, or name a running gateway "
            "with --url, or the environment's id with --environment."
        )
    async with opened_key_store(settings) as store:
        environment_id = await store.read_environment_id(key)
    if environment_id is None:
        raise InvalidToken("The database knows no such secret key; `runcast keys list` shows all.")
    return environment_id
