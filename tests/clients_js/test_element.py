"""The element <run-progress> on a plain page of another origin, in Chromium."""

import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
from playwright.async_api import Page, async_playwright

from runcast import app
from runcast.web.page import routes_to
from tests.support.browser import expect
from tests.support.gateway_app import GatewayApp, running_app, until
from tests.support.site import Site, serving

pytestmark = [pytest.mark.slow, pytest.mark.browser, pytest.mark.timeout(300)]

_PAGE = """\
<!doctype html>
<html lang="en">
<meta name="color-scheme" content="light dark">
<title>Runs</title>
<script type="module" src="{gateway}/element/run-progress.js"></script>
{elements}
"""
# What docs/element.md says that a page must allow.
_POLICY = "default-src 'none'; script-src {gateway}; connect-src 'self' {gateway} {socket}"
_LISTEN = """
window.heard = [];
for (const type of ["runchange", "runcomplete", "runerror"]) {
  document.addEventListener(type, ({ target, detail }) => {
    window.heard.push([type, target.getAttribute("run"), detail.run?.status ?? detail.error.code]);
  });
}
"""


@pytest.fixture
def built_routes(built_page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that may have been built since the gateway's modules were loaded."""
    monkeypatch.setattr(app, "page_routes", routes_to(built_page))


@pytest.fixture
async def gateway(
    database_url: str, tmp_path: Path, built_routes: None
) -> AsyncIterator[GatewayApp]:
    async with running_app(database_url, objects_dir=tmp_path / "objects") as gateway:
        yield gateway


@pytest.fixture
def site(tmp_path: Path, gateway: GatewayApp) -> Iterator[Site]:
    with serving(tmp_path) as site:
        yield site


@pytest.fixture
async def page(chromium_path: Path, site: Site, gateway: GatewayApp) -> AsyncIterator[Page]:
    """A page that notes the element's events; nothing that its policy forbids may be tried."""
    socket = gateway.url.replace("http", "ws")
    site.headers["content-security-policy"] = _POLICY.format(gateway=gateway.url, socket=socket)
    complaints: list[str] = []
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium_path)
        context = await browser.new_context(base_url=site.url)
        page = await context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda said: complaints.append(said.text))
        await page.add_init_script(_LISTEN)
        yield page
        await browser.close()
    assert [text for text in complaints if "Security Policy" in text or "Error" in text] == []


def show(site: Site, gateway: GatewayApp, *elements: str) -> None:
    site.pages["/"] = _PAGE.format(gateway=gateway.url, elements="\n".join(elements))


async def heard(page: Page) -> list[list[str]]:
    events: list[list[str]] = await page.evaluate("window.heard")
    return events


async def append(gateway: GatewayApp, run: str, *chunks: str, close: bool = False) -> None:
    path = f"/realtime/v1/streams/{run}/self/llm"
    async with httpx.AsyncClient(base_url=gateway.url, headers=gateway.bearer) as client:
        lines = "".join(f'"{chunk}"\n' for chunk in chunks)
        (await client.post(path, content=lines)).raise_for_status()
        if close:
            (await client.post(f"{path}/close")).raise_for_status()


async def test_runs_are_shown_as_they_go_on_over_one_connection(
    page: Page, site: Site, gateway: GatewayApp
) -> None:
    first = await gateway.insert(status="EXECUTING", metadata={"progress": 0.25})
    second = await gateway.insert(task="import", metadata={"rows": {"done": 3}})
    site.pages["/token"] = gateway.token("read:runs")
    show(
        site,
        gateway,
        f'<run-progress id="one" run="{first}" token-url="/token" stream="llm"></run-progress>',
        f'<run-progress id="two" run="{second}" token-url="token" label="Import" max="12"'
        """ progress="rows.done" labels='{"QUEUED": "In der Schlange"}'></run-progress>""",
    )
    await page.goto("/")
    one, two = page.locator("#one"), page.locator("#two")
    bar = one.get_by_role("progressbar", name="hello")
    await expect(bar).to_have_attribute("aria-valuenow", "25")
    await expect(one.get_by_role("status")).to_have_text("Running")
    await expect(two.get_by_role("progressbar", name="Import")).to_have_attribute(
        "aria-valuenow", "25"
    )
    await expect(two.get_by_role("status")).to_have_text("In der Schlange")
    assert len(gateway.gateway.hub.connections) == 1

    text = one.get_by_role("log")
    await append(gateway, first, "Hello <b>wor")
    await expect(text).to_have_text("Hello <b>wor")
    await append(gateway, first, "ld</b>", close=True)
    await expect(text).to_have_text("Hello <b>world</b>")
    await gateway.update(first, metadata={"progress": 0.5})
    await expect(bar).to_have_attribute("aria-valuenow", "50")
    await gateway.finish(first)
    await expect(bar).to_have_attribute("aria-valuenow", "100")
    await expect(one).to_have_attribute("status", "COMPLETED")
    await expect(text).to_have_attribute("aria-busy", "false")
    await gateway.update(second, status="COMPLETED_WITH_ERRORS", error={"message": "row 4 is bad"})
    await expect(two).to_contain_text("row 4 is bad")
    await gateway.deserted()
    events = await heard(page)
    assert ["runcomplete", second, "FAILED"] in events
    assert events.count(["runcomplete", first, "COMPLETED"]) == 1
    assert ["runchange", first, "EXECUTING"] in events


