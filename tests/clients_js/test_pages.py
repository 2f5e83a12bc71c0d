"""What one page costs in Chromium: its memory and its connections, against a real gateway."""

import re
import subprocess
from pathlib import Path

import httpx
import pytest
from playwright.async_api import BrowserContext

from tests.clients_js.conftest import PACKAGE
from tests.support.restartable_gateway import RestartableGateway
from tests.support.site import Site

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

_READ = """
async ([baseURL, token, run]) => {
  const { createClient } = await import("/dist/index.js");
  window.client = createClient({ baseURL, token, shareTabs: false });
  const feed = window.client.stream(run, "llm", { maxParts: 100, maxText: 1000 });
  feed.subscribe(() => { window.shown = feed.getSnapshot(); });
  window.read = 0;
  (async () => { for await (const part of feed) window.read += part.length === 200 ? 1 : NaN; })();
}
"""
_CHUNKS = 100_000
_PER_REQUEST = 5_000


async def test_memory_stays_flat_over_a_hundred_thousand_chunks(
    tabs: BrowserContext, gateway: RestartableGateway
) -> None:
    run = await gateway.app.insert()
    page = await tabs.new_page()
    await page.goto("/")
    await page.evaluate(_READ, [gateway.url, gateway.app.token(f"read:runs:{run}"), run])
    devtools = await tabs.new_cdp_session(page)

    async def heap() -> float:
        await devtools.send("HeapProfiler.collectGarbage")
        usage = await devtools.send("Runtime.getHeapUsage")
        return float(usage["usedSize"])

    early = 0.0
    lines = f'"{"x" * 200}"\n' * _PER_REQUEST
    path = f"{gateway.url}/realtime/v1/streams/{run}/self/llm"
    async with httpx.AsyncClient(headers=gateway.app.bearer, timeout=30) as writer:
        for sent in range(_PER_REQUEST, _CHUNKS + 1, _PER_REQUEST):
            (await writer.post(path, content=lines)).raise_for_status()
            await page.wait_for_function("(sent) => window.read === sent", arg=sent)
            early = early or await heap()  # all code is loaded, and a twentieth has come
    assert await page.evaluate("window.shown.parts.length") == 100
    # Those that came since have 19 MB.
    assert await heap() - early < 4_000_000


_HOOKS = """
import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { createClient } from "@runcast/client";
import { RuncastProvider, useRun, useRuns, useRunStream } from "@runcast/client/react";

const { baseURL, token, runs } = window.given;
const client = createClient({ baseURL, token });
const Run = ({ id }) => <p>{useRun(id).run?.status}</p>;
const Runs = ({ tag }) => <p>{useRuns({ tags: [tag] }).status}</p>;
const Text = ({ id }) => <p>{useRunStream(id, "llm").status}</p>;
createRoot(document.body).render(
  <StrictMode>
    <RuncastProvider client={client}>
      {runs.map((id) => <Run key={id} id={id} />)}
      {runs.map((id, n) => <Runs key={id} tag={`tag_${n}`} />)}
      {runs.map((id) => <Text key={id} id={id} />)}
    </RuncastProvider>
  </StrictMode>,
);
"""


async def test_thirty_hooks_use_one_connection(
    tabs: BrowserContext, gateway: RestartableGateway, site: Site, hooks: str
) -> None:
    runs = [await gateway.app.insert() for _ in range(10)]
    site.pages["/hooks.js"] = hooks
    given = {"baseURL": gateway.url, "token": gateway.app.token("read:runs"), "runs": runs}
    page = await tabs.new_page()
    await page.goto("/")
    await page.evaluate("(given) => { window.given = given; }", given)
    await page.evaluate('import("/hooks.js").then(() => undefined)')
    shown = "QUEUED" * 10 + "live" * 20
    await page.wait_for_function("(shown) => document.body.textContent === shown", arg=shown)
    (connection,) = gateway.app.gateway.hub.connections
    assert len(connection.subscribers) == 30
    async with httpx.AsyncClient() as reader:
        metrics = (await reader.get(f"{gateway.url}/metrics")).text
    (line,) = re.findall(r"^runcast_connections\{.*", metrics, re.MULTILINE)
    assert line.endswith(" 1.0")


@pytest.fixture
def hooks(built: Path) -> str:
    """A page of thirty hooks, as a bundler makes it of the package."""
    words = ("--bundle", "--format=esm", "--loader=jsx", "--jsx=automatic", "--minify")
    production = '--define:process.env.NODE_ENV="production"'
    esbuild = PACKAGE / "node_modules" / ".bin" / "esbuild"
    done = subprocess.run(
        [esbuild, *words, production], input=_HOOKS, cwd=PACKAGE, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
