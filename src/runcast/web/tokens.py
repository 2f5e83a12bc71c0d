"""Public access tokens over HTTP: what to sign into them, and having them signed here."""

import secrets
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import BaseModel, Field, StrictBool, StrictFloat, StrictInt, StrictStr
from starlette.responses import Response

from runcast.auth.token import MAX_SCOPES, mint_token
from runcast.core.timespan import resolve_expiration
from runcast.errors import InvalidBody, InvalidParameter
from runcast.web.operation import Access, Answer, Call, Operation
from runcast.web.responses import json_response
from runcast.web.text_field import ShortText

_LEGACY_LIFETIME_SECONDS = 3600.0
_MAX_BODY_BYTES = 256 * 1024

Scope = Annotated[
    str,
    Field(strict=True, min_length=1, max_length=512, description='Such as "read:runs:run_1234".'),
]
Expiration = Annotated[
    StrictStr | StrictInt | StrictFloat,
    Field(
        description='A time span such as "15 minutes" or "2hrs", or Unix time in seconds; '
        "at most 30 days ahead unless the gateway is set up otherwise."
    ),
]
Column = Annotated[str, Field(strict=True, min_length=1, max_length=512)]


class Claims(BaseModel):
    """What a backend merges into the tokens that it signs itself."""

    sub: str = Field(description="The id of the environment.")
    pub: bool = Field(description="Always true.")


class RealtimeOptions(BaseModel):
    """What the bearer sees of runs."""

    skipColumns: list[Column] = Field(
        default_factory=list, max_length=100, description="Columns of runs to withhold."
    )


class NewPublicToken(BaseModel):
    """A token to be signed."""

    scopes: list[Scope] = Field(min_length=1, max_length=MAX_SCOPES)
    expirationTime: Expiration | None = Field(default=None, description="15 minutes if left out.")
    oneTimeUse: StrictBool = Field(
        default=False, description="Whether it can create runs only once."
    )
    realtime: RealtimeOptions | None = None
    subject: ShortText | None = Field(
        default=None,
        description="Whom the token is for, such as a user's id: its tokens can be revoked "
        "together. It stands in the claim `act.sub`.",
    )


class LegacyClaims(BaseModel):
    """The claims of a token to be signed by the older route."""

    scopes: list[Scope] = Field(default_factory=list, max_length=MAX_SCOPES)


class NewLegacyToken(BaseModel):
    """A token to be signed by the older route."""

    claims: LegacyClaims | None = None
    expirationTime: Expiration | None = Field(default=None, description="An hour if left out.")


class PublicToken(BaseModel):
    """A signed token."""

    token: str
    id: str = Field(description="By which it can be revoked: its `jti`.")


async def read_claims(call: Call) -> Response:
    """Tell what to merge into a token that the caller signs with its key."""
    return json_response({"sub": call.environment_id, "pub": True})


async def create_public_token(call: Call) -> Response:
    """Sign a public access token."""
    body: NewPublicToken = call.body
    token = await _mint(
        call,
        body.scopes,
        body.expirationTime,
        default_seconds=call.services.limits.default_token_seconds,
        one_time=body.oneTimeUse,
        skip_columns=body.realtime.skipColumns if body.realtime else (),
        subject=body.subject,
    )
    return json_response(token.model_dump())


async def create_legacy_token(call: Call) -> Response:
    """Sign a token the way that older clients ask for it."""
    body: NewLegacyToken = call.body
    scopes = body.claims.scopes if body.claims else ()
    token = await _mint(call, scopes, body.expirationTime, default_seconds=_LEGACY_LIFETIME_SECONDS)
    return json_response(token.model_dump())


async def _mint(
    call: Call,
    scopes: Sequence[str],
    expiration: str | int | float | None,
    *,
    default_seconds: float,
    one_time: bool = False,
    skip_columns: Sequence[str] = (),
    subject: str | None = None,
) -> PublicToken:
    max_seconds = call.services.limits.max_token_seconds
    if expiration is None:
        expires_at = call.now + min(default_seconds, max_seconds)
    else:
        expires_at = resolve_expiration(expiration, now=call.now)
    if expires_at > call.now + max_seconds:
        days = max_seconds / 86400
        raise InvalidBody(f"expirationTime is at most {days:g} days ahead.")
    ring = await call.services.keys.key_ring(call.environment_id)
    token_id = secrets.token_hex(8)
    try:
        token = mint_token(
            secret=ring.signing_key(call.now).secret,
            environment_id=call.environment_id,
            scopes=scopes,
            expires_at=expires_at,
            now=call.now,
            one_time=one_time,
            skip_columns=skip_columns,
            token_id=token_id,
            subject=subject,
        )
    except InvalidParameter as error:
        raise InvalidBody(error.message) from None
    return PublicToken(token=token, id=token_id)


def _body_bytes(_: Any) -> int:
    return _MAX_BODY_BYTES


OPERATIONS = (
    Operation(
        method="POST",
        path="/api/v1/auth/jwt/claims",
        name="readTokenClaims",
        summary="What to sign into a public access token",
        description="For backends that sign tokens themselves, with their secret key as HMAC key.",
        handler=read_claims,
        access=Access.SECRET_KEY,
        tag="Tokens",
        counted=False,
        answers={200: Answer("Claims to merge into the payload.", Claims)},
    ),
    Operation(
        method="POST",
        path="/api/v1/auth/public-tokens",
        name="createPublicToken",
        summary="Sign a public access token",
        handler=create_public_token,
        access=Access.SECRET_KEY,
        tag="Tokens",
        body=NewPublicToken,
        body_bytes=_body_bytes,
        answers={200: Answer("The token.", PublicToken)},
    ),
    Operation(
        method="POST",
        path="/api/v1/auth/jwt",
        name="createLegacyToken",
        summary="Sign a public access token, the older way",
        handler=create_legacy_token,
        access=Access.SECRET_KEY,
        tag="Tokens",
        body=NewLegacyToken,
        body_optional=True,
        body_bytes=_body_bytes,
        answers={200: Answer("The token.", PublicToken)},
    ),
)
