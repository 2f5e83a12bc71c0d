"""The examples with Trigger.dev's own packages, as their READMEs start them, in a real Chromium."""

import asyncio
import itertools
import os
import re
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, Page, expect

from tests.e2e.gateway_process import Gateway
from tests.e2e.live_page import opened
from tests.support.npm import install_packages

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(120)]

EXAMPLES = Path(__file__).parents[2] / "examples"
PATIENCE_MS = 30_000

# Every text or number that something on the page had, until the page is left.
WATCH = """
([selector, property]) => {
  window.seen = [];
  const look = () => {
    const value = document.querySelector(selector)?.[property];
    if (value !== undefined && value !== window.seen.at(-1)) window.seen.push(value);
  };
  new MutationObserver(look).observe(document, {
    subtree: true, childList: true, characterData: true, attributes: true,
  });
}
"""


def copy_of(name: str, copy: Path) -> Path:
    """A copy of an example with links to each package, because Vite writes beside them."""
    install_packages(EXAMPLES / name)
    ignore = shutil.ignore_patterns("node_modules", ".npm-lock")
    shutil.copytree(EXAMPLES / name, copy, ignore=ignore)
    (copy / "node_modules").mkdir()
    for package in (EXAMPLES / name / "node_modules").iterdir():
        if package.name != ".vite":
            (copy / "node_modules" / package.name).symlink_to(package)
    return copy


@asynccontextmanager
async def running(name: str, folder: Path, gateway: Gateway) -> AsyncIterator[str]:
    """A copy of an example, started by `npm run dev`; gives its URL."""
    project = await asyncio.to_thread(copy_of, name, folder / name)
    real_models = ("OPENAI_API_KEY", "ANTHROPIC_API_KEY")
    environ = {name: value for name, value in os.environ.items() if name not in real_models}
    environ |= {"TRIGGER_API_URL": gateway.url, "TRIGGER_SECRET_KEY": gateway.key, "NO_COLOR": "1"}
    process = await asyncio.create_subprocess_exec(
        *("npm", "run", "dev"),
        cwd=project,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=environ,
        start_new_session=True,
    )
    assert process.stdout is not None
    log = b""
    while not (found := re.search(rb"Local: +(http://\S+)", log)):
        line = await process.stdout.readline()
        assert line, log.decode()
        log += line
    reading = asyncio.create_task(process.stdout.read())  # a full pipe would stop it
    yield found[1].decode()
    os.killpg(process.pid, signal.SIGTERM)  # npm and what it started
    rest = (await reading).decode()
    await process.wait()
    assert "Error" not in rest, rest


@pytest.fixture(scope="module")
async def chat(
    node: Path, tmp_path_factory: pytest.TempPathFactory, gateway: Gateway
) -> AsyncIterator[str]:
    folder = tmp_path_factory.mktemp("chat")
    async with running("vite_llm_chat", folder, gateway) as url:
        yield url


async def say(page: Page, text: str) -> None:
    await page.get_by_label("Message").fill(text)
    await page.get_by_role("button", name="Send").click()


async def assert_text(page: Page, selector: str, text: str | re.Pattern[str]) -> None:
    await expect(page.locator(selector)).to_contain_text(text, timeout=PATIENCE_MS)


async def text_of(page: Page, selector: str) -> str:
    return str(await page.locator(selector).evaluate("element => element.textContent"))


async def newest(gateway: Gateway, task: str) -> Any:
    """What the gateway says of the newest run of a task."""
    runs = (await gateway.ask("GET", f"/api/v1/runs?filter[taskIdentifier]={task}"))["data"]
    return await gateway.ask("GET", f"/api/v3/runs/{runs[0]['id']}")


async def assert_answered(page: Page, gateway: Gateway, number: int) -> None:
    """The last answer is over, is what the worker wrote, and is that to this question."""
    await expect(page.locator(".writing, .thinking")).to_have_count(0, timeout=PATIENCE_MS)
    run = await newest(gateway, "chat")
    assert run["status"] == "COMPLETED"
    answer = f"article:nth-of-type({number}) .answer"
    assert await text_of(page, answer) == run["output"]["text"]
    assert f"message {number} of this chat" in run["output"]["text"]


async def test_a_chat_streams_survives_a_reload_and_goes_on(
    gateway: Gateway, chat: str, browser: Browser
) -> None:
    async with opened(browser, chat) as page:
        await say(page, "Who are you?")
        await assert_text(page, ".answer", "fake model")
        before = await text_of(page, ".answer")
        await page.reload()
        await assert_text(page, ".answer", before)
        await assert_answered(page, gateway, 1)

        await page.reload()  # also when all is over
        await assert_answered(page, gateway, 1)
        await page.evaluate(WATCH, [".writing", "textContent"])
        await say(page, "And you?")
        await expect(page.locator("article")).to_have_count(2, timeout=PATIENCE_MS)
        await assert_answered(page, gateway, 2)
        pieces = await page.evaluate("window.seen")
        assert len(pieces) >= 3
        assert all(later.startswith(piece) for piece, later in itertools.pairwise(pieces))

        await say(page, "fail")
        await assert_text(page, ".problem", "You told me to fail, so I did.")
        assert (await newest(gateway, "chat"))["status"] == "FAILED"


@pytest.mark.chaos
async def test_a_chat_survives_a_gateway_that_is_killed(
    gateway: Gateway, chat: str, browser: Browser
) -> None:
    async with opened(browser, chat) as page:
        await say(page, "Who are you?")
        await assert_text(page, ".answer", "You said")
        await gateway.kill()
        await gateway.start()
        await assert_answered(page, gateway, 1)


async def test_a_chat_says_what_is_wrong(gateway: Gateway, chat: str, browser: Browser) -> None:
    run = await gateway.trigger("chat")
    exchange = {"question": "Who?", "run": run, "token": "wrong", "baseURL": gateway.url}
    async with opened(browser, chat) as page:
        await page.evaluate("chat => { sessionStorage.chat = JSON.stringify([chat]) }", exchange)
        await page.reload()
        await assert_text(page, ".problem", "It cannot be followed")
        await page.route("**/api/messages", lambda route: route.fulfill(status=502, body="{}"))
        await say(page, "And now?")
        await assert_text(page, "main > .problem", "The backend says 502.")
        await expect(page.get_by_label("Message")).to_have_value("And now?", timeout=PATIENCE_MS)
