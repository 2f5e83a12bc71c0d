"""Metadata of runs over HTTP."""

import asyncio
from typing import Any

import pytest

from runcast.core.limits import Limits
from tests.support.gateway import RunningGateway, Tenant, running_gateway


async def put(tenant: Tenant, run_id: str, **body: Any) -> Any:
    answer = await tenant.client.put(f"/api/v1/runs/{run_id}/metadata", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()["metadata"]


async def read(tenant: Tenant, run_id: str) -> Any:
    answer = await tenant.client.get(f"/api/v1/runs/{run_id}/metadata")
    assert answer.status_code == 200
    return answer.json()["metadata"]


async def test_operations_apply_in_order_and_the_answer_shows_the_result(tenant: Tenant) -> None:
    run_id = await tenant.trigger(metadata={"old": 1})
    operations = [
        {"type": "set", "key": "status", "value": "working"},
        {"type": "append", "key": "log", "value": "a"},
        {"type": "append", "key": "log", "value": "b"},
        {"type": "remove", "key": "log", "value": "a"},
        {"type": "increment", "key": "$.counts.done", "value": 2},
        {"type": "delete", "key": "old"},
    ]
    expected = {"status": "working", "log": ["b"], "counts": {"done": 2}}
    assert await put(tenant, run_id, operations=operations) == expected
    assert await read(tenant, run_id) == expected
    assert await put(tenant, run_id, metadata={"only": True}) == {"only": True}
    assert await put(tenant, run_id, metadata={"lost": 1}, operations=[]) == {"only": True}


async def test_a_run_without_metadata_has_an_empty_object(tenant: Tenant) -> None:
    run_id = await tenant.trigger()
    assert await read(tenant, run_id) == {}
    assert await put(tenant, run_id) == {}


async def test_operations_reach_parent_and_root_in_one_piece(tenant: Tenant) -> None:
    root = await tenant.trigger()
    parent = await tenant.trigger(parentRunId=root)
    child = await tenant.trigger(parentRunId=parent)

    def increment(key: str) -> list[dict[str, Any]]:
        return [{"type": "increment", "key": key, "value": 1}]

    assert await put(
        tenant,
        child,
        operations=increment("own"),
        parentOperations=increment("parent"),
        rootOperations=increment("root"),
    ) == {"own": 1}
    assert await read(tenant, parent) == {"parent": 1}
    assert await read(tenant, root) == {"root": 1}
    refused = await tenant.client.put(
        f"/api/v1/runs/{child}/metadata",
        json={
            "operations": increment("own"),
            "parentOperations": increment("parent"),
            "rootOperations": [{"type": "set", "key": "big", "value": "x" * 300_000}],
        },
    )
    assert refused.status_code == 413
    assert [await read(tenant, each) for each in (child, parent, root)] == [
        {"own": 1},
        {"parent": 1},
        {"root": 1},
    ]


async def test_a_run_without_a_parent_is_its_own_parent_and_root(tenant: Tenant) -> None:
    run_id = await tenant.trigger()
    one = [{"type": "increment", "key": "n", "value": 1}]
    assert await put(tenant, run_id, operations=one, parentOperations=one, rootOperations=one) == {
        "n": 3
    }


async def test_concurrent_increments_from_many_children_all_count(tenant: Tenant) -> None:
    root = await tenant.trigger()
    children = [await tenant.trigger(parentRunId=root) for _ in range(5)]
    one = [{"type": "increment", "key": "n", "value": 1}]
    await asyncio.gather(
        *(
            put(tenant, child, operations=one, parentOperations=one, rootOperations=one)
            for child in children
            for _ in range(4)
        )
    )
    assert await read(tenant, root) == {"n": 40}
    assert [await read(tenant, child) for child in children] == [{"n": 4}] * 5


async def test_metadata_over_the_limit_is_413_and_changes_nothing(database_url: str) -> None:
    async with running_gateway(database_url, limits=Limits(max_metadata_bytes=1024)) as gateway:
        tenant = await gateway.tenant("dev")
        run_id = await tenant.trigger(metadata={"a": 1})
        for body in (
            {"metadata": {"a": "x" * 1100}},
            {"operations": [{"type": "set", "key": "b", "value": "x" * 1100}]},
        ):
            answer = await tenant.client.put(f"/api/v1/runs/{run_id}/metadata", json=body)
            assert (answer.status_code, answer.json()["code"]) == (413, "payload_too_large")
        assert (await tenant.patch(run_id, metadata={"a": "x" * 1100})).status_code == 413
        assert await read(tenant, run_id) == {"a": 1}


@pytest.mark.parametrize(
    "body",
    [
        {"metadata": [1]},
        {"operations": {"type": "set"}},
        {"operations": [{"type": "multiply", "key": "a", "value": 2}]},
        {"operations": [{"type": "set", "key": "__proto__", "value": 2}]},
        {"parentOperations": [{"type": "increment", "key": "a", "value": "1"}]},
        {"metadata": {"a": "\0"}},
    ],
)
async def test_bad_changes_are_refused(tenant: Tenant, body: dict[str, Any]) -> None:
    run_id = await tenant.trigger(metadata={"a": 1})
    answer = await tenant.client.put(f"/api/v1/runs/{run_id}/metadata", json=body)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_body")
    assert await read(tenant, run_id) == {"a": 1}


async def test_metadata_of_a_run_that_is_not_there_is_404(tenant: Tenant) -> None:
    assert (await tenant.client.get("/api/v1/runs/run_no/metadata")).status_code == 404
    answer = await tenant.client.put("/api/v1/runs/run_no/metadata", json={"metadata": {}})
    assert answer.status_code == 404


async def test_metadata_is_for_the_secret_key_alone(
    gateway: RunningGateway, tenant: Tenant
) -> None:
    url = f"/api/v1/runs/{await tenant.trigger()}/metadata"
    headers = tenant.bearing("admin")
    assert (await gateway.anybody.get(url, headers=headers)).status_code == 401
    assert (await gateway.anybody.put(url, json={}, headers=headers)).status_code == 401
