"""`runcast tail`: every change of a run, until it is finished."""

import json
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, Self

import httpx
import pytest

from tests.cli.command_line import CommandLine, Ready, complaint, end
from tests.support.postgres import execute, wait_until


class Backend:
    """What a backend does to its runs, over REST."""

    def __init__(self, gateway: Ready) -> None:
        headers = {"authorization": f"Bearer {gateway.key}"}
        self._http = httpx.Client(
            base_url=gateway.url, headers=headers, trust_env=False, timeout=30
        )

    def trigger(self, task: str = "work", **options: object) -> str:
        answer = self._ask("POST", f"/api/v1/tasks/{task}/trigger", {"options": options})
        return str(answer["id"])

    def change(self, run: str, **fields: object) -> None:
        self._ask("PATCH", f"/api/v1/runs/{run}", fields)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def _ask(self, method: str, path: str, body: object) -> dict[str, Any]:
        response = self._http.request(method, path, json=body)
        assert response.is_success, response.text
        answer: dict[str, Any] = response.json()
        return answer


@pytest.fixture
def backend(gateway: Ready) -> Iterator[Backend]:
    with Backend(gateway) as backend:
        yield backend


@pytest.fixture
def runcast(command_line: CommandLine, gateway: Ready) -> CommandLine:
    return command_line.having(RUNCAST_URL=gateway.url, RUNCAST_SECRET_KEY=gateway.key)


def test_a_run_is_followed_to_its_end(runcast: CommandLine, backend: Backend) -> None:
    run = backend.trigger(metadata={"progress": 1})
    with runcast.started("tail", run) as process:
        assert process.stdout is not None
        assert f"{run} work QUEUED       progress=1" in process.stdout.readline()
        backend.change(run, status="EXECUTING")
        assert "EXECUTING" in process.stdout.readline()
        backend.change(run, status="COMPLETED", output={"answer": 42})
        assert "COMPLETED" in process.stdout.readline()
        assert process.stdout.readline() == ""
        assert process.wait() == 0
    assert "-- up to date" in runcast.log
    assert "-- finished" in runcast.log


def test_a_finished_run_is_shown_once(runcast: CommandLine, backend: Backend) -> None:
    run = backend.trigger()
    backend.change(run, status="CANCELED")
    shown = runcast.run("tail", run, "--json")
    assert shown.returncode == 0
    [line] = shown.stdout.splitlines()
    event = json.loads(line)
    assert (event["event"], event["data"]["id"]) == ("run", run)
    assert event["data"]["status"] == "CANCELED"


def test_runs_by_tag_and_task_until_interrupted(runcast: CommandLine, backend: Backend) -> None:
    wanted = backend.trigger("ours", tags=["a", "b"])
    backend.trigger("ours", tags=["a"])
    backend.trigger("theirs", tags=["a", "b"])
    words = ("--tag", "a", "--tag", "b", "--task", "ours")
    with runcast.started("tail", "--json", *words) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["data"]["id"] == wanted
        later = backend.trigger("ours", tags=["b", "c", "a"])
        assert json.loads(process.stdout.readline())["data"]["id"] == later
        assert end(process, signal.SIGINT) == 130
    assert "Traceback" not in runcast.log


def test_refusals_are_explained(runcast: CommandLine, command_line: CommandLine) -> None:
    assert "answered 404" in complaint(runcast.run("tail", "run_unknown"))
    stranger = runcast.having(RUNCAST_SECRET_KEY="tr_dev_0123456789abcdefghij")
    assert "answered 401" in complaint(stranger.run("tail"))
    assert "RUNCAST_TOKEN" in complaint(command_line.run("tail"))
    assert "--batch" in complaint(runcast.run("tail", "run_1", "--batch", "batch_1"))
    assert "URL" in complaint(runcast.having(RUNCAST_URL="ftp://nowhere").run("tail"))


def test_a_public_token_shows_what_it_allows(runcast: CommandLine, backend: Backend) -> None:
    run = backend.trigger(tags=["mine"])
    backend.change(run, status="COMPLETED")
    token = runcast.run("token", "--tag", "mine").stdout.strip()
    bearer = runcast.having(RUNCAST_TOKEN=token)
    assert bearer.run("tail", run).returncode == 0
    assert "answered 403" in complaint(bearer.run("tail", "--tag", "other"))


def test_a_restart_of_the_gateway_is_bridged(command_line: CommandLine, database_url: str) -> None:
    server = command_line.having(DATABASE_URL=database_url)
    with ExitStack() as until_the_end:
        with server.gateway("--no-demo") as before:
            with Backend(before) as backend:
                run = backend.trigger()
            runcast = command_line.having(RUNCAST_URL=before.url, RUNCAST_SECRET_KEY=before.key)
            process = until_the_end.enter_context(runcast.started("tail", run, "--json"))
            assert process.stdout is not None
            assert json.loads(process.stdout.readline())["data"]["status"] == "QUEUED"
            wait_until(lambda: "-- up to date" in runcast.log)
        execute(database_url, f"UPDATE runcast.runs SET status = 'EXECUTING' WHERE id = '{run}'")
        port = before.url.rpartition(":")[2]
        with server.gateway("--no-demo", "--port", port) as after:
            assert json.loads(process.stdout.readline())["data"]["status"] == "EXECUTING"
            with Backend(after) as backend:
                backend.change(run, status="COMPLETED")
            assert json.loads(process.stdout.readline())["data"]["status"] == "COMPLETED"
            assert process.wait() == 0
    assert "-- the gateway is going away; reconnecting" in runcast.log
    assert "from the beginning" not in runcast.log
