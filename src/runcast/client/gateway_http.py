"""The one door to the gateway: requests with retries, open responses, errors made of answers."""

import asyncio
import logging
import random
import ssl
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx

from runcast.client.backoff import Backoff
from runcast.client.bearer import Bearer
from runcast.client.clock import now
from runcast.client.errors import (
    ApiError,
    ClientClosed,
    ConnectionLost,
    NotConfigured,
    TokenExpired,
    UnexpectedAnswer,
    api_error,
)
from runcast.client.json_text import from_json, to_json
from runcast.client.retriable import Retriable

logger = logging.getLogger("runcast.client")

Params = Mapping[str, str] | Sequence[tuple[str, str]]

ATTEMPTS = 5
_FIRST_DELAY_SECONDS = 1.0
_DELAY_FACTOR = 1.6
_LONGEST_WAIT_SECONDS = 30.0
_TIMEOUT = httpx.Timeout(30.0, connect=10.0, pool=None)
_RETRIED = frozenset({408, 409, 425, 429})
_NO_UPGRADE = frozenset({400, 404, 405, 426})
_PLAIN_HEADERS = frozenset({"x-should-retry", "x-ratelimit-reset", "retry-after", "x-request-id"})
_API_VERSION = "2025-07-16"
_MAX_MESSAGE_LENGTH = 1000


