"""What every answer has in common: CORS, ids, JSON errors, and routing on the raw path."""

import asyncio
import logging
from typing import Any

import asyncpg
import httpx
import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from runcast.web.operation import Access
from runcast.web.routes import OPERATIONS
from tests.support.gateway import RunningGateway, Tenant, address, running_gateway

PATHS = sorted({operation.path for operation in OPERATIONS})


@pytest.mark.parametrize("path", [*PATHS, "/nowhere"])
async def test_preflights_are_answered_everywhere_without_a_token(
    gateway: RunningGateway, path: str
) -> None:
    asked = "authorization,content-type,trigger-version,x-trigger-api-version"
    answer = await gateway.anybody.options(
        address(path),
        headers={
            "origin": "https://app.example",
            "access-control-request-method": "POST",
            "access-control-request-headers": asked,
        },
    )
    assert answer.status_code == 204
    assert answer.headers["access-control-allow-origin"] == "*"
    assert answer.headers["access-control-allow-headers"] == asked
    assert "PATCH" in answer.headers["access-control-allow-methods"]
    assert answer.headers["access-control-max-age"] == "300"


async def test_a_preflight_that_asks_for_nothing_learns_all_headers(
    gateway: RunningGateway,
) -> None:
    answer = await gateway.anybody.options("/api/v1/runs")
    assert answer.status_code == 204
    assert answer.headers["allow"] == "GET, HEAD, OPTIONS"
    assert "last-event-id" in answer.headers["access-control-allow-headers"]


async def test_errors_carry_cors_headers_and_expose_what_clients_read(
    gateway: RunningGateway, tenant: Tenant
) -> None:
    for answer in (
        await gateway.anybody.get("/nowhere"),
        await gateway.anybody.get("/api/v1/runs"),
        await gateway.anybody.get("/api/v1/runs", headers=tenant.bearing()),
        await tenant.client.get("/api/v3/runs/run_no"),
        await tenant.client.delete("/api/v1/runs"),
        await tenant.client.get("/api/v1/runs"),
    ):
        assert answer.headers["access-control-allow-origin"] == "*"
        exposed = answer.headers["access-control-expose-headers"]
        assert "x-trigger-jwt," in exposed
        assert "x-should-retry" in exposed
        assert answer.headers["server"] == "runcast"


async def test_an_unknown_address_is_json_404_that_is_not_to_be_retried(
    gateway: RunningGateway,
) -> None:
    for path in ("/nowhere", "/api/v1/runs/", "/api/v1/runs/r/nothing", "//api/v1/runs"):
        answer = await gateway.anybody.get(path)
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found"), path
        assert answer.headers["x-should-retry"] == "false"


@pytest.mark.parametrize("path", PATHS)
async def test_other_methods_are_json_405_with_what_is_allowed(
    gateway: RunningGateway, path: str
) -> None:
    methods = {operation.method for operation in OPERATIONS if operation.path == path}
    other = next(method for method in ("DELETE", "PATCH") if method not in methods)
    answer = await gateway.anybody.request(other, address(path))
    assert (answer.status_code, answer.json()["code"]) == (405, "method_not_allowed")
    allowed = set(answer.headers["allow"].split(", "))
    assert allowed == methods | {"OPTIONS"} | ({"HEAD"} if "GET" in methods else set())


async def test_a_sane_request_id_comes_back_and_others_are_replaced(
    gateway: RunningGateway,
) -> None:
    async def sent(request_id: str) -> str:
        answer = await gateway.anybody.get("/healthz", headers={"x-request-id": request_id})
        return answer.headers["x-request-id"]

    assert await sent("req-1.2:3") == "req-1.2:3"
    assert await sent("x" * 129) != "x" * 129
    assert await sent("a b") != "a b"
    fresh = {(await gateway.anybody.get("/healthz")).headers["x-request-id"] for _ in range(3)}
    assert len(fresh) == 3


async def test_an_unforeseen_error_is_opaque_to_the_client_and_told_in_the_log(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(request: Request) -> Response:
        raise RuntimeError("the password is hunter2")

    routes = [Route("/broken", broken)]
    async with running_gateway(database_url, extra_routes=routes) as gateway:
        with caplog.at_level(logging.ERROR):
            answer = await gateway.anybody.get("/broken")
        assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
        assert "hunter2" not in answer.text
        assert "Traceback" not in answer.text
        error_id = answer.json()["errorId"]
        assert any(error_id in record.getMessage() and record.exc_info for record in caplog.records)
        assert (await gateway.anybody.get("/healthz")).status_code == 200


async def test_an_error_in_the_middle_of_a_response_cuts_it(database_url: str) -> None:
    async def broken(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise RuntimeError("in the middle")

    class Broken:
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            await broken(scope, receive, send)

    async with running_gateway(database_url, extra_routes=[Route("/broken", Broken())]) as gateway:
        with pytest.raises(httpx.RemoteProtocolError):
            await gateway.anybody.get("/broken")


async def test_a_database_that_is_gone_is_503_and_worth_a_retry(
    gateway: RunningGateway, tenant: Tenant, postgres_server: str, database_url: str
) -> None:
    await tenant.trigger()
    connection = await asyncpg.connect(postgres_server)
    try:
        name = database_url.partition("?")[0].rpartition("/")[2]
        await connection.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name
        )
    finally:
        await connection.close()
    for _ in range(3):
        answer = await tenant.client.get("/api/v1/runs")
        assert (answer.status_code, answer.json()["code"]) == (503, "backend_unavailable")
        assert answer.headers["retry-after"] == "1"


@pytest.mark.parametrize(
    "path",
    [
        "/api/v3/runs/%ff",
        "/api/v3/runs/a%00b",
        "/api/v3/runs/" + "x" * 600,
    ],
)
async def test_addresses_that_are_no_text_are_400(tenant: Tenant, path: str) -> None:
    answer = await tenant.client.get(path)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_parameter")


async def test_a_client_that_leaves_in_the_middle_of_its_body_harms_nobody(
    gateway: RunningGateway, tenant: Tenant, caplog: pytest.LogCaptureFixture
) -> None:
    host, _, port = gateway.url.removeprefix("http://").partition(":")
    _, writer = await asyncio.open_connection(host, int(port))
    writer.write(
        b"POST /api/v1/tasks/hello/trigger HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n"
        + f"authorization: Bearer {tenant.key}\r\n".encode()
        + b'content-type: application/json\r\n\r\n{"payload"'
    )
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    assert await tenant.trigger()
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_every_operation_says_who_may_call_it() -> None:
    open_paths = {each.path for each in OPERATIONS if each.access is Access.OPEN}
    signed = {
        "/api/v1/objects/{environment}/{name}",
        "/api/v1/waitpoints/tokens/{token}/callback/{hash}",
    }
    assert open_paths == {"/healthz", "/readyz", "/metrics", "/openapi.json"} | signed


async def test_head_of_a_stream_ends_at_once(tenant: Tenant) -> None:
    answer = await tenant.client.head("/realtime/v1/runs")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert (await tenant.client.head("/realtime/v1/runs?cursor=%00")).status_code == 400
