"""Triggering, reading, listing and changing runs with the asynchronous client."""

from datetime import UTC, datetime, timedelta

import pytest

from runcast import AsyncClient
from runcast.client.errors import (
    ApiError,
    IllegalTransition,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    Unauthorized,
)
from tests.support.restartable_gateway import RestartableGateway


async def test_a_triggered_run_is_retrieved_with_all_its_options(client: AsyncClient) -> None:
    handle = await client.tasks.trigger(
        "my/task",
        {"n": 1},
        tags=["a", "b"],
        metadata={"step": 0},
        ttl=timedelta(minutes=10),
        queue="slow",
        test=True,
        idempotency_key="once",
    )
    assert not handle.is_cached
    run = await client.runs.retrieve(handle.id)
    assert (run.task, run.payload, run.tags) == ("my/task", {"n": 1}, ("a", "b"))
    assert (run.status, run.metadata, run.ttl, run.is_test) == ("QUEUED", {"step": 0}, "600s", True)
    assert run.idempotency_key == "once"
    assert run.created_at.tzinfo is not None
    assert not run.is_finished
    again = await client.tasks.trigger("my/task", idempotency_key="once")
    assert (again.id, again.is_cached) == (handle.id, True)


async def test_a_delay_is_a_length_of_time_or_a_time(client: AsyncClient) -> None:
    due = datetime.now(UTC) + timedelta(hours=3)
    for delay in ("3h", timedelta(hours=3), due):
        run = await client.runs.retrieve((await client.tasks.trigger("t", delay=delay)).id)
        assert run.status == "DELAYED"
        assert run.delayed_until is not None
        assert abs(run.delayed_until - due) < timedelta(minutes=10)


async def test_parents_and_children_know_each_other(client: AsyncClient) -> None:
    root = await client.tasks.trigger("root")
    child = await client.tasks.trigger("child", parent_run_id=root.id)
    run = await client.runs.retrieve(child.id)
    assert (run.parent_id, run.root_id, run.depth) == (root.id, root.id, 1)


async def test_a_batch_is_triggered_once_and_retrieved(client: AsyncClient) -> None:
    batch = await client.tasks.batch_trigger(
        [{"task": "a", "payload": [1], "tags": "x"}, {"task": "b", "delay": "1h"}],
        idempotency_key="b1",
    )
    assert [run.task for run in batch.runs] == ["a", "b"]
    assert (await client.runs.retrieve(batch.runs[0].id)).payload == [1]
    found = await client.batches.retrieve(batch.id)
    assert found.run_ids == tuple(run.id for run in batch.runs)
    again = await client.tasks.batch_trigger([{"task": "a"}], idempotency_key="b1")
    assert (again.id, again.is_cached) == (batch.id, True)


@pytest.mark.parametrize(
    "output", [None, 0, False, "", "12", '{"a": 1}', "null", [1, {"b": None}], {"c": "ü"}]
)
async def test_outputs_come_back_as_the_values_that_they_were(
    client: AsyncClient, output: object
) -> None:
    handle = await client.tasks.trigger("t")
    run = await client.runs.update(handle.id, status="COMPLETED", output=output)
    assert run.is_success
    assert (await client.runs.retrieve(handle.id)).output == output


async def test_an_exception_becomes_the_error_of_a_run(client: AsyncClient) -> None:
    handle = await client.tasks.trigger("t")
    try:
        raise LookupError("no\0such \ud800 thing")
    except LookupError as error:
        run = await client.runs.update(handle.id, status="FAILED", error=error)
    assert run.error is not None
    assert (run.error.name, run.error.message) == ("LookupError", "no\ufffdsuch \ufffd thing")
    assert "test_rest.py" in (run.error.stack_trace or "")


async def test_cancelling_and_tagging(client: AsyncClient) -> None:
    handle = await client.tasks.trigger("t", tags="a")
    await client.runs.add_tags(handle.id, "b", "c")
    await client.runs.cancel(handle.id)
    run = await client.runs.retrieve(handle.id)
    assert (run.tags, run.status, run.is_finished) == (("a", "b", "c"), "CANCELED", True)
    with pytest.raises(IllegalTransition) as refused:
        await client.runs.update(handle.id, status="EXECUTING")
    assert (refused.value.code, refused.value.status) == ("illegal_transition", 422)
    assert refused.value.request_id


