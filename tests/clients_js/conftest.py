"""The built package of clients/js, and a gateway for it."""

import fcntl
import hashlib
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.async_api import BrowserContext, async_playwright

from tests.support.needs import missing
from tests.support.npm import install_packages
from tests.support.restartable_gateway import RestartableGateway, restartable_gateway
from tests.support.site import Site, serving

PACKAGE = Path(__file__).parents[2] / "clients" / "js"


@pytest.fixture(scope="session")
def npm(node: Path) -> str:
    """Path of npm, with the package's tools installed as its lock file says."""
    install_packages(PACKAGE)
    return shutil.which("npm") or missing("npm", "install it beside Node.js")


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
    done = run_in_package(command)
    what = f"{' '.join(command[1:])} failed: {done.stdout[-2000:]}{done.stderr[-2000:]}"
    assert done.returncode == 0, what
    file.write_text(state)


def run_in_package(command: list[str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command, cwd=PACKAGE, capture_output=True, text=True, timeout=560, check=False
    )


@pytest.fixture
async def gateway(database_url: str, tmp_path: Path) -> AsyncIterator[RestartableGateway]:
    async with restartable_gateway(database_url, objects_dir=tmp_path / "objects") as gateway:
        yield gateway


@pytest.fixture
def site(built: Path) -> Iterator[Site]:
    """The pages of an application that has the built package."""
    with serving(PACKAGE) as site:
        site.pages["/"] = "<!doctype html>"
        yield site


@pytest.fixture
async def tabs(
    chromium_path: Path, site: Site, gateway: RestartableGateway
) -> AsyncIterator[BrowserContext]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium_path)
        yield await browser.new_context(base_url=site.url)
        await browser.close()
