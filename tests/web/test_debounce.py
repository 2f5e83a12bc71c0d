"""Triggers that go together while their run is delayed."""

import asyncio
from datetime import datetime
from typing import Any

import httpx
import pytest

from tests.support.gateway import RunningGateway, Tenant, bearing

TRIGGER = "/api/v1/tasks/hello/trigger"


async def trigger(
    tenant: Tenant, payload: Any = 1, task: str = "hello", **options: Any
) -> dict[str, Any]:
    debounce = {"key": "k", "delay": "1m"} | options.pop("debounce", {})
    answer = await tenant.client.post(
        f"/api/v1/tasks/{task}/trigger",
        json={"payload": payload, "options": options | {"debounce": debounce}},
    )
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def time(run: dict[str, Any], name: str) -> datetime:
    return datetime.fromisoformat(run[name])


async def test_triggers_with_one_key_make_one_delayed_run(
    gateway: RunningGateway, tenant: Tenant
) -> None:
    first = await trigger(tenant, {"n": 1}, tags=["first"])
    before = await tenant.retrieve(first["id"])
    assert (before["status"], first["isCached"]) == ("DELAYED", False)
    gateway.clock.offset += 10
    second = await trigger(tenant, {"n": 2}, tags=["second"])
    assert (second["id"], second["isCached"]) == (first["id"], True)
    run = await tenant.retrieve(first["id"])
    assert (run["payload"], run["tags"]) == ({"n": 1}, ["first"])
    assert 9 < (time(run, "delayedUntil") - time(before, "delayedUntil")).total_seconds() < 60


async def test_the_last_of_trailing_triggers_gives_the_data(tenant: Tenant) -> None:
    trailing = {"mode": "trailing"}
    first = await trigger(
        tenant, {"n": 1}, tags=["a"], metadata={"m": 1}, machine="micro", debounce=trailing
    )
    await trigger(tenant, "two", tags=["b"], metadata={"m": 2}, maxAttempts=7, debounce=trailing)
    run = await tenant.retrieve(first["id"])
    assert (run["payload"], run["tags"], run["metadata"]) == ("two", ["b"], {"m": 2})
    await trigger(tenant, {"n": 3}, debounce=trailing)
    run = await tenant.retrieve(first["id"])
    # What the last one does not speak of stays.
    assert (run["payload"], run["tags"], run["metadata"]) == ({"n": 3}, ["b"], {"m": 2})
    # A replay begins as the run did.
    await tenant.patch(first["id"], metadata={"late": True})
    again = (await tenant.client.post(f"/api/v1/runs/{first['id']}/replay")).json()["id"]
    replayed = await tenant.retrieve(again)
    assert (replayed["payload"], replayed["metadata"]) == ({"n": 3}, {"m": 2})


async def test_a_run_is_never_pushed_to_an_earlier_time(tenant: Tenant) -> None:
    first = await trigger(tenant, debounce={"delay": "2h"})
    before = await tenant.retrieve(first["id"])
    await trigger(tenant, debounce={"delay": "1m"})
    assert (await tenant.retrieve(first["id"]))["delayedUntil"] == before["delayedUntil"]


async def test_max_delay_ends_the_pushing(gateway: RunningGateway, tenant: Tenant) -> None:
    limited = {"delay": "1m", "maxDelay": "90s"}
    first = await trigger(tenant, debounce=limited)
    gateway.clock.offset += 20
    assert (await trigger(tenant, debounce=limited))["id"] == first["id"]
    pushed = await tenant.retrieve(first["id"])
    gateway.clock.offset += 20
    # Also when this trigger does not say so: the first one did.
    second = await trigger(tenant, debounce={"delay": "1m"})
    assert (second["id"] != first["id"], second["isCached"]) == (True, False)
    kept = await tenant.retrieve(first["id"])
    assert kept["delayedUntil"] == pushed["delayedUntil"]
    assert (time(kept, "delayedUntil") - time(kept, "createdAt")).total_seconds() < 91
    assert (await trigger(tenant))["id"] == second["id"]


async def test_a_delay_longer_than_max_delay_is_cut_to_it(tenant: Tenant) -> None:
    first = await trigger(tenant, debounce={"delay": "1h", "maxDelay": "5s"})
    run = await tenant.retrieve(first["id"])
    assert (time(run, "delayedUntil") - time(run, "createdAt")).total_seconds() < 6