async def test_elements_that_leave_the_page_follow_nothing_any_more(
    page: Page, site: Site, gateway: GatewayApp
) -> None:
    run = await gateway.insert()
    site.pages["/token"] = gateway.token("read:runs")
    show(
        site, gateway, f'<main><run-progress run="{run}" token-url="/token"></run-progress></main>'
    )
    await page.goto("/")
    await expect(page.get_by_role("status")).to_have_text("Queued")
    (connection,) = gateway.gateway.hub.connections
    await page.evaluate("document.body.prepend(document.querySelector('run-progress'))")  # a move
    await gateway.update(run, status="EXECUTING")
    await expect(page.get_by_role("status")).to_have_text("Running")
    assert [*gateway.gateway.hub.connections] == [connection]
    await page.evaluate("document.querySelector('run-progress').remove()")
    await gateway.deserted()


async def test_tokens_are_fetched_again_before_they_expire(
    page: Page, site: Site, gateway: GatewayApp
) -> None:
    run = await gateway.insert()
    given = []

    def token() -> str:
        given.append(1)
        return f'{{"token": "{gateway.token(f"read:runs:{run}", seconds=3)}"}}'

    site.pages["/token"] = token
    show(site, gateway, f'<run-progress run="{run}" token-url="/token"></run-progress>')
    await page.goto("/")
    await expect(page.get_by_role("status")).to_have_text("Queued")
    (connection,) = gateway.gateway.hub.connections
    await until(lambda: len(given) >= 3, lambda: given)
    await gateway.update(run, status="EXECUTING")
    await expect(page.get_by_role("status")).to_have_text("Running")
    assert [*gateway.gateway.hub.connections] == [connection]


async def test_a_run_that_cannot_be_followed_is_told_and_another_one_can_take_its_place(
    page: Page, site: Site, gateway: GatewayApp
) -> None:
    mine, other = [await gateway.insert() for _ in range(2)]
    site.pages["/token"] = gateway.token(f"read:runs:{mine}")
    show(site, gateway, f'<run-progress run="{other}" token-url="/token"></run-progress>')
    await page.goto("/")
    element = page.locator("run-progress")
    await expect(element).to_have_attribute("status", "failed")
    await expect(element).to_contain_text("Not available")
    assert await heard(page) == [["runerror", other, "insufficient_scope"]]
    await element.evaluate("(element, run) => element.setAttribute('run', run)", mine)
    await expect(element).to_contain_text("Queued")
    assert (await heard(page))[-1] == ["runchange", mine, "QUEUED"]


async def test_it_is_light_or_dark_as_the_page_is_or_as_the_page_says(
    page: Page, site: Site, gateway: GatewayApp
) -> None:
    site.headers["content-security-policy"] += "; style-src 'unsafe-inline'"  # of the test's page
    run = await gateway.insert(status="EXECUTING", metadata={"progress": 40})
    site.pages["/token"] = gateway.token("read:runs")
    sheet = "<style>run-progress::part(label) { letter-spacing: 3px }</style>"
    show(site, gateway, sheet, f'<run-progress run="{run}" token-url="/token"></run-progress>')
    await page.goto("/")
    element, fill = page.locator("run-progress"), page.locator("run-progress .fill")
    await expect(fill).to_have_attribute("style", re.compile("40%"))
    await expect(fill).to_have_css("background-color", "rgb(79, 70, 229)")
    await page.emulate_media(color_scheme="dark")
    await expect(fill).to_have_css("background-color", "rgb(165, 180, 252)")
    await element.evaluate("(it) => it.style.setProperty('--run-progress-accent', 'rgb(1, 2, 3)')")
    await expect(fill).to_have_css("background-color", "rgb(1, 2, 3)")
    await expect(page.locator("run-progress .label")).to_have_css("letter-spacing", "3px")
