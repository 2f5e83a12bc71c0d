"""
One operation of the HTTP API: what the router needs to serve it and OpenAPI to describe it.

Resources list their operations, `routes.py` joins the lists into one table, and both the routes
and /openapi.json are made from that.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from typing import Any

from pydantic import BaseModel
from starlette.requests import Request
from starlette.types import ASGIApp

from runcast.auth.grant import Grant
from runcast.core.limits import Limits
from runcast.core.scope import compile_scopes
from runcast.core.status import ApiVersion
from runcast.web.services import Services

EVENT_STREAM = "text/event-stream"

# Of callers that nobody asked who they are: allows nothing.
ANONYMOUS = Grant(
    environment_id="", permissions=compile_scopes(()), scopes=frozenset(), expires_at=None
)


class Access(Enum):
    """Who may call an operation."""

    OPEN = "anybody"
    ANY_TOKEN = "secret key or public access token"
    SECRET_KEY = "secret key"


@dataclass(frozen=True, slots=True)
class Call:
    """
    One request, checked as far as its operation says: handlers start from here.

    ``path`` holds the decoded path parameters. ``query`` and ``body`` are values of the
    operation's models, None where it has none. ``now`` is Unix time in seconds.
    """

    request: Request
    services: Services
    grant: Grant
    now: float
    path: Mapping[str, str]
    query: Any
    body: Any

    @property
    def environment_id(self) -> str:
        """The environment of the caller; nothing outside of it is looked at."""
        return self.grant.environment_id

    @property
    def time(self) -> datetime:
        """``now`` as a datetime in UTC."""
        return datetime.fromtimestamp(self.now, UTC)

    @property
    def api(self) -> ApiVersion:
        """Which clients the answer is for."""
        return ApiVersion.from_header(self.request.headers.get("x-trigger-api-version"))

    @property
    def withheld(self) -> frozenset[str]:
        """Columns of runs that the caller may not see."""
        if self.grant.is_secret_key:
            return frozenset()
        return self.services.limits.withheld_columns.union(self.grant.skip_columns)


# Responses are ASGI applications; a handler may give any other one that answers the request.
Handler = Callable[[Call], Awaitable[ASGIApp]]


@dataclass(frozen=True, slots=True)
class Answer:
    """
    An answer as OpenAPI describes it; ``model`` None means no body, or one that is not JSON.

    ``json_schema`` is of an answer in JSON that may come instead.
    """

    description: str
    model: type[BaseModel] | None = None
    media_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)
    json_schema: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """
    One method on one path.

    Attributes:
        name: The operationId of OpenAPI; unique.
        path: With parameters such as ``{run}``, each of one path part.
        path_parameters: Descriptions of the path's parameters.
        takes_rest: Whether the last parameter takes all that is left of the path, slashes too.
        query: Model of the query parameters, aliases being their names.
        headers: Request headers that mean something here, with descriptions.
        body: Model of the JSON body; None: a body is not read.
        body_optional: Whether an empty body stands for an empty object.
        body_bytes: The limit on the body, by the gateway's limits.
        token_in_query: Whether ``?token=`` is accepted, for clients that cannot send headers.
        answers: What success looks like, by status.
        counted: Whether requests count against the rate limit of the caller, where there is one.
        refusal: What the body of a refusal holds besides the error.
        errors: Statuses of refusals beyond those that follow from all the above.
    """

    method: str
    path: str
    name: str
    summary: str
    handler: Handler
    access: Access
    tag: str
    answers: Mapping[int, Answer]
    description: str = ""
    path_parameters: Mapping[str, str] = field(default_factory=dict)
    takes_rest: bool = False
    query: type[BaseModel] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: type[BaseModel] | None = None
    body_optional: bool = False
    body_bytes: Callable[[Limits], int] = lambda limits: limits.max_body_bytes
    token_in_query: bool = False
    counted: bool = True
    refusal: Mapping[str, Any] = field(default_factory=dict)
    errors: tuple[int, ...] = ()

    @property
    def is_rate_limited(self) -> bool:
        """Whether requests count; rate limits are of /api alone, and of callers who are known."""
        in_reach = self.path.startswith("/api/") and self.access is not Access.OPEN
        return in_reach and self.counted

    @property
    def is_stream(self) -> bool:
        """Whether the answer may go on for as long as the client listens."""
        return any(answer.media_type == EVENT_STREAM for answer in self.answers.values())
