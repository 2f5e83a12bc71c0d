"""Requests that are sent again, and keys that are made good for a new run."""

import asyncio
from typing import Any

import httpx
import pytest

from runcast.core.chunk import StreamName
from runcast.postgres.database import Database
from tests.support.gateway import RunningGateway, Tenant, bearing, janitor
from tests.support.postgres import execute

TRIGGER = "/api/v1/tasks/hello/trigger"
KEY = "x-trigger-request-idempotency-key"
JWT = ("x-trigger-jwt", "x-trigger-jwt-claims")


async def runs_of(tenant: Tenant) -> list[Any]:
    answer = await tenant.client.get("/api/v1/runs", params={"page[size]": "100"})
    found: list[Any] = answer.json()["data"]
    return found


async def test_a_request_that_is_sent_again_gets_its_first_answer(tenant: Tenant) -> None:
    first = await tenant.client.post(TRIGGER, json={"payload": 1}, headers={KEY: "r1"})
    again = await tenant.client.post(TRIGGER, json={"payload": 1}, headers={KEY: "r1"})
    assert (again.status_code, again.json()["id"]) == (200, first.json()["id"])
    assert again.json()["isCached"] is False
    assert all(name in again.headers for name in JWT)
    other = await tenant.client.post(TRIGGER, json={}, headers={KEY: "r2"})
    assert other.json()["id"] != first.json()["id"]
    assert len(await runs_of(tenant)) == 2


async def test_requests_belong_to_a_task_and_an_environment(
    gateway: RunningGateway, tenant: Tenant
) -> None:
    elsewhere = await gateway.tenant("other")
    answers = [
        await tenant.client.post(TRIGGER, json={}, headers={KEY: "r"}),
        await tenant.client.post("/api/v1/tasks/other/trigger", json={}, headers={KEY: "r"}),
        await elsewhere.client.post(TRIGGER, json={}, headers={KEY: "r"}),
    ]
    assert len({answer.json()["id"] for answer in answers}) == 3


async def test_one_run_however_often_the_request_is_sent_at_once(tenant: Tenant) -> None:
    answers = await asyncio.gather(
        *(tenant.client.post(TRIGGER, json={}, headers={KEY: "r"}) for _ in range(20))
    )
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert {answer.json()["isCached"] for answer in answers} == {False}
    assert len(await runs_of(tenant)) == 1


async def test_a_retry_is_answered_though_its_one_time_token_is_spent(
    gateway: RunningGateway, tenant: Tenant
) -> None:
    headers = bearing(tenant.token("trigger:tasks:hello", one_time=True))
    answers = await asyncio.gather(
        *(gateway.anybody.post(TRIGGER, json={}, headers=headers | {KEY: "r"}) for _ in range(20))
    )
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["id"] for answer in answers}) == 1
    fresh = await gateway.anybody.post(TRIGGER, json={}, headers=headers | {KEY: "r2"})
    assert (fresh.status_code, fresh.json()["code"]) == (422, "one_time_token_spent")


async def test_twenty_uses_of_a_one_time_token_make_one_run(
    gateway: RunningGateway, tenant: Tenant
) -> None:
    headers = bearing(tenant.token("trigger:tasks:hello", one_time=True))
    uses = await asyncio.gather(
        *(gateway.anybody.post(TRIGGER, json={}, headers=headers) for _ in range(20))
    )
    assert sorted(use.status_code for use in uses) == [200] + [422] * 19
    assert len(await runs_of(tenant)) == 1


async def test_a_refused_request_is_no_answer(tenant: Tenant) -> None:
    bad = await tenant.client.post(
        TRIGGER, json={"options": {"parentRunId": "run_nowhere"}}, headers={KEY: "r"}
    )
    assert bad.status_code == 404
    good = await tenant.client.post(TRIGGER, json={}, headers={KEY: "r"})
    assert good.status_code == 200


async def test_a_retry_does_not_push_a_debounced_run_nor_make_another(tenant: Tenant) -> None:
    async def push(key: str, payload: int) -> httpx.Response:
        debounce = {"key": "k", "delay": "1m", "mode": "trailing"}
        body = {"payload": payload, "options": {"debounce": debounce}}
        return await tenant.client.post(TRIGGER, json=body, headers={KEY: key})

    first = (await push("r1", 1)).json()
    second = (await push("r2", 2)).json()
    assert (second["id"], second["isCached"]) == (first["id"], True)
    assert (await push("r1", 3)).json()["isCached"] is False
    assert (await push("r2", 4)).json()["isCached"] is True
    assert (await tenant.retrieve(first["id"]))["payload"] == 2
    await tenant.patch(first["id"], status="EXECUTING")
    assert (await push("r2", 5)).json()["id"] == first["id"]


