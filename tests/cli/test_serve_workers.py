"""`runcast serve --workers`: real processes on one port, and what clients see of their ends."""

import asyncio
import contextlib
import json
import re
import signal
import socket
import subprocess
import tempfile
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import httpx
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from runcast.cli.environments import ensure_environment
from runcast.cli.serve import meeting_place
from runcast.errors import ConfigurationError
from runcast.settings import load_settings
from tests.cli.command_line import CommandLine, complaint, end
from tests.support.event_feed import following
from tests.support.eventually import eventually
from tests.support.followers import Feed, Follower, Transport
from tests.support.gateway_app import PATIENCE_SECONDS, until
from tests.support.postgres import created_database, wait_until
from tests.support.stream_follower import StreamFollower

ALL = "/realtime/v1/runs"
BALANCED = 200
# Three processes, one after the other, on a machine that may be busy.
_START_SECONDS = 60.0
_LOOK_SECONDS = 0.02
TRANSPORTS: tuple[Transport, ...] = ("header", "query", "socket")


@dataclass
class Served:
    """A running parent of two workers, its address, and the key of an environment."""

    command_line: CommandLine
    process: "subprocess.Popen[str]"
    url: str
    key: str
    database_url: str

    @property
    def log(self) -> str:
        return self.command_line.log

    @property
    def bearer(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.key}"}

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    @property
    def workers(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children()

    async def both_up(self) -> None:
        """Wait until both workers answer, however long one takes to start."""
        await self.figures("runcast_worker_up")

    async def figures(self, name: str) -> dict[tuple[str, ...], float]:
        """
        What `/metrics` says under a name, by the values of the labels, once both workers answer.

        The one that is asked waits for the other no longer than a second.
        """
        while True:
            async with httpx.AsyncClient(
                base_url=self.url, trust_env=False, timeout=PATIENCE_SECONDS
            ) as client:
                text = (await client.get("/metrics")).text
            found: defaultdict[str, dict[tuple[str, ...], float]] = defaultdict(dict)
            for family in text_string_to_metric_families(text):
                for sample in family.samples:
                    labels = tuple(value for _, value in sorted(sample.labels.items()))
                    found[sample.name][labels] = sample.value
            if found["runcast_worker_up"] == {("1",): 1.0, ("2",): 1.0}:
                return found[name]
            await asyncio.sleep(_LOOK_SECONDS)


@contextlib.contextmanager
def serving(folder: Path, database_url: str, **variables: str) -> Iterator[Served]:
    """Run two workers until the context ends, at the latest."""
    command_line = CommandLine(
        folder,
        DATABASE_URL=database_url,
        RUNCAST_WORKERS="2",
        RUNCAST_LOG_FORMAT="json",
        RUNCAST_DRAIN_SECONDS="0.5",
        **variables,
    )
    settings = load_settings(database_url=database_url)
    key = asyncio.run(ensure_environment(settings, "dev", "Development")).key
    with command_line.started("serve", "--port", "0") as process:
        wait_until(
            lambda: "runcast serves " in command_line.log or process.poll() is not None,
            seconds=_START_SECONDS,
        )
        said = re.search(r"runcast serves (\S+) with 2 workers", command_line.log)
        assert said, command_line.log
        yield Served(command_line, process, said[1], key, database_url)


@pytest.fixture(scope="module")
def served(
    postgres_server: str, template_database: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """Two workers for all tests of this file that leave two behind."""
    folder = tmp_path_factory.mktemp("workers")
    with created_database(postgres_server, template=template_database) as url:
        with serving(folder, url) as served:
            yield served
            assert end(served.process) == 0
        assert "Traceback" not in served.log


@pytest.fixture
def doomed(tmp_path: Path, database_url: str, redis_url: str) -> Iterator[Served]:
    """Two workers, one of which reads the changes for both, for one test that ends them."""
    relayed = {"REDIS_URL": redis_url, "RUNCAST_RELAY": "on"}
    with serving(tmp_path, database_url, **relayed) as served:
        yield served
    assert "Traceback" not in served.log


@asynccontextmanager
async def sql(served: Served) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(
        served.database_url, server_settings={"search_path": "runcast"}
    )
    try:
        yield connection
    finally:
        await connection.close()


async def triggered(served: Served) -> str:
    async with httpx.AsyncClient(
        base_url=served.url, headers=served.bearer, trust_env=False
    ) as client:
        answer = await client.post("/api/v1/tasks/hello/trigger", json={"payload": 1})
        assert answer.status_code == 200, answer.text
        return str(answer.json()["id"])


async def test_connections_are_spread_and_all_are_counted_by_any_worker(served: Served) -> None:
    async with AsyncExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(BALANCED)]
        head = f"GET {ALL} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {served.key}\r\n\r\n"
        loop = asyncio.get_running_loop()
        for each in sockets:
            each.setblocking(False)
            await loop.sock_connect(each, ("127.0.0.1", served.port))
            await loop.sock_sendall(each, head.encode())
        for each in sockets:
            received = b""
            while b"up-to-date" not in received:
                received += await loop.sock_recv(each, 65536)
        for _ in range(4):  # whichever answers
            open_now = await served.figures("runcast_connections")
            assert sum(open_now.values()) == BALANCED
            assert {key[-1] for key in open_now} == {"1", "2"}
            # With both equally likely, fewer come once in a million million times.
            assert min(open_now.values()) > BALANCED / 4

    async def deserted() -> bool:
        return not any((await served.figures("runcast_connections")).values())

    await eventually(deserted)


async def test_logs_say_which_worker_wrote_them(served: Served) -> None:
    logged = [json.loads(line) for line in served.log.splitlines() if line.startswith("{")]
    by_worker = Counter(line.get("worker") for line in logged)
    assert by_worker[None] >= 2  # the parent says that each is ready
    assert by_worker[1] >= 1  # the first that came said that the database is new


async def test_what_is_due_is_done_once(served: Served) -> None:
    async def counted() -> float:
        return sum((await served.figures("runcast_schedule_done_total")).values())

    before = await counted()
    async with sql(served) as connection:
        await connection.execute(
            "INSERT INTO runs (environment_id, task, status, delay_until)"
            " SELECT id, 'due', 'DELAYED', now() FROM environments, generate_series(1, 100)"
        )

        async def done() -> bool:
            left = "SELECT count(*) FROM runs WHERE status <> 'PENDING'"
            return bool(await connection.fetchval(left) == 0)

        await eventually(done)
        await connection.execute("DELETE FROM runs")

    async def all_counted() -> bool:  # a worker counts what it did once the database has told it
        return await counted() - before >= 100

    await eventually(all_counted)
    assert await counted() - before == 100


@pytest.mark.chaos
async def test_a_killed_worker_is_replaced_and_its_subscribers_miss_nothing(served: Served) -> None:
    await served.both_up()
    runs = [await triggered(served) for _ in range(4)]
    followers = [
        Follower(served.url, Feed(ALL, {}, served.key), TRANSPORTS[number % 3])
        for number in range(18)
    ]
    readers = [
        StreamFollower(served.url, runs[0], served.key, transport="sse" if number % 2 else "socket")
        for number in range(6)
    ]
    over = asyncio.Event()

    async def keep(follower: Follower) -> None:
        while not over.is_set():
            follower.start()
            await follower.over()

    async def keep_reading(reader: StreamFollower) -> None:
        while not over.is_set():
            await reader.follow(lambda _: over.is_set())

    appended: list[str] = []

    async def append() -> None:
        headers = served.bearer | {"x-part-id": f"part-{len(appended)}"}
        while True:
            with contextlib.suppress(httpx.TransportError):
                async with httpx.AsyncClient(base_url=served.url, trust_env=False) as client:
                    answer = await client.post(
                        f"/realtime/v1/streams/{runs[0]}/self/llm/append",
                        headers=headers,
                        content=str(len(appended)),
                    )
                    if answer.status_code == 200:
                        appended.append(json.dumps(str(len(appended))))
                        return

    tasks = [asyncio.create_task(keep(each)) for each in followers]
    tasks += [asyncio.create_task(keep_reading(each)) for each in readers]
    async with sql(served) as writer:
        for each in followers:
            await each.caught_up()

        async def write(times: int) -> None:
            for _ in range(times):
                await writer.execute("UPDATE runs SET attempt_count = attempt_count + 1")
                await append()

        try:
            await write(10)
            victim = served.workers[0]
            victim.kill()
            await write(30)
            await served.both_up()
            await write(5)
            rows = await writer.fetch("SELECT id, version FROM runs")
            truth = {row["id"]: row["version"] for row in rows}
            for each in followers:
                await each.until(lambda each: each.state() == truth)
                assert each.resets == []
            for reader in readers:
                await until(lambda reader=reader: len(reader.texts) >= len(appended))  # type: ignore[misc]
                assert reader.texts == appended
        finally:
            over.set()
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            for each in followers:
                await each.drop()
    connections = Counter(each.connections for each in followers)
    assert connections[1] >= 1, "all were cut, though one worker lived"
    assert connections.total() > connections[1], "nobody was cut"


async def test_a_restart_refuses_nobody_and_sends_subscribers_on(served: Served) -> None:
    await served.both_up()
    before = {each.pid for each in served.workers}
    async with AsyncExitStack() as stack:
        feeds = [
            await stack.enter_async_context(following(served.url, ALL, served.bearer))
            for _ in range(8)
        ]
        for feed in feeds:
            await feed.until("up-to-date")
        served.process.send_signal(signal.SIGHUP)
        asked = 0
        while "all workers were restarted" not in served.log:
            async with httpx.AsyncClient(
                headers=served.bearer, trust_env=False, timeout=PATIENCE_SECONDS
            ) as client:
                answer = await client.get(f"{served.url}/api/v1/runs")
                assert answer.status_code == 200, answer.text
            asked += 1
        assert asked > 10
        # What they were sent waits in their sockets; until then nothing was due within any time.
        delays = {(await feed.until("reconnect")).data["delayMs"] for feed in feeds}
        assert len(delays) > 1, "all come back at once"
    assert not before & {each.pid for each in served.workers}
    assert len(served.workers) == 2
    await served.both_up()


def test_a_port_in_use_is_one_line(served: Served, tmp_path: Path) -> None:
    runcast = CommandLine(tmp_path, DATABASE_URL=served.database_url)

    def serve(count: str) -> "subprocess.CompletedProcess[str]":
        return runcast.run("serve", "--port", str(served.port), "--workers", count)

    with ThreadPoolExecutor() as pool:
        for failed in pool.map(serve, ("1", "2")):
            assert f"port {served.port}" in complaint(failed)


def test_what_keeps_the_first_from_starting_is_said_once(tmp_path: Path) -> None:
    runcast = CommandLine(tmp_path, DATABASE_URL="postgresql://x:hidden@127.0.0.1:1/db")
    failed = runcast.run("serve", "--port", "0", "--workers", "3")
    assert "database" in complaint(failed)
    assert failed.stderr.count("runcast: ") == 1
    assert "hidden" not in failed.stderr


def test_a_temporary_directory_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/proc/nowhere")
    with pytest.raises(ConfigurationError, match="TMPDIR"), meeting_place():
        pass


async def test_workers_end_in_order_with_their_parent(served: Served) -> None:
    """The last test of this file."""
    await ends_in_order(served, signal.SIGTERM)
    assert served.process.wait() == 0


async def test_workers_end_in_order_when_their_parent_was_killed(doomed: Served) -> None:
    """Nobody is left who could tell them."""

    async def relaying() -> bool:
        roles = await doomed.figures("runcast_relay_role")
        held = [role for (role, _), is_so in roles.items() if is_so]
        return sorted(held) == ["following", "leading"]

    await eventually(relaying)
    async with AsyncExitStack() as stack:
        feeds = [
            await stack.enter_async_context(following(doomed.url, ALL, doomed.bearer))
            for _ in range(6)
        ]
        for feed in feeds:
            await feed.until("up-to-date")
        run_id = await triggered(doomed)
        for feed in feeds:
            assert (await feed.until("run")).data["id"] == run_id
    await ends_in_order(doomed, signal.SIGKILL)


async def ends_in_order(served: Served, number: signal.Signals) -> None:
    """Send the parent a signal: those who follow are told, and nobody is left."""
    workers = served.workers
    assert len(workers) == 2
    async with AsyncExitStack() as stack:
        feeds = [
            await stack.enter_async_context(following(served.url, ALL, served.bearer))
            for _ in range(6)
        ]
        for feed in feeds:
            await feed.until("up-to-date")
        served.process.send_signal(number)
        for feed in feeds:
            await feed.until("reconnect")
            await feed.ended()
    gone, alive = psutil.wait_procs(workers, timeout=PATIENCE_SECONDS)
    assert (len(gone), alive) == (2, [])
