"""Retrieving, cancelling and changing runs over HTTP."""

import asyncio
from typing import Any

import pytest

from runcast.core.limits import Limits
from tests.support.gateway import RunningGateway, Tenant, bearing, running_gateway


async def test_both_addresses_of_a_run_give_the_same(tenant: Tenant) -> None:
    run_id = await tenant.trigger(tags=["b", "a"], metadata={"p": 0.5})
    newer = await tenant.retrieve(run_id)
    older = (await tenant.client.get(f"/api/v1/runs/{run_id}")).json()
    assert newer == older
    assert newer["tags"] == ["a", "b"]
    assert newer["metadata"] == {"p": 0.5}
    assert newer["attempts"] == []
    assert newer["relatedRuns"] == {"children": []}
    assert "finishedAt" not in newer


async def test_statuses_have_the_names_that_the_client_knows(
    gateway: RunningGateway, tenant: Tenant
) -> None:
    run_id = await tenant.trigger()
    await tenant.patch(run_id, status="RETRYING_AFTER_FAILURE")
    assert (await tenant.retrieve(run_id))["status"] == "EXECUTING"
    old = await gateway.anybody.get(f"/api/v3/runs/{run_id}", headers=bearing(tenant.key))
    assert old.json()["status"] == "REATTEMPTING"


async def test_related_runs_are_shown_to_those_who_may_read_them(
    gateway: RunningGateway, tenant: Tenant
) -> None:
    root = await tenant.trigger("root")
    parent = await tenant.trigger("parent", parentRunId=root)
    child = await tenant.trigger("child", parentRunId=parent)
    related = (await tenant.retrieve(parent))["relatedRuns"]
    assert related["root"]["id"] == related["parent"]["id"] == root
    assert [each["id"] for each in related["children"]] == [child]
    only_parent = tenant.bearing(f"read:runs:{parent}")
    seen = await gateway.anybody.get(f"/api/v3/runs/{parent}", headers=only_parent)
    assert seen.json()["relatedRuns"] == {"children": []}


async def test_an_unchanged_run_costs_a_304_until_it_or_its_child_changes(tenant: Tenant) -> None:
    run_id = await tenant.trigger()
    first = await tenant.client.get(f"/api/v3/runs/{run_id}")
    known = {"if-none-match": first.headers["etag"]}
    again = await tenant.client.get(f"/api/v3/runs/{run_id}", headers=known)
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == first.headers["etag"]
    await tenant.trigger(parentRunId=run_id)
    changed = await tenant.client.get(f"/api/v3/runs/{run_id}", headers=known)
    assert changed.status_code == 200
    assert changed.headers["etag"] != first.headers["etag"]


@pytest.mark.parametrize(
    ("scope", "status"),
    [
        ("read:runs", 200),
        ("read:runs:{run}", 200),
        ("read:tasks:hello", 200),
        ("read:tags:user:1", 200),
        ("read:all", 200),
        ("read:runs:run_other", 403),
        ("read:tasks:other", 403),
        ("read:tags:user:2", 403),
        ("write:runs:{run}", 403),
        ("read:batch", 403),
    ],
)
async def test_scopes_decide_who_reads_a_run(
    gateway: RunningGateway, tenant: Tenant, scope: str, status: int
) -> None:
    run_id = await tenant.trigger(tags=["user:1"])
    headers = tenant.bearing(scope.format(run=run_id))
    answer = await gateway.anybody.get(f"/api/v3/runs/{run_id}", headers=headers)
    assert answer.status_code == status
    if status == 403:
        body = answer.json()
        assert body["code"] == "insufficient_scope"
        assert (body["param"], body["type"]) == ("access_token", "authorization")
        assert "user:1" not in answer.text


