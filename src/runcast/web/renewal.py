"""A newer token for an open connection: what it shows is judged again; docs/protocol.md."""

from collections.abc import Sequence
from dataclasses import replace

from pydantic import BaseModel, Field
from starlette.responses import Response

from runcast.auth.grant import Grant
from runcast.auth.revocation import REVOKED_MESSAGE
from runcast.core.frame import Problem
from runcast.core.socket_format import SocketFormat
from runcast.core.sse import SseFormat
from runcast.core.view import View
from runcast.errors import (
    BackendError,
    GatewayError,
    InsufficientScope,
    InvalidToken,
    LimitError,
    NotFound,
    TokenRevoked,
)
from runcast.hub.seams import Carried, Link
from runcast.hub.stream_reader import StreamReader
from runcast.hub.subscriber import Subscriber
from runcast.web.feeds import require_feed, skipped_columns
from runcast.web.operation import Access, Answer, Call, Operation
from runcast.web.responses import json_response
from runcast.web.run_access import readable_run
from runcast.web.services import Services
from runcast.web.stream_reading import run_key

RENEWED = "renewed"

_NO_CONNECTION = "No gateway holds this connection: open another one, with the new token."


def begin_renewal(services: Services, connection: Link, grant: Grant) -> Sequence[Carried]:
    """
    Let a connection go on under another grant, and say what has to be judged again.

    From here on nothing is sent that the grant does not allow; `end_renewal` follows.

    Raises:
        InvalidToken: It is for another environment or subject than the connection's.
        LimitError: The connection was given too many of late.
    """
    old = connection.grant
    if grant.environment_id != old.environment_id:
        raise InvalidToken("The token is of another environment; open another connection.")
    if old.subject not in (None, grant.subject):
        raise InvalidToken("The token is for another subject; open another connection.")
    connection.renew(grant)
    if grant.rights == old.rights:
        return ()
    outlet = connection.outlet
    if not outlet.writable or (connection.kind == "sse" and outlet.unsent):
        connection.abort("renewed")  # what a reader has not got, it never gets
        return ()
    carried = list(connection.subscribers.values())
    for each in carried:
        if isinstance(each, Subscriber):
            _renew_feed(services, each, grant)
        elif isinstance(each, StreamReader):
            each.renew(run_key(grant, each.tail.name.run_id))
    return carried


def _renew_feed(services: Services, feed: Subscriber, grant: Grant) -> None:
    key = feed.key
    assert isinstance(key.form, SocketFormat | SseFormat)
    skip = skipped_columns(services, grant, ",".join(feed.asked_to_skip))
    view = View(key.view.selector, grant.permissions)
    feed.renew(replace(key, view=view, form=replace(key.form, skip=skip)))


async def end_renewal(services: Services, connection: Link, carried: Sequence[Carried]) -> None:
    """Begin feeds again, or end those that the grant does not open any more."""
    grant = connection.grant
    for feed in carried:
        if not isinstance(feed, Subscriber):
            continue  # readers of streams look at their run themselves
        selector = feed.key.view.selector
        try:
            if selector.run_id is not None:
                await readable_run(services, grant, selector.run_id)
            else:
                require_feed(grant, selector)
        except GatewayError as error:
            if isinstance(error, InsufficientScope):
                services.bearer.rejections[error.code] += 1
            feed.close(Problem(error.code, error.message))
        else:
            feed.flush()


async def renew_here(services: Services, connection_id: str, grant: Grant) -> str:
    """Renew a connection of this gateway; gives `RENEWED`, or the code of the refusal."""
    connection = services.hub.named(connection_id)
    if connection is None or connection.grant.environment_id != grant.environment_id:
        return NotFound.code
    try:
        services.hub.revocations.check(grant, services.clock.now())
        began = begin_renewal(services, connection, grant)
    except GatewayError as error:
        return error.code
    await end_renewal(services, connection, began)
    return RENEWED


class RenewedToken(BaseModel):
    """The token is in force."""

    expiresAt: int | None = Field(None, description="Unix seconds; absent for secret keys.")


async def renew_token(call: Call) -> Response:
    """Put the caller's token in the place of a connection's, wherever that is open."""
    services, name = call.services, call.path["connection"]
    gateway, _, rest = name.partition("-")
    outcome: str | None = None
    if gateway == services.hub.id:
        outcome = await renew_here(services, name, call.grant)
    elif rest:
        outcome = await services.renewals.forward(gateway, name, call.grant)
    if outcome != RENEWED:
        raise _refusal(outcome)
    expires_at = call.grant.expires_at
    return json_response({} if expires_at is None else {"expiresAt": int(expires_at)})


def _refusal(outcome: str | None) -> GatewayError:
    match outcome:
        case InvalidToken.code:
            return InvalidToken("The token is for another subject; open another connection.")
        case LimitError.code:
            return LimitError("The connection was given too many tokens of late; try later.")
        case TokenRevoked.code:
            return TokenRevoked(REVOKED_MESSAGE)
        case BackendError.code:
            return BackendError("The gateway that holds the connection cannot tell; try again.")
        case _:
            return NotFound(_NO_CONNECTION)


OPERATIONS = (
    Operation(
        method="POST",
        path="/api/v1/connections/{connection}/token",
        name="renewConnectionToken",
        summary="Give an open event stream a newer token",
        description="The token of this request takes the place of the one that the connection was "
        "opened with. What it does not allow ends; what it shows otherwise begins again. The "
        "answer comes when that is so, on whatever gateway the connection is.",
        handler=renew_token,
        access=Access.ANY_TOKEN,
        tag="Tokens",
        path_parameters={"connection": "The id from the event `connection`."},
        answers={200: Answer("The token is in force.", RenewedToken)},
        errors=(404, 503),
    ),
)
