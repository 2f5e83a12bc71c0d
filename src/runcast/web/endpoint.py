"""Serving the operations of one path: who asks, with what, and then the handler."""

import functools
from collections.abc import Iterable

from pydantic import BaseModel, ValidationError
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from runcast.auth.grant import Grant
from runcast.errors import (
    GatewayError,
    InsufficientScope,
    InvalidBody,
    InvalidParameter,
    MethodNotAllowed,
    RequestError,
)
from runcast.web.envelope import answer_with, preflight
from runcast.web.operation import ANONYMOUS, EVENT_STREAM, Access, Call, Operation
from runcast.web.rate_limits import headers_of, refusal
from runcast.web.raw_path import decode_part
from runcast.web.request_body import read_json
from runcast.web.responses import error_response, problems_in_words
from runcast.web.services import Services

# Parameters in these groups narrow an answer: one that is not understood must not be skipped.
_NARROWING = ("filter[", "page[")


class Endpoint:
    """An ASGI application for one path. HEAD is answered as GET where it is not an operation."""

    def __init__(self, services: Services, operations: Iterable[Operation]) -> None:
        operations = list(operations)
        self.path = operations[0].path
        self.is_stream = any(operation.is_stream for operation in operations)
        self._services = services
        self._operations = {operation.method: operation for operation in operations}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        method = scope["method"]
        operation = self._operations.get(method)
        if operation is None and method == "HEAD":
            operation = self._operations.get("GET")
        if method == "OPTIONS":
            response = preflight(scope)
            response.headers["allow"] = self._allowed()
            return await response(scope, receive, send)
        if operation is None:
            error = MethodNotAllowed(f"This address takes {self._allowed()}.")
            response = error_response(error, {"allow": self._allowed()})
            return await response(scope, receive, send)
        request = Request(scope, receive)
        try:
            answer = await self._answer(operation, request)
        except InsufficientScope as error:
            self._services.bearer.rejections[error.code] += 1
            raise
        except RequestError as error:
            if not operation.refusal:
                raise
            answer = error_response(error, more=operation.refusal)
        await answer(scope, receive, send)

    async def _answer(self, operation: Operation, request: Request) -> ASGIApp:
        call = await self._check(operation, request)
        if request.method == "HEAD" and operation.is_stream:
            # Without a body to send, the stream would only hold the connection.
            return Response(media_type=EVENT_STREAM)
        return await operation.handler(call)

    def _allowed(self) -> str:
        methods = {*self._operations, "OPTIONS"}
        if "GET" in methods:
            methods.add("HEAD")
        return ", ".join(sorted(methods))

    async def _check(self, operation: Operation, request: Request) -> Call:
        enter = self._admit if operation.is_rate_limited else self._authenticate
        grant = await enter(operation, request)
        path = {name: decode_part(part) for name, part in request.path_params.items()}
        query = _parse_query(operation.query, request.query_params)
        body = await self._read_body(operation, request)
        return Call(
            request=request,
            services=self._services,
            grant=grant,
            now=self._services.clock.now(),
            path=path,
            query=query,
            body=body,
        )

    async def _admit(self, operation: Operation, request: Request) -> Grant:
        """Authenticate within the rate limits; whatever the answer will be says what is left."""
        limits = self._services.rate_limits
        try:
            grant = await self._authenticate(operation, request)
        except GatewayError:
            answer_with(request.scope, headers_of(limits.of_strangers()))
            raise
        allowance = await limits.spend(grant)
        answer_with(request.scope, headers_of(allowance))
        if allowance is not None and not allowance.allowed:
            raise refusal(allowance, self._services.clock.now())
        return grant

    async def _authenticate(self, operation: Operation, request: Request) -> Grant:
        if operation.access is Access.OPEN:
            return ANONYMOUS
        return await self._services.bearer.authenticate(
            request,
            public_tokens=operation.access is Access.ANY_TOKEN,
            token_in_query=operation.token_in_query,
        )

    async def _read_body(self, operation: Operation, request: Request) -> BaseModel | None:
        if operation.body is None:
            return None
        value = await read_json(
            request,
            max_bytes=operation.body_bytes(self._services.limits),
            timeout_seconds=self._services.limits.request_timeout_seconds,
            optional=operation.body_optional,
        )
        try:
            return operation.body.model_validate(value)
        except ValidationError as error:
            raise InvalidBody(problems_in_words(error)) from None


@functools.cache
def _parameters(model: type[BaseModel]) -> frozenset[str]:
    """Names of a query's parameters; there are as many models as operations."""
    return frozenset(field.alias or name for name, field in model.model_fields.items())


def _parse_query(model: type[BaseModel] | None, query: QueryParams) -> BaseModel | None:
    if model is None:
        return None
    known = _parameters(model)
    for name in query:
        if name not in known and name.startswith(_NARROWING):
            raise InvalidParameter(f"There is no parameter {name[:100]!r} here.")
    # A parameter given several times is a list, the same as one with commas.
    values = {name: ",".join(query.getlist(name)) for name in query if name in known}
    if any("\0" in value for value in values.values()):
        raise InvalidParameter("Query parameters are text without NUL.")
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise InvalidParameter(problems_in_words(error)) from None
