"""Wait tokens: waitpoints that a token or an address completes; docs/protocol.md "Wait tokens"."""

import hashlib
import hmac
from datetime import datetime
from typing import Annotated, Any, Literal

import orjson
from pydantic import BaseModel, BeforeValidator, Field
from starlette.responses import Response

from runcast.core.packet import JSON
from runcast.core.scope import Resource
from runcast.core.tags import parse_tags
from runcast.core.waitpoint import (
    NewWaitpoint,
    Waitpoint,
    WaitpointFilter,
    output_packet,
    retrieved_waitpoint,
    waitpoint_object,
)
from runcast.errors import InvalidBody, InvalidToken, NotFound, Unprocessable
from runcast.web.bearer import require
from runcast.web.handed_tokens import TOKEN_HEADERS, hand_out_token
from runcast.web.list_query import Texts, created_since, moment, read_turn, split
from runcast.web.operation import Access, Answer, Call, Operation
from runcast.web.presigning import origin
from runcast.web.request_body import read_bytes
from runcast.web.request_key import REQUEST_KEY_HEADER, request_digest
from runcast.web.responses import json_response
from runcast.web.run_models import OptionalTime, Pagination, Time
from runcast.web.text_field import ShortText, Tag, Text
from runcast.web.trigger_options import delay_until, idempotency_seconds, time_of

_CREATE_BYTES = 10 * 1024
_TOKEN_SECONDS = 86400.0
_NO_TOKEN = "There is no wait token with this id in this environment."

Statuses = Annotated[list[Literal["WAITING", "COMPLETED", "TIMED_OUT"]], BeforeValidator(split)]


class CreateWaitToken(BaseModel):
    """How a wait token is to be."""

    timeout: Text | None = Field(
        None, description='How long it waits: a duration such as "10m", or an ISO 8601 time.'
    )
    idempotencyKey: Text | None = Field(None, description="One key makes one token.")
    idempotencyKeyTTL: Text | None = Field(
        None, description="How long the key holds, such as 60s or 7d; 30 days if left out."
    )
    tags: Tag | list[Tag] | None = Field(None, description="Up to 10 tags.")


class CreatedWaitToken(BaseModel):
    """A wait token; whoever posts to its address completes it."""

    id: str
    isCached: bool = Field(description="Whether it was there before.")
    url: str
    publicAccessToken: str = Field(description="Completes this token, for a day.")


class WaitToken(BaseModel):
    """A wait token as it is in lists."""

    id: str
    url: str
    status: Literal["WAITING", "COMPLETED", "TIMED_OUT"]
    tags: list[str]
    createdAt: str = Time
    completedAt: str | None = OptionalTime
    completedAfter: str | None = OptionalTime
    timeoutAt: str | None = OptionalTime
    idempotencyKey: str | None = None
    idempotencyKeyExpiresAt: str | None = OptionalTime


class RetrievedWaitToken(WaitToken):
    """A wait token with what it was completed with."""

    output: str | None = Field(None, description="Text, to be read by its type.")
    outputType: str | None = None
    outputIsError: bool | None = Field(None, description="Whether it timed out.")


class WaitTokenList(BaseModel):
    """A page of wait tokens."""

    data: list[WaitToken]
    pagination: Pagination


class CompleteWaitToken(BaseModel):
    """What a wait token is completed with."""

    data: Any = Field(None, description="Any JSON value.")


class Success(BaseModel):
    """It is so."""

    success: bool


class ListWaitTokens(BaseModel):
    """Which wait tokens, and which page of them."""

    size: int = Field(25, ge=1, le=100, alias="page[size]", description="Tokens on a page.")
    after: ShortText | None = Field(None, alias="page[after]")
    before: ShortText | None = Field(None, alias="page[before]")
    statuses: Statuses = Field(default_factory=list, alias="filter[status]", max_length=10)
    key: Text | None = Field(None, alias="filter[idempotencyKey]")
    tags: Texts = Field(
        default_factory=list, alias="filter[tags]", max_length=100, description="Any of them."
    )
    created_from: ShortText | None = Field(None, alias="filter[createdAt][from]")
    created_to: ShortText | None = Field(None, alias="filter[createdAt][to]")
    period: ShortText | None = Field(None, alias="filter[createdAt][period]")


