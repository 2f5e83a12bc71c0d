"""`runcast dev`: one command, ready for scripts, ended cleanly, with data that stays."""

import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from runcast.postgres.server_directory import ServerDirectory
from tests.cli.command_line import CommandLine, Ready, complaint, end
from tests.support.postgres import temporary_folder, wait_until


@pytest.fixture
def data_dir() -> Iterator[Path]:
    with temporary_folder() as folder:
        yield folder / "data"


def count_runs(gateway: Ready) -> int:
    headers = {"authorization": f"Bearer {gateway.key}"}
    answer = httpx.get(f"{gateway.url}/api/v1/runs", headers=headers, trust_env=False)
    assert answer.status_code == 200
    return len(answer.json()["data"])


def trigger(gateway: Ready) -> str:
    headers = {"authorization": f"Bearer {gateway.key}"}
    url = f"{gateway.url}/api/v1/tasks/t/trigger"
    answer = httpx.post(url, json={}, headers=headers, trust_env=False)
    assert answer.status_code == 200
    run_id: str = answer.json()["id"]
    return run_id


def test_key_and_data_stay_until_a_fresh_start(command_line: CommandLine, data_dir: Path) -> None:
    words = ("--no-demo", "--data-dir", str(data_dir))
    with command_line.gateway(*words) as first:
        trigger(first)
        assert count_runs(first) == 1
    assert not ServerDirectory(data_dir).is_supervised()  # nobody uses it, so it was stopped
    with command_line.gateway(*words) as second:
        assert second.key == first.key
        assert count_runs(second) == 1
    with command_line.gateway("--fresh", *words) as third:
        assert third.key != first.key
        assert count_runs(third) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_with_status_0(
    number: int, command_line: CommandLine, database_url: str
) -> None:
    runcast = command_line.having(DATABASE_URL=database_url)
    with runcast.started("dev", "--port", "0", "--json") as process:
        runcast.read_ready(process)
        assert end(process, number) == 0
    assert "Traceback" not in runcast.log


def test_a_signal_before_it_is_ready_ends_it_cleanly_too(
    command_line: CommandLine, data_dir: Path
) -> None:
    words = ("--port", "0", "--json", "--data-dir", str(data_dir))
    with command_line.started("dev", *words) as process:
        wait_until(lambda: "keeps its data" in command_line.log)
        assert end(process) == 0
    assert "Traceback" not in command_line.log
    assert not ServerDirectory(data_dir).is_supervised()


def test_it_says_where_to_look_and_how(command_line: CommandLine, database_url: str) -> None:
    runcast = command_line.having(DATABASE_URL=database_url)
    with runcast.started("dev", "--port", "0", "--no-demo") as process:
        assert process.stdout is not None
        said = ""
        while "Ctrl-C" not in said:
            line = process.stdout.readline()
            assert line, runcast.log
            said += line
        [page] = [line.strip() for line in said.splitlines() if "/#token=" in line]
        url, _, token = page.partition("/#token=")
        assert "curl -N -H 'Authorization: Bearer tr_dev_" in said
        assert f"'{url}/realtime/v1/runs?tags=demo'" in said
        headers = {"authorization": f"Bearer {token}"}
        listed = httpx.get(f"{url}/api/v1/runs", headers=headers, trust_env=False)
        assert listed.status_code == 200
        assert httpx.get(url, trust_env=False).status_code == 200
        assert end(process) == 0


def test_runs_that_nobody_starts_expire_after_ten_minutes_unless_set_otherwise(
    command_line: CommandLine, database_url: str
) -> None:
    runcast = command_line.having(DATABASE_URL=database_url)
    for setting, ttl in [({}, "10m"), ({"RUNCAST_DEFAULT_TTL_SECONDS": "0"}, None)]:
        with runcast.having(**setting).gateway("--no-demo") as ready:
            run = httpx.get(
                f"{ready.url}/api/v3/runs/{trigger(ready)}",
                headers={"authorization": f"Bearer {ready.key}"},
                trust_env=False,
            ).json()
            assert run.get("ttl") == ttl


def test_demo_runs_appear(command_line: CommandLine, database_url: str) -> None:
    runcast = command_line.having(DATABASE_URL=database_url)
    with runcast.gateway() as ready:
        follower = runcast.having(RUNCAST_URL=ready.url, RUNCAST_SECRET_KEY=ready.key)
        with follower.started("tail", "--tag", "demo", "--json") as tail:
            assert tail.stdout is not None
            assert '"demo"' in tail.stdout.readline()
            assert end(tail, signal.SIGINT) == 130


def test_two_of_them_share_a_database_and_a_key(command_line: CommandLine, data_dir: Path) -> None:
    words = ("--no-demo", "--data-dir", str(data_dir))
    with command_line.gateway(*words) as first, command_line.gateway(*words) as second:
        assert (second.key, second.database_url) == (first.key, first.database_url)
        assert second.url != first.url
        trigger(first)
        assert count_runs(second) == 1
        refused = command_line.run("dev", "--port", "0", "--fresh", *words)
        assert "Another process uses the server" in complaint(refused)


def test_a_fresh_start_never_touches_another_database(command_line: CommandLine) -> None:
    refused = command_line.having(DATABASE_URL="postgresql://h/db").run("dev", "--fresh")
    assert refused.returncode == 2
    assert "--fresh deletes embedded data" in complaint(refused)


def test_it_limits_no_requests_except_by_rates_that_are_set(
    command_line: CommandLine, database_url: str
) -> None:
    runcast = command_line.having(DATABASE_URL=database_url, RUNCAST_PUBLIC_TOKEN_RATE="1/1000")
    with runcast.gateway("--no-demo") as ready, httpx.Client(trust_env=False) as client:
        key = {"authorization": f"Bearer {ready.key}"}
        new = {"scopes": ["read:runs"]}
        made = client.post(f"{ready.url}/api/v1/auth/public-tokens", json=new, headers=key)
        token = {"authorization": f"Bearer {made.json()['token']}"}
        answers = [client.get(f"{ready.url}/api/v1/runs", headers=token) for _ in range(2)]
    assert "x-ratelimit-limit" not in made.headers
    assert [answer.status_code for answer in answers] == [200, 429]


def test_a_port_in_use_is_one_line(command_line: CommandLine, database_url: str) -> None:
    runcast = command_line.having(DATABASE_URL=database_url)
    with runcast.gateway("--no-demo") as ready:
        port = ready.url.rpartition(":")[2]
        for command in ("dev", "serve"):
            assert f"port {port}" in complaint(runcast.run(command, "--port", port))
