"""Triggering tasks over HTTP."""

import asyncio
import hashlib
import json
import time
from typing import Any

import orjson
import pytest

from runcast.core.limits import Limits
from runcast.core.run import Run
from tests.support.gateway import RunningGateway, Tenant, bearing, running_gateway

TRIGGER = "/api/v1/tasks/hello/trigger"


async def stored(gateway: RunningGateway, tenant: Tenant, run_id: str) -> Run:
    run = await gateway.services.runs.read_run(tenant.environment_id, run_id)
    assert run is not None
    return run


async def test_a_trigger_makes_a_queued_run_with_its_payload(tenant: Tenant) -> None:
    run = await tenant.retrieve(await tenant.trigger(payload={"greeting": "hi", "n": [1, 2]}))
    assert run["status"] == "QUEUED"
    assert run["taskIdentifier"] == "hello"
    assert run["payload"] == {"greeting": "hi", "n": [1, 2]}


async def test_the_answer_brings_a_token_that_reads_the_run_and_only_that(
    gateway: RunningGateway, tenant: Tenant
) -> None:
    answer = await tenant.client.post(TRIGGER, json={"payload": 1})
    handle = answer.json()
    assert handle["isCached"] is False
    token = answer.headers["x-trigger-jwt"]
    assert handle["publicAccessToken"] == token
    claims = orjson.loads(answer.headers["x-trigger-jwt-claims"])
    assert claims == {
        "sub": tenant.environment_id,
        "pub": True,
        "scopes": [f"read:runs:{handle['id']}", f"write:inputStreams:{handle['id']}"],
    }
    other = await tenant.trigger()
    seen = await gateway.anybody.get(f"/api/v3/runs/{handle['id']}", headers=bearing(token))
    assert seen.status_code == 200
    refused = await gateway.anybody.get(f"/api/v3/runs/{other}", headers=bearing(token))
    assert refused.status_code == 403


async def test_columns_that_a_token_skips_stay_skipped_in_the_token_it_gets(
    gateway: RunningGateway, tenant: Tenant
) -> None:
    caller = tenant.bearing("trigger:tasks:hello", skip_columns=["payload", "output"])
    answer = await gateway.anybody.post(TRIGGER, json={"payload": "secret"}, headers=caller)
    claims = orjson.loads(answer.headers["x-trigger-jwt-claims"])
    assert claims["realtime"] == {"skipColumns": ["payload", "output"]}
    handed = bearing(answer.headers["x-trigger-jwt"])
    run = await gateway.anybody.get(f"/api/v3/runs/{answer.json()['id']}", headers=handed)
    assert run.status_code == 200
    assert "payload" not in run.json()


async def test_a_slash_in_a_task_is_part_of_its_name(tenant: Tenant) -> None:
    answer = await tenant.client.post("/api/v1/tasks/my%2Ftask%20%C3%A9/trigger", json={})
    assert answer.status_code == 200
    assert (await tenant.retrieve(answer.json()["id"]))["taskIdentifier"] == "my/task é"
    split = await tenant.client.post("/api/v1/tasks/my/task/trigger", json={})
    assert split.status_code == 404


