"""Who is let in: every bad token on every operation is 401, with a code and nothing more."""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from runcast.core.limits import Limits
from runcast.web.operation import Access, Operation
from runcast.web.routes import OPERATIONS
from tests.support.gateway import RunningGateway, Tenant, address, bearing, running_gateway


def now() -> float:
    return time.time()  # noqa: TID251 - tokens are signed as a backend would


AUTHENTICATED = [each for each in OPERATIONS if each.access is not Access.OPEN]


def part(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def signed(secret: str, header: object, claims: object) -> str:
    unsigned = f"{part(header)}.{part(claims)}"
    signature = hmac.digest(secret.encode(), unsigned.encode(), hashlib.sha256)
    return f"{unsigned}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


def bad_tokens(tenant: Tenant, other: Tenant) -> Iterator[tuple[str, str, str]]:
    """Name, token, and the code that it gets where public tokens are accepted."""
    header = {"alg": "HS256"}
    good: dict[str, Any] = {
        "iss": "https://id.trigger.dev",
        "aud": "https://api.trigger.dev",
        "exp": int(now()) + 600,
        "sub": tenant.environment_id,
        "pub": True,
        "scopes": ["admin"],
    }
    token = signed(tenant.key, header, good)
    yield "no token", "", "missing_token"
    yield "unknown key", "tr_dev_" + "x" * 40, "invalid_token"
    yield "short key", "tr_dev", "invalid_token"
    yield "two parts", token.rpartition(".")[0], "invalid_token"
    yield "garbage", "a.b.c", "invalid_token"
    yield "other signature", token[:-4] + "AAAA", "invalid_token"
    yield "signed by another environment", signed(other.key, header, good), "invalid_token"
    yield "no algorithm", signed(tenant.key, {"alg": "none"}, good), "invalid_token"
    yield "unsigned", f"{part({'alg': 'none'})}.{part(good)}.", "invalid_token"
    yield "other algorithm", signed(tenant.key, {"alg": "HS512"}, good), "invalid_token"
    yield (
        "unknown environment",
        signed(tenant.key, header, good | {"sub": "env_x"}),
        "invalid_token",
    )
    yield (
        "foreign environment",
        signed(tenant.key, header, good | {"sub": other.environment_id}),
        "invalid_token",
    )
    yield (
        "no exp",
        signed(tenant.key, header, {name: good[name] for name in good if name != "exp"}),
        "invalid_token",
    )
    yield "expired", signed(tenant.key, header, good | {"exp": int(now()) - 1}), "expired_token"
    yield (
        "not yet valid",
        signed(tenant.key, header, good | {"nbf": int(now()) + 300}),
        "invalid_token",
    )
    yield "wrong audience", signed(tenant.key, header, good | {"aud": "else"}), "invalid_token"
    yield "wrong issuer", signed(tenant.key, header, good | {"iss": "else"}), "invalid_token"
    yield "not public", signed(tenant.key, header, good | {"pub": False}), "invalid_token"
    yield "subject of another type", signed(tenant.key, header, good | {"sub": 5}), "invalid_token"
    yield "subject with NUL", signed(tenant.key, header, good | {"sub": "a\0"}), "invalid_token"
    yield "absurdly long", token + "A" * 20_000, "invalid_token"
    yield "exp too large", signed(tenant.key, header, good | {"exp": 10**40}), "invalid_token"


async def ask(
    client: httpx.AsyncClient, operation: Operation, headers: dict[str, str], token: str = ""
) -> httpx.Response:
    return await client.request(
        operation.method,
        address(operation.path),
        headers=headers,
        params={"token": token} if token else None,
    )


@pytest.mark.parametrize("operation", AUTHENTICATED, ids=lambda each: each.name)
async def test_every_bad_token_is_401_on_every_operation(
    gateway: RunningGateway, tenant: Tenant, operation: Operation
) -> None:
    other = await gateway.tenant("other")
    for name, token, code in bad_tokens(tenant, other):
        answer = await ask(gateway.anybody, operation, bearing(token) if token else {})
        # A secret key is all that these know; what kind of bad token it is they do not look at.
        if operation.access is Access.SECRET_KEY and token:
            code = "invalid_token"
        assert answer.status_code == 401, (name, answer.text)
        if operation.method != "HEAD":
            assert answer.json()["code"] == code, name
            assert set(answer.json()) == {"error", "code"}
        assert answer.headers["www-authenticate"] == 'Bearer realm="runcast"'
        assert answer.headers["access-control-allow-origin"] == "*"
        for secret in (token, tenant.key, other.key, other.environment_id):
            assert not secret or secret not in answer.text


@pytest.mark.parametrize(
    "operation", [each for each in AUTHENTICATED if each.access is Access.SECRET_KEY]
)
async def test_operations_for_secret_keys_refuse_the_best_public_token(
    gateway: RunningGateway, tenant: Tenant, operation: Operation
) -> None:
    answer = await ask(gateway.anybody, operation, tenant.bearing("admin"))
    assert answer.status_code == 401
    assert operation.method == "HEAD" or answer.json()["code"] == "invalid_token"


@pytest.mark.parametrize("operation", AUTHENTICATED, ids=lambda each: each.name)
async def test_a_token_without_scopes_opens_nothing(
    gateway: RunningGateway, tenant: Tenant, operation: Operation
) -> None:
    # What any of them needs; the rest is ignored.
    fields = {"items": [{"task": "t"}], "runCount": 1, "taskIdentifier": "t", "data": 1}
    body = fields if operation.body else None
    answer = await gateway.anybody.request(
        operation.method, address(operation.path), headers=tenant.bearing(), json=body
    )
    expected = 401 if operation.access is Access.SECRET_KEY else 403
    if operation.name == "renewConnectionToken":
        expected = 404  # the token is what it brings, and there is no such connection
    assert answer.status_code == expected


@pytest.mark.parametrize(
    "headers",
    [
        [("authorization", "Basic dXNlcjpwYXNz")],
        [("authorization", "Bearer")],
        [("authorization", "Bearer a"), ("authorization", "Bearer b")],
        [("authorization", "Bearer \xff\xfe")],
        [("authorization", "")],
    ],
)
async def test_headers_that_carry_no_token_are_401(
    gateway: RunningGateway, headers: list[tuple[str, str]]
) -> None:
    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers]
    answer = await gateway.anybody.get("/api/v1/runs", headers=raw)
    assert answer.status_code == 401
    assert answer.json()["code"] in ("missing_token", "invalid_token")