async def test_answers_are_kept_for_a_day(
    gateway: RunningGateway, tenant: Tenant, database_url: str
) -> None:
    async def send(key: str) -> str:
        answer = await tenant.client.post(TRIGGER, json={}, headers={KEY: key})
        found: str = answer.json()["id"]
        return found

    first, kept = await send("r"), await send("kept")
    database = Database(database_url)
    await database.open()
    await database.fetch(
        "UPDATE @schema@.answered_requests SET good_until = good_until - interval '25 hours'"
        " WHERE answer_id = $1",
        first,
    )
    second = await send("r")
    assert second != first
    assert await send("r") == second
    await database.fetch(
        "UPDATE @schema@.answered_requests SET good_until = good_until - interval '25 hours'"
        " WHERE answer_id = $1",
        second,
    )
    await janitor(database).clean()
    rows = await database.fetch("SELECT answer_id FROM @schema@.answered_requests")
    assert [row["answer_id"] for row in rows] == [kept]
    await database.close()


@pytest.mark.parametrize("path", ["/api/v1/tasks/batch", "/api/v2/tasks/batch"])
async def test_batches_can_be_asked_for_again(
    gateway: RunningGateway, tenant: Tenant, path: str
) -> None:
    headers = bearing(tenant.token("batchTrigger:tasks", one_time=True)) | {KEY: "r"}
    body = {"items": [{"task": "a"}, {"task": "b"}]}
    answers = await asyncio.gather(
        *(gateway.anybody.post(path, json=body, headers=headers) for _ in range(5))
    )
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert {answer.json()["isCached"] for answer in answers} == {False}
    assert len(await runs_of(tenant)) == 2


class TestChangesThatAreSentAgain:
    """A client whose answer was lost sends the same request, with the same key."""

    async def flush(self, tenant: Tenant, run_id: str, key: str, **body: Any) -> Any:
        answer = await tenant.client.put(
            f"/api/v1/runs/{run_id}/metadata", json=body, headers={KEY: key}
        )
        assert answer.status_code == 200, answer.text
        return answer.json()["metadata"]

    async def test_a_flush_neither_adds_nor_appends_twice(self, tenant: Tenant) -> None:
        run_id = await tenant.trigger()
        operations = [
            {"type": "increment", "key": "done", "value": 1},
            {"type": "append", "key": "log", "value": "a"},
        ]
        for key, done in [("r1", 1), ("r1", 1), ("r2", 2), ("r1", 2)]:
            metadata = await self.flush(tenant, run_id, key, operations=operations)
            assert metadata == {"done": done, "log": ["a"] * done}

    async def test_nor_does_it_in_the_runs_above(self, tenant: Tenant) -> None:
        root = await tenant.trigger()
        parent = await tenant.trigger(parentRunId=root)
        child = await tenant.trigger(parentRunId=parent)
        add = [{"type": "increment", "key": "done", "value": 1}]
        await asyncio.gather(
            *(
                self.flush(tenant, child, "r", parentOperations=add, rootOperations=add)
                for _ in range(8)
            )
        )
        for run_id in (parent, root):
            assert (await tenant.retrieve(run_id))["metadata"] == {"done": 1}
        assert (await tenant.retrieve(child))["metadata"] == {}

    async def test_one_request_of_a_run_is_none_of_another(self, tenant: Tenant) -> None:
        add = [{"type": "increment", "key": "done", "value": 1}]
        for run_id in [await tenant.trigger(), await tenant.trigger()]:
            assert await self.flush(tenant, run_id, "r", operations=add) == {"done": 1}

    async def test_a_refused_flush_may_be_mended_under_its_key(self, tenant: Tenant) -> None:
        run_id = await tenant.trigger()
        path = f"/api/v1/runs/{run_id}/metadata"
        large = [{"type": "append", "key": "log", "value": "x" * 300_000}]
        refused = await tenant.client.put(path, json={"operations": large}, headers={KEY: "r"})
        assert refused.status_code == 413
        small = [{"type": "append", "key": "log", "value": "x"}]
        assert await self.flush(tenant, run_id, "r", operations=small) == {"log": ["x"]}

    async def test_flushes_that_only_set_leave_nothing_to_be_remembered(
        self, tenant: Tenant, database_url: str
    ) -> None:
        run_id = await tenant.trigger()
        await self.flush(tenant, run_id, "r", operations=[{"type": "set", "key": "a", "value": 1}])
        database = Database(database_url)
        await database.open()
        rows = await database.fetch("SELECT * FROM @schema@.answered_requests")
        await database.close()
        assert rows == []

    async def test_a_flush_is_remembered_for_ten_minutes(
        self, tenant: Tenant, database_url: str
    ) -> None:
        run_id = await tenant.trigger()
        add = [{"type": "increment", "key": "done", "value": 1}]
        await self.flush(tenant, run_id, "r", operations=add)
        database = Database(database_url)
        await database.open()
        for minutes, done in [(9, 1), (2, 2)]:
            await database.fetch(
                "UPDATE @schema@.answered_requests"
                f" SET good_until = good_until - interval '{minutes} minutes'"
            )
            await janitor(database).clean()
            assert await self.flush(tenant, run_id, "r", operations=add) == {"done": done}
        await database.close()

    async def test_a_run_is_rescheduled_once(self, tenant: Tenant) -> None:
        run_id = await tenant.trigger(delay="1h")
        path = f"/api/v1/runs/{run_id}/reschedule"
        first = await tenant.client.post(path, json={"delay": "2h"}, headers={KEY: "r"})
        await tenant.patch(run_id, status="PENDING")
        again = await tenant.client.post(path, json={"delay": "2h"}, headers={KEY: "r"})
        assert (first.status_code, again.status_code) == (200, 200)
        assert again.json()["delayedUntil"] == first.json()["delayedUntil"]

    async def test_one_wait_token_is_made(self, tenant: Tenant) -> None:
        async def create(key: str, **body: str) -> tuple[str, bool]:
            answer = await tenant.client.post(
                "/api/v1/waitpoints/tokens", json=body, headers={KEY: key}
            )
            assert answer.status_code == 200
            assert all(name in answer.headers for name in JWT)
            return answer.json()["id"], answer.json()["isCached"]

        first = await create("r1")
        assert await create("r1") == first
        assert (await create("r2"))[0] != first[0]
        of_key = await create("r3", idempotencyKey="k")
        assert await create("r4", idempotencyKey="k") == (of_key[0], True)
        assert await create("r4", idempotencyKey="k") == (of_key[0], True)
        assert await create("r3", idempotencyKey="k") == of_key

    async def test_a_part_is_appended_once(self, gateway: RunningGateway, tenant: Tenant) -> None:
        run_id = await tenant.trigger()
        path = f"/realtime/v1/streams/{run_id}"
        for key in ("r1", "r1", "r2"):
            headers = {KEY: key}
            await tenant.client.post(f"{path}/self/log/append", content=b"a", headers=headers)
            await tenant.client.post(f"{path}/input/in", json={"data": 1}, headers=headers)
        for name in (StreamName(run_id, "log"), StreamName.of_input(run_id, "in")):
            page = await gateway.services.chunks.read(name, 0, max_chunks=9, max_bytes=999)
            assert len(page.chunks) == 2


