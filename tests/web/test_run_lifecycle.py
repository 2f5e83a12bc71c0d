"""Runs at another time, how they ended, cancelled families, and what is never to be retried."""

import asyncio
from datetime import datetime
from typing import Any

import asyncpg
import pytest

from runcast.errors import GatewayError
from tests.support.eventually import eventually
from tests.support.gateway import RunningGateway, Tenant, bearing


class TestReschedule:
    async def test_a_delayed_run_gets_another_time(self, tenant: Tenant) -> None:
        run_id = await tenant.trigger(delay="1h")
        url = f"/api/v1/runs/{run_id}/reschedule"
        answer = await tenant.client.post(url, json={"delay": "2999-01-01T00:00:00Z"})
        assert answer.status_code == 200, answer.text
        assert answer.json() == await tenant.retrieve(run_id)
        assert answer.json()["delayedUntil"] == "2999-01-01T00:00:00.000Z"
        sooner = (await tenant.client.post(url, json={"delay": "10m"})).json()
        due = datetime.fromisoformat(sooner["delayedUntil"])
        assert due < datetime.fromisoformat("2999-01-01T00:00:00Z")

    @pytest.mark.parametrize("delay", ["soon", "", "2001-01-01T00:00:00Z", "0s", None, 5])
    async def test_a_bad_delay_is_400(self, tenant: Tenant, delay: Any) -> None:
        run_id = await tenant.trigger(delay="1h")
        before = await tenant.retrieve(run_id)
        answer = await tenant.client.post(
            f"/api/v1/runs/{run_id}/reschedule", json={"delay": delay}
        )
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_body")
        assert await tenant.retrieve(run_id) == before

    @pytest.mark.parametrize("status", ["PENDING", "EXECUTING", "COMPLETED", "CANCELED"])
    async def test_only_a_delayed_run_can_be_rescheduled(self, tenant: Tenant, status: str) -> None:
        run_id = await tenant.trigger(delay="1h")
        await tenant.patch(run_id, status=status)
        answer = await tenant.client.post(f"/api/v1/runs/{run_id}/reschedule", json={"delay": "1h"})
        assert (answer.status_code, answer.json()["code"]) == (400, "not_delayed")

    async def test_unknown_runs(self, gateway: RunningGateway, tenant: Tenant) -> None:
        url = "/api/v1/runs/run_nowhere/reschedule"
        assert (await tenant.client.post(url, json={"delay": "1h"})).status_code == 404
        refused = await gateway.anybody.post(
            url, json={"delay": "1h"}, headers=tenant.bearing("admin")
        )
        assert refused.status_code == 401


class TestResult:
    async def test_a_result_is_there_once_the_run_is_finished(self, tenant: Tenant) -> None:
        run_id = await tenant.trigger()
        url = f"/api/v1/runs/{run_id}/result"
        early = await tenant.client.get(url)
        assert (early.status_code, early.headers["x-should-retry"]) == (404, "false")
        await tenant.patch(
            run_id,
            status="COMPLETED",
            output='{"json":{"n":1}}',
            outputType="application/super+json",
        )
        common = {"id": run_id, "taskIdentifier": "hello"}
        assert (await tenant.client.get(url)).json() == common | {
            "ok": True,
            "output": '{"json":{"n":1}}',
            "outputType": "application/super+json",
        }

    async def test_no_output_is_left_out(self, tenant: Tenant) -> None:
        run_id = await tenant.trigger()
        await tenant.patch(run_id, status="COMPLETED")
        answer = (await tenant.client.get(f"/api/v1/runs/{run_id}/result")).json()
        assert answer["ok"]
        assert "output" not in answer

    async def test_a_failure_has_an_error_that_clients_accept(
        self, tenant: Tenant, database_url: str
    ) -> None:
        sql = await asyncpg.connect(database_url)
        for stored, kind in [
            (None, "INTERNAL_ERROR"),
            ('{"type": "BUILT_IN_ERROR", "message": "m"}', "BUILT_IN_ERROR"),
            ('{"oops": 1}', "CUSTOM_ERROR"),
        ]:
            run_id = await tenant.trigger()
            await sql.execute(
                "UPDATE runcast.runs SET status = 'CRASHED', error = $2 WHERE id = $1",
                run_id,
                stored,
            )
            answer = (await tenant.client.get(f"/api/v1/runs/{run_id}/result")).json()
            assert (answer["ok"], answer["error"]["type"]) == (False, kind)
        await sql.close()

    async def test_it_is_for_secret_keys_and_runs_of_the_environment(
        self, gateway: RunningGateway, tenant: Tenant
    ) -> None:
        run_id = await tenant.trigger()
        await tenant.patch(run_id, status="COMPLETED")
        other = await gateway.tenant("other")
        url = f"/api/v1/runs/{run_id}/result"
        assert (await other.client.get(url)).status_code == 404
        headers = tenant.bearing("admin")
        assert (await gateway.anybody.get(url, headers=headers)).status_code == 401


