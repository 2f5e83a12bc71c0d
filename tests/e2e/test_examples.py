"""The examples as their READMEs start them, against a real gateway, in a real Chromium."""

import asyncio
import importlib.util
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, Page

from tests.e2e.gateway_process import Gateway
from tests.e2e.server_process import serving
from tests.support.browser import PATIENCE_MS, expect

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(300)]

FOLDER = Path(__file__).parents[2] / "examples" / "fastapi_llm"


def fake_answer() -> str:
    """What the example's fake model says."""
    spec = importlib.util.spec_from_file_location("example_models", FOLDER / "models.py")
    assert spec is not None
    assert spec.loader is not None
    models: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(models)
    return str(models.FAKE_ANSWER)


@asynccontextmanager
async def uvicorn(folder: Path, gateway: Gateway) -> AsyncIterator[str]:
    """The FastAPI backend of an example; gives its URL."""
    environ = {"RUNCAST_URL": gateway.url, "RUNCAST_SECRET_KEY": gateway.key}
    command = (sys.executable, "-m", "uvicorn", "main:app", "--port", "0")
    async with serving(*command, cwd=folder, env=environ) as url:
        yield url


@pytest.fixture
async def backend(gateway: Gateway) -> AsyncIterator[str]:
    async with uvicorn(FOLDER, gateway) as url:
        yield url


@pytest.fixture
async def page(browser: Browser) -> AsyncIterator[Page]:
    context = await browser.new_context()
    context.set_default_timeout(PATIENCE_MS)
    yield await context.new_page()
    await context.close()


async def text_of(page: Page) -> str:
    return await page.locator("#answer").inner_text()


async def assert_whole(page: Page) -> None:
    await expect(page.locator("#state")).to_have_text("Done.")
    assert await page.locator("#answer").evaluate("p => p.textContent") == fake_answer()


async def test_an_answer_is_read_live_and_survives_a_reload(
    gateway: Gateway, backend: str, page: Page
) -> None:
    await page.goto(backend)
    await page.click("button")
    await expect(page.locator("#answer")).to_contain_text("fake model")
    before = await text_of(page)
    assert before != fake_answer()
    assert fake_answer().startswith(before)

    await page.reload()
    await expect(page.locator("#answer")).to_contain_text(before)
    assert await page.locator("#state").inner_text() == ""
    await assert_whole(page)

    await page.reload()  # also when all is over
    await assert_whole(page)
    (run,) = (await gateway.ask("GET", "/api/v1/runs?filter[taskIdentifier]=answer"))["data"]
    told = await gateway.ask("GET", f"/api/v3/runs/{run['id']}")
    assert told["status"] == "COMPLETED"
    assert told["output"] == {"answer": fake_answer()}


@pytest.mark.chaos
async def test_an_answer_survives_a_gateway_that_is_killed(
    gateway: Gateway, backend: str, page: Page
) -> None:
    await page.goto(backend)
    await page.click("button")
    await expect(page.locator("#answer")).to_contain_text("fake model")
    await gateway.kill()
    assert await text_of(page) != fake_answer()
    await gateway.start()
    await assert_whole(page)


async def test_two_pages_read_the_same(backend: str, page: Page) -> None:
    await page.goto(backend)
    await page.click("button")
    await expect(page.locator("#answer")).to_contain_text("I am")
    reading = await page.evaluate("sessionStorage.reading")
    other = await page.context.new_page()
    await other.goto(backend)
    await other.evaluate("reading => { sessionStorage.reading = reading }", reading)
    await other.reload()
    await asyncio.gather(assert_whole(page), assert_whole(other))


async def test_a_question_that_is_none_is_refused(backend: str, page: Page) -> None:
    await page.goto(backend)
    await page.locator("input").evaluate("field => { field.required = false }")
    await page.fill("input", "")
    await page.click("button")
    await expect(page.locator("#state")).to_have_text("The backend says 422.")
