"""Wait tokens: from their creation until they are completed, called back or out of time."""

import asyncio
from typing import Any
from urllib.parse import urlsplit

import orjson
import pytest

from runcast.auth.token import verify_token
from runcast.postgres.database import Database
from tests.support.gateway import RunningGateway, Tenant, janitor

TOKENS = "/api/v1/waitpoints/tokens"


async def create(tenant: Tenant, **wish: Any) -> Any:
    answer = await tenant.client.post(TOKENS, json=wish)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def retrieve(tenant: Tenant, token_id: str) -> Any:
    answer = await tenant.client.get(f"{TOKENS}/{token_id}")
    assert answer.status_code == 200, answer.text
    return answer.json()


async def complete(tenant: Tenant, token_id: str, **body: Any) -> None:
    answer = await tenant.client.post(f"{TOKENS}/{token_id}/complete", json=body)
    assert (answer.status_code, answer.json()) == (200, {"success": True})


async def ids(tenant: Tenant, **query: str) -> list[str]:
    answer = await tenant.client.get(TOKENS, params=query)
    assert answer.status_code == 200, answer.text
    return [each["id"] for each in answer.json()["data"]]


class TestCreating:
    async def test_a_token_waits(self, tenant: Tenant) -> None:
        created = await create(tenant, timeout="10m", tags=["a", "b"])
        found = await retrieve(tenant, created["id"])
        assert created["id"].startswith("waitpoint_")
        assert created["isCached"] is False
        assert found["url"] == created["url"]
        assert (found["status"], found["tags"]) == ("WAITING", ["a", "b"])
        assert found["createdAt"] < found["timeoutAt"] == found["completedAfter"]
        assert not {"completedAt", "output", "outputIsError", "idempotencyKey"} & set(found)

    async def test_nothing_need_be_said_about_it(self, tenant: Tenant) -> None:
        answer = await tenant.client.post(TOKENS, headers={"content-type": "application/json"})
        assert answer.status_code == 200
        assert "timeoutAt" not in await retrieve(tenant, answer.json()["id"])

    async def test_it_comes_with_a_token_that_completes_it_for_a_day(
        self, gateway: RunningGateway, tenant: Tenant
    ) -> None:
        answer = await tenant.client.post(TOKENS, json={})
        token_id, jwt = answer.json()["id"], answer.headers["x-trigger-jwt"]
        claims = orjson.loads(answer.headers["x-trigger-jwt-claims"])
        assert (claims["sub"], claims["pub"]) == (tenant.environment_id, True)
        ring = await gateway.services.keys.key_ring(tenant.environment_id)
        now = gateway.clock.now()
        grant = verify_token(jwt, keys=ring, now=now)
        assert grant.scopes == {f"write:waitpoints:{token_id}"}
        assert grant.expires_at is not None
        assert 86000 < grant.expires_at - now <= 86400
        browser = {"authorization": f"Bearer {jwt}"}
        url = f"{TOKENS}/{token_id}/complete"
        completed = await gateway.anybody.post(url, json={"data": 1}, headers=browser)
        assert completed.json() == {"success": True}
        assert completed.headers["access-control-allow-origin"] == "*"
        assert (await retrieve(tenant, token_id))["output"] == "1"

    async def test_one_key_makes_one_token_until_it_expires(
        self, gateway: RunningGateway, tenant: Tenant
    ) -> None:
        wish = {"idempotencyKey": "k" * 2000, "idempotencyKeyTTL": "60s"}
        created = await asyncio.gather(*(create(tenant, **wish) for _ in range(5)))
        assert len({each["id"] for each in created}) == 1
        assert sorted(each["isCached"] for each in created) == [False, True, True, True, True]
        found = await retrieve(tenant, created[0]["id"])
        assert found["idempotencyKey"] == "k" * 2000
        assert found["idempotencyKeyExpiresAt"] > found["createdAt"]
        other = await gateway.tenant("other")
        assert (await create(other, **wish))["isCached"] is False
        gateway.clock.offset += 61
        later = await create(tenant, **wish)
        assert (later["isCached"], later["id"] == created[0]["id"]) == (False, False)
        assert "idempotencyKey" not in await retrieve(tenant, created[0]["id"])

    @pytest.mark.parametrize(
        ("wish", "status"),
        [
            ({"timeout": "soon"}, 400),
            ({"timeout": 5}, 400),
            ({"tags": ["a"] * 3 + [str(n) for n in range(10)]}, 422),
            ({"tags": ["a" * 129]}, 400),
            ({"idempotencyKey": "k" * 2049}, 400),
            ({"other": "x" * 11_000}, 413),
        ],
    )
    async def test_what_makes_no_sense_is_refused(
        self, tenant: Tenant, wish: dict[str, Any], status: int
    ) -> None:
        answer = await tenant.client.post(TOKENS, json=wish)
        assert answer.status_code == status, answer.text

    async def test_is_for_backends(self, gateway: RunningGateway, tenant: Tenant) -> None:
        headers = tenant.bearing("write:waitpoints", "admin")
        token_id = (await create(tenant))["id"]
        assert (await gateway.anybody.post(TOKENS, json={}, headers=headers)).status_code == 401
        for path in (TOKENS, f"{TOKENS}/{token_id}"):
            assert (await gateway.anybody.get(path, headers=headers)).status_code == 401


