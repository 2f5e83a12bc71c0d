"""Waiting within a run: for a token, a time or input, and what ends it."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from runcast.core.chunk import StreamName
from tests.support.gateway import RunningGateway, Tenant

KEY = "x-trigger-request-idempotency-key"


async def executing(tenant: Tenant) -> str:
    run_id = await tenant.trigger()
    assert (await tenant.patch(run_id, status="EXECUTING")).status_code == 200
    return run_id


async def status(tenant: Tenant, run_id: str) -> str:
    found: str = (await tenant.retrieve(run_id))["status"]
    return found


async def new_token(tenant: Tenant, **wish: Any) -> str:
    answer = await tenant.client.post("/api/v1/waitpoints/tokens", json=wish)
    found: str = answer.json()["id"]
    return found


async def wait_for(tenant: Tenant, run_id: str, waitpoint_id: str) -> httpx.Response:
    # As official clients send it: a content type, and no body.
    return await tenant.client.post(
        f"/engine/v1/runs/{run_id}/waitpoints/tokens/{waitpoint_id}/wait",
        headers={"content-type": "application/json"},
    )


async def complete(tenant: Tenant, waitpoint_id: str) -> None:
    url = f"/api/v1/waitpoints/tokens/{waitpoint_id}/complete"
    assert (await tenant.client.post(url, json={"data": 1})).status_code == 200


class TestTokens:
    async def test_a_run_waits_until_the_token_is_completed(self, tenant: Tenant) -> None:
        run_id, token = await executing(tenant), await new_token(tenant)
        answer = await wait_for(tenant, run_id, token)
        assert (answer.status_code, answer.json()) == (200, {"success": True})
        assert await status(tenant, run_id) == "WAITING"
        await complete(tenant, token)
        assert await status(tenant, run_id) == "EXECUTING"

    async def test_every_run_that_waits_for_it_goes_on(self, tenant: Tenant) -> None:
        runs, token = [await executing(tenant) for _ in range(3)], await new_token(tenant)
        other, bystander = await new_token(tenant), await executing(tenant)
        for run_id, waitpoint in [*((each, token) for each in runs), (bystander, other)]:
            await wait_for(tenant, run_id, waitpoint)
        await complete(tenant, token)
        assert [await status(tenant, each) for each in runs] == ["EXECUTING"] * 3
        assert await status(tenant, bystander) == "WAITING"

    async def test_what_is_over_is_not_waited_for(self, tenant: Tenant) -> None:
        run_id, token = await executing(tenant), await new_token(tenant)
        await complete(tenant, token)
        late = await new_token(tenant, timeout="2001-01-01T00:00:00Z")
        for each in (token, late):
            assert (await wait_for(tenant, run_id, each)).json() == {"success": True}
            assert await status(tenant, run_id) == "EXECUTING"

    async def test_no_completion_is_missed_by_a_run_that_begins_to_wait(
        self, tenant: Tenant
    ) -> None:
        for _ in range(10):
            run_id, token = await executing(tenant), await new_token(tenant)
            await asyncio.gather(wait_for(tenant, run_id, token), complete(tenant, token))
            assert await status(tenant, run_id) == "EXECUTING"

    async def test_what_its_worker_says_of_a_run_counts(self, tenant: Tenant) -> None:
        run_id, token = await executing(tenant), await new_token(tenant)
        await wait_for(tenant, run_id, token)
        await tenant.patch(run_id, status="EXECUTING")
        await tenant.patch(run_id, status="WAITING_TO_RESUME")
        await complete(tenant, token)
        assert await status(tenant, run_id) == "WAITING"
        await tenant.patch(run_id, status="COMPLETED")
        answer = await wait_for(tenant, run_id, token)
        assert (answer.status_code, answer.json()["code"]) == (422, "illegal_transition")

    async def test_a_canceled_run_stays_canceled(self, tenant: Tenant) -> None:
        run_id, token = await executing(tenant), await new_token(tenant)
        await wait_for(tenant, run_id, token)
        await tenant.client.post(f"/api/v2/runs/{run_id}/cancel")
        await complete(tenant, token)
        assert await status(tenant, run_id) == "CANCELED"

    async def test_others_see_neither_run_nor_token(
        self, gateway: RunningGateway, tenant: Tenant
    ) -> None:
        other = await gateway.tenant("other")
        run_id, token = await executing(tenant), await new_token(tenant)
        theirs, their_token = await executing(other), await new_token(other)
        for run, waitpoint in [(run_id, their_token), (theirs, token), (run_id, "waitpoint_no")]:
            assert (await wait_for(tenant, run, waitpoint)).status_code == 404
        assert await status(tenant, run_id) == "EXECUTING"

    async def test_public_tokens_may_not(self, gateway: RunningGateway, tenant: Tenant) -> None:
        run_id, token = await executing(tenant), await new_token(tenant)
        answer = await gateway.anybody.post(
            f"/engine/v1/runs/{run_id}/waitpoints/tokens/{token}/wait",
            headers=tenant.bearing("admin"),
        )
        assert answer.status_code == 401


class TestTimes:
    async def wait_until(self, tenant: Tenant, run_id: str, **body: str) -> Any:
        answer = await tenant.client.post(f"/engine/v1/runs/{run_id}/wait/duration", json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def test_a_run_waits_until_its_time(self, tenant: Tenant) -> None:
        run_id = await executing(tenant)
        answer = await self.wait_until(tenant, run_id, date="2999-01-01T00:00:00.000Z")
        assert answer["waitUntil"] == "2999-01-01T00:00:00.000Z"
        assert await status(tenant, run_id) == "WAITING"
        await complete(tenant, answer["waitpoint"]["id"])
        assert await status(tenant, run_id) == "EXECUTING"

    async def test_a_time_that_is_over_is_not_waited_for(self, tenant: Tenant) -> None:
        run_id = await executing(tenant)
        answer = await self.wait_until(tenant, run_id, date="2001-01-01T00:00:00.000Z")
        assert await status(tenant, run_id) == "EXECUTING"
        found = await tenant.client.get(f"/api/v1/waitpoints/tokens/{answer['waitpoint']['id']}")
        # Nothing went wrong, and nobody completed it.
        assert (found.json()["status"], found.json()["outputIsError"]) == ("COMPLETED", False)

    async def test_one_key_makes_one_time(self, tenant: Tenant) -> None:
        run_id = await executing(tenant)
        first = await self.wait_until(tenant, run_id, date="1h", idempotencyKey="k")
        assert await self.wait_until(tenant, run_id, date="2h", idempotencyKey="k") == first
        # It is no wait token, whose keys are others and which are listed.
        assert await new_token(tenant, idempotencyKey="k") != first["waitpoint"]["id"]
        listed = (await tenant.client.get("/api/v1/waitpoints/tokens")).json()["data"]
        assert first["waitpoint"]["id"] not in {each["id"] for each in listed}

    @pytest.mark.parametrize("body", [{}, {"date": ""}, {"date": "soon"}, {"date": 5}])
    async def test_the_time_must_be_one(self, tenant: Tenant, body: Any) -> None:
        run_id = await executing(tenant)
        answer = await tenant.client.post(f"/engine/v1/runs/{run_id}/wait/duration", json=body)
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_body")

    async def test_an_unknown_run_is_not_found(self, tenant: Tenant) -> None:
        answer = await tenant.client.post(
            "/engine/v1/runs/run_none/wait/duration", json={"date": "1h"}
        )
        assert answer.status_code == 404


class TestInput:
    async def await_input(self, tenant: Tenant, run_id: str, **body: Any) -> Any:
        answer = await tenant.client.post(
            f"/api/v1/runs/{run_id}/input-streams/wait", json={"streamId": "chat"} | body
        )
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def send(self, tenant: Tenant, run_id: str, data: Any, key: str = "chat") -> None:
        url = f"/realtime/v1/streams/{run_id}/input/{key}"
        assert (await tenant.client.post(url, json={"data": data})).status_code == 200

    async def output(self, tenant: Tenant, waitpoint_id: str) -> Any:
        found = await tenant.client.get(f"/api/v1/waitpoints/tokens/{waitpoint_id}")
        return found.json().get("output")

    async def test_input_completes_what_waits_for_it(self, tenant: Tenant) -> None:
        run_id = await executing(tenant)
        waitpoint = (await self.await_input(tenant, run_id))["waitpointId"]
        assert await status(tenant, run_id) == "EXECUTING"
        await wait_for(tenant, run_id, waitpoint)
        assert await status(tenant, run_id) == "WAITING"
        await self.send(tenant, run_id, 1, key="other")
        assert await status(tenant, run_id) == "WAITING"
        await self.send(tenant, run_id, {"text": "ü"})
        assert await status(tenant, run_id) == "EXECUTING"
        assert await self.output(tenant, waitpoint) == '{"text":"ü"}'
        await self.send(tenant, run_id, "later")
        assert await self.output(tenant, waitpoint) == '{"text":"ü"}'

    async def test_what_was_sent_before_and_not_seen_counts(
        self, gateway: RunningGateway, tenant: Tenant
    ) -> None:
        run_id, waitpoint = await executing(tenant), ""
        for n in range(3):
            await self.send(tenant, run_id, n)
        for seen, expected in [({}, "0"), ({"lastSeqNum": 0}, "1"), ({"lastSeqNum": 2}, None)]:
            waitpoint = (await self.await_input(tenant, run_id, **seen))["waitpointId"]
            assert await self.output(tenant, waitpoint) == expected
        # Of several that come at once it is the first.
        await asyncio.gather(*(self.send(tenant, run_id, n) for n in range(3, 8)))
        stream = StreamName.of_input(run_id, "chat")
        page = await gateway.services.chunks.read(stream, 3, max_chunks=1, max_bytes=99)
        assert page.chunks[0].text == f'"{await self.output(tenant, waitpoint)}"'

    async def test_no_input_is_missed_by_who_begins_to_wait(self, tenant: Tenant) -> None:
        for _ in range(10):
            run_id = await executing(tenant)
            waiting, _ = await asyncio.gather(
                self.await_input(tenant, run_id), self.send(tenant, run_id, "x")
            )
            assert await self.output(tenant, waiting["waitpointId"]) == '"x"'

    async def test_keys_are_those_of_the_run(self, tenant: Tenant) -> None:
        one, other = await executing(tenant), await executing(tenant)
        first = await self.await_input(tenant, one, idempotencyKey="k", tags="a", timeout="1h")
        assert first["isCached"] is False
        again = await self.await_input(tenant, one, idempotencyKey="k")
        assert again == first | {"isCached": True}
        elsewhere = await self.await_input(tenant, other, idempotencyKey="k")
        assert elsewhere["isCached"] is False

    async def test_a_request_that_is_sent_again_makes_no_other(self, tenant: Tenant) -> None:
        run_id = await executing(tenant)
        url = f"/api/v1/runs/{run_id}/input-streams/wait"
        answers = [
            await tenant.client.post(url, json={"streamId": "chat"}, headers={KEY: "r"})
            for _ in range(2)
        ]
        assert answers[0].json() == answers[1].json()

    @pytest.mark.parametrize(
        "body", [{}, {"streamId": ""}, {"streamId": "a", "lastSeqNum": -2}, {"streamId": "\0"}]
    )
    async def test_what_is_awaited_must_be_named(self, tenant: Tenant, body: Any) -> None:
        run_id = await executing(tenant)
        url = f"/api/v1/runs/{run_id}/input-streams/wait"
        answer = await tenant.client.post(url, json=body)
        assert answer.status_code == 400

    async def test_a_key_of_too_many_bytes_leaves_nothing_behind(
        self, gateway: RunningGateway, tenant: Tenant
    ) -> None:
        run_id, key = await executing(tenant), 400 * "ü"
        url = f"/api/v1/runs/{run_id}/input-streams/wait"
        answer = await tenant.client.post(url, json={"streamId": key})
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_parameter")
        now = datetime.now(UTC)
        assert await gateway.services.waitpoints.read_awaiting(run_id, key, now=now) == []

    @pytest.mark.parametrize(
        ("line", "packet"),
        [
            (b"no JSON", ("no JSON", "text/plain")),
            (b'{"a":1}', ('{"a":1}', "application/json")),
            (b'"no JSON"', ('"no JSON"', "application/json")),
            (b'"\\u0000"', ('"\\u0000"', "application/json")),
        ],
    )
    async def test_what_is_written_there_as_to_any_stream_is_taken_as_it_is(
        self, tenant: Tenant, line: bytes, packet: tuple[str, str]
    ) -> None:
        run_id = await executing(tenant)
        url = f"/realtime/v1/streams/{run_id}/self/%24trigger.input%3Achat"
        assert (await tenant.client.post(url, content=line + b"\n")).status_code == 200
        waitpoint = (await self.await_input(tenant, run_id))["waitpointId"]
        found = (await tenant.client.get(f"/api/v1/waitpoints/tokens/{waitpoint}")).json()
        assert (found["output"], found["outputType"]) == packet

    async def test_an_unknown_run_is_not_found(self, tenant: Tenant) -> None:
        url = "/api/v1/runs/run_none/input-streams/wait"
        assert (await tenant.client.post(url, json={"streamId": "a"})).status_code == 404