class TestReset:
    async def test_a_key_that_was_reset_makes_a_new_run(self, tenant: Tenant) -> None:
        first = await tenant.trigger(idempotencyKey="k" * 64)
        assert await tenant.trigger(idempotencyKey="k" * 64) == first
        url = f"/api/v1/idempotencyKeys/{'k' * 64}/reset"
        answer = await tenant.client.post(url, json={"taskIdentifier": "hello"})
        assert (answer.status_code, answer.json()) == (200, {"id": "k" * 64})
        assert await tenant.trigger(idempotencyKey="k" * 64) != first
        assert "idempotencyKey" not in await tenant.retrieve(first)

    async def test_what_stands_for_no_run_is_not_found(
        self, gateway: RunningGateway, tenant: Tenant
    ) -> None:
        await tenant.trigger(idempotencyKey="k")
        other = await gateway.tenant("other")
        for client, key, task in [
            (tenant.client, "k", "other"),
            (tenant.client, "unknown", "hello"),
            (other.client, "k", "hello"),
        ]:
            answer = await client.post(
                f"/api/v1/idempotencyKeys/{key}/reset", json={"taskIdentifier": task}
            )
            assert (answer.status_code, answer.headers["x-should-retry"]) == (404, "false")

    async def test_it_is_for_who_may_write_to_all_runs(
        self, gateway: RunningGateway, tenant: Tenant
    ) -> None:
        run_id = await tenant.trigger(idempotencyKey="k")
        url = "/api/v1/idempotencyKeys/k/reset"
        for scope, status in [
            (f"write:runs:{run_id}", 403),
            ("read:runs", 403),
            ("write:runs", 200),
        ]:
            answer = await gateway.anybody.post(
                url, json={"taskIdentifier": "hello"}, headers=tenant.bearing(scope)
            )
            assert answer.status_code == status, scope

    async def test_the_task_must_be_named(self, tenant: Tenant) -> None:
        answer = await tenant.client.post("/api/v1/idempotencyKeys/k/reset", json={})
        assert answer.status_code == 400


async def test_a_key_is_free_again_when_it_expired_or_its_run_failed(
    tenant: Tenant, database_url: str
) -> None:
    first = await tenant.trigger(idempotencyKey="k", idempotencyKeyTTL="5m")
    await asyncio.to_thread(
        execute,
        database_url,
        "UPDATE runcast.runs SET idempotency_key_expires_at = now() - interval '1 s'",
    )
    second = await tenant.trigger(idempotencyKey="k")
    assert second != first
    await tenant.patch(second, status="CANCELED")
    assert await tenant.trigger(idempotencyKey="k") == second
    other = await tenant.trigger(idempotencyKey="j")
    await tenant.patch(other, status="FAILED")
    assert await tenant.trigger(idempotencyKey="j") != other
