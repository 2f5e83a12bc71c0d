"""Taking public tokens back before their time; docs/protocol.md "Revocation"."""

from datetime import datetime, timedelta
from typing import Annotated, Any

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from starlette.responses import Response

from runcast.auth.revocation import NewRevocation, Revocation
from runcast.core.run_json import iso_time
from runcast.errors import AuthError, InvalidBody, NotFound
from runcast.web.list_query import read_turn
from runcast.web.operation import Access, Answer, Call, Operation
from runcast.web.page_cursor import PageCursor, format_page_cursor
from runcast.web.responses import json_response
from runcast.web.run_models import OptionalTime, Time
from runcast.web.text_field import ShortText

_BODY_BYTES = 128 * 1024
# As far ahead may clocks be by which tokens are issued.
_MAX_AHEAD = timedelta(minutes=5)


def _as_text(value: object) -> object:
    """Read a time as text alone: pydantic takes numbers too, as seconds or milliseconds."""
    if not isinstance(value, str):
        raise ValueError("a time is a text such as 2026-01-02T03:04:05Z")
    return datetime.fromisoformat(value)


# Without the format of JSON schemas, which is narrower than ISO 8601.
_Time = Annotated[AwareDatetime, BeforeValidator(_as_text), WithJsonSchema({"type": "string"})]


class NewTokenRevocation(BaseModel):
    """Which tokens are taken back: one, those of a subject, or all that were issued before."""

    model_config = ConfigDict(extra="forbid")

    token: str | None = Field(
        None, strict=True, max_length=8192, description="The token itself, if that is at hand."
    )
    tokenId: ShortText | None = Field(
        None, description="Its `jti`; of tokens without one the SHA-256 in hexadecimal."
    )
    subject: ShortText | None = Field(None, description="All tokens with this `act.sub`.")
    issuedBefore: _Time | None = Field(
        None,
        description="ISO 8601 with a zone. Of a subject, only tokens issued before this time; now "
        "if left out. Alone: all tokens of the environment issued before.",
    )


class TokenRevocation(BaseModel):
    """Tokens that were taken back; without `tokenId` and `subject` all of the environment."""

    id: str
    tokenId: str | None = None
    subject: str | None = None
    issuedBefore: str | None = OptionalTime
    createdAt: str = Time
    expiresAt: str = Field(
        json_schema_extra={"format": "date-time"},
        description="By then all tokens that it hits have expired, and it is forgotten.",
    )


class NextPage(BaseModel):
    """Where the list goes on."""

    next: str | None = None


class TokenRevocationList(BaseModel):
    """A page of revocations."""

    data: list[TokenRevocation]
    pagination: NextPage


class ListTokenRevocations(BaseModel):
    """Which page of revocations."""

    size: int = Field(25, ge=1, le=100, alias="page[size]", description="Revocations on a page.")
    after: ShortText | None = Field(None, alias="page[after]")


async def revoke_tokens(call: Call) -> Response:
    """Take tokens back, and end what is open with them."""
    revocation = await call.services.revocations.revoke(await _wanted(call, call.body))
    _apply(call, revocation)
    return json_response(_object(revocation))


async def list_revocations(call: Call) -> Response:
    """Give one page of revocations, newest first."""
    query: ListTokenRevocations = call.query
    turn = read_turn(query.after, None)
    found, older = await call.services.revocations.list_page(
        call.environment_id, older_than=turn.older_than, limit=query.size
    )
    following = {} if older is None else {"next": format_page_cursor(PageCursor(older))}
    return json_response({"data": [_object(each) for each in found], "pagination": following})


async def lift_revocation(call: Call) -> Response:
    """Let tokens be good again, as far as they have not expired."""
    revocation = await call.services.revocations.lift(call.environment_id, call.path["revocation"])
    if revocation is None:
        raise NotFound("There is no revocation with this id in this environment.")
    _apply(call, revocation)
    return json_response(_object(revocation))


