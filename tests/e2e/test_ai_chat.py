"""The chat with the AI SDK, as its README starts it, in a real Chromium."""

import asyncio
import os
import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, Page

from tests.e2e.gateway_process import Gateway
from tests.e2e.live_page import opened
from tests.e2e.node_example import copy_of
from tests.e2e.server_process import serving
from tests.support.browser import expect

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
async def backend(
    node: Path, tmp_path_factory: pytest.TempPathFactory, gateway: Gateway
) -> AsyncIterator[str]:
    folder = tmp_path_factory.mktemp("ai_chat")
    project = await asyncio.to_thread(copy_of, "ai_chat", folder)
    npm = shutil.which("npm")
    assert npm is not None
    environ = {**os.environ, "VITE_RUNCAST_URL": gateway.url}
    building = await asyncio.create_subprocess_exec(npm, "run", "build", cwd=project, env=environ)
    assert await building.wait() == 0
    command = (sys.executable, "-m", "uvicorn", "main:app", "--port", "0")
    keys = {"RUNCAST_URL": gateway.url, "RUNCAST_SECRET_KEY": gateway.key}
    async with serving(*command, cwd=project, env=keys, without="StreamClosed") as url:
        yield url


# The model says what it was asked, word by word: its answer takes minutes, unless it is stopped.
LONG = " ".join(["What", *["and what"] * 1500])


async def say(page: Page, text: str) -> None:
    await page.get_by_label("Message").fill(text)
    await page.get_by_role("button", name="Send").click()


async def assert_begun(page: Page, text: str) -> str:
    """So much of the last answer is there; gives what there is of it."""
    answer = page.locator(".assistant").last
    await expect(answer).to_contain_text(text)
    return str(await answer.text_content())


async def assert_writing(page: Page, text: str = "You said “What and what") -> str:
    """So much of a `LONG` answer is there, and it is not over; gives what there is of it."""
    before = await assert_begun(page, text)
    await expect(page.get_by_role("button", name="Stop")).to_be_visible()
    return before


async def assert_over(page: Page) -> str:
    """The last answer is over; gives it."""
    await expect(page.get_by_role("button", name="Send")).to_be_visible()
    return str(await page.locator(".assistant").last.text_content())


async def newest(gateway: Gateway) -> Any:
    runs = (await gateway.ask("GET", "/api/v1/runs?filter[taskIdentifier]=chat"))["data"]
    return runs[0]


async def test_an_answer_survives_a_reload_and_is_the_same_in_every_window(
    gateway: Gateway, backend: str, browser: Browser
) -> None:
    async with opened(browser, backend) as page:
        await say(page, "Who are you?")
        before = await assert_begun(page, "I am a fake model.")
        await page.reload()
        assert (await assert_begun(page, before)).startswith(before)
        other = await page.context.new_page()
        await other.goto(page.url)
        for each in (page, other):
            await expect(each.locator(".assistant")).to_contain_text("Say “fail”, and I do.")
            await assert_over(each)
        await expect(page.locator(".user, .assistant")).to_have_count(2)
        assert (await newest(gateway))["status"] == "COMPLETED"

        await say(page, LONG)
        before = await assert_writing(page)
        await page.reload()
        assert (await assert_writing(page, before)).startswith(before)
        await expect(page.locator(".user, .assistant")).to_have_count(4)
        await page.get_by_role("button", name="Stop").click()
        await assert_over(page)


async def test_an_answer_is_stopped_in_every_window(
    gateway: Gateway, backend: str, browser: Browser
) -> None:
    async with opened(browser, backend) as page:
        await say(page, LONG)
        await assert_writing(page)
        other = await page.context.new_page()
        await other.goto(page.url)
        await assert_writing(other)
        await page.get_by_role("button", name="Stop").click()
        answer = await assert_over(page)
        assert not answer.endswith("and I do.")
        assert await assert_over(other) == answer
        await expect(page.get_by_role("alert")).to_have_count(0)
        assert (await newest(gateway))["status"] == "CANCELED"


async def test_a_chat_says_what_went_wrong(backend: str, browser: Browser) -> None:
    async with opened(browser, backend) as page:
        await say(page, "fail")
        problem = page.get_by_role("alert")
        await expect(problem).to_have_text("You told me to fail, so I did.")
        await page.route("**/api/chats/*", lambda route: route.fulfill(status=502, body="{}"))
        await say(page, "And now?")
        await expect(problem).to_have_text("The backend says 502.")
