"""Minting tokens over HTTP."""

import time
from typing import Any

import pytest

from runcast.auth.grant import Grant
from runcast.core.limits import Limits
from tests.support.gateway import RunningGateway, Tenant, running_gateway

MINT = "/api/v1/auth/public-tokens"


async def granted(gateway: RunningGateway, token: str) -> Grant:
    return await gateway.services.bearer.grant_for(token)


async def test_claims_name_the_environment(tenant: Tenant) -> None:
    for headers in ({"content-type": "application/json"}, {}):
        answer = await tenant.client.post("/api/v1/auth/jwt/claims", headers=headers)
        assert answer.status_code == 200
        assert answer.json() == {"sub": tenant.environment_id, "pub": True}


async def test_a_minted_token_works_and_lives_15_minutes(
    gateway: RunningGateway, tenant: Tenant
) -> None:
    run_id = await tenant.trigger()
    body = {"scopes": [f"read:runs:{run_id}"], "realtime": {"skipColumns": ["payload"]}}
    answer = await tenant.client.post(MINT, json=body)
    assert answer.status_code == 200
    token = answer.json()["token"]
    grant = await granted(gateway, token)
    assert grant.scopes == {f"read:runs:{run_id}"}
    assert grant.skip_columns == ("payload",)
    assert not grant.one_time
    assert grant.expires_at is not None
    assert 880 < grant.expires_at - gateway.services.clock.now() <= 900
    seen = await gateway.anybody.get(
        f"/api/v3/runs/{run_id}", headers={"authorization": f"bearer {token}"}
    )
    assert seen.status_code == 200


@pytest.mark.parametrize(
    ("expiration", "seconds"),
    [("1hr", 3600), ("2 hours from now", 7200), ("+ 30 mins", 1800), ("1.5 days", 129_600)],
)
async def test_expiration_can_be_a_time_span(
    gateway: RunningGateway, tenant: Tenant, expiration: str, seconds: float
) -> None:
    body = {"scopes": ["read:runs"], "expirationTime": expiration}
    answer = await tenant.client.post(MINT, json=body)
    grant = await granted(gateway, answer.json()["token"])
    assert grant.expires_at is not None
    assert seconds - 20 < grant.expires_at - gateway.services.clock.now() <= seconds


async def test_expiration_can_be_unix_time(gateway: RunningGateway, tenant: Tenant) -> None:
    expires_at = int(time.time()) + 3600  # noqa: TID251 - as a backend would
    body = {"scopes": ["read:runs"], "expirationTime": expires_at}
    token = (await tenant.client.post(MINT, json=body)).json()["token"]
    assert (await granted(gateway, token)).expires_at == expires_at


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"scopes": []},
        {"scopes": "read:runs"},
        {"scopes": [""]},
        {"scopes": ["a\0b"]},
        {"scopes": ["x" * 600]},
        {"scopes": ["read:runs"] * 501},
        {"scopes": [f"read:runs:{'x' * 480}{n}" for n in range(100)]},
        {"scopes": ["read:runs"], "expirationTime": "a while"},
        {"scopes": ["read:runs"], "expirationTime": "1 hour ago"},
        {"scopes": ["read:runs"], "expirationTime": "31 days"},
        {"scopes": ["read:runs"], "expirationTime": 1},
        {"scopes": ["read:runs"], "expirationTime": True},
        {"scopes": ["read:runs"], "expirationTime": 1e300},
        {"scopes": ["read:runs"], "oneTimeUse": "yes"},
        {"scopes": ["read:runs"], "realtime": {"skipColumns": [""]}},
    ],
)
async def test_what_cannot_be_a_token_is_400(tenant: Tenant, body: dict[str, Any]) -> None:
    answer = await tenant.client.post(MINT, json=body)
    assert answer.status_code == 400, answer.text
    assert answer.json()["code"] in ("invalid_body", "invalid_parameter")


async def test_one_time_tokens_of_the_same_second_are_two(
    gateway: RunningGateway, tenant: Tenant
) -> None:
    body = {"scopes": ["trigger:tasks:hello"], "oneTimeUse": True, "expirationTime": "1h"}
    tokens = {(await tenant.client.post(MINT, json=body)).json()["token"] for _ in range(3)}
    assert len(tokens) == 3
    for token in tokens:
        answer = await gateway.anybody.post(
            "/api/v1/tasks/hello/trigger", json={}, headers={"authorization": f"Bearer {token}"}
        )
        assert answer.status_code == 200


async def test_the_older_route_mints_for_an_hour(gateway: RunningGateway, tenant: Tenant) -> None:
    empty = await tenant.client.post("/api/v1/auth/jwt")
    assert (await granted(gateway, empty.json()["token"])).scopes == frozenset()
    body = {"claims": {"scopes": ["read:runs"]}, "expirationTime": "2h"}
    answer = await tenant.client.post("/api/v1/auth/jwt", json=body)
    grant = await granted(gateway, answer.json()["token"])
    assert grant.scopes == {"read:runs"}
    assert grant.expires_at is not None
    assert grant.expires_at > gateway.services.clock.now() + 7000


async def test_a_gateway_can_allow_shorter_lives_only(database_url: str) -> None:
    limits = Limits(default_token_seconds=30, max_token_seconds=60, key_cache_seconds=0)
    async with running_gateway(database_url, limits=limits) as gateway:
        tenant = await gateway.tenant("dev")
        body: dict[str, Any] = {"scopes": ["read:runs"]}
        assert (await tenant.client.post(MINT, json=body)).status_code == 200
        body["expirationTime"] = "2 minutes"
        assert (await tenant.client.post(MINT, json=body)).status_code == 400
        handle = await tenant.client.post("/api/v1/tasks/hello/trigger", json={})
        grant = await granted(gateway, handle.headers["x-trigger-jwt"])
        assert grant.expires_at is not None
        assert grant.expires_at <= gateway.services.clock.now() + 60


async def test_tokens_cannot_mint_tokens(gateway: RunningGateway, tenant: Tenant) -> None:
    headers = tenant.bearing("admin")
    for url in (MINT, "/api/v1/auth/jwt", "/api/v1/auth/jwt/claims"):
        answer = await gateway.anybody.post(url, json={"scopes": ["admin"]}, headers=headers)
        assert answer.status_code == 401


async def test_rotated_keys_work_through_their_grace_and_not_beyond(
    gateway: RunningGateway, tenant: Tenant
) -> None:
    old_token = tenant.bearing("read:runs", expires_at=time.time() + 7200)  # noqa: TID251
    fresh = await gateway.keys.rotate_key(tenant.environment_id, 3600)
    assert fresh != tenant.key
    assert (await gateway.anybody.get("/api/v1/runs", headers=old_token)).status_code == 200
    assert (await tenant.client.get("/api/v1/runs")).status_code == 200
    gateway.clock.offset = 3700.0
    answer = await gateway.anybody.get("/api/v1/runs", headers=old_token)
    assert answer.status_code == 401
    renewed = await gateway.anybody.get(
        "/api/v1/runs", headers={"authorization": f"Bearer {fresh}"}
    )
    assert renewed.status_code == 200