class GatewayHttp:
    """
    Sends requests to one gateway, as one bearer.

    Args:
        base_url: Of the gateway; a path in it is kept.
        bearer: Whom to be.
        http: A client to use, which stays its owner's to close; None: one of our own.

    Raises:
        NotConfigured: The URL is none.
    """

    def __init__(
        self, base_url: str, bearer: Bearer, http: httpx.AsyncClient | None = None
    ) -> None:
        self.base_url = _checked_url(base_url)
        self.bearer = bearer
        self._owned = http is None
        self._closed = False
        self._ssl: ssl.SSLContext | None = None
        # Feeds over SSE hold a connection each, so their number is not ours to limit.
        self._http = http or httpx.AsyncClient(
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=20)
        )

    async def close(self) -> None:
        """Close all connections."""
        self._closed = True
        if self._owned:
            await self._http.aclose()

    async def get(self, path: str, params: Params = ()) -> dict[str, Any]:
        """Get a JSON object; errors as in `request`."""
        return _object(await self.request("GET", path, params=params))

    async def send(
        self, method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """Send a JSON body and give the JSON object of the answer; errors as in `request`."""
        content = b"" if body is None else to_json(body, "The request")
        return _object(await self.request(method, path, content=content, headers=headers))

    async def request(
        self,
        method: str,
        path: str,
        *,
        content: bytes = b"",
        params: Params = (),
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        """
        Send one request, again where that may help, and give a successful answer.

        All tries of one call carry the same idempotency key.

        Raises:
            ApiError: The gateway refused.
            ConnectionLost: It could not be reached, five times.
        """
        given = {"content-type": "application/json"} if content else {}
        if method not in ("GET", "HEAD"):
            given["x-trigger-request-idempotency-key"] = str(uuid.uuid4())
        given |= headers or {}
        backoff = Backoff(_FIRST_DELAY_SECONDS, _LONGEST_WAIT_SECONDS, _DELAY_FACTOR)
        renewed = False
        while True:
            token = await self.bearer.current()
            try:
                return await self._request_once(method, path, content, params, given, token)
            except TokenExpired:
                if renewed or not self.bearer.renewable:
                    raise
                renewed = True
                await self.bearer.renew(token)
                continue
            except Retriable as error:
                delay = backoff.next_delay()
                if backoff.failures >= ATTEMPTS:
                    raise error.cause from error.cause.__cause__
                delay = max(delay, error.wait_seconds)
                logger.info("%s %s is tried again: %s", method, path, error.cause.message)
            await asyncio.sleep(delay)

    async def _request_once(
        self,
        method: str,
        path: str,
        content: bytes,
        params: Params,
        headers: Mapping[str, str],
        token: str,
    ) -> httpx.Response:
        request = self._build(method, path, token, params=params, headers=headers, content=content)
        try:
            response = await self._http.send(request)
        except httpx.TransportError as error:
            raise self.lost(error) from error
        self._raise_unless_fine(response)
        return response

    @asynccontextmanager
    async def open(
        self,
        method: str,
        path: str,
        token: str,
        *,
        params: Params = (),
        headers: Mapping[str, str] | None = None,
        content: AsyncIterator[bytes] | None = None,
        patience: httpx.Timeout = _TIMEOUT,
    ) -> AsyncIterator[httpx.Response]:
        """
        Send one request, once, and give the answer while its body is still to be read.

        Raises:
            ApiError: The gateway refused, and will again.
            Retriable: It could not be reached, or refused for now; also from within the context.
        """
        request = self._build(
            method, path, token, params=params, headers=headers, content=content, timeout=patience
        )
        try:
            response = await self._http.send(request, stream=True)
            try:
                if not response.is_success:
                    await response.aread()
                    self._raise_unless_fine(response)
                yield response
            finally:
                await response.aclose()
        except httpx.TransportError as error:
            raise self.lost(error) from error

    def lost(self, error: Exception) -> Retriable:
        """Tell of a connection that failed."""
        reason = str(error) or type(error).__name__
        lost = ConnectionLost(
            f"The gateway at {self.base_url} cannot be reached ({reason}): is it running, and is "
            "the URL right? It is given as base_url or in RUNCAST_URL."
        )
        lost.__cause__ = error
        return Retriable(lost)

    async def ssl_context(self) -> ssl.SSLContext:
        """What httpx trusts, for a WebSocket; reading it takes a moment."""
        if self._ssl is None:
            self._ssl = await asyncio.to_thread(httpx.create_ssl_context)
        return self._ssl

    def refusal(
        self, status: int, headers: Mapping[str, str], body: bytes
    ) -> ApiError | Retriable | None:
        """
        What an answer to a WebSocket's upgrade says; None: it is not a gateway's own.

        Neither is one of a gateway that a proxy showed a request without its upgrade.
        """
        plain = {name: text for name, text in headers.items() if name.lower() in _PLAIN_HEADERS}
        response = httpx.Response(status, headers=plain, content=body)
        error = _refusal(response)
        if error.code == "unknown" or status in _NO_UPGRADE:
            return None
        if _worth_retrying(response):
            return Retriable(error, _wait_seconds(response))
        return error

    def _build(
        self,
        method: str,
        path: str,
        token: str,
        *,
        params: Params,
        headers: Mapping[str, str] | None,
        content: bytes | AsyncIterator[bytes] | None,
        timeout: httpx.Timeout = _TIMEOUT,
    ) -> httpx.Request:
        if self._closed:
            raise ClientClosed("This client was closed; make another.")
        common = {"authorization": f"Bearer {token}", "x-trigger-api-version": _API_VERSION}
        return self._http.build_request(
            method,
            self.base_url + path,
            params=list(params.items() if isinstance(params, Mapping) else params) or None,
            headers={**common, **(headers or {})},
            content=content or None,
            timeout=timeout,
        )

    def _raise_unless_fine(self, response: httpx.Response) -> None:
        """
        Raise what an answer that was read says.

        Raises:
            ApiError: Refused for good.
            Retriable: Refused for now.
            UnexpectedAnswer: No answer of a gateway.
        """
        if response.is_success:
            return
        if response.is_redirect or response.is_informational:
            raise UnexpectedAnswer(
                f"{self.base_url} answers with {response.status_code}: give the URL that the "
                "gateway itself has."
            )
        error = _refusal(response)
        if _worth_retrying(response):
            raise Retriable(error, _wait_seconds(response))
        raise error


def _checked_url(text: str) -> str:
    try:
        url = httpx.URL(text.strip().rstrip("/"))
    except httpx.InvalidURL:
        url = httpx.URL("")
    if url.scheme not in ("http", "https") or not url.host or url.query or url.userinfo:
        raise NotConfigured("The URL of the gateway has the form https://host or http://host:port.")
    return str(url).rstrip("/")


def _object(response: httpx.Response) -> dict[str, Any]:
    try:
        value = from_json(response.content)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise UnexpectedAnswer("The answer is no JSON object; is the URL that of a gateway?")
    return value


def _refusal(response: httpx.Response) -> ApiError:
    status = response.status_code
    message, code = "", "unknown"
    try:
        body = from_json(response.content)
    except ValueError:
        body = None
    if isinstance(body, dict):
        message, code = str(body.get("error") or ""), str(body.get("code") or code)
    return api_error(
        message[:_MAX_MESSAGE_LENGTH] or f"The gateway answered {status} {response.reason_phrase}.",
        code=code,
        status=status,
        request_id=response.headers.get("x-request-id"),
    )


def _worth_retrying(response: httpx.Response) -> bool:
    says = response.headers.get("x-should-retry")
    if says in ("true", "false"):
        return bool(says == "true")
    return response.status_code in _RETRIED or response.status_code >= 500


def _wait_seconds(response: httpx.Response) -> float:
    """How long the gateway asks to wait, bounded."""
    headers = response.headers
    reset, after = headers.get("x-ratelimit-reset", ""), headers.get("retry-after", "")
    wait = 0.0
    if response.status_code == 429 and reset.isdecimal():
        wait = int(reset) / 1000 - now() + random.random()
    elif after.isdecimal():
        wait = int(after) * random.uniform(1.0, 1.5)
    return min(max(wait, 0.0), _LONGEST_WAIT_SECONDS)
