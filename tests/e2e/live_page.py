"""The live page opened in a browser, and what tests ask of it."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from playwright.async_api import Browser, Page, ViewportSize

from tests.support.browser import PATIENCE_MS, expect

WIDE: ViewportSize = {"width": 1280, "height": 900}
PHONE: ViewportSize = {"width": 360, "height": 740}

# Chromium logs these for every failed request; the tests that cut the network cause them.
NETWORK_NOISE = re.compile(r"Failed to load resource|WebSocket connection to")


@asynccontextmanager
async def opened(
    browser: Browser,
    url: str,
    *,
    viewport: ViewportSize = WIDE,
    dark: bool = False,
    websockets: bool = True,
) -> AsyncIterator[Page]:
    """A page in a context of its own; it fails the test for any error that the page logs."""
    theme: Any = "dark" if dark else "light"
    context = await browser.new_context(viewport=viewport, color_scheme=theme)
    context.set_default_timeout(PATIENCE_MS)
    if not websockets:
        await context.add_init_script("delete globalThis.WebSocket")
    page = await context.new_page()
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda line: complaints.append(line.text) if line.type == "error" else None)
    await page.goto(url)
    yield page
    await context.close()
    assert [text for text in complaints if not NETWORK_NOISE.search(text)] == []


async def paste(page: Page, token: str) -> None:
    """Give a page that has loaded a token, of whose time the loading takes nothing."""
    await page.fill("#token-field", token)
    await page.press("#token-field", "Enter")


async def assert_text(page: Page, selector: str, text: str | re.Pattern[str]) -> None:
    await expect(page.locator(selector)).to_have_text(text)


async def assert_live(page: Page) -> None:
    await assert_text(page, "#state", "Live")


def row(run: str) -> str:
    return f'#rows [data-run="{run}"]'
