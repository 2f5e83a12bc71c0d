"""`runcast serve`."""

import json

import httpx

from tests.cli.command_line import CommandLine, complaint, end
from tests.support.postgres import wait_until


def test_it_migrates_serves_and_ends(command_line: CommandLine, empty_database_url: str) -> None:
    runcast = command_line.having(DATABASE_URL=empty_database_url, RUNCAST_LOG_FORMAT="json")
    assert "runcast migrate" in complaint(runcast.run("serve", "--port", "0"))
    with runcast.started("serve", "--port", "0", "--migrate") as process:
        wait_until(lambda: "runcast serves " in runcast.log)
        url = runcast.log.partition("runcast serves ")[2].split()[0]
        assert httpx.get(f"{url}/healthz", trust_env=False).status_code == 200
        assert end(process) == 0
    assert "Traceback" not in runcast.log
    logged = [line for line in runcast.log.splitlines() if line.startswith("{")]
    assert all(json.loads(line)["level"] for line in logged)