class TestCompleting:
    @pytest.mark.parametrize(
        ("body", "output"),
        [
            ({"data": {"ok": ["ü"]}}, {"output": '{"ok":["ü"]}', "outputType": "application/json"}),
            ({"data": "text"}, {"output": "text", "outputType": "text/plain"}),
            ({"data": None}, {"output": "null", "outputType": "application/json"}),
            ({}, {"outputType": "application/json"}),
        ],
    )
    async def test_the_data_is_kept_as_a_packet(
        self, tenant: Tenant, body: dict[str, Any], output: dict[str, str]
    ) -> None:
        token_id = (await create(tenant, timeout="1h"))["id"]
        await complete(tenant, token_id, **body)
        found = await retrieve(tenant, token_id)
        assert (found["status"], found["outputIsError"]) == ("COMPLETED", False)
        assert found["completedAt"] < found["timeoutAt"]
        assert {name: found[name] for name in ("output", "outputType") if name in found} == output

    async def test_again_is_no_error_and_changes_nothing(self, tenant: Tenant) -> None:
        token_id = (await create(tenant))["id"]
        await complete(tenant, token_id, data=1)
        first = await retrieve(tenant, token_id)
        await complete(tenant, token_id, data=2)
        assert await retrieve(tenant, token_id) == first

    async def test_needs_the_scope_for_this_token(
        self, gateway: RunningGateway, tenant: Tenant
    ) -> None:
        token_id = (await create(tenant))["id"]
        url = f"{TOKENS}/{token_id}/complete"
        for scope in ("write:waitpoints:waitpoint_x", f"read:waitpoints:{token_id}"):
            answer = await gateway.anybody.post(url, json={}, headers=tenant.bearing(scope))
            assert answer.status_code == 403
        assert (await retrieve(tenant, token_id))["status"] == "WAITING"

    async def test_tokens_of_others_are_none(self, gateway: RunningGateway, tenant: Tenant) -> None:
        token_id = (await create(await gateway.tenant("other")))["id"]
        for each in (token_id, "waitpoint_none"):
            answer = await tenant.client.post(f"{TOKENS}/{each}/complete", json={})
            assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
            assert (await tenant.client.get(f"{TOKENS}/{each}")).status_code == 404


class TestTimingOut:
    async def test_a_timeout_is_an_error_with_a_message(
        self, gateway: RunningGateway, tenant: Tenant
    ) -> None:
        token_id = (await create(tenant, timeout="1m"))["id"]
        gateway.clock.offset += 61
        await complete(tenant, token_id, data="too late")
        found = await retrieve(tenant, token_id)
        assert (found["status"], found["outputIsError"]) == ("TIMED_OUT", True)
        assert found["completedAt"] == found["timeoutAt"]
        problem = orjson.loads(found["output"])
        assert problem["code"] == "TRIGGER_WAITPOINT_TIMEOUT"
        assert found["timeoutAt"] in problem["message"]

    async def test_a_time_can_be_named_even_one_that_is_over(self, tenant: Tenant) -> None:
        late = await create(tenant, timeout="2020-01-01T00:00:00Z")
        assert (await retrieve(tenant, late["id"]))["status"] == "TIMED_OUT"
        found = await retrieve(tenant, (await create(tenant, timeout="2999-01-01T00:00:00Z"))["id"])
        assert (found["status"], found["timeoutAt"]) == ("WAITING", "2999-01-01T00:00:00.000Z")


