"""`runcast token revoke`, `revocations` and `lift`: taking tokens back before their time."""

from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from runcast.cli.clock import now
from runcast.cli.console import printable, result
from runcast.cli.gateway_api import DEFAULT_URL, client, delete_json, get_json, post_json
from runcast.cli.loop import run
from runcast.core.run_json import iso_time
from runcast.errors import ConfigurationError, InvalidParameter

_PATH = "/api/v1/tokens/revocations"

Key = Annotated[
    str,
    typer.Option(
        envvar="RUNCAST_SECRET_KEY",
        metavar="KEY",
        help="Secret key of the environment; the variable keeps it out of process lists.",
        show_default=False,
    ),
]
Url = Annotated[str, typer.Option(envvar="RUNCAST_URL", metavar="URL", help="Of a gateway.")]


def revoke(
    token: Annotated[
        str | None, typer.Option("--token", metavar="TOKEN", help="This token.")
    ] = None,
    token_id: Annotated[
        str | None, typer.Option("--id", metavar="ID", help="The token with this id (jti).")
    ] = None,
    subject: Annotated[
        str | None,
        typer.Option("--subject", metavar="NAME", help="All tokens of this subject, up to now."),
    ] = None,
    issued_before: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help='Of a subject, those issued before this ISO 8601 time, or "now"; alone: all '
            "tokens of the environment that were.",
        ),
    ] = None,
    key: Key = "",
    url: Url = DEFAULT_URL,
) -> None:
    """Revoke tokens: what is open with them ends within a second, at all gateways."""
    if issued_before == "now":
        issued_before = iso_time(datetime.fromtimestamp(now(), UTC))
    wanted = {
        "token": token,
        "tokenId": token_id,
        "subject": subject,
        "issuedBefore": issued_before,
    }
    body = {name: value for name, value in wanted.items() if value is not None}
    if not body:
        raise InvalidParameter("Say which tokens: --token, --id, --subject or --issued-before.")

    async def ask() -> dict[str, Any]:
        async with client(url, _checked(key)) as http:
            return await post_json(http, _PATH, body)

    result(_line(run(ask())))


def list_revocations(key: Key = "", url: Url = DEFAULT_URL) -> None:
    """List the revocations that count, newest first."""

    async def ask() -> None:
        params = {"page[size]": "100"}
        async with client(url, _checked(key)) as http:
            while True:
                page = await get_json(http, _PATH, params)
                for each in page["data"]:
                    result(_line(each))
                if (following := page["pagination"].get("next")) is None:
                    return
                params["page[after]"] = following

    run(ask())


def lift(
    revocation: Annotated[str, typer.Argument(help="Its id, as `revocations` lists it.")],
    key: Key = "",
    url: Url = DEFAULT_URL,
) -> None:
    """Let revoked tokens be good again, as far as they have not expired."""

    async def ask() -> dict[str, Any]:
        async with client(url, _checked(key)) as http:
            return await delete_json(http, f"{_PATH}/{revocation}")

    result(_line(run(ask())))


def _checked(key: str) -> str:
    if not key:
        raise ConfigurationError("Give a secret key with RUNCAST_SECRET_KEY or --key.")
    return key


def _line(told: dict[str, Any]) -> str:
    names = {"tokenId": "token", "subject": "subject", "issuedBefore": "issued before"}
    what = [f"{said} {told[name]}" for name, said in names.items() if name in told]
    return printable(f"{told['id']}  {', '.join(what)}  until {told['expiresAt']}")
