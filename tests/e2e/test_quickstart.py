"""The quickstarts, followed to the letter: their files are written, their commands typed."""

import asyncio
import os
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from playwright.async_api import Browser

from runcast import AsyncClient
from runcast.client.errors import PermissionDenied
from tests.e2e.gateway_process import Gateway
from tests.e2e.live_page import opened
from tests.e2e.server_process import serving
from tests.support.browser import expect
from tests.support.document import Block, blocks, section
from tests.support.needs import free_port
from tests.support.npm import install_packages

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
QUICKSTART = ROOT / "docs" / "quickstart.md"
OTHERS = ROOT / "docs" / "quickstart"
STORY = "Once upon a time a run told a story, word by word, to whoever listened."
SERVERS = ("uvicorn ", "runserver ", "flask ", "node backend", "npx vite")


class Reader:
    """Does what documents say, in a folder beside a copy of the checkout."""

    def __init__(self, folder: Path, gateway: Gateway) -> None:
        self._port = free_port()
        self._gateway = gateway
        self._at = folder
        python = Path(sys.executable).parent
        self._environ = {
            "PATH": f"{python}{os.pathsep}{os.environ['PATH']}",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PIP_NO_COMPILE": "1",
            "npm_config_prefer_offline": "true",
            "npm_config_fund": "false",
            "npm_config_audit": "false",
        }

    def _here(self, text: str) -> str:
        """As on this machine, where the ports of the documents may be taken."""
        text = text.replace("http://127.0.0.1:8080", self._gateway.url)
        return text.replace("tr_dev_…", self._gateway.key).replace("8000", str(self._port))

    def write(self, block: Block) -> None:
        """Write a file, or the end of one."""
        assert block.file is not None, block.said
        file = self._at / block.file
        mode = "a" if "At the end of" in block.said else "w"
        with file.open(mode, encoding="utf-8") as opened_file:
            opened_file.write(self._here(block.code))

    async def type(self, script: str) -> str:
        """Run commands to their end, stay where they lead, and give what they print."""
        script = script.replace("npm ci && ", "")  # its packages are there, and shared
        process = await asyncio.create_subprocess_exec(
            *("bash", "-ec", f"{self._here(script)}\npwd > '{self._at}/.at'"),
            cwd=self._at,
            env={**os.environ, **self._environ},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        said, complaints = await process.communicate()
        assert process.returncode == 0, f"{script}\n{said.decode()}\n{complaints.decode()}"
        self._at = Path((self._at / ".at").read_text().strip())
        return said.decode()

    @asynccontextmanager
    async def following(self, text: str) -> AsyncIterator[str]:
        """Do everything up to the first server, and give its address while it runs."""
        for block in blocks(text):
            if block.language != "sh":
                self.write(block)
            elif any(word in block.code for word in SERVERS):
                *before, server = self._here(block.code).strip().splitlines()
                script = "\n".join([*before, f"exec {server}"])
                async with serving("bash", "-ec", script, cwd=self._at, env=self._environ) as url:
                    yield url
                return
            else:
                await self.type(block.code)


@pytest.fixture
async def reader(node: Path, built_page: Path, tmp_path: Path, gateway: Gateway) -> Reader:
    """Someone who has done steps 1 and 2."""
    await asyncio.to_thread(copy_checkout, tmp_path / "runcast")
    reader = Reader(tmp_path, gateway)
    (folder,) = blocks(section(QUICKSTART, "2. Make a folder"))
    await reader.type(folder.code)
    return reader


def copy_checkout(copy: Path) -> None:
    """What `./dev` leaves behind: the page is built, and the packages are there."""
    client = Path("clients", "js")
    install_packages(ROOT / client)
    ignore = shutil.ignore_patterns(".*", "node_modules", "__pycache__", "dist", "results", "tests")
    shutil.copytree(ROOT, copy, ignore=ignore)
    stamp = Path("src", "runcast", "web", "built", ".sources")
    shutil.copy(ROOT / stamp, copy / stamp)
    (copy / client / "node_modules").symlink_to(ROOT / client / "node_modules")


async def assert_told(backend: str, gateway: Gateway) -> None:
    """The two routes of a backend do what the quickstart says of them."""
    transport = httpx.AsyncHTTPTransport(retries=5)  # Django says its address a little early
    async with httpx.AsyncClient(base_url=backend, transport=transport) as http:
        run = (await http.post("/api/stories")).raise_for_status().json()["run"]
        token = (await http.get("/api/token")).raise_for_status().text
    async with AsyncClient(gateway.url, token=token) as client, asyncio.timeout(60):
        assert (await client.streams.read(run, "llm").text()).rstrip() == STORY
        told = [each.status async for each in client.runs.subscribe(run)]
        assert told[-1] == "COMPLETED"
        with pytest.raises(PermissionDenied):
            await client.runs.retrieve(await gateway.trigger())


async def assert_worker(browser: Browser) -> None:
    """A worker has the connection, as the page's bundler lets it."""
    devtools = await browser.new_browser_cdp_session()
    targets = (await devtools.send("Target.getTargets"))["targetInfos"]
    assert "shared_worker" in {target["type"] for target in targets}
    await devtools.detach()


async def assert_followed(reader: Reader) -> None:
    """A program in Node.js follows as a page does."""
    script, command = blocks(section(OTHERS / "node.md", "Follow from Node.js"))
    reader.write(script)
    assert (await reader.type(command.code)).rstrip() == STORY


async def test_the_quickstart_and_its_variants(
    reader: Reader, gateway: Gateway, browser: Browser
) -> None:
    async with reader.following(section(QUICKSTART, "3. A backend")):
        page_and_command = section(QUICKSTART, "4. A page") + section(QUICKSTART, "5. See it")
        async with reader.following(page_and_command) as url:
            page = await browser.new_page()
            await page.goto(url)
            await page.get_by_role("button").click()
            await expect(page.locator("p")).to_contain_text("upon")
            await assert_worker(browser)
            await gateway.kill()
            await gateway.start()
            await expect(page.locator("p")).to_have_text(STORY)
            await expect(page.locator("output")).to_have_text("COMPLETED")
            await page.close()

    environ = f"export RUNCAST_URL={gateway.url} RUNCAST_SECRET_KEY={gateway.key}\n"
    plain = (OTHERS / "browser.md").read_text(encoding="utf-8")
    plain = plain.replace(".venv/bin/uvicorn", f"{environ}.venv/bin/uvicorn")  # still set
    async with reader.following(plain) as url, opened(browser, url) as page:
        await page.get_by_role("button").click()
        await expect(page.locator("p")).to_have_text(STORY)
        await expect(page.locator("output")).to_have_text("COMPLETED")

    for variant in ("django", "flask", "node"):
        text = (OTHERS / f"{variant}.md").read_text(encoding="utf-8")
        async with reader.following(text.partition("\n## ")[0]) as backend:
            telling = [assert_told(backend, gateway)]
            if variant == "node":
                telling.append(assert_followed(reader))
            await asyncio.gather(*telling)
