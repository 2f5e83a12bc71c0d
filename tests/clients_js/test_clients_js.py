"""The TypeScript client: its own checks and tests, and its build against a real gateway."""

import asyncio
import fcntl
import hashlib
import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.needs import missing
from tests.support.restartable_gateway import RestartableGateway, restartable_gateway

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

HERE = Path(__file__).parent
PACKAGE = HERE.parents[1] / "clients" / "js"
_SCENE = re.compile(r'^  async "([^"]+)"\(t\)', re.MULTILINE)
_SCENES = _SCENE.findall((HERE / "scenes.mjs").read_text())


@pytest.fixture(scope="session")
def npm(node: Path) -> str:
    """Path of npm, with the package's tools installed as its lock file says."""
    npm = shutil.which("npm") or missing("npm", "install it beside Node.js")
    lock = hashlib.sha256((PACKAGE / "package-lock.json").read_bytes()).hexdigest()
    with _alone():
        _once("node_modules/.runcast-lock", lock, [npm, "ci", "--ignore-scripts"])
    return npm


@pytest.fixture(scope="session")
def built(node: Path, npm: str) -> Path:
    """Path of node, once the package is built from the sources of now."""
    sources = hashlib.sha256((PACKAGE / "package-lock.json").read_bytes())
    for file in sorted([*PACKAGE.glob("src/**/*.ts*"), *PACKAGE.glob("tsconfig*.json")]):
        sources.update(file.read_bytes())
    with _alone():
        _once("dist/.runcast-sources", sources.hexdigest(), [npm, "run", "build"])
    return node


@contextmanager
def _alone() -> Iterator[None]:
    """Let one process at a time write into the package's folder: workers of xdist share it."""
    name = hashlib.sha256(str(PACKAGE).encode()).hexdigest()[:16]
    with (Path(tempfile.gettempdir()) / f"runcast-clients-js-{name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _once(stamp: str, state: str, command: list[str]) -> None:
    """Run a command in the package's folder, unless that was done in this state already."""
    file = PACKAGE / stamp
    if file.exists() and file.read_text() == state:
        return
    done = _run(command)
    if done.returncode:
        what = f"{' '.join(command[1:])} failed: {done.stdout[-2000:]}{done.stderr[-2000:]}"
        if "ci" in command:
            missing("the packages of clients/js", what)
        raise AssertionError(what)
    file.write_text(state)


def _run(command: list[str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command, cwd=PACKAGE, capture_output=True, text=True, timeout=280, check=False
    )


@pytest.mark.parametrize("script", ["check", "test"])
def test_own(npm: str, built: Path, script: str) -> None:
    done = _run([npm, "run", script])
    assert done.returncode == 0, f"{done.stdout[-6000:]}\n{done.stderr[-2000:]}"


def test_lock_file_names_no_registry() -> None:
    assert "resolved" not in (PACKAGE / "package-lock.json").read_text()


@pytest.fixture
async def gateway(database_url: str, tmp_path: Path) -> AsyncIterator[RestartableGateway]:
    async with restartable_gateway(database_url, objects_dir=tmp_path / "objects") as gateway:
        yield gateway


@pytest.mark.timeout(90)
@pytest.mark.parametrize("transport", ["websocket", "sse"])
@pytest.mark.parametrize("scene", _SCENES)
async def test_scene(built: Path, gateway: RestartableGateway, transport: str, scene: str) -> None:
    verdict = await play(built, gateway, transport, scene)
    assert verdict["ok"], verdict["failure"]


async def play(
    node: Path, gateway: RestartableGateway, transport: str, scene: str
) -> dict[str, Any]:
    """Play one scene, do what it asks for on the way, and give its verdict."""
    process = await asyncio.create_subprocess_exec(
        # Node.js 20 keeps its WebSocket behind this; later ones know the word as well.
        *(node, "--experimental-websocket", "play.mjs", transport, scene, gateway.url, gateway.key),
        cwd=HERE,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdin
    assert process.stdout
    assert process.stderr
    said = asyncio.create_task(process.stderr.read())
    verdict: dict[str, Any] = {"ok": False, "failure": "no verdict"}
    try:
        while line := await process.stdout.readline():
            message = json.loads(line)
            if "ask" not in message:
                verdict = message
                continue
            if message["ask"] == "restart":
                await gateway.restart()
            else:
                assert message["ask"] == "cut the readers"
                cut_the_readers(gateway)
            process.stdin.write(b"done\n")
            await process.stdin.drain()
        await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        errors = (await said).decode(errors="replace")
    return verdict if verdict["ok"] else verdict | {"failure": f"{verdict['failure']}\n{errors}"}


def cut_the_readers(gateway: RestartableGateway) -> None:
    """Break the connections of those who follow something, not those of writers."""
    for connection in list(gateway.app.gateway.hub.connections):
        connection.outlet.abort()
