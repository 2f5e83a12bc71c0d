"""The TypeScript client: its own checks and tests, and its build against a real gateway."""

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.clients_js.conftest import PACKAGE, run_in_package
from tests.support.restartable_gateway import RestartableGateway

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

HERE = Path(__file__).parent
_SCENE = re.compile(r'^  async "([^"]+)"\(t\)', re.MULTILINE)
_SCENES = _SCENE.findall((HERE / "scenes.mjs").read_text())


@pytest.mark.parametrize("script", ["check", "test"])
def test_own(npm: str, built: Path, script: str) -> None:
    done = run_in_package([npm, "run", script])
    assert done.returncode == 0, f"{done.stdout[-6000:]}\n{done.stderr[-2000:]}"


@pytest.mark.parametrize("folder", [PACKAGE, HERE / "runtimes"])
def test_lock_file_names_no_registry(folder: Path) -> None:
    assert '"resolved": "http' not in (folder / "package-lock.json").read_text()


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
