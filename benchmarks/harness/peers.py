"""References and peers, each the way its users would run it, as subjects of a fan-out."""

import os
import shutil
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.harness.failure import BenchmarkError, Unavailable
from benchmarks.harness.generator import Mode, Publish, Request, built
from benchmarks.harness.http import connected
from benchmarks.harness.processes import running
from benchmarks.harness.store import message
from benchmarks.harness.subject import Contestant, Subject, get, upgrade
from benchmarks.harness.waiting import until

if TYPE_CHECKING:
    from benchmarks.harness.bench import Bench

_PEERS = Path(__file__).parents[1] / "peers"
_NCHAN_MODULES = (
    "/usr/lib/nginx/modules/ngx_nchan_module.so",
    "/usr/lib64/nginx/modules/ngx_nchan_module.so",
)


def _plain(
    name: str, command: Sequence[str | Path], *, needs: str | None = None, install: str = ""
) -> Contestant:
    """A server that says its port, streams from /events and takes messages at /publish."""

    @asynccontextmanager
    async def start(bench: "Bench", size: int) -> AsyncIterator[Subject]:
        if needs is not None and shutil.which(needs) is None:
            raise Unavailable(f"{needs} is not on PATH: {install}")
        full: list[str | Path] = [
            built(part) if part == "epoll_server" else part for part in command
        ]
        async with running(full, folder=bench.folder, cores=bench.layout.server) as child:
            port = await child.port(name)
            async with _published(port, "/publish", size) as publish:
                yield Subject(port, child.pids, "sse", [Request(get("/events"))], publish)

    return Contestant(name, start)


raw_uvloop = _plain("raw uvloop", [sys.executable, _PEERS / "raw_uvloop.py"])
c_epoll = _plain("C epoll", ["epoll_server"])
sse_starlette = _plain("sse-starlette", [sys.executable, _PEERS / "sse_starlette_queue.py"])
node_http = _plain(
    "Node http", ["node", _PEERS / "node_sse.js"], needs="node", install="install Node.js"
)


def nchan(mode: Mode) -> Contestant:
    """Nginx with nchan, one worker."""

    @asynccontextmanager
    async def start(bench: "Bench", size: int) -> AsyncIterator[Subject]:
        port = _free_port()
        command: list[str | Path] = [
            "nginx",
            "-c",
            _nchan_configuration(bench.folder, port),
            "-p",
            bench.folder,
        ]
        command += ["-e", bench.folder / "nginx.log"]
        async with running(command, folder=bench.folder, cores=bench.layout.server) as child:

            async def answers() -> bool:
                return len(child.pids) > 1 and await _answers(port)

            await until("nginx has a worker and answers", answers)
            head = upgrade("/socket") if mode == "websocket" else get("/events")
            async with _published(port, "/publish", size) as publish:
                yield Subject(port, child.pids, mode, [Request(head)], publish)

    return Contestant("nchan", start)


@asynccontextmanager
async def _durable_streams(bench: "Bench", size: int) -> AsyncIterator[Subject]:
    async with durable_streams_server(bench) as (port, pids), connected(port) as connection:
        path = "/v1/stream/bench"
        status, answer = await connection.request("PUT", path)
        if status >= 300:
            raise BenchmarkError(f"durable-streams: PUT was answered {status}: {answer!r}")
        async with _published(port, path, size) as publish:
            head = get(f"{path}?offset=now&live=sse")
            yield Subject(port, pids, "sse", [Request(head)], publish)


durable_streams = Contestant("durable-streams", _durable_streams)


@asynccontextmanager
async def durable_streams_server(
    bench: "Bench", data: Path | None = None
) -> AsyncIterator[tuple[int, list[int]]]:
    """
    Run @durable-streams/server, in memory or with its files in a folder.

    Raises:
        Unavailable: Node.js or the package is missing.
    """
    if shutil.which("node") is None:
        raise Unavailable("node is not on PATH: install Node.js")
    if not (_PEERS / "node_modules" / "@durable-streams").exists():
        raise Unavailable("@durable-streams/server is missing: npm ci in benchmarks/peers")
    command: list[str | Path] = ["node", _PEERS / "durable_streams.mjs", *([data] if data else [])]
    async with running(command, folder=bench.folder, cores=bench.layout.server) as child:
        yield await child.port("durable-streams"), child.pids


@asynccontextmanager
async def _published(port: int, path: str, size: int) -> AsyncIterator[Publish]:
    async with connected(port) as connection:

        async def publish(stamp: int) -> None:
            padding = max(0, size - len(message(stamp, 0)))
            await connection.post(path, message(stamp, padding).encode())

        yield publish


def _nchan_configuration(folder: Path, port: int) -> Path:
    if shutil.which("nginx") is None:
        raise Unavailable("nginx is not on PATH: apt-get install nginx libnginx-mod-nchan")
    module = next(filter(os.path.exists, _NCHAN_MODULES), None)
    if module is None:
        raise Unavailable("nginx has no nchan: apt-get install libnginx-mod-nchan")
    text = (_PEERS / "nginx.conf").read_text()
    for name, value in {
        "MODULE": module,
        "FOLDER": str(folder),
        "PORT": str(port),
        "USER": "user root;" if os.geteuid() == 0 else "",
    }.items():
        text = text.replace(f"@{name}@", value)
    file = folder / f"nginx-{port}.conf"
    file.write_text(text)
    return file


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def _answers(port: int) -> bool:
    try:
        async with connected(port):
            return True
    except OSError:
        return False
