"""Bodies that are too large, too slow, too deep, or no JSON."""

import asyncio

import pytest

from runcast.core.limits import Limits
from tests.support.gateway import RunningGateway, Tenant, running_gateway

URL = "/api/v1/tasks/hello/trigger"
JSON = {"content-type": "application/json"}


@pytest.mark.parametrize(
    ("body", "headers", "status", "code"),
    [
        (b"", JSON, 400, "invalid_body"),
        (b"{", JSON, 400, "invalid_body"),
        (b"[]", JSON, 400, "invalid_body"),
        (b"null", JSON, 400, "invalid_body"),
        (b'"text"', JSON, 400, "invalid_body"),
        (b"\xff\xfe", JSON, 400, "invalid_body"),
        (b'{"payload": "\\ud83d\xff"}', JSON, 400, "invalid_body"),
        (b'{"payload": NaN}', JSON, 400, "invalid_body"),
        (b'{"payload": 1e999}', JSON, 400, "invalid_body"),
        (b'{"payload": ' + b"[" * 5000 + b"]" * 5000 + b"}", JSON, 400, "invalid_body"),
        (b'{"payload": ' + b"[" * 600 + b"]" * 600 + b"}", JSON, 400, "invalid_body"),
        (b'{"payload": ' + b"[" * 190 + b"]" * 190 + b"}", JSON, 200, None),
        (b"{}", {"content-type": "application/x-www-form-urlencoded"}, 200, None),
        (b"{}", {"content-type": "text/plain;charset=UTF-8"}, 200, None),
        (b"{}", JSON | {"content-encoding": "gzip"}, 415, "unsupported_media_type"),
        (b"{}", {"content-type": "application/json; charset=utf-8"}, 200, None),
        (b"{}", {"content-type": "application/vnd.api+json"}, 200, None),
        (b"{}", {}, 200, None),
    ],
)
async def test_bodies(
    tenant: Tenant, body: bytes, headers: dict[str, str], status: int, code: str | None
) -> None:
    answer = await tenant.client.post(URL, content=body, headers=headers)
    assert answer.status_code == status, answer.text
    if code is not None:
        assert answer.json()["code"] == code


async def test_get_requests_may_carry_any_body_and_content_type(tenant: Tenant) -> None:
    answer = await tenant.client.request("GET", "/api/v1/runs", content=b"{", headers=JSON)
    assert answer.status_code == 200


async def test_a_problem_is_told_with_its_place_and_without_its_value(tenant: Tenant) -> None:
    body = {"options": {"machine": "my-secret", "test": "my-secret"}}
    answer = await tenant.client.post(URL, json=body)
    assert "options.machine" in answer.json()["error"]
    assert "options.test" in answer.json()["error"]
    assert "my-secret" not in answer.text


async def test_a_body_that_does_not_arrive_is_408(database_url: str) -> None:
    limits = Limits(request_timeout_seconds=0.1, key_cache_seconds=0)
    async with running_gateway(database_url, limits=limits) as gateway:
        tenant = await gateway.tenant("dev")
        host, _, port = gateway.url.removeprefix("http://").partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        try:
            writer.write(
                f"POST {URL} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {tenant.key}\r\n"
                "content-type: application/json\r\ncontent-length: 10\r\n\r\n{".encode()
            )
            assert (await reader.readline()).startswith(b"HTTP/1.1 408")
        finally:
            writer.close()
            await writer.wait_closed()


async def test_the_token_comes_before_the_body(gateway: RunningGateway) -> None:
    answer = await gateway.anybody.post(URL, content=b"x" * 5_000_000, headers=JSON)
    assert answer.status_code == 401
