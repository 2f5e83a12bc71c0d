"""Running once more what a run was."""

import asyncio
from typing import Any

import pytest

from tests.support.gateway import RunningGateway, Tenant

REQUEST_KEY = "x-trigger-request-idempotency-key"


async def replay(tenant: Tenant, run_id: str, body: Any = None, **headers: str) -> str:
    answer = await tenant.client.post(f"/api/v1/runs/{run_id}/replay", json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    new_id: str = answer.json()["id"]
    return new_id


class TestReplay:
    async def test_a_replay_begins_as_the_run_did(
        self, gateway: RunningGateway, tenant: Tenant
    ) -> None:
        given: dict[str, Any] = {
            "tags": ["a"],
            "metadata": {"seed": 1},
            "queue": {"name": "q", "concurrencyLimit": 3},
            "concurrencyKey": "c",
            "machine": "micro",
            "region": "eu",
            "maxAttempts": 2,
            "maxDuration": 30,
            "priority": 5,
            "test": True,
            "gates": [{"queue": "g"}],
            "idempotencyKey": "once",
            "ttl": "1h",
            "delay": "1h",
            "lockToVersion": "1.0",
        }
        old_id = await tenant.trigger(payload={"n": 1}, **given)
        await tenant.patch(old_id, metadata={"late": True}, status="FAILED")
        answer = await tenant.client.post(
            f"/api/v1/runs/{old_id}/replay", headers={"content-type": "application/json"}
        )
        assert answer.status_code == 200, answer.text
        assert "x-trigger-jwt" in answer.headers
        new_id = answer.json()["id"]
        assert new_id != old_id
        runs = gateway.services.runs
        old = await runs.read_run(tenant.environment_id, old_id)
        new = await runs.read_run(tenant.environment_id, new_id)
        assert old is not None
        assert new is not None
        for name in [
            "task",
            "payload",
            "payload_type",
            "tags",
            "queue",
            "concurrency_key",
            "machine",
            "region",
            "max_attempts",
            "max_duration_seconds",
            "priority_ms",
            "is_test",
            "options",
        ]:
            assert getattr(new, name) == getattr(old, name), name
        assert new.metadata == '{"seed": 1}'
        assert (new.status, new.attempt_count, new.output, new.error) == ("PENDING", 0, None, None)
        assert (new.idempotency_key, new.ttl, new.worker_version) == (None, None, None)
        assert new.delay_until is None
        assert (new.parent_id, new.depth, new.trigger_function) == (None, 0, "trigger")

    async def test_what_the_body_names_is_different(
        self, gateway: RunningGateway, tenant: Tenant
    ) -> None:
        old_id = await tenant.trigger(payload={"n": 1}, tags=["a"], metadata={"m": 1})
        body = {
            "payload": '{"json":{"n":2}}',
            "payloadType": "application/super+json",
            "metadata": {"m": 2},
            "tags": ["b", "c"],
            "queue": "q",
            "machine": "micro",
            "version": "2.0",
            "region": "us",
            "delay": "1h",
            "ttl": 60,
            "maxAttempts": 4,
            "idempotencyKey": "again",
        }
        new_id = await replay(tenant, old_id, body)
        run = await tenant.retrieve(new_id)
        assert (run["payload"], run["metadata"], run["tags"]) == ({"n": 2}, {"m": 2}, ["b", "c"])
        assert (run["status"], run["ttl"], run["version"]) == ("DELAYED", "1m", "2.0")
        assert run["region"] == "us"
        assert run["idempotencyKey"] == "again"
        stored = await gateway.services.runs.read_run(tenant.environment_id, new_id)
        assert stored is not None
        assert (stored.queue, stored.machine, stored.max_attempts) == ("q", "micro", 4)
        assert await replay(tenant, old_id, body) == new_id

    async def test_a_payload_that_is_no_value_of_json_stays_as_it_is(
        self, gateway: RunningGateway, tenant: Tenant
    ) -> None:
        for payload, kind in [("plain", "text/plain"), ("packets/x", "application/store")]:
            old_id = await tenant.trigger(payload=payload, payloadType=kind)
            new_id = await replay(tenant, old_id, {})
            run = await gateway.services.runs.read_run(tenant.environment_id, new_id)
            assert run is not None
            assert (run.payload, run.payload_type) == (payload, kind)

    async def test_a_request_that_is_sent_again_makes_one_run(self, tenant: Tenant) -> None:
        old_id = await tenant.trigger()
        made = await asyncio.gather(
            *(replay(tenant, old_id, **{REQUEST_KEY: "r"}) for _ in range(5))
        )
        assert len(set(made)) == 1

    @pytest.mark.parametrize(
        ("body", "status"),
        [
            ({"unknown": 1}, 400),
            ({"payloadType": "text/plain"}, 400),
            ({"payload": {"n": 1}, "payloadType": "application/super+json"}, 400),
            ({"machine": "huge"}, 400),
            ({"payloadType": "application/super+json"}, 400),
            ({"maxAttempts": 0}, 400),
            ({"metadata": "no json"}, 400),
            ({"ttl": "long"}, 400),
            ([], 400),
            ({"tags": [str(n) for n in range(11)]}, 422),
        ],
    )
    async def test_a_bad_body_makes_no_run(self, tenant: Tenant, body: Any, status: int) -> None:
        run_id = await tenant.trigger()
        answer = await tenant.client.post(f"/api/v1/runs/{run_id}/replay", json=body)
        assert answer.status_code == status, answer.text
        assert len((await tenant.client.get("/api/v1/runs")).json()["data"]) == 1

    async def test_it_is_for_secret_keys_and_runs_of_the_environment(
        self, gateway: RunningGateway, tenant: Tenant
    ) -> None:
        run_id = await tenant.trigger()
        other = await gateway.tenant("other")
        url = f"/api/v1/runs/{run_id}/replay"
        assert (await other.client.post(url)).status_code == 404
        answer = await gateway.anybody.post(url, headers=tenant.bearing("admin"))
        assert answer.status_code == 401