async def create_wait_token(call: Call) -> Response:
    """Create a wait token, or find that of the idempotency key."""
    body: CreateWaitToken = call.body
    key = body.idempotencyKey or None
    new = NewWaitpoint(
        environment_id=call.environment_id,
        timeout_at=timeout_at(call, body.timeout),
        tags=parse_tags(body.tags or []),
        idempotency_key=key,
        idempotency_key_expires_at=(
            time_of(call.now + idempotency_seconds(body.idempotencyKeyTTL)) if key else None
        ),
        request=request_digest(call.request.headers, "wait token"),
    )
    waitpoint, cached = await call.services.waitpoints.create(new, now=call.time)
    handed = await hand_out_token(
        call, [f"write:waitpoints:{waitpoint.id}"], seconds=_TOKEN_SECONDS
    )
    answer = {
        "id": waitpoint.id,
        "isCached": cached,
        "url": await _url(call, waitpoint),
        "publicAccessToken": handed.token,
    }
    return json_response(answer, headers=handed.headers)


async def list_wait_tokens(call: Call) -> Response:
    """Give one page of wait tokens, newest first."""
    query: ListWaitTokens = call.query
    turn = read_turn(query.after, query.before)
    wanted = WaitpointFilter(
        environment_id=call.environment_id,
        statuses=tuple(query.statuses),
        idempotency_key=query.key,
        tags=tuple(query.tags),
        created_from=created_since(call, query.created_from, query.period),
        created_to=moment("filter[createdAt][to]", query.created_to),
    )
    page = await call.services.waitpoints.list_page(
        wanted,
        older_than=turn.older_than,
        newer_than=turn.newer_than,
        limit=query.size,
        now=call.time,
    )
    data = [waitpoint_object(each, await _url(call, each), call.time) for each in page.waitpoints]
    cursors = turn.pagination(older=page.older, newer=page.newer)
    return json_response({"data": data, "pagination": cursors})


async def retrieve_wait_token(call: Call) -> Response:
    """Give one wait token."""
    waitpoint = await _own(call)
    return json_response(retrieved_waitpoint(waitpoint, await _url(call, waitpoint), call.time))


async def complete_wait_token(call: Call) -> Response:
    """Complete a wait token; one that is completed or timed out stays as it is."""
    body: CompleteWaitToken = call.body
    require(call.grant, "write", Resource("waitpoints", call.path["token"]))
    waitpoint = await _own(call)
    text, kind = output_packet(body.data) if "data" in body.model_fields_set else (None, JSON)
    await call.services.waitpoints.complete(waitpoint.id, text, kind, now=call.time)
    return json_response({"success": True})


async def call_back(call: Call) -> Response:
    """Complete a wait token from elsewhere: the hash in the address is the credential."""
    waitpoint = await call.services.waitpoints.read(call.path["token"])
    if waitpoint is None:
        raise NotFound("There is no wait token with this id.")
    ring = await call.services.keys.key_ring(waitpoint.environment_id)
    sent = call.path["hash"].encode()
    known = [_hash(key.secret, waitpoint.id).encode() for key in ring.usable_keys(call.now)]
    if not any(hmac.compare_digest(each, sent) for each in known):
        raise InvalidToken("This address does not complete the wait token; take it from its url.")
    limits = call.services.limits
    body = await read_bytes(
        call.request,
        max_bytes=limits.max_body_bytes,
        timeout_seconds=limits.request_timeout_seconds,
    )
    text, kind = _callback_packet(body)
    await call.services.waitpoints.complete(waitpoint.id, text, kind, now=call.time)
    return json_response({"success": True})


