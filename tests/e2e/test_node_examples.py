"""The examples with Trigger.dev's own packages, as their READMEs start them, in a real Chromium."""

import asyncio
import itertools
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, FilePayload, Page

from tests.e2e.gateway_process import Gateway
from tests.e2e.live_page import opened
from tests.e2e.node_example import copy_of
from tests.e2e.server_process import serving
from tests.support.browser import expect

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(300)]

INSTALLED = "vite_llm_chat"

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


@asynccontextmanager
async def running(name: str, folder: Path, gateway: Gateway) -> AsyncIterator[str]:
    """A copy of an example, started by `npm run dev`; gives its URL."""
    project = await asyncio.to_thread(copy_of, name, folder, installed=INSTALLED)
    environ = {"TRIGGER_API_URL": gateway.url, "TRIGGER_SECRET_KEY": gateway.key}
    async with serving("npm", "run", "dev", cwd=project, env=environ, without="Error") as url:
        yield url


@pytest.fixture(scope="module")
async def chat(
    node: Path, tmp_path_factory: pytest.TempPathFactory, gateway: Gateway
) -> AsyncIterator[str]:
    folder = tmp_path_factory.mktemp("chat")
    async with running("vite_llm_chat", folder, gateway) as url:
        yield url


@pytest.fixture(scope="module")
async def csv(
    node: Path, tmp_path_factory: pytest.TempPathFactory, gateway: Gateway
) -> AsyncIterator[str]:
    folder = tmp_path_factory.mktemp("csv")
    async with running("csv_import", folder, gateway) as url:
        yield url


async def say(page: Page, text: str) -> None:
    await page.get_by_label("Message").fill(text)
    await page.get_by_role("button", name="Send").click()


async def assert_text(page: Page, selector: str, text: str | re.Pattern[str]) -> None:
    await expect(page.locator(selector)).to_contain_text(text)


async def text_of(page: Page, selector: str) -> str:
    return str(await page.locator(selector).evaluate("element => element.textContent"))


async def newest(gateway: Gateway, task: str) -> Any:
    """What the gateway says of the newest run of a task."""
    runs = (await gateway.ask("GET", f"/api/v1/runs?filter[taskIdentifier]={task}"))["data"]
    return await gateway.ask("GET", f"/api/v3/runs/{runs[0]['id']}")


async def assert_answered(page: Page, gateway: Gateway, number: int) -> None:
    """The last answer is over, is what the worker wrote, and is that to this question."""
    await expect(page.locator(".writing, .thinking")).to_have_count(0)
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
        await expect(page.locator("article")).to_have_count(2)
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
        await expect(page.get_by_label("Message")).to_have_value("And now?")


async def test_an_import_goes_to_its_end_and_tells_what_was_rejected(
    gateway: Gateway, csv: str, browser: Browser
) -> None:
    async with opened(browser, csv) as page:
        await page.evaluate(WATCH, ["progress", "value"])
        await page.get_by_role("button", name="Take the sample").click()
        await assert_text(page, ".summary", "117 rows were imported, 3 rejected.")
        values = await page.evaluate("window.seen")
        assert len(values) >= 3
        assert values == sorted(values)
        assert values[-1] == 120

        await page.reload()
        await assert_text(page, ".summary", "117 rows were imported, 3 rejected.")
        await assert_text(page, "output", "100 %")
        failed = page.locator("li[data-status=FAILED] .rows")
        await expect(failed).to_have_text([re.compile("^31 "), re.compile("^91 ")])
        await expect(page.locator("li[data-status=COMPLETED]")).to_have_count(10)
        await assert_text(page, ".rejected", "Row 38: “a lot” is no amount.")
        parent = await newest(gateway, "import-csv")
        assert parent["metadata"] == {"rows": 120, "imported": 117, "rejected": 3}
        assert [each["row"] for each in parent["output"]["rejected"]] == [37, 38, 94]


async def test_an_import_is_canceled_with_its_chunks(
    gateway: Gateway, csv: str, browser: Browser
) -> None:
    async with opened(browser, csv) as page:
        people = ["Ada,ada@example.com,1"] * 1000
        await page.get_by_label("Choose a file").set_input_files(file_of(people))
        await expect(page.locator("li[data-status=EXECUTING]")).not_to_have_count(0)
        await page.reload()  # it goes on where it was
        await page.get_by_role("button", name="Cancel").click()
        await assert_text(page, ".summary", "Canceled")
        over = page.locator("li:is([data-status=CANCELED], [data-status=COMPLETED])")
        await expect(over).to_have_count(100)
        parent = await newest(gateway, "import-csv")
        assert parent["status"] == "CANCELED"
        children = {child["status"] for child in parent["relatedRuns"]["children"]}
        assert "CANCELED" in children
        assert children <= {"CANCELED", "COMPLETED"}


async def test_an_import_takes_files(csv: str, browser: Browser) -> None:
    async with opened(browser, csv) as page:
        chooser = page.get_by_label("Choose a file")
        await chooser.set_input_files(file_of(['"unended']))
        await assert_text(page, ".problem", "Line 2 is no CSV")
        await chooser.set_input_files(file_of([]))
        await assert_text(page, ".problem", "no rows")
        people = ['"Knuth, ""Don""",don@example.com,2.56', "", "Ada,ada@example.com,1", ""]
        await chooser.set_input_files(file_of(people))
        await assert_text(page, ".summary", "All 2 rows were imported.")
        await expect(page.locator("h2")).to_have_text("people.csv")


def file_of(rows: Sequence[str]) -> FilePayload:
    text = "\r\n".join(["name,email,amount", *rows])
    return {"name": "people.csv", "mimeType": "text/csv", "buffer": text.encode()}