async def _wanted(call: Call, body: NewTokenRevocation) -> NewRevocation:
    """
    Read what is to be taken back.

    Raises:
        InvalidBody: Nothing, or several things at once; or the token is none of the environment.
    """
    longest = timedelta(seconds=call.services.limits.max_token_seconds) + _MAX_AHEAD
    named = [each for each in (body.token, body.tokenId, body.subject) if each is not None]
    of_one = body.subject is None and bool(named)
    if len(named) > 1 or not (named or body.issuedBefore) or (of_one and body.issuedBefore):
        raise InvalidBody(
            "Say which tokens: one of token, tokenId and subject, or issuedBefore alone for all of "
            "the environment; issuedBefore goes with a subject as well."
        )
    if of_one:
        token_id = body.tokenId or await _id_of(call, body.token or "")
        return NewRevocation(call.environment_id, "token", token_id, None, call.time + longest)
    before = _checked_bound(call, body.issuedBefore or call.time)
    return NewRevocation(
        call.environment_id,
        "environment" if body.subject is None else "subject",
        body.subject or "",
        before,
        before + longest,
    )


def _checked_bound(call: Call, before: datetime) -> datetime:
    if not 0 <= before.timestamp() <= (call.time + _MAX_AHEAD).timestamp():
        raise InvalidBody(
            "issuedBefore is a time since 1970 that is not ahead: tokens to come are not revoked."
        )
    return before


async def _id_of(call: Call, token: str) -> str:
    try:
        grant = await call.services.bearer.verify(token)
    except AuthError as error:
        raise InvalidBody(f"token: {error.message}") from None
    if grant.is_secret_key or grant.environment_id != call.environment_id:
        raise InvalidBody("token is a public access token of this environment.")
    return grant.token_id


def _apply(call: Call, revocation: Revocation) -> None:
    """Begin here, without waiting to be told what we know."""
    hub = call.services.hub
    if hub.revocations.receive([revocation], call.services.clock.now()):
        hub.end_revoked()


def _object(revocation: Revocation) -> dict[str, Any]:
    names = {"token": "tokenId", "subject": "subject"}
    told: dict[str, Any] = {"id": revocation.id}
    if name := names.get(revocation.kind):
        told[name] = revocation.value
    if revocation.issued_before is not None:
        told["issuedBefore"] = iso_time(revocation.issued_before)
    told["createdAt"] = iso_time(revocation.created_at)
    told["expiresAt"] = iso_time(revocation.kept_until)
    return told


OPERATIONS = (
    Operation(
        method="POST",
        path="/api/v1/tokens/revocations",
        name="revokeTokens",
        summary="Revoke public access tokens",
        description="One, those of a subject, or all that were issued before a time. Connections "
        "that are open with them end, on all gateways.",
        handler=revoke_tokens,
        access=Access.SECRET_KEY,
        tag="Tokens",
        body=NewTokenRevocation,
        body_bytes=lambda limits: _BODY_BYTES,
        answers={200: Answer("The revocation.", TokenRevocation)},
        errors=(422,),
    ),
    Operation(
        method="GET",
        path="/api/v1/tokens/revocations",
        name="listTokenRevocations",
        summary="List revocations, newest first",
        handler=list_revocations,
        access=Access.SECRET_KEY,
        tag="Tokens",
        query=ListTokenRevocations,
        answers={200: Answer("A page.", TokenRevocationList)},
    ),
    Operation(
        method="DELETE",
        path="/api/v1/tokens/revocations/{revocation}",
        name="liftTokenRevocation",
        summary="Let revoked tokens be good again",
        handler=lift_revocation,
        access=Access.SECRET_KEY,
        tag="Tokens",
        path_parameters={"revocation": "The id of the revocation."},
        answers={200: Answer("The revocation, which counts no more.", TokenRevocation)},
        errors=(404,),
    ),
)