def timeout_at(call: Call, timeout: str | None) -> datetime | None:
    """
    When a waitpoint times out; a time that is over means now.

    Raises:
        InvalidBody: Neither a duration nor a time.
    """
    if not timeout:
        return None
    try:
        return delay_until(timeout, call.now) or call.time
    except Unprocessable:
        raise InvalidBody(
            'How long to wait is a duration such as "10m", or an ISO 8601 time before 9999.'
        ) from None


def _callback_packet(body: bytes) -> tuple[str, str]:
    """What cannot be kept counts as an empty object: who calls back may not speak JSON."""
    try:
        return output_packet(orjson.loads(body))
    except (orjson.JSONDecodeError, InvalidBody):
        return output_packet({})


async def _own(call: Call) -> Waitpoint:
    waitpoint = await call.services.waitpoints.read(call.path["token"])
    if waitpoint is None or waitpoint.environment_id != call.environment_id:
        raise NotFound(_NO_TOKEN)
    return waitpoint


async def _url(call: Call, waitpoint: Waitpoint) -> str:
    ring = await call.services.keys.key_ring(waitpoint.environment_id)
    digest = _hash(ring.signing_key(call.now).secret, waitpoint.id)
    return f"{origin(call)}/api/v1/waitpoints/tokens/{waitpoint.id}/callback/{digest}"


def _hash(secret: str, waitpoint_id: str) -> str:
    return hmac.digest(secret.encode(), waitpoint_id.encode(), hashlib.sha256).hex()


_TOKEN = {"token": "The id of the wait token."}
_SUCCESS = {200: Answer("It is completed, now or before.", Success)}

OPERATIONS = (
    Operation(
        method="POST",
        path="/api/v1/waitpoints/tokens",
        name="createWaitToken",
        summary="Create a wait token",
        handler=create_wait_token,
        access=Access.SECRET_KEY,
        tag="Wait tokens",
        headers=REQUEST_KEY_HEADER,
        body=CreateWaitToken,
        body_optional=True,
        body_bytes=lambda limits: _CREATE_BYTES,
        answers={200: Answer("The token.", CreatedWaitToken, headers=TOKEN_HEADERS)},
        errors=(422,),
    ),
    Operation(
        method="GET",
        path="/api/v1/waitpoints/tokens",
        name="listWaitTokens",
        summary="List wait tokens, newest first",
        handler=list_wait_tokens,
        access=Access.SECRET_KEY,
        tag="Wait tokens",
        query=ListWaitTokens,
        answers={200: Answer("A page.", WaitTokenList)},
    ),
    Operation(
        method="GET",
        path="/api/v1/waitpoints/tokens/{token}",
        name="retrieveWaitToken",
        summary="Retrieve a wait token",
        handler=retrieve_wait_token,
        access=Access.SECRET_KEY,
        tag="Wait tokens",
        path_parameters=_TOKEN,
        answers={200: Answer("The token.", RetrievedWaitToken)},
        errors=(404,),
    ),
    Operation(
        method="POST",
        path="/api/v1/waitpoints/tokens/{token}/complete",
        name="completeWaitToken",
        summary="Complete a wait token",
        description="Public tokens need write:waitpoints:{token}.",
        handler=complete_wait_token,
        access=Access.ANY_TOKEN,
        tag="Wait tokens",
        path_parameters=_TOKEN,
        body=CompleteWaitToken,
        body_optional=True,
        answers=_SUCCESS,
        errors=(404,),
    ),
    Operation(
        method="POST",
        path="/api/v1/waitpoints/tokens/{token}/callback/{hash}",
        name="callBackWaitToken",
        summary="Complete a wait token from elsewhere",
        description="The body is the data; one that is no JSON counts as an empty object.",
        handler=call_back,
        access=Access.OPEN,
        tag="Wait tokens",
        path_parameters=_TOKEN | {"hash": "As it stands in the token's url."},
        answers=_SUCCESS,
        errors=(401, 404, 408, 413),
    ),
)
