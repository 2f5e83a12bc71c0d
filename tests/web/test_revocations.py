"""Revoking public tokens over HTTP: what can be said, what is answered, who is turned away."""

from datetime import UTC, datetime
from typing import Any

import httpx

from runcast.core.limits import Limits
from tests.support.gateway import RunningGateway, Tenant, bearing, running_gateway

REVOCATIONS = "/api/v1/tokens/revocations"
RUNS = "/api/v1/runs"


async def revoke(tenant: Tenant, **wanted: Any) -> Any:
    answer = await tenant.client.post(REVOCATIONS, json=wanted)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def ask(gateway: RunningGateway, token: str) -> httpx.Response:
    return await gateway.anybody.get("/api/v3/runs/run_1", headers=bearing(token))


async def is_good(gateway: RunningGateway, token: str) -> bool:
    """There is no such run, which only who may ask is told."""
    answer = await ask(gateway, token)
    assert answer.status_code in (401, 404), answer.text
    return answer.status_code == 404


async def test_a_token_can_be_revoked_by_itself_and_by_its_id(
    gateway: RunningGateway, tenant: Tenant
) -> None:
    named = tenant.token("read:runs", token_id="a")
    plain, other = tenant.token("read:runs:run_1"), tenant.token("read:runs", token_id="b")
    assert await is_good(gateway, named)  # so that it is remembered
    told = await revoke(tenant, token=plain)
    assert told.keys() == {"id", "tokenId", "createdAt", "expiresAt"}
    assert not await is_good(gateway, plain)
    told = await revoke(tenant, tokenId="a")
    assert told["tokenId"] == "a"
    refused = await ask(gateway, named)
    assert refused.json()["code"] == "token_revoked"
    assert named not in refused.text
    assert await is_good(gateway, other)
    assert gateway.services.bearer.rejections == {"token_revoked": 2}


async def test_the_gateway_tells_by_which_id_its_tokens_are_revoked(
    gateway: RunningGateway, tenant: Tenant
) -> None:
    made = await tenant.client.post(
        "/api/v1/auth/public-tokens", json={"scopes": ["read:runs"], "subject": "user_1"}
    )
    token, token_id = made.json()["token"], made.json()["id"]
    grant = await gateway.services.bearer.grant_for(token)
    assert (grant.token_id, grant.subject) == (token_id, "user_1")
    await revoke(tenant, tokenId=token_id)
    assert not await is_good(gateway, token)


async def test_all_tokens_of_a_subject_are_revoked_but_not_those_to_come(
    gateway: RunningGateway, tenant: Tenant
) -> None:
    now = gateway.clock.now()
    before, after = [
        tenant.token("read:runs", subject="user_1", now=issued) for issued in (now - 5, now + 5)
    ]
    other = tenant.token("read:runs", subject="user_2", now=now - 5)
    told = await revoke(tenant, subject="user_1")
    assert told["subject"] == "user_1"
    assert [await is_good(gateway, each) for each in (before, other, after)] == [False, True, True]


async def test_all_tokens_issued_before_a_time_are_revoked(
    gateway: RunningGateway, tenant: Tenant
) -> None:
    now = int(gateway.clock.now())
    before, after = [tenant.token("read:runs", now=now + each) for each in (-20, -10)]
    stranger = (await gateway.tenant("other")).token("read:runs", now=now - 20)
    await revoke(tenant, issuedBefore=_iso(now - 15))
    tokens = (before, after, stranger, tenant.key)
    assert [await is_good(gateway, each) for each in tokens] == [False, True, True, True]
    await revoke(tenant, issuedBefore=_iso(now - 5))
    await revoke(tenant, issuedBefore=_iso(now - 15))  # the later bound stays
    assert not await is_good(gateway, after)
    listed = (await tenant.client.get(REVOCATIONS)).json()["data"]
    assert [each["issuedBefore"] for each in listed] == [_iso(now - 5)]