async def test_a_token_in_the_query_counts_only_where_an_operation_says_so(
    gateway: RunningGateway, tenant: Tenant
) -> None:
    token = tenant.token("read:runs")
    for operation in AUTHENTICATED:
        if not operation.token_in_query:
            answer = await ask(gateway.anybody, operation, {}, token)
            assert answer.status_code == 401
            assert operation.method == "HEAD" or answer.json()["code"] == "missing_token"


async def test_an_expired_token_stops_working_although_it_was_remembered(
    database_url: str,
) -> None:
    async with running_gateway(database_url, limits=Limits(key_cache_seconds=3600)) as gateway:
        tenant = await gateway.tenant("dev")
        headers = tenant.bearing("read:runs", expires_at=now() + 300)
        for _ in range(2):
            answer = await gateway.anybody.get("/api/v1/runs", headers=headers)
            assert answer.status_code == 200
        gateway.clock.offset = 301.0
        answer = await gateway.anybody.get("/api/v1/runs", headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (401, "expired_token")


async def test_a_token_of_a_revoked_key_stops_within_the_time_that_keys_are_remembered(
    database_url: str,
) -> None:
    async with running_gateway(database_url, limits=Limits(key_cache_seconds=10)) as gateway:
        tenant = await gateway.tenant("dev")
        headers = tenant.bearing("read:runs")
        assert (await gateway.anybody.get("/api/v1/runs", headers=headers)).status_code == 200
        await gateway.keys.rotate_key(tenant.environment_id, 0)
        gateway.clock.offset = 8.0
        late = tenant.bearing("read:runs", "read:tags:a")  # good by the keys read before
        assert (await gateway.anybody.get("/api/v1/runs", headers=late)).status_code == 200
        gateway.clock.offset = 11.0
        for each in (headers, late):
            assert (await gateway.anybody.get("/api/v1/runs", headers=each)).status_code == 401
        assert (await tenant.client.get("/api/v1/runs")).status_code == 401


async def test_a_token_of_a_new_key_is_good_within_a_second(database_url: str) -> None:
    async with running_gateway(database_url, limits=Limits(key_cache_seconds=600)) as gateway:
        tenant = await gateway.tenant("dev")
        old = tenant.bearing("read:runs")
        assert (await gateway.anybody.get("/api/v1/runs", headers=old)).status_code == 200
        fresh = await gateway.keys.rotate_key(tenant.environment_id, 3600)
        gateway.clock.offset = 1.1
        claims = {
            "iss": "https://id.trigger.dev",
            "aud": "https://api.trigger.dev",
            "exp": int(now()) + 600,
            "sub": tenant.environment_id,
            "pub": True,
            "scopes": ["read:runs"],
        }
        new = bearing(signed(fresh, {"alg": "HS256"}, claims))
        assert (await gateway.anybody.get("/api/v1/runs", headers=new)).status_code == 200
        assert (await gateway.anybody.get("/api/v1/runs", headers=old)).status_code == 200


async def test_what_is_known_need_not_be_read(database_url: str) -> None:
    async with running_gateway(database_url, limits=Limits(key_cache_seconds=60)) as gateway:
        tenant, bearer = await gateway.tenant("a"), gateway.services.bearer
        token, other = tenant.token("read:runs"), tenant.token("read:tags:a", token_id="b")
        for unknown in (token, tenant.key, "garbage"):
            assert bearer.recall(unknown) is None
        for known in (token, tenant.key):
            assert await bearer.grant_for(known) == bearer.recall(known)
        grant = bearer.recall(other)  # signed with a key that is known by now
        assert grant is not None
        assert grant.scopes == {"read:tags:a"}
        assert bearer.recall(other[:-4] + "AAAA") is None
        answer = await tenant.client.post("/api/v1/tokens/revocations", json={"tokenId": "b"})
        assert answer.status_code == 200
        assert bearer.recall(other) is None
