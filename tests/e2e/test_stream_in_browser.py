"""A stream in a real Chromium, through a network that goes away: every part once."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from playwright.async_api import Browser, Page

from tests.e2e.gateway_process import Gateway
from tests.support.gateway_app import until
from tests.support.relay import Relay, relaying
from tests.support.stream_writer import writing

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(300)]

COUNT = 600

# What a page of thirty lines does: resume behind the last id until the end is said.
FETCH = """
async ({ url, token }) => {
  window.got = []; window.ids = []; window.end = null; window.failures = 0;
  let last = null;
  const take = (block) => {
    const fields = Object.fromEntries(block.split("\\n").map((line) => {
      const colon = line.indexOf(": ");
      return [line.slice(0, colon), line.slice(colon + 2)];
    }));
    if (fields.event === "end") window.end = JSON.parse(fields.data).reason;
    else if (!fields.event && fields.id) {
      last = fields.id; window.ids.push(last); window.got.push(fields.data);
    }
  };
  (async () => {
    while (window.end === null) {
      try {
        const headers = { Authorization: `Bearer ${token}` };
        if (last !== null) headers["Last-Event-ID"] = last;
        const answer = await fetch(url, { headers });
        const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
        for (let rest = ""; ;) {
          const { value, done } = await reader.read();
          if (done) break;
          const blocks = (rest + value).split("\\n\\n");
          rest = blocks.pop();
          blocks.forEach(take);
        }
      } catch (error) {
        window.failures += 1;
      }
      if (window.end === null) await new Promise((resolve) => setTimeout(resolve, 30));
    }
  })();
}
"""

EVENT_SOURCE = """
({ url, token }) => {
  window.got = []; window.ids = []; window.end = null; window.failures = 0;
  const source = new EventSource(`${url}?token=${token}`);
  source.onmessage = (event) => {
    window.ids.push(event.lastEventId); window.got.push(event.data);
  };
  source.onerror = () => { window.failures += 1; };
  source.addEventListener("end", (event) => {
    window.end = JSON.parse(event.data).reason;
    source.close();
  });
}
"""


async def has(page: Page, count: int) -> None:
    await page.wait_for_function("count => window.got.length >= count", arg=count)


@asynccontextmanager
async def lost(page: Page, relay: Relay) -> AsyncIterator[None]:
    """The network is lost while the page reads, and the page has met that."""
    await until(lambda: relay.in_use)
    failures = await page.evaluate("window.failures")
    relay.lose()
    await page.wait_for_function("before => window.failures > before", arg=failures)
    yield
    relay.restore()


@pytest.mark.parametrize("script", [FETCH, EVENT_SOURCE], ids=["fetch", "EventSource"])
async def test_every_part_comes_once_through_lost_networks(
    gateway: Gateway, browser: Browser, script: str
) -> None:
    run = await gateway.trigger(tags=["stream"])
    token = await gateway.token(f"read:runs:{run}")
    bearer = {"authorization": f"Bearer {gateway.key}"}
    lines = [f'{{"n":{n},"t":"grün 🌱 \u2028 {"x" * (n % 50)}"}}' for n in range(COUNT)]
    context = await browser.new_context()
    page = await context.new_page()
    async with relaying(gateway.url) as relay:
        address = {"url": f"{relay.url}/realtime/v1/streams/{run}/llm", "token": token}
        await page.evaluate(script, address)
        async with writing(gateway.url, bearer, run, writer="w") as writer:
            await writer.send_lines(lines[:100])
            await has(page, 1)  # in the middle of a burst, or just behind it
            async with lost(page, relay):
                pass
            await has(page, 100)
            async with lost(page, relay):
                await writer.send_lines(lines[100:300])
            await has(page, 101)
            async with lost(page, relay):
                await writer.send_lines(lines[300:500])
            await writer.send_lines(lines[500:])
            assert (await writer.finish()).status == 200
        await gateway.change(run, status="EXECUTING")
        await gateway.change(run, status="COMPLETED")
        await page.wait_for_function("window.end !== null")
        assert await page.evaluate("window.end") == "finished"
        assert await page.evaluate("window.got") == lines
        ids = await page.evaluate("window.ids")
        assert [int(each.partition("-")[2]) for each in ids] == list(range(COUNT))
        assert relay.connections >= 4
    await context.close()