async def test_what_was_handed_out_for_a_token_is_revoked_with_it(
    gateway: RunningGateway, tenant: Tenant
) -> None:
    token = tenant.token("trigger:tasks:hello", subject="user_1")
    answer = await gateway.anybody.post(
        "/api/v1/tasks/hello/trigger", json={"payload": 1}, headers=bearing(token)
    )
    handed = answer.headers["x-trigger-jwt"]
    grant = await gateway.services.bearer.grant_for(handed)
    assert grant.subject == "user_1"
    await revoke(tenant, token=token)
    assert not await is_good(gateway, handed)


async def test_revocations_are_listed_newest_first_and_lifted(
    gateway: RunningGateway, tenant: Tenant
) -> None:
    token = tenant.token("read:runs", token_id="t1")
    made = [await revoke(tenant, tokenId=f"t{number}") for number in range(3)]
    page = (await tenant.client.get(REVOCATIONS, params={"page[size]": 2})).json()
    assert page["data"] == [made[2], made[1]]
    params = {"page[size]": 2, "page[after]": page["pagination"]["next"]}
    page = (await tenant.client.get(REVOCATIONS, params=params)).json()
    assert page == {"data": [made[0]], "pagination": {}}
    address = f"{REVOCATIONS}/{made[1]['id']}"
    stranger = await gateway.tenant("other")
    assert (await stranger.client.delete(address)).status_code == 404
    assert not await is_good(gateway, token)
    assert (await tenant.client.delete(address)).json() == made[1]
    assert await is_good(gateway, token)
    assert (await tenant.client.delete(address)).status_code == 404
    assert len((await tenant.client.get(REVOCATIONS)).json()["data"]) == 2
    await revoke(tenant, tokenId="t1")
    assert not await is_good(gateway, token)


SENSELESS: tuple[dict[str, Any], ...] = (
    {},
    {"tokenId": "a", "subject": "b"},
    {"tokenId": "a", "issuedBefore": "2026-01-01T00:00:00Z"},
    {"tokenId": ""},
    {"subject": "a\0"},
    {"issuedBefore": "2026-01-01T00:00:00"},
    {"issuedBefore": "9998-01-01T00:00:00Z"},
    {"issuedBefore": "0001-01-01T00:00:00Z"},
    {"token": "no.such.token"},
    {"user": "a", "tokenId": "b"},
)


async def test_what_cannot_be_understood_revokes_nothing(tenant: Tenant) -> None:
    for wanted in SENSELESS:
        answer = await tenant.client.post(REVOCATIONS, json=wanted)
        told = (answer.status_code, answer.json()["code"])
        assert told == (400, "invalid_body"), (wanted, answer.text)
    assert (await tenant.client.get(REVOCATIONS)).json()["data"] == []


async def test_only_a_secret_key_revokes_and_only_tokens_of_its_environment(
    gateway: RunningGateway, tenant: Tenant
) -> None:
    headers = tenant.bearing("admin")
    answer = await gateway.anybody.post(REVOCATIONS, json={"tokenId": "a"}, headers=headers)
    assert answer.status_code == 401
    stranger = await gateway.tenant("other")
    answer = await stranger.client.post(REVOCATIONS, json={"token": tenant.token("read:runs")})
    assert answer.status_code == 400
    answer = await tenant.client.post(REVOCATIONS, json={"token": tenant.key})
    assert answer.status_code == 400


async def test_an_environment_has_so_many_revocations_but_can_always_revoke_all(
    database_url: str,
) -> None:
    limits = Limits(key_cache_seconds=0.0, max_revocations=2)
    async with running_gateway(database_url, limits=limits) as gateway:
        tenant, other = await gateway.tenant("dev"), await gateway.tenant("other")
        await revoke(tenant, tokenId="a")
        lifted = await revoke(tenant, subject="b")
        answer = await tenant.client.post(REVOCATIONS, json={"tokenId": "c"})
        assert (answer.status_code, answer.json()["code"]) == (422, "too_many_revocations")
        await revoke(tenant, tokenId="a")  # is there already
        await revoke(other, tokenId="a")
        await revoke(tenant, issuedBefore=_iso(1_700_000_000))
        await tenant.client.delete(f"{REVOCATIONS}/{lifted['id']}")
        await tenant.client.delete(f"{REVOCATIONS}/{(await revoke(tenant, tokenId='a'))['id']}")
        await revoke(tenant, tokenId="c")


def _iso(seconds: float) -> str:

    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