async def test_every_option_reaches_the_run(gateway: RunningGateway, tenant: Tenant) -> None:
    parent = await tenant.trigger("parent")
    run_id = await tenant.trigger(
        queue={"name": "mine", "concurrencyLimit": 3},
        concurrencyKey=7,
        concurrency=["per-user", "L" * 122],
        gates=[{"queue": "gpu"}, {"queue": "tenant", "concurrencyKey": "t1"}],
        ttl=5400,
        tags=["a", "b", " ", "a"],
        metadata={"step": 1},
        machine="large-1x",
        maxAttempts=3,
        maxDuration=60.5,
        priority=2.5,
        region="eu",
        test=True,
        lockToVersion="20260101.1",
        parentRunId=parent,
        resumeParentOnCompletion=True,
        idempotencyKey="k" * 64,
        idempotencyKeyTTL="60s",
        idempotencyKeyOptions={"key": "mine", "scope": "global"},
        debounce={"key": "d", "delay": "5s"},
        bulkActionId="bulk_1",
        somethingNewer={"x": 1},
    )
    run = await stored(gateway, tenant, run_id)
    assert (run.queue, run.concurrency_key, run.ttl) == ("mine", "7", "1h30m")
    assert (run.tags, orjson.loads(run.metadata)) == (("a", "b"), {"step": 1})
    assert (run.machine, run.max_attempts, run.max_duration_seconds) == ("large-1x", 3, 60.5)
    assert (run.priority_ms, run.region, run.is_test) == (2500, "eu", True)
    assert (run.worker_version, run.parent_id, run.root_id) == ("20260101.1", parent, parent)
    assert (run.depth, run.trigger_function) == (1, "triggerAndWait")
    assert run.idempotency_key == "k" * 64
    assert run.idempotency_key_expires_at is not None
    assert 55 < run.idempotency_key_expires_at.timestamp() - run.created_at.timestamp() < 65
    assert orjson.loads(run.idempotency_key_options or "") == {"key": "mine", "scope": "global"}
    assert orjson.loads(run.options) == {
        "queue": {"name": "mine", "concurrencyLimit": 3},
        "concurrency": ["per-user", "L" * 122],
        "gates": [{"queue": "gpu"}, {"queue": "tenant", "concurrencyKey": "t1"}],
        "resumeParentOnCompletion": True,
        "debounce": {"key": "d", "delay": "5s"},
        "bulkActionId": "bulk_1",
        "somethingNewer": {"x": 1},
    }


@pytest.mark.parametrize(
    ("body", "payload", "payload_type"),
    [
        ({}, None, "application/json"),
        ({"payload": None}, "null", "application/json"),
        ({"payload": "text"}, '"text"', "application/json"),
        ({"payload": "plain", "options": {"payloadType": "text/plain"}}, "plain", "text/plain"),
        (
            {"payload": '{"json":{"a":1}}', "options": {"payloadType": "application/super+json"}},
            '{"json":{"a":1}}',
            "application/super+json",
        ),
        ({"payload": "cut \ud83d"}, '"cut \N{REPLACEMENT CHARACTER}"', "application/json"),
    ],
)
async def test_payloads_are_kept_as_packets(
    gateway: RunningGateway,
    tenant: Tenant,
    body: dict[str, Any],
    payload: str | None,
    payload_type: str,
) -> None:
    # Not by orjson, which cannot write half of a surrogate pair; JavaScript can.
    answer = await tenant.client.post(
        TRIGGER, content=json.dumps(body), headers={"content-type": "application/json"}
    )
    assert answer.status_code == 200, answer.text
    run = await stored(gateway, tenant, answer.json()["id"])
    assert (run.payload, run.payload_type) == (payload, payload_type)


async def test_a_delay_in_the_future_delays_and_one_in_the_past_does_not(tenant: Tenant) -> None:
    soon = await tenant.retrieve(await tenant.trigger(delay="1h30m"))
    assert soon["status"] == "DELAYED"
    assert "delayedUntil" in soon
    dated = await tenant.retrieve(await tenant.trigger(delay="2999-01-01T00:00:00Z"))
    assert (dated["status"], dated["delayedUntil"]) == ("DELAYED", "2999-01-01T00:00:00.000Z")
    past = await tenant.retrieve(await tenant.trigger(delay="2001-01-01T00:00:00Z"))
    assert past["status"] == "QUEUED"
    assert "delayedUntil" not in past


