"""The plain face: the same client without ``await``, used in a thread as scripts do."""

import asyncio
from typing import Any

import pytest

from runcast import Client, RuncastError
from runcast.client import RunChanged, UpToDate
from runcast.client.errors import ClientClosed, NotConfigured, NotFound
from tests.support.restartable_gateway import RestartableGateway

pytestmark = pytest.mark.usefixtures("each_transport")


async def test_a_script_triggers_follows_and_lists(gateway: RestartableGateway) -> None:
    def script() -> None:
        with Client(gateway.url, gateway.key) as client:
            handle = client.tasks.trigger("t", {"n": 1}, tags=["a"])
            states = []
            for run in client.runs.subscribe(handle.id):
                states.append(run.status)
                if run.status == "QUEUED":
                    client.runs.update(handle.id, status="COMPLETED", output=[1])
            assert states == ["QUEUED", "COMPLETED"]
            events = client.runs.subscribe_tags("a").events()
            assert isinstance(next(events), RunChanged)
            assert next(events) == UpToDate()
            assert [run.id for run in client.runs.list(tag="a", page_size=1)] == [handle.id]
            assert client.runs.list().page().runs[0].is_success
            assert client.runs.retrieve(handle.id).is_success
            batch = client.tasks.batch_trigger([{"task": "a"}, {"task": "b"}])
            assert len(client.batches.retrieve(batch.id).run_ids) == 2
            assert [len(page.runs) for page in client.runs.list(page_size=2).pages()] == [2, 1]
            token = client.create_public_token({"read": {"runs": [handle.id]}})
            with Client(gateway.url, token=lambda: token) as reader:
                assert reader.runs.retrieve(handle.id).id == handle.id
            with pytest.raises(NotFound):
                client.runs.retrieve("run_unknown")
            for _ in client.runs.subscribe_all():
                break

    await asyncio.to_thread(script)


async def test_a_script_carries_out_a_run(gateway: RestartableGateway) -> None:
    def script() -> Any:
        with Client(gateway.url, gateway.key) as client:
            with client.runs.start("work", {"n": 2}) as run:
                run.metadata.set("step", 1).increment("n", run.payload["n"])
                run.metadata.flush()
                assert client.runs.retrieve(run.id).metadata == {"step": 1, "n": 2}
                run.metadata.append("log", "x")
                assert run.metadata.get("log") == ["x"]
                run.finish("done")
            done = client.runs.retrieve(run.id)
            assert (done.output, done.metadata) == ("done", {"step": 1, "n": 2, "log": ["x"]})
            with pytest.raises(ZeroDivisionError), client.runs.start("work") as failing:
                _ = 1 / 0
            assert client.runs.retrieve(failing.id).status == "FAILED"

    await asyncio.to_thread(script)


async def test_a_script_streams(gateway: RestartableGateway) -> None:
    def script() -> None:
        with Client(gateway.url, gateway.key) as client:
            with client.runs.start("chat") as run:
                teed = list(run.stream("llm", (word for word in ("a", "b", "c"))))
                assert teed == ["a", "b", "c"]
                for word in run.stream("llm", ["d", "e"]):
                    assert word == "d"
                    break
                assert run.pipe("copy", ["x"]) == 1
                run.append("copy", "y")
                run.close_stream("copy")
                with run.writer("llm") as writer:
                    writer.write("f")
                    writer.flush()
                run.add_tags("streamed")
            assert client.streams.read(run.id, "llm").text() == "abcdf"
            reading = client.streams.read(run.id, "copy")
            assert [part.value for part in reading] == ["x", "y"]
            assert reading.next_offset == 2

    await asyncio.to_thread(script)


async def test_threads_share_a_client_until_it_is_closed(gateway: RestartableGateway) -> None:
    client = Client(gateway.url, gateway.key)
    handles = await asyncio.gather(
        *(asyncio.to_thread(client.tasks.trigger, "t", number) for number in range(8))
    )
    runs = await asyncio.to_thread(lambda: list(client.runs.list(task="t")))
    assert {run.id for run in runs} == {handle.id for handle in handles}
    assert len(handles) == 8

    def close() -> None:
        abandoned = iter(client.runs.subscribe_all())
        next(abandoned)
        client.close()
        client.close()
        with pytest.raises(ClientClosed):
            next(abandoned)
        with pytest.raises(ClientClosed):
            client.tasks.trigger("t")

    await asyncio.to_thread(close)


def test_a_client_needs_a_key_and_a_url() -> None:
    with pytest.raises(NotConfigured, match="RUNCAST_SECRET_KEY"):
        Client("http://127.0.0.1:1")
    for url in ("127.0.0.1:8080", "ftp://a", "http://", "http://u:p@host", "http://a?b=c"):
        with pytest.raises(NotConfigured, match="https://host"):
            Client(url, "tr_dev_key")
    for key in ("tr_dev\nkey", "Bearer abc", "schlüssel"):
        with pytest.raises(NotConfigured) as refused:
            Client("http://127.0.0.1:1", key)
        assert key not in str(refused.value)
        assert isinstance(refused.value, RuncastError)
