"""Batches over HTTP."""

import asyncio
from typing import Any

import pytest

from runcast.core.limits import Limits
from tests.support.gateway import RunningGateway, Tenant, bearing, running_gateway

V1, V2 = "/api/v1/tasks/batch", "/api/v2/tasks/batch"


def items(*tasks: str) -> dict[str, Any]:
    return {"items": [{"task": task, "payload": {"at": n}} for n, task in enumerate(tasks)]}


async def test_a_batch_makes_its_runs_in_the_order_of_the_items(tenant: Tenant) -> None:
    answer = await tenant.client.post(V2, json=items("a", "b", "a"))
    assert answer.status_code == 202, answer.text
    handle = answer.json()
    assert handle["runCount"] == 3
    batch = (await tenant.client.get(f"/api/v2/batches/{handle['id']}")).json()
    assert batch["status"] in ("PENDING", "PROCESSING")
    assert batch["processing"] == {"errors": []}
    runs = [await tenant.retrieve(run_id) for run_id in batch["runs"]]
    assert [run["taskIdentifier"] for run in runs] == ["a", "b", "a"]
    assert [run["payload"] for run in runs] == [{"at": 0}, {"at": 1}, {"at": 2}]
    assert {run["batchId"] for run in runs} == {handle["id"]}
    assert {run["triggerFunction"] for run in runs} == {"batchTrigger"}


async def test_the_older_route_tells_of_each_run(tenant: Tenant) -> None:
    body = items("a", "b", "b")
    body["items"][0]["options"] = {"idempotencyKey": "k0"}
    body["items"][1]["options"] = {"idempotencyKey": "k1"}
    body["items"][2]["options"] = {"idempotencyKey": "k1"}
    before = await tenant.trigger("a", idempotencyKey="k0")
    answer = await tenant.client.post(V1, json=body)
    assert answer.status_code == 202, answer.text
    runs = answer.json()["runs"]
    assert [run["isCached"] for run in runs] == [True, False, True]
    assert [run["taskIdentifier"] for run in runs] == ["a", "b", "b"]
    assert [run["idempotencyKey"] for run in runs] == ["k0", "k1", "k1"]
    assert runs[0]["id"] == before
    assert runs[1]["id"] == runs[2]["id"]


async def test_a_batch_is_complete_when_its_runs_are(
    gateway: RunningGateway, tenant: Tenant
) -> None:
    batch_id = (await tenant.client.post(V2, json=items("a", "b"))).json()["id"]
    url = f"/api/v1/batches/{batch_id}"
    old = bearing(tenant.key)
    assert (await gateway.anybody.get(url, headers=old)).json()["status"] == "PENDING"
    for run_id in (await tenant.client.get(url)).json()["runs"]:
        await tenant.patch(run_id, status="COMPLETED")
    assert (await tenant.client.get(url)).json()["status"] == "COMPLETED"
    answer = (await gateway.anybody.get(url, headers=old)).json()
    assert answer["status"] == "COMPLETED"
    assert "processing" not in answer


async def test_the_answer_brings_a_token_for_the_batch_and_its_runs(
    gateway: RunningGateway, tenant: Tenant
) -> None:
    answer = await tenant.client.post(V2, json=items("a"))
    headers = bearing(answer.headers["x-trigger-jwt"])
    url = f"/api/v2/batches/{answer.json()['id']}"
    batch = await gateway.anybody.get(url, headers=headers)
    assert batch.status_code == 200
    run = await gateway.anybody.get(f"/api/v3/runs/{batch.json()['runs'][0]}", headers=headers)
    assert run.status_code == 200
    other = await tenant.client.post(V2, json=items("a"))
    refused = await gateway.anybody.get(f"/api/v2/batches/{other.json()['id']}", headers=headers)
    assert refused.status_code == 403