class TestCancelWithChildren:
    async def test_a_child_that_is_made_during_the_cancel_is_cancelled_too(
        self, tenant: Tenant
    ) -> None:
        top = await tenant.trigger("top")

        async def make_family() -> list[str]:
            child = await tenant.trigger("child", parentRunId=top)
            return [child, await tenant.trigger("grandchild", parentRunId=child)]

        made, _ = await asyncio.gather(
            asyncio.gather(*(make_family() for _ in range(10))),
            tenant.client.post(f"/api/v2/runs/{top}/cancel"),
        )
        for run_id in {each for family in made for each in family}:
            run = await tenant.retrieve(run_id)
            assert (run["status"], "finishedAt" in run) == ("CANCELED", True)

    async def test_a_child_in_an_open_transaction_does_not_escape(
        self, tenant: Tenant, database_url: str
    ) -> None:
        top = await tenant.trigger("top")
        sql = await asyncpg.connect(database_url, server_settings={"search_path": "runcast"})
        transaction = sql.transaction()
        await transaction.start()
        # As every trigger does with its parent.
        await sql.execute("SELECT FROM runs WHERE id = $1 FOR SHARE", top)
        child = await sql.fetchval(
            "INSERT INTO runs (environment_id, task, parent_id) VALUES ($1, 't', $2) RETURNING id",
            tenant.environment_id,
            top,
        )
        cancel = asyncio.create_task(tenant.client.post(f"/api/v2/runs/{top}/cancel"))
        waiting = "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)"
        watcher = await asyncpg.connect(database_url)

        async def cancel_waits() -> bool:
            return bool(await watcher.fetchval(waiting))

        await eventually(cancel_waits)
        await transaction.commit()
        assert (await cancel).status_code == 200
        assert (await tenant.retrieve(child))["status"] == "CANCELED"
        await watcher.close()
        await sql.close()

    async def test_a_child_of_a_cancelled_run_is_cancelled_from_the_start(
        self, tenant: Tenant
    ) -> None:
        top = await tenant.trigger()
        await tenant.client.post(f"/api/v2/runs/{top}/cancel")
        for options in ({}, {"delay": "1h"}):
            child = await tenant.retrieve(await tenant.trigger(parentRunId=top, **options))
            assert child["status"] == "CANCELED"
            assert child["finishedAt"]
            assert child["error"]["message"]


class TestRefusals:
    def test_no_error_is_a_409(self) -> None:
        def below(kind: type[GatewayError]) -> set[type[GatewayError]]:
            return {kind}.union(*(below(each) for each in kind.__subclasses__()))

        assert len(below(GatewayError)) > 20
        assert not [kind.__name__ for kind in below(GatewayError) if kind.http_status == 409]

    @pytest.mark.parametrize(
        "path",
        [
            "/api/v1/runs/{run}/trace",
            "/api/v1/schedules",
            "/api/v9/anything",
        ],
    )
    async def test_unknown_routes_are_404_as_json_and_not_to_be_retried(
        self, tenant: Tenant, path: str
    ) -> None:
        run_id = await tenant.trigger()
        for method in ("GET", "POST", "PUT"):
            answer = await tenant.client.request(method, path.format(run=run_id))
            assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
            assert answer.headers["x-should-retry"] == "false"
            assert answer.headers["access-control-allow-origin"] == "*"

    async def test_no_refusal_asks_for_a_retry(
        self, gateway: RunningGateway, tenant: Tenant
    ) -> None:
        run_id = await tenant.trigger()
        spent = bearing(tenant.token("trigger:tasks:hello", one_time=True))
        trigger = "/api/v1/tasks/hello/trigger"
        await gateway.anybody.post(trigger, json={}, headers=spent)
        refusals = [
            await gateway.anybody.post(trigger, json={}, headers=spent),
            await gateway.anybody.post(trigger, json={}),
            await gateway.anybody.post(trigger, json={}, headers=tenant.bearing("read:runs")),
            await tenant.client.post(f"/api/v1/runs/{run_id}/reschedule", json={"delay": "1h"}),
            await tenant.client.get("/api/v3/runs/run_nowhere"),
            await tenant.patch(run_id, status="DONE"),
        ]
        assert [each.status_code for each in refusals] == [422, 401, 403, 400, 404, 400]
        assert {each.headers.get("x-should-retry", "false") for each in refusals} == {"false"}