async def test_a_run_is_replayed(client: AsyncClient) -> None:
    handle = await client.tasks.trigger("t", {"n": 1}, tags="a")
    await client.runs.cancel(handle.id)
    again = await client.runs.retrieve(await client.runs.replay(handle.id))
    assert (again.id != handle.id, again.task, again.payload, again.tags, again.status) == (
        True, "t", {"n": 1}, ("a",), "QUEUED",
    )  # fmt: skip
    with pytest.raises(NotFound):
        await client.runs.replay("run_nowhere")


async def test_a_delayed_run_is_given_another_time(client: AsyncClient) -> None:
    handle = await client.tasks.trigger("t", delay="1h")
    for delay in ("2d", timedelta(days=2), datetime.now(UTC) + timedelta(days=2)):
        run = await client.runs.reschedule(handle.id, delay)
        assert run.delayed_until is not None
        assert run.delayed_until > datetime.now(UTC) + timedelta(days=1)
    await client.runs.cancel(handle.id)
    with pytest.raises(ApiError) as refused:
        await client.runs.reschedule(handle.id, "1h")
    assert refused.value.code == "not_delayed"


async def test_a_key_that_was_reset_is_good_for_a_new_run(client: AsyncClient) -> None:
    first = await client.tasks.trigger("t", idempotency_key="once")
    assert (await client.tasks.trigger("t", idempotency_key="once")).id == first.id
    await client.runs.reset_idempotency_key("t", "once")
    assert (await client.tasks.trigger("t", idempotency_key="once")).id != first.id


async def test_a_list_goes_over_all_pages(client: AsyncClient, gateway: RestartableGateway) -> None:
    await gateway.app.sql.execute(
        "INSERT INTO runs (environment_id, task, status)"
        " SELECT $1, 'bulk', CASE n % 2 WHEN 0 THEN 'PENDING' ELSE 'EXECUTING' END"
        " FROM generate_series(1, 10000) AS n",
        gateway.app.environment_id,
    )
    await client.tasks.trigger("other", tags=["x"])
    found = [run.id async for run in client.runs.list(task="bulk", page_size=100)]
    assert len(found) == len(set(found)) == 10_000
    executing = [
        run async for run in client.runs.list(status="EXECUTING", task=["bulk"], page_size=100)
    ]
    assert len(executing) == 5_000


async def test_pages_are_walked_forth_and_back(client: AsyncClient) -> None:
    ids = [(await client.tasks.trigger("t", tags="x")).id for _ in range(5)]
    listing = client.runs.list(tag="x", page_size=2, period="1h", is_test=False)
    first = await listing.page()
    assert first.previous is None
    second = await listing.page(after=first.next)
    assert [run.id for run in (*first.runs, *second.runs)] == ids[:0:-1]
    assert (await listing.page(before=second.previous)).runs == first.runs
    assert [len(page.runs) async for page in listing.pages()] == [2, 2, 1]


async def test_what_cannot_be_sent_is_refused_before(client: AsyncClient) -> None:
    with pytest.raises(InvalidArgument, match="cannot be written as JSON"):
        await client.tasks.trigger("t", payload=object())
    with pytest.raises(InvalidArgument, match="called tag;"):
        await client.tasks.trigger("t", tag="a")  # type: ignore[call-arg]
    with pytest.raises(InvalidArgument, match="a time needs a zone"):
        await client.tasks.trigger("t", delay=datetime(2030, 1, 1))  # noqa: DTZ001 - the point
    with pytest.raises(InvalidArgument, match="comma"):
        client.runs.subscribe_tags("a,b")


async def test_refusals_are_told_apart_and_never_show_the_token(
    client: AsyncClient, gateway: RestartableGateway
) -> None:
    handle = await client.tasks.trigger("t")
    with pytest.raises(NotFound) as unknown:
        await client.runs.retrieve("run_unknown")
    assert unknown.value.code == "not_found"
    wrong = gateway.key[:-4] + "0000"
    async with AsyncClient(gateway.url, wrong) as stranger:
        with pytest.raises(Unauthorized) as refused:
            await stranger.runs.retrieve(handle.id)
    assert wrong not in str(refused.value) + repr(refused.value)
    async with AsyncClient(gateway.url, token=handle.public_access_token) as reader:
        assert (await reader.runs.retrieve(handle.id)).id == handle.id
        with pytest.raises(PermissionDenied) as denied:
            await reader.tasks.trigger("t")
    assert denied.value.code == "insufficient_scope"
    assert handle.public_access_token not in repr(handle)
