"""What README.md tells people to type, typed."""

import asyncio
import functools
import os
import re
import shutil
import sys
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import asyncpg
import pytest
from playwright.async_api import Browser

from tests.e2e.gateway_process import Gateway
from tests.support.browser import expect
from tests.support.document import blocks

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def block(document: str, containing: str, language: str = "") -> str:
    """The one block of code in a document that contains a text."""
    (found,) = (
        each.code
        for each in blocks(document)
        if each.language == language and containing in each.code
    )
    return found


class Shell:
    """bash with the variables that the README has set so far."""

    def __init__(self, gateway: Gateway) -> None:
        self.variables = {"URL": gateway.url, "KEY": gateway.key, "NO_PROXY": "127.0.0.1"}

    async def start(self, script: str) -> asyncio.subprocess.Process:
        ours = f'runcast() {{ "{sys.executable}" -m runcast "$@"; }}\n'
        return await asyncio.create_subprocess_exec(
            "bash",
            "-ec",
            ours + script,
            stdout=asyncio.subprocess.PIPE,
            cwd=ROOT,
            env={**os.environ, **self.variables},
        )

    async def run(self, script: str) -> str:
        process = await self.start(script)
        output, _ = await process.communicate()
        assert process.returncode == 0, output.decode()
        return output.decode()


@pytest.mark.skipif(shutil.which("curl") is None, reason="MISSING curl: install the package 'curl'")
async def test_the_minute_of_the_readme(gateway: Gateway) -> None:
    shell = Shell(gateway)
    answer = await shell.run(block(README, "summarise/trigger").replace("RUN=run_…", ""))
    run = re.search(r"run_\w+", answer)
    assert run is not None
    shell.variables["RUN"] = run[0]

    following = await shell.start(block(README, 'Bearer $KEY" "$URL/realtime/v1/runs'))
    assert following.stdout is not None
    first = (await following.stdout.readuntil(b"event: up-to-date\n")).decode()
    assert '"status":"QUEUED"' in first
    cursor = re.findall(r"^id: (\S+)$", first, re.MULTILINE)[-1]

    await shell.run(block(README, "-X PATCH"))
    connection = await asyncpg.connect(gateway.database_url)
    await connection.execute(block(README, "UPDATE", "sql").replace("run_…", run[0]))
    await connection.close()
    rest = (await following.stdout.read()).decode()
    assert '"status":"COMPLETED"' in rest
    assert "event: end\n" in rest

    resume = block(README, "Last-Event-ID: Ab6Y7d2jkj3xBg").replace("Ab6Y7d2jkj3xBg", cursor)
    resumed = await shell.run(resume)
    assert resumed.count("event: run\n") == 1
    assert '"status":"COMPLETED"' in resumed
    assert "event: reset" not in resumed


@pytest.mark.skipif(shutil.which("curl") is None, reason="MISSING curl: install the package 'curl'")
async def test_the_tokens_of_the_readme_open_what_they_name(gateway: Gateway) -> None:
    shell = Shell(gateway)
    await gateway.trigger(tags=["user:42"])
    printed = await shell.run(block(README, "/api/v1/auth/public-tokens"))
    minted = re.findall(r"[\w-]+\.[\w-]+\.[\w-]+", printed)
    assert len(minted) == 2  # over HTTP, and on the command line
    names = {"URL": gateway.url, "KEY": gateway.key}
    await asyncio.to_thread(exec, block(README, "runcast.create_public_token", "python"), names)
    for token in (*minted, names["token"]):
        url = f"{gateway.url}/realtime/v1/runs?tags=user:42&token={token}"
        process = await shell.start(f"curl -sN '{url}'")
        assert process.stdout is not None
        text = await process.stdout.readuntil(b"event: up-to-date\n")
        process.kill()
        await process.wait()
        assert b"event: run\n" in text


@pytest.fixture
def files_of_tmp_path(tmp_path: Path) -> Iterator[str]:
    """What `python3 -m http.server` does: an origin that is not the gateway's."""
    handler = functools.partial(SimpleHTTPRequestHandler, directory=tmp_path)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.skipif(shutil.which("curl") is None, reason="MISSING curl: install the package 'curl'")
async def test_the_stream_of_the_readme_is_written_read_and_resumed(gateway: Gateway) -> None:
    shell = Shell(gateway)
    writing = block(README, "curl -sT -")
    shell.variables["RUN"] = (await shell.run(f"{writing}\necho $RUN")).split()[-1]
    await shell.run(writing.partition("\n\n")[2])  # sent again: stored once

    parts = ["Once", " upon", " a", " time"]
    reading = block(README, 'Bearer $KEY" "$URL/realtime/v1/streams')
    resuming = block(README, "Last-Event-ID: 1")
    for script, wanted in ((reading, parts), (resuming, parts[2:])):
        process = await shell.start(script)
        assert process.stdout is not None
        told = (await process.stdout.readuntil(b"event: up-to-date\n")).decode()
        process.kill()
        await process.wait()
        assert re.findall(r'^data: "(.*)"$', told, re.MULTILINE) == wanted


@pytest.mark.browser
async def test_a_page_reads_what_the_python_of_the_readme_streams(
    gateway: Gateway, browser: Browser, tmp_path: Path, files_of_tmp_path: str
) -> None:
    (tmp_path / "page.html").write_text(block(README, 'id="text"', "html"))
    given = f"URL = {gateway.url!r}\nKEY = {gateway.key!r}\n"
    (tmp_path / "story.py").write_text(given + block(README, "run.stream", "python"))
    process = await started_python(tmp_path / "story.py")
    assert process.stdout is not None
    url = (await process.stdout.readline()).decode().strip()
    context = await browser.new_context()
    page = await context.new_page()
    await page.goto(f"{files_of_tmp_path}/page.html#{url}")
    await expect(page.locator("#text")).to_have_text("Once upon a time")
    assert await process.stdout.read() == b"Once upon a time"
    assert await process.wait() == 0
    await context.close()


async def started_python(script: Path, **environ: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, script),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "NO_PROXY": "127.0.0.1", **environ},
    )


@pytest.mark.browser
async def test_the_page_of_the_readme_follows_a_run(
    gateway: Gateway, browser: Browser, tmp_path: Path, files_of_tmp_path: str
) -> None:
    run = await gateway.trigger()
    token = await gateway.token(f"read:runs:{run}")
    html = block(README, 'id="bar"', "html").replace("http://127.0.0.1:8080", gateway.url)
    (tmp_path / "page.html").write_text(html)
    context = await browser.new_context()
    page = await context.new_page()
    await page.goto(f"{files_of_tmp_path}/page.html#run={run}&token={token}")
    status = page.locator("#status")
    await expect(status).to_have_text("QUEUED")
    await gateway.change(run, status="EXECUTING")
    await gateway.set_metadata(run, progress=0.5)
    await expect(page.locator("#bar")).to_have_js_property("value", 0.5)
    await gateway.change(run, status="COMPLETED")
    await expect(status).to_have_text("COMPLETED")
    await context.close()
