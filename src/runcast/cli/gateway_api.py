"""What commands ask of a running gateway over HTTP."""

from typing import Any

import httpx

from runcast.errors import BackendError, GatewayError

DEFAULT_URL = "http://127.0.0.1:8080"
_TIMEOUT_SECONDS = 15.0


class RefusedByGateway(GatewayError):
    """The gateway answered with an error; the message is its own."""

    code = "refused_by_gateway"


def client(url: str, token: str) -> httpx.AsyncClient:
    """Make a client that shows this token or secret key with every request."""
    return httpx.AsyncClient(
        base_url=url.rstrip("/"),
        headers={"authorization": f"Bearer {token}"},
        timeout=_TIMEOUT_SECONDS,
    )


async def post_json(http: httpx.AsyncClient, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """
    Post a JSON body and return the JSON object of the answer.

    Raises:
        RefusedByGateway: It answered with an error.
        BackendError: It cannot be reached, or is not a gateway.
    """
    return await _ask(http, "POST", path, json=body)


async def get_json(http: httpx.AsyncClient, path: str, params: dict[str, str]) -> dict[str, Any]:
    """Get the JSON object at a path; errors as in `post_json`."""
    return await _ask(http, "GET", path, params=params)


async def delete_json(http: httpx.AsyncClient, path: str) -> dict[str, Any]:
    """Delete what is at a path and return the JSON object of the answer; errors as above."""
    return await _ask(http, "DELETE", path)


async def _ask(http: httpx.AsyncClient, method: str, path: str, **what: Any) -> dict[str, Any]:
    try:
        response = await http.request(method, path, **what)
    except (httpx.TransportError, httpx.InvalidURL) as error:
        raise unreachable(http, error) from error
    raise_if_refused(response)
    try:
        answer = response.json()
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise BackendError(f"{http.base_url} did not answer with JSON; is it a gateway's URL?")
    return answer


def raise_if_refused(response: httpx.Response) -> None:
    """
    Raise what the gateway says of a request that failed; the body must have been read.

    Raises:
        RefusedByGateway: The status is 400 or more.
    """
    if response.is_error:
        raise RefusedByGateway(f"the gateway answered {response.status_code}: {_problem(response)}")


def unreachable(http: httpx.AsyncClient, error: Exception) -> BackendError:
    """Describe a connection that failed."""
    reason = str(error) or type(error).__name__
    return BackendError(
        f"The gateway at {http.base_url} cannot be reached ({reason}): is it running, and is the "
        "URL right? Give another with --url or RUNCAST_URL."
    )


def _problem(response: httpx.Response) -> str:
    try:
        body = response.json()
        return str(body["error"])[:500]
    except (ValueError, KeyError, TypeError):
        return response.reason_phrase or "no reason given"