async def test_who_may_not_read_a_run_does_not_learn_whether_it_exists(
    gateway: RunningGateway, tenant: Tenant
) -> None:
    headers = tenant.bearing("read:runs:run_mine")
    there, not_there = await tenant.trigger(), "run_nowhere"
    statuses = [
        (await gateway.anybody.get(f"/api/v3/runs/{run_id}", headers=headers)).status_code
        for run_id in (there, not_there, "run_mine")
    ]
    assert statuses == [403, 403, 404]


async def test_what_a_gateway_withholds_no_public_token_sees(database_url: str) -> None:
    limits = Limits(withheld_columns=frozenset({"payload", "output"}), key_cache_seconds=0.0)
    async with running_gateway(database_url, limits=limits) as gateway:
        tenant = await gateway.tenant("dev")
        run_id = await tenant.trigger(payload={"secret": 1}, metadata={"m": 1})
        await tenant.patch(run_id, status="COMPLETED", output={"secret": 2})
        whole = await tenant.retrieve(run_id)
        assert (whole["payload"], whole["output"]) == ({"secret": 1}, {"secret": 2})
        headers = tenant.bearing("read:runs", skip_columns=["metadata"])
        seen = await gateway.anybody.get(f"/api/v3/runs/{run_id}", headers=headers)
        assert seen.status_code == 200
        assert {"payload", "output", "metadata"}.isdisjoint(seen.json())
        listed = await gateway.anybody.get("/api/v1/runs", headers=headers)
        assert "metadata" not in listed.json()["data"][0]
        assert "secret" not in seen.text + listed.text


async def test_cancelling_reaches_all_runs_below_and_leaves_finished_ones(tenant: Tenant) -> None:
    top = await tenant.trigger()
    child = await tenant.trigger(parentRunId=top)
    grandchild = await tenant.trigger(parentRunId=child)
    done = await tenant.trigger(parentRunId=top)
    await tenant.patch(done, status="COMPLETED")
    answer = await tenant.client.post(
        f"/api/v2/runs/{top}/cancel", headers={"content-type": "application/json"}
    )
    assert (answer.status_code, answer.json()) == (200, {"id": top})
    for run_id in (top, child, grandchild):
        run = await tenant.retrieve(run_id)
        assert run["status"] == "CANCELED"
        assert run["finishedAt"]
    assert (await tenant.retrieve(done))["status"] == "COMPLETED"
    again = await tenant.client.post(f"/api/v2/runs/{top}/cancel")
    assert (again.status_code, again.json()) == (200, {"id": top})
    assert (await tenant.client.post("/api/v2/runs/run_nowhere/cancel")).status_code == 404


@pytest.mark.parametrize(
    ("scope", "status"),
    [
        ("write:runs:{run}", 200),
        ("write:runs", 200),
        ("write:tasks:hello", 200),
        ("read:runs:{run}", 403),
        ("trigger:tasks:hello", 403),
    ],
)
async def test_scopes_decide_who_cancels_a_run(
    gateway: RunningGateway, tenant: Tenant, scope: str, status: int
) -> None:
    run_id = await tenant.trigger()
    headers = tenant.bearing(scope.format(run=run_id))
    answer = await gateway.anybody.post(f"/api/v2/runs/{run_id}/cancel", headers=headers)
    assert answer.status_code == status
    assert ((await tenant.retrieve(run_id))["status"] == "CANCELED") == (status == 200)


async def test_a_worker_takes_a_run_through_its_life(tenant: Tenant) -> None:
    run_id = await tenant.trigger()
    for status, shown in [
        ("DEQUEUED", "DEQUEUED"),
        ("EXECUTING", "EXECUTING"),
        ("WAITING_TO_RESUME", "WAITING"),
        ("EXECUTING", "EXECUTING"),
        ("RETRYING_AFTER_FAILURE", "EXECUTING"),
    ]:
        answer = await tenant.patch(run_id, status=status, attemptCount=1)
        assert answer.status_code == 200, answer.text
        assert answer.json()["status"] == shown
    answer = await tenant.patch(
        run_id,
        status="COMPLETED_SUCCESSFULLY",
        output='{"json":{"ok":true}}',
        outputType="application/super+json",
        usageDurationMs=1234,
        costInCents=0.5,
        tags=["done"],
        metadata={"progress": 1},
    )
    run = answer.json()
    assert (run["status"], run["output"]) == ("COMPLETED", {"ok": True})
    assert (run["durationMs"], run["costInCents"], run["tags"]) == (1234, 0.5, ["done"])
    assert run["startedAt"] <= run["finishedAt"]
    assert run["isSuccess"]
    assert run["isCompleted"]