async def test_a_default_time_to_live_is_for_runs_that_do_not_say(
    database_url: str,
) -> None:
    limits = Limits(default_ttl_seconds=600)
    async with running_gateway(database_url, limits=limits) as gateway:
        tenant = await gateway.tenant("dev")
        wishes: list[tuple[dict[str, Any], str | None]]
        wishes = [({}, "10m"), ({"ttl": "1h"}, "1h"), ({"ttl": 0}, None)]
        for options, ttl in wishes:
            run_id = await tenant.trigger(**options)
            assert (await stored(gateway, tenant, run_id)).ttl == ttl
        batch = await tenant.client.post("/api/v2/tasks/batch", json={"items": [{"task": "t"}]})
        (run_id,) = (await tenant.client.get(f"/api/v2/batches/{batch.json()['id']}")).json()[
            "runs"
        ]
        assert (await stored(gateway, tenant, run_id)).ttl == "10m"


async def test_an_idempotency_key_makes_one_run_however_many_ask_at_once(tenant: Tenant) -> None:
    body = {"payload": 1, "options": {"idempotencyKey": "once"}}
    answers = await asyncio.gather(*(tenant.client.post(TRIGGER, json=body) for _ in range(8)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert sorted(answer.json()["isCached"] for answer in answers) == [False] + [True] * 7
    assert all("x-trigger-jwt" in answer.headers for answer in answers)


async def test_the_idempotency_header_wins_over_the_body(
    gateway: RunningGateway, tenant: Tenant
) -> None:
    answer = await tenant.client.post(
        TRIGGER,
        json={"options": {"idempotencyKey": "body", "idempotencyKeyTTL": "30d"}},
        headers={"idempotency-key": "header", "idempotency-key-ttl": "10s"},
    )
    run = await stored(gateway, tenant, answer.json()["id"])
    assert run.idempotency_key == "header"
    assert run.idempotency_key_expires_at is not None
    assert run.idempotency_key_expires_at.timestamp() < time.time() + 15  # noqa: TID251


@pytest.mark.parametrize(
    ("options", "status", "code"),
    [
        ({"tags": [f"t{n}" for n in range(11)]}, 422, "unprocessable"),
        ({"tags": ["x" * 129]}, 400, "invalid_body"),
        ({"delay": "soon"}, 422, "unprocessable"),
        ({"delay": "99999999999w"}, 422, "unprocessable"),
        ({"ttl": "long"}, 400, "invalid_body"),
        ({"machine": "huge"}, 400, "invalid_body"),
        ({"metadata": [1]}, 400, "invalid_body"),
        ({"metadata": "no json"}, 400, "invalid_body"),
        ({"metadata": {"a": "x" * 300_000}}, 413, "payload_too_large"),
        ({"metadata": {"a": "\0"}}, 400, "invalid_body"),
        ({"newer": "\0"}, 400, "invalid_body"),
        ({"newer": "x" * 70_000}, 413, "payload_too_large"),
        ({"parentRunId": "run_nowhere"}, 404, "not_found"),
        ({"idempotencyKey": "k" * 2049}, 400, "invalid_body"),
        ({"queue": {"name": "q\0"}}, 400, "invalid_body"),
        ({"concurrency": ["a", "b", "c"]}, 400, "invalid_body"),
        ({"concurrency": ["no spaces"]}, 400, "invalid_body"),
        ({"concurrency": ["x" * 123]}, 400, "invalid_body"),
        ({"concurrency": "one"}, 400, "invalid_body"),
        ({"gates": [{"queue": "q"}] * 4}, 400, "invalid_body"),
        ({"gates": [{"concurrencyKey": "k"}]}, 400, "invalid_body"),
        ({"gates": [{"queue": "q", "concurrencyKey": ""}]}, 400, "invalid_body"),
        ({"maxAttempts": 2**31}, 400, "invalid_body"),
        ({"priority": 1e300}, 400, "invalid_body"),
        ({"payloadType": "text/plain"}, 400, "invalid_body"),
    ],
)
async def test_bad_options_are_refused_and_make_no_run(
    tenant: Tenant, options: dict[str, Any], status: int, code: str
) -> None:
    answer = await tenant.client.post(TRIGGER, json={"payload": {}, "options": options})
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert (await tenant.client.get("/api/v1/runs")).json()["data"] == []


@pytest.mark.parametrize("payload", [{}, {"payload": None}, {"payload": ""}])
async def test_a_payload_in_the_object_store_has_a_name(
    tenant: Tenant, payload: dict[str, Any]
) -> None:
    body = payload | {"options": {"payloadType": "application/store"}}
    answer = await tenant.client.post(TRIGGER, json=body)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_body")


async def test_a_public_token_triggers_the_task_it_is_for_and_no_other(
    gateway: RunningGateway, tenant: Tenant
) -> None:
    for scope, task, status in [
        ("trigger:tasks:hello", "hello", 200),
        ("write:tasks:hello", "hello", 200),
        ("trigger:tasks", "anything", 200),
        ("trigger:tasks:hello", "other", 403),
        ("read:tasks:hello", "hello", 403),
    ]:
        answer = await gateway.anybody.post(
            f"/api/v1/tasks/{task}/trigger", json={}, headers=tenant.bearing(scope)
        )
        assert answer.status_code == status, (scope, task)


async def test_only_who_may_write_to_a_run_can_make_it_a_parent(
    gateway: RunningGateway, tenant: Tenant
) -> None:
    parent = await tenant.trigger("boss")
    body = {"options": {"parentRunId": parent}}
    for scopes, status in [
        (["trigger:tasks:hello"], 403),
        (["trigger:tasks:hello", "write:runs:run_other"], 403),
        (["trigger:tasks:hello", f"write:runs:{parent}"], 200),
        (["trigger:tasks:hello", "write:tasks:boss"], 200),
        (["trigger:tasks:hello", "write:runs"], 200),
    ]:
        answer = await gateway.anybody.post(TRIGGER, json=body, headers=tenant.bearing(*scopes))
        assert answer.status_code == status, scopes


async def test_a_one_time_token_makes_one_run_and_a_refusal_does_not_spend_it(
    gateway: RunningGateway, tenant: Tenant
) -> None:
    token = tenant.token("trigger:tasks:hello", one_time=True)
    headers = bearing(token)
    wrong = await gateway.anybody.post("/api/v1/tasks/no/trigger", json={}, headers=headers)
    assert wrong.status_code == 403
    bad = await gateway.anybody.post(TRIGGER, json={"options": {"delay": "soon"}}, headers=headers)
    assert bad.status_code == 422
    uses = await asyncio.gather(
        *(gateway.anybody.post(TRIGGER, json={}, headers=headers) for _ in range(5))
    )
    assert sorted(use.status_code for use in uses) == [200, 422, 422, 422, 422]
    spent = next(use for use in uses if use.status_code == 422)
    assert spent.json()["code"] == "one_time_token_spent"
    assert hashlib.sha256(token.encode()).hexdigest() not in spent.text


async def test_environments_never_meet(gateway: RunningGateway, tenant: Tenant) -> None:
    other = await gateway.tenant("other")
    run_id = await tenant.trigger(idempotencyKey="same")
    assert (await other.client.get(f"/api/v3/runs/{run_id}")).status_code == 404
    assert (await other.client.get("/api/v1/runs")).json()["data"] == []
    assert (await other.patch(run_id, status="EXECUTING")).status_code == 404
    assert (await other.client.post(f"/api/v2/runs/{run_id}/cancel")).status_code == 404
    child = await other.client.post(TRIGGER, json={"options": {"parentRunId": run_id}})
    assert child.status_code == 404
    assert await other.trigger(idempotencyKey="same") != run_id


async def test_a_body_over_the_limit_is_413_and_the_connection_lives_on(
    database_url: str,
) -> None:
    async with running_gateway(database_url, limits=Limits(max_body_bytes=2048)) as gateway:
        tenant = await gateway.tenant("dev")
        large = await tenant.client.post(TRIGGER, json={"payload": "x" * 5000})
        assert (large.status_code, large.json()["code"]) == (413, "payload_too_large")

        async def chunks() -> Any:
            for _ in range(10):
                yield b'"' + b"x" * 1000

        chunked = await tenant.client.post(TRIGGER, content=chunks())
        assert chunked.status_code == 413
        assert await tenant.trigger()
