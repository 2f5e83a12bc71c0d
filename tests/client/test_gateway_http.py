"""How requests are tried again, judged by what goes over the wire; no gateway refuses on demand."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from runcast import AsyncClient
from runcast.client.errors import (
    ApiError,
    ClientClosed,
    ConnectionLost,
    NotFound,
    RateLimited,
    ServerError,
    TokenExpired,
    Unavailable,
    UnexpectedAnswer,
)
from tests.support.restartable_gateway import RestartableGateway

HANDLE = {"id": "run_1", "publicAccessToken": "a.b.c", "isCached": False}


class Script:
    """Answers requests as it was told, and remembers them."""

    def __init__(self, *answers: httpx.Response | Exception) -> None:
        self._answers: Iterator[httpx.Response | Exception] = iter(answers)
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = next(self._answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def client(self, **options: Any) -> AsyncClient:
        http = httpx.AsyncClient(transport=httpx.MockTransport(self))
        return AsyncClient("http://gateway", **({"secret_key": "tr_dev_1"} | options), http=http)


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What would have been slept."""
    seconds: list[float] = []

    async def sleep(delay: float) -> None:
        seconds.append(delay)

    monkeypatch.setattr("runcast.client.gateway_http.asyncio.sleep", sleep)
    return seconds


def refused(status: int, code: str = "x", **headers: str) -> httpx.Response:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.Response(status, json={"error": "no", "code": code}, headers=sent)


async def test_all_tries_of_one_call_are_told_to_be_one(slept: list[float]) -> None:
    script = Script(
        refused(503), httpx.ConnectError("x"), refused(429), httpx.Response(200, json=HANDLE)
    )
    async with script.client() as client:
        assert (await client.tasks.trigger("a/b", 1)).id == "run_1"
    keys = {each.headers["x-trigger-request-idempotency-key"] for each in script.requests}
    assert len(keys) == 1
    assert {each.url.raw_path for each in script.requests} == {b"/api/v1/tasks/a%2Fb/trigger"}
    assert json.loads(script.requests[-1].content) == {"payload": 1, "options": {}}
    for number, seconds in enumerate(slept):
        assert 0.5 * 1.6**number <= seconds <= 1.6**number


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (refused(503, "draining"), Unavailable),
        (refused(500, "internal_error"), ServerError),
        (refused(429, "limit_exceeded"), RateLimited),
        (refused(404, "not_found", x_should_retry="true"), NotFound),
        (httpx.ReadError("cut"), ConnectionLost),
    ],
)
async def test_five_tries_and_then_the_error(
    slept: list[float], answer: httpx.Response | Exception, error: type[Exception]
) -> None:
    script = Script(*[answer] * 5)
    async with script.client() as client:
        with pytest.raises(error):
            await client.runs.retrieve("run_1")
    assert (len(script.requests), len(slept)) == (5, 4)


@pytest.mark.parametrize(
    "answer", [refused(400), refused(404), refused(422), refused(500, x_should_retry="false")]
)
async def test_what_will_be_refused_again_is_not_tried_again(answer: httpx.Response) -> None:
    script = Script(answer)
    async with script.client() as client:
        with pytest.raises(ApiError):
            await client.runs.cancel("run_1")
    assert len(script.requests) == 1


async def test_a_gateway_says_how_long_to_wait_within_reason(slept: list[float]) -> None:
    script = Script(
        refused(429, retry_after="7"),
        refused(429, x_ratelimit_reset="99999999999999"),
        refused(429, retry_after="never", x_ratelimit_reset="soon"),
        httpx.Response(200, json=HANDLE),
    )
    async with script.client() as client:
        await client.tasks.trigger("t")
    assert 7 <= slept[0] <= 10.5
    assert slept[1] == 30
    assert slept[2] < 3


async def test_an_expired_token_is_exchanged_once() -> None:
    script = Script(*[refused(401, "expired_token")] * 2)
    tokens = iter(["one", "two"])
    async with script.client(secret_key=None, token=lambda: next(tokens)) as client:
        with pytest.raises(TokenExpired):
            await client.runs.retrieve("run_1")
    shown = [each.headers["authorization"] for each in script.requests]
    assert shown == ["Bearer one", "Bearer two"]


async def test_a_factory_is_asked_once_by_many(gateway: RestartableGateway) -> None:
    asked = 0

    async def token() -> str:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0.01)
        return gateway.key

    async with AsyncClient(gateway.url, token=token) as client:
        await asyncio.gather(*(client.runs.list().page() for _ in range(5)))
    assert asked == 1


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(200, text="<html>"),
        httpx.Response(200, json=[1]),
        httpx.Response(200, json={}),
        httpx.Response(200, json={"id": 1, "relatedRuns": 3}),
        httpx.Response(301, headers={"location": "https://elsewhere"}),
    ],
)
async def test_what_is_no_gateway_is_told_so(answer: httpx.Response) -> None:
    async with Script(answer).client() as client:
        with pytest.raises(UnexpectedAnswer):
            await client.runs.retrieve("run_1")


async def test_errors_that_are_no_json_are_told_by_status() -> None:
    async with Script(httpx.Response(403, text="<html>")).client() as client:
        with pytest.raises(ApiError, match="403 Forbidden") as denied:
            await client.runs.cancel("run_1")
    assert denied.value.code == "unknown"


async def test_a_call_waits_for_a_gateway_that_comes_back(
    client: AsyncClient, gateway: RestartableGateway
) -> None:
    await gateway.stop()
    calling = asyncio.create_task(client.tasks.trigger("t"))
    await asyncio.sleep(0)
    await gateway.start()
    assert (await client.runs.retrieve((await calling).id)).task == "t"


async def test_a_closed_client_says_so(client: AsyncClient) -> None:
    await client.close()
    with pytest.raises(ClientClosed):
        await client.tasks.trigger("t")
    with pytest.raises(ClientClosed):
        _ = [run async for run in client.runs.subscribe_all()]