async def test_a_failure_keeps_its_error(tenant: Tenant) -> None:
    run_id = await tenant.trigger()
    error = {"message": "no luck", "name": "TypeError", "stackTrace": "at line 1"}
    run = (await tenant.patch(run_id, status="FAILED", error=error)).json()
    assert (run["status"], run["error"]) == ("FAILED", error)


@pytest.mark.parametrize("status", ["EXECUTING", "QUEUED", "CANCELED", "FAILED"])
async def test_a_finished_run_is_never_revived(tenant: Tenant, status: str) -> None:
    run_id = await tenant.trigger()
    await tenant.patch(run_id, status="COMPLETED")
    answer = await tenant.patch(run_id, status=status)
    assert (answer.status_code, answer.json()["code"]) == (422, "illegal_transition")
    assert (await tenant.retrieve(run_id))["status"] == "COMPLETED"


@pytest.mark.parametrize(
    "patch",
    [
        {"status": "DONE"},
        {"state": "EXECUTING"},
        {"startedAt": "yesterday"},
        {"attemptCount": -1},
        {"metadata": []},
        {"tags": 1},
        {"status": None},
        {"output": "x\0y"},
        {"error": {"type": "NO_ERROR"}},
    ],
)
async def test_a_bad_patch_is_refused_whole(tenant: Tenant, patch: dict[str, Any]) -> None:
    run_id = await tenant.trigger()
    before = await tenant.retrieve(run_id)
    answer = await tenant.patch(run_id, region="eu", **patch)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_body"), answer.text
    assert await tenant.retrieve(run_id) == before


async def test_a_patch_is_for_the_secret_key_alone(gateway: RunningGateway, tenant: Tenant) -> None:
    run_id = await tenant.trigger()
    answer = await gateway.anybody.patch(
        f"/api/v1/runs/{run_id}", json={"status": "EXECUTING"}, headers=tenant.bearing("admin")
    )
    assert answer.status_code == 401
    missing = await tenant.patch("run_nowhere", status="EXECUTING")
    assert missing.status_code == 404
    assert missing.headers["x-should-retry"] == "false"


async def test_tags_are_added_once_and_never_beyond_ten(tenant: Tenant) -> None:
    run_id = await tenant.trigger(tags=["one"])
    url = f"/api/v1/runs/{run_id}/tags"
    assert (await tenant.client.post(url, json={"tags": "two"})).status_code == 200
    assert (await tenant.client.post(url, json={"tags": ["two", "three"]})).status_code == 200
    assert (await tenant.retrieve(run_id))["tags"] == ["one", "three", "two"]
    many = await tenant.client.post(url, json={"tags": [f"t{n}" for n in range(8)]})
    assert many.status_code == 422
    assert (await tenant.retrieve(run_id))["tags"] == ["one", "three", "two"]
    assert (await tenant.client.post(url, json={"tags": 5})).status_code == 400
    nowhere = await tenant.client.post("/api/v1/runs/run_nowhere/tags", json={"tags": "a"})
    assert nowhere.status_code == 404


async def test_tags_added_at_once_are_all_there(tenant: Tenant) -> None:
    run_id = await tenant.trigger()
    url = f"/api/v1/runs/{run_id}/tags"
    tags = [f"tag{n}" for n in range(8)]
    await asyncio.gather(*(tenant.client.post(url, json={"tags": tag}) for tag in tags))
    assert (await tenant.retrieve(run_id))["tags"] == tags