async def test_a_key_makes_one_batch_however_many_ask_at_once(tenant: Tenant) -> None:
    headers = {"idempotency-key": "batch-key"}
    answers = await asyncio.gather(
        *(tenant.client.post(V1, json=items("a"), headers=headers) for _ in range(4))
    )
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert sorted(answer.json()["isCached"] for answer in answers) == [False, True, True, True]
    assert {answer.json()["idempotencyKey"] for answer in answers} == {"batch-key"}
    assert len((await tenant.client.get("/api/v1/runs")).json()["data"]) == 1


async def test_runs_of_a_batch_can_have_a_parent(tenant: Tenant) -> None:
    parent = await tenant.trigger()
    body = items("a") | {"parentRunId": parent, "resumeParentOnCompletion": True}
    run_id = (await tenant.client.post(V1, json=body)).json()["runs"][0]["id"]
    run = await tenant.retrieve(run_id)
    assert run["relatedRuns"]["parent"]["id"] == parent
    assert (run["depth"], run["triggerFunction"]) == (1, "batchTriggerAndWait")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 400),
        ({"items": []}, 400),
        ({"items": [{"payload": 1}]}, 400),
        ({"items": [{"task": "x" * 600}]}, 400),
        ({"items": [{"task": "a"}, {"task": "b", "options": {"delay": "soon"}}]}, 422),
        ({"items": [{"task": "a"}], "parentRunId": "run_nowhere"}, 404),
        ({"items": [{"task": "a"}] * 4}, 400),
    ],
)
async def test_a_bad_batch_makes_no_run_at_all(
    database_url: str, body: dict[str, Any], status: int
) -> None:
    async with running_gateway(database_url, limits=Limits(max_batch_items=3)) as gateway:
        tenant = await gateway.tenant("dev")
        for url in (V1, V2):
            answer = await tenant.client.post(url, json=body)
            assert answer.status_code == status, answer.text
        assert (await tenant.client.get("/api/v1/runs")).json()["data"] == []


async def test_the_error_names_the_item(tenant: Tenant) -> None:
    body = {"items": [{"task": "a"}, {"task": "b", "options": {"delay": "soon"}}]}
    assert (await tenant.client.post(V2, json=body)).json()["error"].startswith("items.1: ")


@pytest.mark.parametrize(
    ("scopes", "status"),
    [
        (["batchTrigger:tasks:a"], 403),
        (["batchTrigger:tasks:a", "batchTrigger:tasks:b"], 202),
        (["batchTrigger:tasks"], 202),
        (["write:tasks"], 202),
        (["trigger:tasks"], 403),
    ],
)
async def test_a_token_must_allow_every_task_of_a_batch(
    gateway: RunningGateway, tenant: Tenant, scopes: list[str], status: int
) -> None:
    headers = tenant.bearing(*scopes)
    for url in (V1, V2):
        answer = await gateway.anybody.post(url, json=items("a", "b"), headers=headers)
        assert answer.status_code == status


async def test_a_one_time_token_makes_one_batch(gateway: RunningGateway, tenant: Tenant) -> None:
    headers = tenant.bearing("batchTrigger:tasks", one_time=True)
    statuses = [
        (await gateway.anybody.post(V2, json=items("a", "b"), headers=headers)).status_code
        for _ in range(2)
    ]
    assert statuses == [202, 422]


async def test_batches_of_others_are_not_there(gateway: RunningGateway, tenant: Tenant) -> None:
    other = await gateway.tenant("other")
    batch_id = (await tenant.client.post(V2, json=items("a"))).json()["id"]
    for version in ("v1", "v2"):
        answer = await other.client.get(f"/api/{version}/batches/{batch_id}")
        assert answer.status_code == 404


async def test_who_may_not_read_a_batch_does_not_learn_whether_it_exists(
    gateway: RunningGateway, tenant: Tenant
) -> None:
    batch_id = (await tenant.client.post(V2, json=items("a"))).json()["id"]
    headers = tenant.bearing("read:batch:batch_mine")
    statuses = [
        (await gateway.anybody.get(f"/api/v2/batches/{each}", headers=headers)).status_code
        for each in (batch_id, "batch_nowhere", "batch_mine")
    ]
    assert statuses == [403, 403, 404]