class TestCallback:
    @pytest.mark.parametrize(
        ("content", "output"),
        [(b'{"n":1}', '{"n":1}'), (b'"x"', "x"), (b"a=b", "{}"), (b"", "{}"), (b'"\\u0000"', "{}")],
    )
    async def test_whoever_has_the_address_completes_the_token(
        self, gateway: RunningGateway, tenant: Tenant, content: bytes, output: str
    ) -> None:
        created = await create(tenant)
        for body in (content, b'"again"'):
            answer = await gateway.anybody.post(created["url"], content=body)
            assert (answer.status_code, answer.json()) == (200, {"success": True})
        assert (await retrieve(tenant, created["id"]))["output"] == output

    async def test_a_wrong_address_completes_nothing(
        self, gateway: RunningGateway, tenant: Tenant
    ) -> None:
        created, another = await create(tenant), await create(tenant)
        stolen = created["url"].replace(created["id"], another["id"])
        for url in (stolen, created["url"][:-1], created["url"][:-1] + "%C3%BC"):
            answer = await gateway.anybody.post(url, json={})
            assert (answer.status_code, answer.json()["code"]) == (401, "invalid_token")
        unknown = created["url"].replace(created["id"], "waitpoint_none")
        assert (await gateway.anybody.post(unknown, json={})).status_code == 404
        for each in (created, another):
            assert (await retrieve(tenant, each["id"]))["status"] == "WAITING"

    async def test_an_address_outlives_the_rotation_of_the_key_by_its_grace(
        self, gateway: RunningGateway, tenant: Tenant
    ) -> None:
        created, another = await create(tenant), await create(tenant)
        await gateway.keys.rotate_key(tenant.environment_id, grace_seconds=60)
        assert (await gateway.anybody.post(created["url"], json={})).status_code == 200
        gateway.clock.offset += 61
        assert (await gateway.anybody.post(another["url"], json={})).status_code == 401

    async def test_the_address_is_of_the_gateway_that_was_asked(self, tenant: Tenant) -> None:
        answer = await tenant.client.post(TOKENS, json={}, headers={"host": "gate.example:8443"})
        assert urlsplit(answer.json()["url"]).netloc == "gate.example:8443"


class TestListing:
    async def test_pages_go_from_new_to_old_and_back(self, tenant: Tenant) -> None:
        made = [(await create(tenant))["id"] for _ in range(5)][::-1]
        seen: list[str] = []
        query = {"page[size]": "2"}
        while True:
            page = (await tenant.client.get(TOKENS, params=query)).json()
            seen += [each["id"] for each in page["data"]]
            if "next" not in page["pagination"]:
                break
            query["page[after]"] = page["pagination"]["next"]
        assert seen == made
        query = {"page[size]": "2", "page[before]": page["pagination"]["previous"]}
        assert await ids(tenant, **query) == made[2:4]

    async def test_filters(self, gateway: RunningGateway, tenant: Tenant) -> None:
        await create(await gateway.tenant("other"))
        over = (await create(tenant, timeout="1s", tags=["a"]))["id"]
        done = (await create(tenant, tags=["a", "b"]))["id"]
        await complete(tenant, done)
        gateway.clock.offset += 100
        waits = (await create(tenant, idempotencyKey="k"))["id"]
        for query, expected in (
            ({}, [waits, done, over]),
            ({"filter[status]": "WAITING"}, [waits]),
            ({"filter[status]": "COMPLETED,TIMED_OUT"}, [done, over]),
            ({"filter[idempotencyKey]": "k"}, [waits]),
            ({"filter[tags]": "b,c"}, [done]),
            ({"filter[tags]": "a", "filter[status]": "TIMED_OUT"}, [over]),
            ({"filter[createdAt][period]": "1m"}, [waits]),
            ({"filter[createdAt][to]": "2020-01-01"}, []),
        ):
            assert await ids(tenant, **query) == expected, query

    @pytest.mark.parametrize(
        "query",
        [
            {"filter[status]": "DONE"},
            {"filter[other]": "x"},
            {"page[size]": "0"},
            {"page[after]": "x"},
            {"filter[createdAt][from]": "then"},
        ],
    )
    async def test_a_query_that_is_not_understood_is_refused(
        self, tenant: Tenant, query: dict[str, str]
    ) -> None:
        assert (await tenant.client.get(TOKENS, params=query)).status_code == 400


async def test_what_has_been_over_for_long_is_deleted(
    gateway: RunningGateway, tenant: Tenant, database_url: str
) -> None:
    waits = (await create(tenant))["id"]
    gateway.clock.offset = -31 * 86400
    await create(tenant, timeout="1s")
    await complete(tenant, (await create(tenant))["id"])
    gateway.clock.offset = 0.0
    assert len(await ids(tenant)) == 3
    database = Database(database_url)
    await database.open()
    try:
        await janitor(database).clean()
    finally:
        await database.close()
    assert await ids(tenant) == [waits]
