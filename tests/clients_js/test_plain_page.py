"""The example without a build step, on the built package, in a real Chromium."""

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import async_playwright

from tests.clients_js.conftest import PACKAGE
from tests.e2e.server_process import serving
from tests.support.browser import expect
from tests.support.restartable_gateway import RestartableGateway

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(300)]

EXAMPLE = PACKAGE.parents[1] / "examples" / "plain_page"


@pytest.fixture
async def backend(built: Path, gateway: RestartableGateway) -> AsyncIterator[str]:
    environ = {"RUNCAST_URL": gateway.url, "RUNCAST_SECRET_KEY": gateway.key, "PORT": "0"}
    async with serving(sys.executable, "server.py", cwd=EXAMPLE, env=environ) as url:
        yield url


async def test_reports_are_followed_in_two_windows(backend: str, chromium_path: Path) -> None:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium_path)
        context = await browser.new_context()
        page, other = await context.new_page(), await context.new_page()
        for each in (page, other):
            await each.goto(backend)
        await page.get_by_role("button").click()
        for each in (page, other):
            log = each.locator("pre")
            await expect(log).to_contain_text("Reading the orders: done.")
            await expect(each.locator(".status")).to_have_text("completed")
            await expect(each.locator("progress")).to_have_js_property("value", 1)
            assert (await log.inner_text()).splitlines() == [
                "Reading the orders: done.",
                "Adding them up: done.",
                "Drawing the charts: done.",
                "Writing the report: done.",
            ]
        await browser.close()
