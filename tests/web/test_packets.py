"""Large payloads and outputs: where to put them, where to get them, and who may."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import asyncpg
import pytest

from runcast.core.limits import Limits
from runcast.objects.local import LocalObjectStore
from runcast.objects.s3 import Bucket, S3ObjectStore
from runcast.ports import ObjectStore
from runcast.postgres.object_ledger import PostgresObjectLedger
from tests.support.gateway import RunningGateway, Tenant, running_gateway
from tests.support.s3 import S3Server

NAME = "packets/run 1/ü.json"
SUPER_JSON = "application/super+json"
LIMITS = Limits(key_cache_seconds=0.0, max_object_bytes=300_000)


in_every_store = pytest.mark.parametrize("gateway", ["local", "s3", "s3 direct"], indirect=True)


@pytest.fixture
async def gateway(
    request: pytest.FixtureRequest, database_url: str, tmp_path: Path
) -> AsyncIterator[RunningGateway]:
    chosen = getattr(request, "param", "local")
    objects: ObjectStore = LocalObjectStore(tmp_path / "objects")
    if chosen != "local":
        bucket: Bucket = request.getfixturevalue("bucket")
        objects = S3ObjectStore(replace(bucket, direct=chosen == "s3 direct"))
    async with running_gateway(database_url, limits=LIMITS, objects=objects) as running:
        yield running


async def ask(tenant: Tenant, method: str, path: str, **options: Any) -> Any:
    answer = await tenant.client.request(method, path, **options)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def store(
    tenant: Tenant, gateway: RunningGateway, content: bytes, kind: str = SUPER_JSON
) -> str:
    """Put a packet where the gateway says, and give what to send in its place."""
    answer = await ask(tenant, "PUT", f"/api/v2/packets/{quote(NAME, safe='')}")
    stored = await gateway.anybody.put(
        answer["presignedUrl"], content=content, headers={"content-type": kind}
    )
    assert stored.status_code == 200, stored.text
    path: str = answer["storagePath"]
    return path


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


@in_every_store
async def test_what_is_put_is_got_with_its_type(gateway: RunningGateway, tenant: Tenant) -> None:
    content = '{"json":"ü"}'.encode() * 20_000
    assert await store(tenant, gateway, content) == NAME
    for name in (quote(NAME, safe=""), quote(NAME)):
        url = (await ask(tenant, "GET", f"/api/v1/packets/{name}"))["presignedUrl"]
        answer = await gateway.anybody.get(url)
        assert (answer.status_code, answer.content) == (200, content)
        assert answer.headers["content-type"] == SUPER_JSON
        assert answer.headers["content-length"] == str(len(content))


@pytest.mark.parametrize("gateway", ["local", "s3"], indirect=True)
async def test_an_object_is_no_page_of_the_gateway(gateway: RunningGateway, tenant: Tenant) -> None:
    await store(tenant, gateway, b"<script>", "text/html")
    url = (await ask(tenant, "GET", f"/api/v1/packets/{quote(NAME)}"))["presignedUrl"]
    assert url.startswith(gateway.url)
    for method, content in (("GET", b"<script>"), ("HEAD", b"")):
        answer = await gateway.anybody.request(method, url)
        assert (answer.status_code, answer.content) == (200, content)
        assert answer.headers["content-length"] == "8"
        assert answer.headers["access-control-allow-origin"] == "*"
        assert answer.headers["content-security-policy"] == "default-src 'none'; sandbox"


@in_every_store
async def test_a_newer_packet_takes_the_place_of_the_older_one(
    gateway: RunningGateway, tenant: Tenant
) -> None:
    await store(tenant, gateway, b"old", "text/plain")
    await store(tenant, gateway, b"", "application/json")
    url = (await ask(tenant, "GET", f"/api/v1/packets/{quote(NAME)}"))["presignedUrl"]
    answer = await gateway.anybody.get(url)
    assert (answer.content, answer.headers["content-type"]) == (b"", "application/json")


@in_every_store
async def test_a_run_with_large_packets_gives_their_addresses(
    gateway: RunningGateway, tenant: Tenant
) -> None:
    path = await store(tenant, gateway, b'{"json":{"n":1}}')
    run_id = await tenant.trigger(payload=path, payloadType="application/store")
    run = await tenant.retrieve(run_id)
    assert "payload" not in run
    assert (await gateway.anybody.get(run["payloadPresignedUrl"])).text == '{"json":{"n":1}}'
    assert "outputPresignedUrl" not in run
    reader = tenant.bearing(f"read:runs:{run_id}")
    urls = f"/api/v1/runs/{run_id}/packets"
    answer = await gateway.anybody.get(f"{urls}/payload", headers=reader)
    assert answer.json() == {"presignedUrl": run["payloadPresignedUrl"]}
    assert (await gateway.anybody.get(f"{urls}/output", headers=reader)).status_code == 404
    for status in ("EXECUTING", "COMPLETED_SUCCESSFULLY"):
        changes = {"output": path, "outputType": "application/store"} if "C" in status[0] else {}
        assert (await tenant.patch(run_id, status=status, **changes)).status_code == 200
    run = await tenant.retrieve(run_id)
    assert (await gateway.anybody.get(run["outputPresignedUrl"])).text == '{"json":{"n":1}}'
    assert (await gateway.anybody.get(f"{urls}/output", headers=reader)).status_code == 200


async def test_an_unchanged_run_is_told_anew_before_its_addresses_expire(
    gateway: RunningGateway, tenant: Tenant
) -> None:
    path = await store(tenant, gateway, b"1")
    run_id = await tenant.trigger(payload=path, payloadType="application/store")
    answer = await tenant.client.get(f"/api/v3/runs/{run_id}")
    known = {"if-none-match": answer.headers["etag"]}
    gateway.clock.offset += 301
    answer = await tenant.client.get(f"/api/v3/runs/{run_id}", headers=known)
    assert answer.status_code == 200


async def test_a_replay_has_the_same_object(
    gateway: RunningGateway, tenant: Tenant, database_url: str
) -> None:
    path = await store(tenant, gateway, b"1")
    run_id = await tenant.trigger(payload=path, payloadType="application/store")
    replay_id = (await ask(tenant, "POST", f"/api/v1/runs/{run_id}/replay"))["id"]
    sql = await asyncpg.connect(database_url, server_settings={"search_path": "runcast"})
    await sql.execute("DELETE FROM runs WHERE id = $1", run_id)
    await sql.execute("UPDATE object_checks SET since = since - interval '25 hours'")
    await sql.close()
    ledger = gateway.services.object_ledger
    assert isinstance(ledger, PostgresObjectLedger)
    await ledger.clean()
    run = await tenant.retrieve(replay_id)
    assert (await gateway.anybody.get(run["payloadPresignedUrl"])).text == "1"


@in_every_store
async def test_who_may_not_see_a_packet_gets_no_address(
    gateway: RunningGateway, tenant: Tenant
) -> None:
    path = await store(tenant, gateway, b"1")
    run_id = await tenant.trigger(payload=path, payloadType="application/store")
    url = f"/api/v1/runs/{run_id}/packets/payload"
    skipping = tenant.bearing(f"read:runs:{run_id}", skip_columns=["payload"])
    assert (await gateway.anybody.get(url, headers=skipping)).status_code == 403
    stranger = tenant.bearing("read:runs:other")
    assert (await gateway.anybody.get(url, headers=stranger)).status_code == 403
    assert (await gateway.anybody.get(url)).status_code == 401
    by_name = f"/api/v1/packets/{quote(path)}"
    for holder, status in (
        (tenant.bearing(f"read:runs:{run_id}"), 200),
        (tenant.bearing("read:runs"), 200),
        (skipping, 403),
        (stranger, 403),
        (tenant.bearing(f"write:runs:{run_id}"), 403),
    ):
        assert (await gateway.anybody.get(by_name, headers=holder)).status_code == status
    reader = tenant.bearing("read:runs")
    assert (
        await gateway.anybody.get("/api/v1/packets/no-run-has-it", headers=reader)
    ).status_code == 403
    for version in ("v1", "v2"):
        answer = await gateway.anybody.put(f"/api/{version}/packets/x", headers=stranger)
        assert answer.status_code == 401, "public tokens store nothing"
    assert (await gateway.anybody.get("/api/v1/packets/x")).status_code == 401


async def test_an_address_is_good_for_what_it_was_given_for_alone(
    gateway: RunningGateway, tenant: Tenant
) -> None:
    await store(tenant, gateway, b"1")
    url = (await ask(tenant, "GET", f"/api/v1/packets/{quote(NAME)}"))["presignedUrl"]
    other = await gateway.tenant("other")
    bare = url.partition("?")[0]
    for method, address, code in (
        ("PUT", url, "invalid_token"),
        ("GET", bare, "invalid_token"),
        ("GET", url.replace("packets", "sockets"), "invalid_token"),
        ("GET", url.replace(tenant.environment_id, other.environment_id), "invalid_token"),
        ("GET", url.replace("expires=", "expires=9"), "invalid_token"),
        ("GET", url.replace("signature=", "signature=ü"), "invalid_token"),
    ):
        answer = await gateway.anybody.request(method, address)
        assert (answer.status_code, answer.json()["code"]) == (401, code), address
        assert answer.headers["access-control-allow-origin"] == "*"
    await gateway.keys.rotate_key(tenant.environment_id, grace_seconds=3600)
    assert (await gateway.anybody.get(url)).status_code == 200, "the old key has its grace"
    gateway.clock.offset += 1201
    assert (await gateway.anybody.get(url)).json()["code"] == "expired_token"


async def test_environments_have_their_own_names(gateway: RunningGateway, tenant: Tenant) -> None:
    await store(tenant, gateway, b"1")
    other = await gateway.tenant("other")
    url = (await ask(other, "GET", f"/api/v1/packets/{quote(NAME)}"))["presignedUrl"]
    answer = await gateway.anybody.get(url)
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


@pytest.mark.parametrize("name", ["..%2Fx", "a//b", "%2Fetc", "a%2F.%2Fb", "a%5Cb", "%7F", "x/"])
async def test_names_lead_nowhere_else(gateway: RunningGateway, tenant: Tenant, name: str) -> None:
    answer = await tenant.client.put(f"/api/v2/packets/{name}")
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_parameter")


async def test_what_is_too_large_or_breaks_off_leaves_nothing_behind(
    gateway: RunningGateway, tenant: Tenant, tmp_path: Path
) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(4):
            yield b"x" * 100_000

    answer = await ask(tenant, "PUT", "/api/v2/packets/large")
    refused = await gateway.anybody.put(answer["presignedUrl"], content=pieces())
    assert (refused.status_code, refused.json()["code"]) == (413, "payload_too_large")
    assert not files(tmp_path)


async def test_a_browser_may_put_and_get(gateway: RunningGateway, tenant: Tenant) -> None:
    url = (await ask(tenant, "PUT", "/api/v2/packets/x"))["presignedUrl"]
    answer = await gateway.anybody.options(
        url,
        headers={
            "origin": "https://x",
            "access-control-request-method": "PUT",
            "access-control-request-headers": "content-type",
        },
    )
    assert answer.status_code == 204
    assert "PUT" in answer.headers["access-control-allow-methods"]


async def test_where_nothing_can_be_stored_it_is_said(database_url: str, tmp_path: Path) -> None:
    (tmp_path / "objects").write_text("a file")
    objects = LocalObjectStore(tmp_path / "objects")
    async with running_gateway(database_url, objects=objects) as gateway:
        tenant = await gateway.tenant("dev")
        url = (await ask(tenant, "PUT", "/api/v2/packets/x"))["presignedUrl"]
        answer = await gateway.anybody.put(url, content=b"1")
        assert (answer.status_code, answer.json()["code"]) == (503, "backend_unavailable")
        assert "RUNCAST_OBJECTS_DIR" in answer.json()["error"]


@pytest.mark.parametrize("direct", [True, False])
async def test_a_store_that_is_away_is_a_503(
    database_url: str, s3_server: S3Server, direct: bool
) -> None:
    objects = S3ObjectStore(replace(s3_server.unreachable_bucket(), direct=direct))
    async with running_gateway(database_url, objects=objects) as gateway:
        tenant = await gateway.tenant("dev")
        put = (await ask(tenant, "PUT", "/api/v2/packets/x"))["presignedUrl"]
        get = (await ask(tenant, "GET", "/api/v1/packets/x"))["presignedUrl"]
        if direct:  # it is for the client to find out
            assert not put.startswith(gateway.url)
            return
        for method, url in (("PUT", put), ("GET", get)):
            answer = await gateway.anybody.request(method, url)
            assert (answer.status_code, answer.json()["code"]) == (503, "backend_unavailable")
            assert answer.headers["retry-after"] == "1"
            assert "127.0.0.1" not in answer.text


async def test_an_unchanged_run_keeps_its_addresses_of_the_store(
    database_url: str, bucket: Bucket
) -> None:
    async with running_gateway(database_url, objects=S3ObjectStore(bucket)) as gateway:
        tenant = await gateway.tenant("dev")
        path = await store(tenant, gateway, b"1")
        run_id = await tenant.trigger(payload=path, payloadType="application/store")
        # At the beginning of the five minutes for which they stay.
        gateway.clock.offset = 300 - gateway.clock.now() % 300
        first = await tenant.retrieve(run_id)
        assert await tenant.retrieve(run_id) == first
