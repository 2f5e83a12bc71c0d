"""Batches in two phases over HTTP: opening, streaming items, sealing."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any

import asyncpg
import httpx
import orjson
import pytest

from runcast.core.limits import Limits
from tests.support.gateway import RunningGateway, Tenant, bearing, running_gateway

OPEN = "/api/v3/batches"
ND_JSON = {"content-type": "application/x-ndjson"}
REQUEST_KEY = "x-trigger-request-idempotency-key"


def item(index: int, task: str = "a", **fields: Any) -> dict[str, Any]:
    return {"index": index, "task": task, "payload": {"at": index}} | fields


def lines(items: Iterable[Any]) -> bytes:
    return b"".join(orjson.dumps(each) + b"\n" for each in items)


async def opened(tenant: Tenant, count: int, **fields: Any) -> str:
    answer = await tenant.client.post(OPEN, json={"runCount": count} | fields)
    assert answer.status_code == 202, answer.text
    batch_id: str = answer.json()["id"]
    return batch_id


async def send(tenant: Tenant, batch_id: str, items: Iterable[Any]) -> httpx.Response:
    return await tenant.client.post(
        f"{OPEN}/{batch_id}/items", content=lines(items), headers=ND_JSON
    )


async def retrieved(tenant: Tenant, batch_id: str) -> dict[str, Any]:
    found: dict[str, Any] = (await tenant.client.get(f"/api/v2/batches/{batch_id}")).json()
    return found


async def test_both_phases_make_the_runs_in_the_order_of_the_items(tenant: Tenant) -> None:
    answer = await tenant.client.post(OPEN, json={"runCount": 3, "taskIdentifiers": ["a", "b"]})
    assert answer.status_code == 202, answer.text
    handle = answer.json()
    assert (handle["runCount"], handle["isCached"]) == (3, False)
    assert {"x-trigger-jwt", "x-trigger-jwt-claims"} <= set(answer.headers)
    before = await retrieved(tenant, handle["id"])
    assert (before["status"], before["runs"], before["runCount"]) == ("PENDING", [], 3)
    taken = await send(tenant, handle["id"], [item(2), item(0), item(1, "b")])
    assert taken.status_code == 200, taken.text
    assert taken.json() == {
        "id": handle["id"],
        "itemsAccepted": 3,
        "itemsDeduplicated": 0,
        "sealed": True,
        "runCount": 3,
    }
    batch = await retrieved(tenant, handle["id"])
    assert (batch["status"], batch["processing"]) == ("PROCESSING", {"errors": []})
    runs = [await tenant.retrieve(run_id) for run_id in batch["runs"]]
    assert [run["taskIdentifier"] for run in runs] == ["a", "b", "a"]
    assert [run["payload"] for run in runs] == [{"at": 0}, {"at": 1}, {"at": 2}]
    assert {run["batchId"] for run in runs} == {handle["id"]}
    assert {run["triggerFunction"] for run in runs} == {"batchTrigger"}


async def test_items_can_come_in_several_requests_and_more_than_once(tenant: Tenant) -> None:
    batch_id = await opened(tenant, 3)
    first = (await send(tenant, batch_id, [item(0), item(2)])).json()
    assert (first["sealed"], first["enqueuedCount"], first["expectedCount"]) == (False, 2, 3)
    assert (await retrieved(tenant, batch_id))["runs"] == []
    again = (await send(tenant, batch_id, [item(0), item(1), item(2), item(1)])).json()
    assert (again["itemsAccepted"], again["itemsDeduplicated"]) == (1, 3)
    assert again["sealed"]
    late = (await send(tenant, batch_id, [item(0), item(1), item(2)])).json()
    assert (late["itemsAccepted"], late["itemsDeduplicated"], late["sealed"]) == (0, 0, True)
    assert len((await retrieved(tenant, batch_id))["runs"]) == 3


async def test_a_body_may_be_cut_anywhere_and_have_blank_lines(tenant: Tenant) -> None:
    batch_id = await opened(tenant, 2)
    text = b"\n" + lines([item(0, payload="é\u2028x")]) + b"  \r\n" + lines([item(1)]).strip()

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(text), 7):
            yield text[start : start + 7]

    answer = await tenant.client.post(f"{OPEN}/{batch_id}/items", content=pieces(), headers=ND_JSON)
    assert answer.json()["sealed"], answer.text
    runs = (await retrieved(tenant, batch_id))["runs"]
    assert (await tenant.retrieve(runs[0]))["payload"] == "é\u2028x"


async def test_one_set_of_runs_however_many_send_the_items_at_once(tenant: Tenant) -> None:
    batch_id = await opened(tenant, 120)
    items = [item(index) for index in range(120)]
    answers = await asyncio.gather(*(send(tenant, batch_id, items) for _ in range(4)))
    assert {answer.status_code for answer in answers} == {200}
    assert all(answer.json()["sealed"] for answer in answers)
    assert sum(answer.json()["itemsAccepted"] for answer in answers) == 120
    # One of the senders is making the runs; a last repetition waits for nobody.
    runs = (await retrieved(tenant, batch_id))["runs"]
    assert len(runs) == len(set(runs)) == 120


async def test_options_of_items_and_batch_are_honoured(tenant: Tenant) -> None:
    parent = await tenant.trigger("boss")
    before = await tenant.trigger("a", idempotencyKey="k")
    batch_id = await opened(tenant, 3, parentRunId=parent, resumeParentOnCompletion=True)
    items = [
        item(0, options={"tags": ["x"], "delay": "1h", "parentRunId": "run_other"}),
        item(1, options={"idempotencyKey": "k"}),
        {"index": 2, "task": "a"},
    ]
    assert (await send(tenant, batch_id, items)).json()["sealed"]
    runs = (await retrieved(tenant, batch_id))["runs"]
    assert runs[1] == before
    first = await tenant.retrieve(runs[0])
    assert (first["status"], first["tags"]) == ("DELAYED", ["x"])
    assert first["relatedRuns"]["parent"]["id"] == parent
    assert first["triggerFunction"] == "batchTriggerAndWait"
    assert "payload" not in await tenant.retrieve(runs[2])


async def test_an_item_that_is_too_large_becomes_a_failed_run(database_url: str) -> None:
    limits = Limits(key_cache_seconds=0.0, max_body_bytes=20_000)
    async with running_gateway(database_url, limits=limits) as gateway:
        tenant = await gateway.tenant("dev")
        batch_id = await opened(tenant, 3)
        items = [item(0), item(1, payload="x" * 50_000), item(2)]
        assert (await send(tenant, batch_id, items)).json()["sealed"]
        runs = [await tenant.retrieve(each) for each in (await retrieved(tenant, batch_id))["runs"]]
        assert [run["isFailed"] for run in runs] == [False, True, False]
        assert "20000" in runs[1]["error"]["message"]
        assert runs[1]["finishedAt"]
        run = await gateway.services.runs.read_run(tenant.environment_id, runs[1]["id"])
        assert run is not None
        assert orjson.loads(run.error or "")["code"] == "PAYLOAD_TOO_LARGE"
        headless = {"payload": "x" * 50_000, "index": 0, "task": "a"}
        refused = await send(tenant, await opened(tenant, 1), [headless])
        assert refused.status_code == 422


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (lines([item(3)]), 422),
        (lines([item(-1)]), 422),
        (lines([{"index": "0", "task": "a"}]), 422),
        (lines([{"index": 0}]), 422),
        (lines([item(0, options={"delay": "soon"})]), 422),
        (lines([item(0, options={"metadata": {"m": "x" * 300_000}})]), 422),
        (lines([[1]]), 422),
        (b"{nonsense\n", 400),
        (b"\xff\xfe\n", 400),
    ],
)
async def test_bad_items_are_refused_and_the_batch_stays_open(
    tenant: Tenant, body: bytes, status: int
) -> None:
    batch_id = await opened(tenant, 2)
    url = f"{OPEN}/{batch_id}/items"
    answer = await tenant.client.post(url, content=lines([item(0)]) + body, headers=ND_JSON)
    assert answer.status_code == status, answer.text
    assert (await send(tenant, batch_id, [item(0), item(1)])).json()["sealed"]


async def test_other_content_types_are_415(tenant: Tenant) -> None:
    batch_id = await opened(tenant, 1)
    for content_type, status in [
        ("application/json", 415),
        ("text/plain", 415),
        ("application/ndjson; charset=utf-8", 200),
    ]:
        answer = await tenant.client.post(
            f"{OPEN}/{batch_id}/items",
            content=lines([item(0)]),
            headers={"content-type": content_type},
        )
        assert answer.status_code == status, content_type


async def test_batches_that_are_not_there_are_422(gateway: RunningGateway, tenant: Tenant) -> None:
    other = await gateway.tenant("other")
    batch_id = await opened(tenant, 1)
    for client, each in [(tenant, "batch_nowhere"), (other, batch_id)]:
        answer = await send(client, each, [item(0)])
        assert answer.status_code == 422


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"runCount": 0},
        {"runCount": 1001},
        {"runCount": "3"},
        {"runCount": 1, "taskIdentifiers": "a"},
        {"runCount": 1, "idempotencyKey": "x" * 2049},
    ],
)
async def test_a_bad_batch_is_400(tenant: Tenant, body: dict[str, Any]) -> None:
    assert (await tenant.client.post(OPEN, json=body)).status_code == 400


async def test_a_parent_that_does_not_exist_is_404(tenant: Tenant) -> None:
    body = {"runCount": 1, "parentRunId": "run_nowhere"}
    assert (await tenant.client.post(OPEN, json=body)).status_code == 404


async def test_opening_has_a_limit_of_its_own(tenant: Tenant) -> None:
    body = {"runCount": 1, "taskIdentifiers": ["t" * 500] * 300}
    assert (await tenant.client.post(OPEN, json=body)).status_code == 413


class TestKeys:
    async def test_a_key_finds_the_batch_of_the_same_tasks(self, tenant: Tenant) -> None:
        body = {"runCount": 1, "idempotencyKey": "k", "taskIdentifiers": ["b", "a"]}
        first = await tenant.client.post(OPEN, json=body)
        body = {"runCount": 1, "idempotencyKey": "k", "taskIdentifiers": ["a", "b"]}
        again = await tenant.client.post(OPEN, json=body)
        assert (again.status_code, again.json()["isCached"]) == (200, True)
        assert again.json()["id"] == first.json()["id"]
        assert again.json()["idempotencyKey"] == "k"
        assert "x-trigger-jwt" in again.headers
        for tasks in (["a"], None):
            body = {"runCount": 1, "idempotencyKey": "k", "taskIdentifiers": tasks}
            other = await tenant.client.post(OPEN, json=body)
            assert other.status_code == 202
            assert other.json()["id"] != first.json()["id"]

    async def test_a_key_holds_for_a_day(self, tenant: Tenant, database_url: str) -> None:
        body = {"runCount": 1, "idempotencyKey": "k"}
        first = await tenant.client.post(OPEN, json=body)
        sql = await asyncpg.connect(database_url)
        expires = await sql.fetchval(
            "UPDATE runcast.batches SET idempotency_key_expires_at ="
            " idempotency_key_expires_at - interval '1 day'"
            " RETURNING idempotency_key_expires_at <= now()"
        )
        await sql.close()
        assert expires
        second = await tenant.client.post(OPEN, json=body)
        assert (second.status_code, second.json()["isCached"]) == (202, False)
        assert second.json()["id"] != first.json()["id"]

    async def test_many_at_once_open_one_batch(self, tenant: Tenant) -> None:
        body = {"runCount": 1, "idempotencyKey": "k"}
        answers = await asyncio.gather(*(tenant.client.post(OPEN, json=body) for _ in range(10)))
        assert len({answer.json()["id"] for answer in answers}) == 1
        assert sorted(answer.status_code for answer in answers) == [200] * 9 + [202]

    async def test_a_one_time_token_opens_one_batch_and_sends_its_items(
        self, gateway: RunningGateway, tenant: Tenant
    ) -> None:
        headers = bearing(tenant.token("batchTrigger:tasks", one_time=True))
        body = {"runCount": 1}
        uses = [
            await gateway.anybody.post(OPEN, json=body, headers=headers | {REQUEST_KEY: key})
            for key in ("r", "r", "r2")
        ]
        assert [use.status_code for use in uses] == [202, 202, 422]
        assert uses[0].json()["id"] == uses[1].json()["id"]
        taken = await gateway.anybody.post(
            f"{OPEN}/{uses[0].json()['id']}/items",
            content=lines([item(0)]),
            headers=headers | ND_JSON,
        )
        assert taken.json()["sealed"]


class TestAccess:
    @pytest.mark.parametrize(
        ("scopes", "tasks", "status"),
        [
            (["batchTrigger:tasks:a", "batchTrigger:tasks:b"], ["a", "b"], 202),
            (["batchTrigger:tasks:a"], ["a", "b"], 403),
            (["batchTrigger:tasks:a"], None, 403),
            (["batchTrigger:tasks"], None, 202),
            (["batchTrigger:batch"], ["a"], 202),
            (["write:tasks"], None, 202),
            (["trigger:tasks"], None, 403),
            (["write:batch:batch_1"], None, 403),
        ],
    )
    async def test_scopes_decide_who_opens_a_batch(
        self,
        gateway: RunningGateway,
        tenant: Tenant,
        scopes: list[str],
        tasks: list[str] | None,
        status: int,
    ) -> None:
        body = {"runCount": 1} | ({"taskIdentifiers": tasks} if tasks else {})
        answer = await gateway.anybody.post(OPEN, json=body, headers=tenant.bearing(*scopes))
        assert answer.status_code == status

    async def test_scopes_decide_who_sends_which_items(
        self, gateway: RunningGateway, tenant: Tenant
    ) -> None:
        for scope, items, status in [
            ("write:batch:{batch}", [], 200),
            ("write:batch:{batch}", [item(0)], 200),
            ("write:batch:batch_other", [], 403),
            ("batchTrigger:tasks:a", [item(0)], 200),
            ("batchTrigger:tasks:a", [], 403),
            ("batchTrigger:tasks:a", [item(0, "b")], 403),
            ("trigger:tasks:a", [item(0)], 403),
        ]:
            batch_id = await opened(tenant, 2)
            answer = await gateway.anybody.post(
                f"{OPEN}/{batch_id}/items",
                content=lines(items),
                headers=tenant.bearing(scope.format(batch=batch_id)) | ND_JSON,
            )
            assert answer.status_code == status, (scope, items, answer.text)

    async def test_a_sealed_batch_takes_no_items_from_who_may_not_send_them(
        self, gateway: RunningGateway, tenant: Tenant
    ) -> None:
        batch_id = await opened(tenant, 1)
        await send(tenant, batch_id, [item(0)])
        for scope, status in [("batchTrigger:tasks:a", 200), ("batchTrigger:tasks:b", 403)]:
            answer = await gateway.anybody.post(
                f"{OPEN}/{batch_id}/items",
                content=lines([item(0)]),
                headers=tenant.bearing(scope) | ND_JSON,
            )
            assert answer.status_code == status

    async def test_the_token_of_a_browser_may_send_the_items(
        self, gateway: RunningGateway, tenant: Tenant
    ) -> None:
        headers = tenant.bearing("batchTrigger:tasks") | {"x-trigger-client": "browser"}
        answer = await gateway.anybody.post(OPEN, json={"runCount": 1}, headers=headers)
        claims = orjson.loads(answer.headers["x-trigger-jwt-claims"])
        batch_id = answer.json()["id"]
        assert claims["scopes"] == [f"read:batch:{batch_id}", f"write:batch:{batch_id}"]
        taken = await gateway.anybody.post(
            f"{OPEN}/{batch_id}/items",
            content=lines([item(0)]),
            headers=bearing(answer.headers["x-trigger-jwt"]) | ND_JSON,
        )
        assert taken.json()["sealed"]
        narrow = tenant.bearing("batchTrigger:tasks:a") | {"x-trigger-client": "browser"}
        body = {"runCount": 1, "taskIdentifiers": ["a"]}
        answer = await gateway.anybody.post(OPEN, json=body, headers=narrow)
        claims = orjson.loads(answer.headers["x-trigger-jwt-claims"])
        assert claims["scopes"] == [f"read:batch:{answer.json()['id']}"]

    async def test_only_who_may_write_to_a_run_can_make_it_the_parent(
        self, gateway: RunningGateway, tenant: Tenant
    ) -> None:
        parent = await tenant.trigger("boss")
        body = {"runCount": 1, "parentRunId": parent}
        for scopes, status in [
            (["batchTrigger:tasks"], 403),
            (["batchTrigger:tasks", f"write:runs:{parent}"], 202),
        ]:
            headers = tenant.bearing(*scopes)
            answer = await gateway.anybody.post(OPEN, json=body, headers=headers)
            assert answer.status_code == status


async def test_older_clients_know_two_statuses_of_a_batch(
    gateway: RunningGateway, tenant: Tenant
) -> None:
    batch_id = await opened(tenant, 1)
    url, old = f"/api/v1/batches/{batch_id}", bearing(tenant.key)

    async def statuses() -> tuple[str, str]:
        newer = await tenant.client.get(url)
        older = await gateway.anybody.get(url, headers=old)
        return newer.json()["status"], older.json()["status"]

    assert await statuses() == ("PENDING", "PENDING")
    await send(tenant, batch_id, [item(0)])
    assert await statuses() == ("PROCESSING", "PENDING")
    (run_id,) = (await retrieved(tenant, batch_id))["runs"]
    await tenant.patch(run_id, status="COMPLETED")
    assert await statuses() == ("COMPLETED", "COMPLETED")


async def test_results_tell_how_the_runs_ended(gateway: RunningGateway, tenant: Tenant) -> None:
    batch_id = await opened(tenant, 3)
    url = f"/api/v1/batches/{batch_id}/results"
    assert (await tenant.client.get(url)).json() == {"id": batch_id, "items": []}
    await send(tenant, batch_id, [item(0), item(1), item(2)])
    runs = (await retrieved(tenant, batch_id))["runs"]
    await tenant.patch(runs[2], status="COMPLETED", output={"n": 1})
    await tenant.patch(runs[0], status="FAILED", error="no luck")
    error = {"type": "STRING_ERROR", "raw": "no luck"}
    assert (await tenant.client.get(url)).json()["items"] == [
        {"ok": False, "id": runs[0], "taskIdentifier": "a", "error": error},
        {
            "ok": True,
            "id": runs[2],
            "taskIdentifier": "a",
            "output": '{"n":1}',
            "outputType": "application/json",
        },
    ]
    token = tenant.bearing("read:batch")
    assert (await gateway.anybody.get(url, headers=token)).status_code == 401
    assert (await tenant.client.get("/api/v1/batches/batch_nowhere/results")).status_code == 404
