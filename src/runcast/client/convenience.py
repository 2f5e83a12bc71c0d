"""Functions for scripts, which need no client at hand."""

from collections.abc import Iterable

from runcast.client.public_tokens import Expiration, Scopes
from runcast.client.sync import Client


def create_public_token(
    scopes: Scopes,
    *,
    expires: Expiration = "15m",
    one_time: bool = False,
    skip_columns: Iterable[str] = (),
    subject: str | None = None,
    token_id: str | None = None,
    base_url: str | None = None,
    secret_key: str | None = None,
    environment_id: str | None = None,
) -> str:
    """
    Make a public access token; see `PublicTokens.create` and `AsyncClient` for the parameters.

    Blocks: the gateway is asked which environment the key is of, unless that is given. Programs
    that make many tokens keep a client, which asks once.
    """
    with Client(base_url, secret_key, environment_id=environment_id) as client:
        return client.create_public_token(
            scopes,
            expires=expires,
            one_time=one_time,
            skip_columns=skip_columns,
            subject=subject,
            token_id=token_id,
        )
