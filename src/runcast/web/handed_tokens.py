"""Ready tokens that come with an answer, for the frontend that will follow what was created."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from runcast.auth.token import mint_token
from runcast.web.operation import Call

_LIFETIME_SECONDS = 3600.0

# Which every answer with a token carries; see wire/trigger-wire.md 1.7.
TOKEN_HEADERS = {
    "x-trigger-jwt": "A ready token for what was created.",
    "x-trigger-jwt-claims": "What a client would sign to make such a token itself, as JSON.",
}


@dataclass(frozen=True, slots=True)
class HandedToken:
    """A token and the headers in which official clients look for it."""

    token: str
    headers: dict[str, str]


async def hand_out_token(
    call: Call, scopes: Sequence[str], *, seconds: float = _LIFETIME_SECONDS
) -> HandedToken:
    """
    Mint a token with these scopes, which is for nobody else and no more columns than the caller's.

    It is revoked together with the caller's, whose id it has.

    Raises:
        InvalidParameter: The environment has no usable key any more.
    """
    ring = await call.services.keys.key_ring(call.environment_id)
    skip_columns = call.grant.skip_columns
    lifetime = min(seconds, call.services.limits.max_token_seconds)
    token = mint_token(
        secret=ring.signing_key(call.now).secret,
        environment_id=call.environment_id,
        scopes=scopes,
        expires_at=call.now + lifetime,
        now=call.now,
        skip_columns=skip_columns,
        token_id=None if call.grant.is_secret_key else call.grant.token_id,
        subject=call.grant.subject,
    )
    claims: dict[str, Any] = {"sub": call.environment_id, "pub": True, "scopes": scopes}
    if skip_columns:
        claims["realtime"] = {"skipColumns": skip_columns}
    return HandedToken(
        token, {"x-trigger-jwt": token, "x-trigger-jwt-claims": orjson.dumps(claims).decode()}
    )
