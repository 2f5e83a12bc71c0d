"""Every error that a caller can meet, each with its wire code, HTTP status and close code."""

from typing import ClassVar


class GatewayError(Exception):
    """
    Base of all errors that runcast raises on purpose.

    ``message`` is written for the person who will read it: it names the fix and never carries a
    secret. ``code`` is stable and documented in docs/protocol.md "Errors". ``close_code`` is used
    on WebSockets: 4000 to 4499 mean "reconnect", 4500 to 4999 mean "stop".
    """

    code: ClassVar[str] = "internal_error"
    http_status: ClassVar[int] = 500
    close_code: ClassVar[int] = 4000

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class AuthError(GatewayError):
    """The caller is unknown, or not allowed to do this."""

    code = "unauthorized"
    http_status = 401
    close_code = 4501


class MissingToken(AuthError):
    """No secret key and no public access token came with the request."""

    code = "missing_token"


class InvalidToken(AuthError):
    """The token is malformed, wrongly signed, or not of this gateway."""

    code = "invalid_token"


class ExpiredToken(AuthError):
    """The token was good once; a fresh one will be accepted."""

    code = "expired_token"
    close_code = 4001


class TokenRevoked(AuthError):
    """The token was taken back before its time, or the key that it depends on has ended."""

    code = "token_revoked"


class InsufficientScope(AuthError):
    """The token is valid, but does not allow this."""

    code = "insufficient_scope"
    http_status = 403
    close_code = 4503


class RequestError(GatewayError):
    """The request cannot be served as it was sent."""

    code = "invalid_request"
    http_status = 400
    close_code = 4500


class InvalidParameter(RequestError):
    """A path, query or header value is not what the documentation allows."""

    code = "invalid_parameter"


class InvalidBody(RequestError):
    """The body is not the JSON that the documentation describes."""

    code = "invalid_body"


class InvalidSelector(RequestError):
    """What is asked for cannot be subscribed to."""

    code = "invalid_selector"


class InvalidCursor(RequestError):
    """The cursor was not made by a runcast gateway."""

    code = "invalid_cursor"


class NotFound(RequestError):
    """There is no such thing in the caller's environment."""

    code = "not_found"
    http_status = 404
    close_code = 4504


class MethodNotAllowed(RequestError):
    """The path exists, but not with this method."""

    code = "method_not_allowed"
    http_status = 405


class RequestTimeout(RequestError):
    """The body of the request did not arrive in time."""

    code = "request_timeout"
    http_status = 408


class PayloadTooLarge(RequestError):
    """The body, or what it would store, is over a limit."""

    code = "payload_too_large"
    http_status = 413


class UnsupportedMediaType(RequestError):
    """The body has a content type that this route does not read."""

    code = "unsupported_media_type"
    http_status = 415


class Unprocessable(RequestError):
    """The request is well formed, but the state of things forbids it."""

    code = "unprocessable"
    http_status = 422


class IllegalTransition(Unprocessable):
    """A run cannot move from its present status to the one asked for."""

    code = "illegal_transition"


class NotDelayed(Unprocessable):
    """Only a run that waits for its time can be given another one."""

    code = "not_delayed"
    http_status = 400


class LimitError(GatewayError):
    """Something bounded is full; asking again later may succeed."""

    code = "limit_exceeded"
    http_status = 429
    close_code = 4029
    retry_after_seconds = 1


class RateLimited(LimitError):
    """The token or key made more requests than it may; it may make another one after a wait."""

    code = "rate_limited"

    def __init__(self, message: str, retry_after_seconds: int) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class TooManySubscriptions(LimitError):
    """The connection or the gateway holds as many subscriptions as it may."""

    code = "too_many_subscriptions"


class TooManyConnections(LimitError):
    """The environment has as many connections as it may, at all gateways together."""

    code = "too_many_connections"
    retry_after_seconds = 5


class GatewayFull(LimitError):
    """The gateway holds as many connections as it may; another one may have room."""

    code = "gateway_full"
    http_status = 503


class SlowConsumer(LimitError):
    """The reader took nothing for longer than the gateway waits."""

    code = "slow_consumer"


class BackendError(GatewayError):
    """A database behind the gateway did not answer as it should; retrying may help."""

    code = "backend_unavailable"
    http_status = 503
    close_code = 4053


class StreamLost(BackendError):
    """
    Chunks that were stored before are gone with their server.

    Nothing of the append was stored: the writer asks how far the stream is, and sends again.
    """

    code = "stream_lost"


class Draining(GatewayError):
    """This gateway is going away; reconnect and another one continues."""

    code = "draining"
    http_status = 503
    close_code = 4054


class ConfigurationError(GatewayError):
    """A setting is missing or wrong; met at start, never by a client."""

    code = "invalid_configuration"


class OneTimeTokenSpent(Unprocessable):
    """The one-time token was used before."""

    code = "one_time_token_spent"


class PositionLost(GatewayError):
    """
    A position that cannot be continued from; whoever holds it needs a fresh snapshot.

    ``reason`` is one of the `reset` reasons of docs/protocol.md.
    """

    code = "position_lost"
    http_status = 410
    close_code = 4010

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class StreamClosed(Unprocessable):
    """The stream was closed, or its run is finished: nothing more can be appended."""

    code = "stream_closed"
    http_status = 400


class StreamFull(Unprocessable):
    """The stream holds as many bytes as it may."""

    code = "stream_full"


class TooManyRevocations(Unprocessable):
    """The environment has as many revocations as it may; one of all its tokens always fits."""

    code = "too_many_revocations"


class TooManyStreams(Unprocessable):
    """The run has as many streams as it may."""

    code = "too_many_streams"
