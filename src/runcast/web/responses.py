"""From values to JSON, and from errors to HTTP: the only place that does either."""

import logging
import uuid
from collections.abc import Mapping
from typing import Any

import orjson
from pydantic import BaseModel, Field, ValidationError
from starlette.responses import Response

from runcast.errors import (
    BackendError,
    Draining,
    GatewayError,
    InsufficientScope,
    LimitError,
    RateLimited,
    RequestError,
)

_RETRY_AFTER_SECONDS = "1"
_PROBLEMS_TOLD = 3

logger = logging.getLogger(__name__)


class ErrorBody(BaseModel):
    """What every refused request is answered with."""

    error: str = Field(description="What is wrong and what helps, for people.")
    code: str = Field(description='Stable; listed in docs/protocol.md under "Errors".')
    param: str | None = Field(default=None, description="Only with 403: what the refusal is about.")
    type: str | None = Field(default=None, description='With 403: "authorization".')
    ok: bool | None = Field(default=None, description="False, where success would say true.")
    errorId: str | None = Field(
        default=None, description="Only with 500: look for it in the server log."
    )


class RateLimitBody(ErrorBody):
    """What a request is answered with for which there is no permit; see RFC 9457."""

    title: str
    status: int
    detail: str = Field(description="The same as `error`.")


def json_response(
    content: Any, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """Answer with JSON."""
    return Response(orjson.dumps(content), status, headers, media_type="application/json")


def error_response(
    error: Exception,
    headers: Mapping[str, str] | None = None,
    *,
    more: Mapping[str, Any] | None = None,
) -> Response:
    """
    Answer a request that ended with an error; ``more`` goes into the body as well.

    Errors that nobody foresaw are logged with their trace under an id, and the client learns the
    id alone.
    """
    if not isinstance(error, GatewayError):
        return _unforeseen(error)
    body: dict[str, Any] = {"error": error.message, "code": error.code, **(more or {})}
    extra = dict(headers or {})
    if error.http_status == 401:
        extra["www-authenticate"] = 'Bearer realm="runcast"'
    elif isinstance(error, InsufficientScope):
        body |= {"param": "access_token", "type": "authorization"}
    elif error.http_status == 404:
        extra["x-should-retry"] = "false"
    elif isinstance(error, RateLimited):
        return _problem(body, error, extra)
    elif isinstance(error, LimitError):
        extra["retry-after"] = str(error.retry_after_seconds)
    elif isinstance(error, BackendError | Draining):
        extra["retry-after"] = _RETRY_AFTER_SECONDS
    elif not isinstance(error, RequestError):
        logger.error("request failed: %s", error.message, exc_info=error)
    return json_response(body, error.http_status, extra)


def _problem(body: dict[str, Any], error: RateLimited, headers: Mapping[str, str]) -> Response:
    """A refusal in the form of RFC 9457, which clients expect of rate limits."""
    body |= {
        "type": "about:blank",
        "title": "Too Many Requests",
        "status": error.http_status,
        "detail": error.message,
    }
    return Response(
        orjson.dumps(body),
        error.http_status,
        {**headers, "retry-after": str(error.retry_after_seconds)},
        media_type="application/problem+json",
    )


def problems_in_words(error: ValidationError) -> str:
    """Tell the first few problems of a body or query, without repeating the values."""
    problems = error.errors(include_url=False, include_input=False, include_context=False)
    told = []
    for problem in problems[:_PROBLEMS_TOLD]:
        place = ".".join(str(part) for part in problem["loc"])
        told.append(f"{place}: {problem['msg']}" if place else problem["msg"])
    if more := len(problems) - len(told):
        told.append(f"and {more} more")
    return "; ".join(told)


def _unforeseen(error: Exception) -> Response:
    error_id = uuid.uuid4().hex
    logger.error("unforeseen error %s", error_id, exc_info=error)
    body = {
        "error": "The gateway failed to answer; its log has more under this errorId.",
        "code": GatewayError.code,
        "errorId": error_id,
    }
    return json_response(body, 500)
