"""
Everything that the client raises, as one tree; codes are those of docs/protocol.md "Errors".

What a gateway refused is an `ApiError`, of a class that goes by its code. The other children of
`RuncastError` have codes of their own. No message ever holds a token.
"""

from collections.abc import Mapping


class RuncastError(Exception):
    """
    Base of all errors of this package.

    ``code`` is stable and made for programs, ``message`` is made for people.
    """

    code = "runcast_error"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class NotConfigured(RuncastError):
    """There is no secret key and no token, or the URL of the gateway is none."""

    code = "not_configured"


class ClientClosed(RuncastError):
    """The client was closed; make another."""

    code = "client_closed"


class InvalidArgument(RuncastError):
    """A value that no gateway would accept, refused before it was sent."""

    code = "invalid_argument"


class ConnectionLost(RuncastError):
    """The gateway could not be reached, or the connection broke, more often than is retried."""

    code = "connection_lost"


class UnexpectedAnswer(RuncastError):
    """What answered does not speak as a gateway does; the URL may be wrong."""

    code = "unexpected_answer"


class BufferFull(RuncastError):
    """More metadata changes wait for the gateway than are kept in memory."""

    code = "buffer_full"


class RunOver(RuncastError):
    """The run writer was left, or the run was finished through it; it takes nothing more."""

    code = "run_over"


class StreamLost(RuncastError):
    """The gateway lost chunks that it had acknowledged, as when its database was restored."""

    code = "stream_lost"


class ApiError(RuncastError):
    """
    The gateway refused a request, or ended a feed.

    Attributes:
        status: The HTTP status; None where the refusal came within a feed.
        code: As the gateway says it.
        request_id: To be found in the gateway's log.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str = "unknown",
        status: int | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.status = status
        self.request_id = request_id


class BadRequest(ApiError):
    """The request cannot be served as it was sent."""


class Unauthorized(ApiError):
    """The key or token is missing or not accepted."""


class TokenRevoked(Unauthorized):
    """The token was taken back before its time."""


class TokenExpired(Unauthorized):
    """The token was good once; a fresh one will be accepted."""


class PermissionDenied(ApiError):
    """The token is valid, but does not allow this."""


class NotFound(ApiError):
    """There is no such thing in the environment of the key or token."""


class PayloadTooLarge(ApiError):
    """The request, or what it would store, is over a limit."""


class Unprocessable(ApiError):
    """The request is well formed, but the state of things forbids it."""


class IllegalTransition(Unprocessable):
    """A run cannot move from its present status to the one asked for; it may be finished."""


class OneTimeTokenSpent(Unprocessable):
    """The one-time token was used before."""


class StreamClosed(Unprocessable):
    """The stream was closed, or its run is finished: nothing more can be appended."""


class StreamFull(Unprocessable):
    """The stream, or the number of streams of the run, is at its limit."""


class PositionLost(ApiError):
    """Something between what was read and what comes next is not kept any more."""


class RateLimited(ApiError):
    """Something bounded is full; asking again later may succeed."""


class ServerError(ApiError):
    """The gateway failed to answer."""


class Unavailable(ServerError):
    """The gateway or its database is busy, starting or going away; asking again helps."""


_BY_CODE: Mapping[str, type[ApiError]] = {
    "internal_error": ServerError,
    "unauthorized": Unauthorized,
    "missing_token": Unauthorized,
    "invalid_token": Unauthorized,
    "expired_token": TokenExpired,
    "token_revoked": TokenRevoked,
    "insufficient_scope": PermissionDenied,
    "invalid_request": BadRequest,
    "invalid_parameter": BadRequest,
    "invalid_body": BadRequest,
    "invalid_selector": BadRequest,
    "invalid_cursor": BadRequest,
    "not_found": NotFound,
    "method_not_allowed": BadRequest,
    "request_timeout": Unavailable,
    "payload_too_large": PayloadTooLarge,
    "unsupported_media_type": BadRequest,
    "unprocessable": Unprocessable,
    "illegal_transition": IllegalTransition,
    "not_delayed": Unprocessable,
    "one_time_token_spent": OneTimeTokenSpent,
    "stream_closed": StreamClosed,
    "stream_full": StreamFull,
    "too_many_streams": StreamFull,
    "too_many_revocations": Unprocessable,
    "position_lost": PositionLost,
    "limit_exceeded": RateLimited,
    "rate_limited": RateLimited,
    "too_many_subscriptions": RateLimited,
    "too_many_connections": RateLimited,
    "gateway_full": Unavailable,
    "slow_consumer": RateLimited,
    "backend_unavailable": Unavailable,
    "stream_lost": Unavailable,  # to be sent again; the writer finds out whether it can
    "draining": Unavailable,
}
_BY_STATUS: Mapping[int, type[ApiError]] = {
    400: BadRequest,
    401: Unauthorized,
    403: PermissionDenied,
    404: NotFound,
    408: Unavailable,
    410: PositionLost,
    413: PayloadTooLarge,
    422: Unprocessable,
    429: RateLimited,
    502: Unavailable,
    503: Unavailable,
    504: Unavailable,
}


def api_error(
    message: str, *, code: str, status: int | None = None, request_id: str | None = None
) -> ApiError:
    """Make the error of the class that goes by the code, or else by the status."""
    fallback = _BY_STATUS.get(status or 0, ServerError if (status or 0) >= 500 else ApiError)
    kind = _BY_CODE.get(code, fallback)
    return kind(message, code=code, status=status, request_id=request_id)
