"""The official hooks on a React page in a real Chromium, which comes from another origin."""

import json
import subprocess
import threading
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import httpx
import pytest
from playwright.async_api import Browser, Page, async_playwright

from runcast.auth.token import mint_token
from tests.support.browser import PATIENCE_MS, expect
from tests.support.gateway_app import GatewayApp
from tests.support.restartable_gateway import RestartableGateway, restartable_gateway
from tests.support.stream_writer import write

pytestmark = [
    pytest.mark.official,
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.timeout(180, func_only=True),
    pytest.mark.parametrize("generation", ["v3", "v4"]),
]

HERE = Path(__file__).parent
# Short, so that the page sees several polls.
HOLD_SECONDS = 2.0
# Nobody asks one address so often with good reason, however slow the machine.
STORM = 100


class Files(SimpleHTTPRequestHandler):
    """Files of a folder, without a word."""

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def site(clients: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where the page of each generation is, bundled and served."""
    folder = tmp_path_factory.mktemp("page")
    for generation in ("v3", "v4"):
        bundle(clients, generation, folder)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Files, directory=folder)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def bundle(node: Path, generation: str, folder: Path) -> None:
    options = [
        "--bundle",
        "--jsx=automatic",
        "--log-level=error",
        f"--alias:hooks=hooks-{generation}",
        "--external:node:http2",  # met in branches that no browser takes
        '--define:process.env.NODE_ENV="production"',
        f"--outfile={folder}/{generation}.js",
    ]
    esbuild = "node_modules/esbuild/bin/esbuild"
    subprocess.run([node, esbuild, "page/app.jsx", *options], cwd=HERE, check=True)
    page = f'<!doctype html><meta charset="utf-8"><body><script src="{generation}.js"></script>'
    (folder / f"{generation}.html").write_text(page)


@pytest.fixture(scope="module")
async def browser(chromium_path: Path) -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium_path)
        yield browser
        await browser.close()


@pytest.fixture
async def gateway(database_url: str) -> AsyncIterator[RestartableGateway]:
    async with restartable_gateway(database_url, poll_hold_seconds=HOLD_SECONDS) as gateway:
        yield gateway


@dataclass
class Shown:
    """A page, the errors that nobody takes care of on it, and the addresses that it asked."""

    page: Page
    strays: list[str] = field(default_factory=list)
    requests: Counter[str] = field(default_factory=Counter)

    async def assert_shows(self, **texts: str) -> None:
        for place, text in texts.items():
            await expect(self.page.locator(f"#{place}")).to_have_text(text)


@asynccontextmanager
async def shown(
    browser: Browser, site: str, generation: str, app: GatewayApp, **asked: str
) -> AsyncIterator[Shown]:
    """The page for what is asked for."""
    context = await browser.new_context()
    context.set_default_timeout(PATIENCE_MS)
    shown = Shown(await context.new_page())
    shown.page.on("pageerror", lambda error: shown.strays.append(str(error)))
    shown.page.on("request", lambda request: shown.requests.update([urlsplit(request.url).path]))
    await shown.page.goto(f"{site}/{generation}.html?{urlencode({'url': app.url} | asked)}")
    yield shown
    await context.close()


async def test_a_page_shows_runs_through_their_lives(
    gateway: RestartableGateway, browser: Browser, site: str, generation: str
) -> None:
    app = gateway.app
    async with httpx.AsyncClient(base_url=app.url, headers=app.bearer, trust_env=False) as client:
        items = [{"task": "one"}, {"task": "two"}]
        batch = (await client.post("/api/v1/tasks/batch", json={"items": items})).json()["id"]
    run = await app.insert(tags=["a"], payload=json.dumps({"text": "größe"}))
    token = app.token("read:runs", "read:tags:a", "read:batch")
    asked = {"run": run, "tag": "a", "batch": batch, "token": token}
    async with shown(browser, site, generation, app, **asked) as seen:
        await seen.assert_shows(status="QUEUED", tagged="QUEUED", batch="one two")
        await seen.assert_shows(payload='{"text":"größe"}')
        await app.update(run, status="EXECUTING", metadata={"progress": "25%"})
        await seen.assert_shows(status="EXECUTING", progress="25%", tagged="EXECUTING")
        text = "Hello"
        await stream(app, run, ["Hel", "lo"])
        await seen.assert_shows(text=text)

        await gateway.restart()
        app = gateway.app
        await stream(app, run, [" wor", "ld"])
        if generation == "v4":  # clients of 3.3 do not go on with a stream that broke
            text = "Hello world"
        await app.update(run, metadata={"progress": "50%"})
        await seen.assert_shows(text=text, progress="50%")

        async with seen.page.expect_event("requestfailed"):
            await seen.page.context.set_offline(True)
        await app.update(run, metadata={"progress": "75%"})
        await seen.page.context.set_offline(False)
        await seen.assert_shows(progress="75%", text=text)

        if generation == "v4":
            await stream(app, run, ["!"])
            await seen.assert_shows(text="Hello world!", stream="Hello world!")
        await app.finish(run, output=json.dumps(["done"]))
        await seen.assert_shows(status="COMPLETED", tagged="COMPLETED", output='["done"]')
        await expect(seen.page.locator("body")).to_have_attribute("data-completed", "yes")
        await seen.assert_shows(error="")
        assert max(seen.requests.values()) < STORM, seen.requests
        assert seen.strays == []


async def test_a_page_triggers_and_follows_once(
    gateway: RestartableGateway, browser: Browser, site: str, generation: str
) -> None:
    app = gateway.app
    token = app.token("trigger:tasks:hello", one_time=True)
    async with shown(browser, site, generation, app, task="hello", token=token) as seen:
        await seen.page.get_by_role("button").click()
        await seen.assert_shows(followed="QUEUED größe", refused="")
        run = await seen.page.locator("#triggered").inner_text()
        await app.update(run, status="EXECUTING")
        await seen.assert_shows(followed="EXECUTING größe")
        await seen.page.get_by_role("button").click()
        await seen.assert_shows(refused="error 422", followed="EXECUTING größe")
        assert len(seen.strays) == 1  # these hooks throw it as well


async def test_a_page_says_why_it_was_refused(
    gateway: RestartableGateway, browser: Browser, site: str, generation: str
) -> None:
    app = gateway.app
    run = await app.insert(tags=["a"])
    token = mint_token(
        secret=app.key, environment_id=app.environment_id, scopes=["read"], now=1, expires_at=1000
    )
    asked = {"run": run, "tag": "a", "token": token}
    async with shown(browser, site, generation, app, **asked) as seen:
        await seen.assert_shows(error="error 401", tagged="error 401")
        if generation == "v4":
            await seen.assert_shows(stream="error 401")
        assert max(seen.requests.values()) == 1, seen.requests
        assert seen.strays == []
    foreign = app.token("read:tags:b")
    async with shown(browser, site, generation, app, **asked | {"token": foreign}) as seen:
        await seen.assert_shows(error="error 403", tagged="error 403")


async def stream(app: GatewayApp, run: str, parts: list[str]) -> None:
    body = "".join(f"{json.dumps(part)}\n" for part in parts).encode()
    assert (await write(app.url, app.bearer, run, body)).status == 200
