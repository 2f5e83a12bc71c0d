"""The built package where there is neither Node.js nor a browser, against a real gateway."""

import asyncio
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.clients_js.conftest import PACKAGE
from tests.support.needs import missing
from tests.support.npm import install_packages
from tests.support.restartable_gateway import RestartableGateway

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

HERE = Path(__file__).with_name("runtimes")
MODULES = HERE / "node_modules"


@pytest.fixture(scope="session")
def installed() -> None:
    install_packages(HERE)


def deno(gateway: RestartableGateway, folder: Path) -> str:
    binary = executable("@deno/linux-x64-glibc/deno")
    return f"DENO_DIR={folder} {binary} run --allow-net deno.mjs {gateway.url} {gateway.key}"


def workerd(gateway: RestartableGateway, folder: Path) -> str:
    """Cloudflare's edge runtime."""
    binary = executable("@cloudflare/workerd-linux-64/bin/workerd")
    esbuild = PACKAGE / "node_modules" / ".bin" / "esbuild"
    shutil.copy(HERE / "worker.capnp", folder)
    bundle = f"{esbuild} worker.mjs --bundle --format=esm --outfile={folder}/worker.js"
    environ = f"RUNCAST_URL={gateway.url} RUNCAST_SECRET_KEY={gateway.key}"
    return f"{bundle} && {environ} {binary} test {folder}/worker.capnp"


def react_native(gateway: RestartableGateway, folder: Path) -> str:
    executable("hermes-compiler/hermesc/linux64-bin/hermesc")
    script = f"react_native.mjs {gateway.url} {gateway.key} {folder}"
    return f"node --experimental-websocket {script}"


def executable(path: str) -> Path:
    file = MODULES / path
    return file if os.access(file, os.X_OK) else missing(file.name, "it is for Linux on x64")


@pytest.mark.parametrize("runtime", [deno, workerd, react_native])
async def test_a_run_and_its_stream_are_followed_under_two_tokens(
    runtime: Callable[[RestartableGateway, Path], str],
    built: Path,
    installed: None,
    gateway: RestartableGateway,
    tmp_path: Path,
) -> None:
    process = await asyncio.create_subprocess_shell(
        runtime(gateway, tmp_path),
        cwd=HERE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    said, complaints = await process.communicate()  # it ends by itself: nothing is left running
    assert process.returncode == 0, complaints.decode()
    told = {"status": "COMPLETED", "text": "Once upon a time.", "tokens": 2}
    assert json.loads(said) == [told | {"transport": each} for each in ("websocket", "sse")]