async def test_a_key_is_free_once_its_run_is_not_delayed(tenant: Tenant) -> None:
    first = await trigger(tenant)
    await tenant.patch(first["id"], status="PENDING")
    second = await trigger(tenant)
    assert second["id"] != first["id"]
    await tenant.client.post(f"/api/v2/runs/{second['id']}/cancel")
    third = await trigger(tenant)
    assert third["id"] not in (first["id"], second["id"])
    assert not third["isCached"]


async def test_keys_belong_to_a_task_and_an_environment(
    gateway: RunningGateway, tenant: Tenant
) -> None:
    other = await gateway.tenant("other")
    found = [
        await trigger(tenant),
        await trigger(tenant, task="other"),
        await trigger(other),
        await trigger(tenant, debounce={"key": "other"}),
    ]
    assert len({each["id"] for each in found}) == 4


@pytest.mark.parametrize("mode", ["leading", "trailing"])
async def test_one_run_however_many_ask_at_once(tenant: Tenant, mode: str) -> None:
    found = await asyncio.gather(*(trigger(tenant, n, debounce={"mode": mode}) for n in range(20)))
    assert len({each["id"] for each in found}) == 1
    assert sorted(each["isCached"] for each in found) == [False] + [True] * 19
    assert len((await tenant.client.get("/api/v1/runs")).json()["data"]) == 1


async def test_an_idempotency_key_goes_before(tenant: Tenant) -> None:
    first = await trigger(tenant, idempotencyKey="once")
    await tenant.patch(first["id"], status="EXECUTING")
    again = await trigger(tenant, idempotencyKey="once")
    assert (again["id"], again["isCached"]) == (first["id"], True)
    assert (await trigger(tenant))["id"] != first["id"]


async def test_a_push_spends_a_one_time_token(gateway: RunningGateway, tenant: Tenant) -> None:
    first = await trigger(tenant)
    headers = bearing(tenant.token("trigger:tasks:hello", one_time=True))
    body = {"options": {"debounce": {"key": "k", "delay": "1m"}}}
    pushes: list[httpx.Response] = [
        await gateway.anybody.post(TRIGGER, json=body, headers=headers) for _ in range(2)
    ]
    assert [push.status_code for push in pushes] == [200, 422]
    assert pushes[0].json()["id"] == first["id"]


async def test_items_of_a_batch_go_together_too(tenant: Tenant) -> None:
    debounce = {"key": "k", "delay": "1m", "mode": "trailing"}
    items = [{"task": "t", "payload": n, "options": {"debounce": debounce}} for n in range(3)]
    answer = await tenant.client.post("/api/v1/tasks/batch", json={"items": items})
    assert answer.status_code == 202, answer.text
    runs = answer.json()["runs"]
    assert len({run["id"] for run in runs}) == 1
    assert [run["isCached"] for run in runs] == [False, True, True]
    assert (await tenant.retrieve(runs[0]["id"]))["payload"] == 2


async def test_the_options_are_kept_with_the_run(gateway: RunningGateway, tenant: Tenant) -> None:
    first = await trigger(tenant)
    run = await gateway.services.runs.read_run(tenant.environment_id, first["id"])
    assert run is not None
    assert '"debounce"' in run.options


@pytest.mark.parametrize(
    ("debounce", "status"),
    [
        ({"delay": "soon"}, 422),
        ({"delay": "0s"}, 422),
        ({"maxDelay": "0s"}, 422),
        ({"maxDelay": "never"}, 422),
        ({"delay": "9999999999w"}, 422),
        ({"mode": "both"}, 400),
        ({"key": ""}, 400),
        ({"key": "x" * 513}, 400),
        ({"delay": None}, 400),
    ],
)
async def test_bad_options_are_refused(
    tenant: Tenant, debounce: dict[str, Any], status: int
) -> None:
    options = {"debounce": {"key": "k", "delay": "1m"} | debounce}
    answer = await tenant.client.post(TRIGGER, json={"options": options})
    assert answer.status_code == status, answer.text
    assert (await tenant.client.get("/api/v1/runs")).json()["data"] == []
