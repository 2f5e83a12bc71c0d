"""Streams on the live page, in a real Chromium, against a real gateway process."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import httpx
import pytest
from playwright.async_api import Browser, Locator, Page

from tests.e2e.gateway_process import Gateway
from tests.e2e.live_page import PHONE, assert_live, assert_text, opened, paste
from tests.support.browser import expect

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.usefixtures("built_page"),
]


async def write(gateway: Gateway, run: str, key: str, *lines: str) -> None:
    """Append lines to a stream, durably."""
    headers = {"Authorization": f"Bearer {gateway.key}"}
    async with httpx.AsyncClient(base_url=gateway.url, headers=headers, timeout=30) as http:
        body = "".join(f"{line}\n" for line in lines)
        answer = await http.post(f"/realtime/v1/streams/{run}/self/{key}", content=body)
    assert answer.is_success, answer.text


async def say(gateway: Gateway, run: str, *texts: str, key: str = "llm") -> None:
    await write(gateway, run, key, *(json.dumps(text) for text in texts))


def stream(page: Page, key: str = "llm") -> Locator:
    return page.locator(f'.stream[data-stream="{key}"]')


async def assert_says(page: Page, text: str, key: str = "llm") -> None:
    """The text of a stream, to the letter."""
    await expect(stream(page, key).locator(".stream-text")).to_have_js_property("textContent", text)


@asynccontextmanager
async def opened_run(
    gateway: Gateway, browser: Browser, run: str, *, websockets: bool = True
) -> AsyncIterator[Page]:
    url = f"{gateway.url}/#run={run}&token={gateway.key}"
    async with opened(browser, url, websockets=websockets) as page:
        await assert_live(page)
        yield page


async def test_a_stream_is_read_as_text_while_it_grows(gateway: Gateway, browser: Browser) -> None:
    run = await gateway.trigger()
    async with opened_run(gateway, browser, run) as page:
        await expect(page.locator("#streams-card")).to_contain_text("No stream yet")
        await say(gateway, run, "Once", " upon")
        await assert_says(page, "Once upon")
        await say(gateway, run, " a", " time\n\n", "the end 🌱")
        await assert_says(page, "Once upon a time\n\nthe end 🌱")
        await expect(stream(page).locator(".stream-numbers")).to_have_text("5 parts")
        await expect(stream(page).locator(".stream-state")).to_have_text("Live")
        await gateway.change(run, status="EXECUTING")
        await gateway.change(run, status="COMPLETED")
        state = stream(page).locator(".stream-state")
        await expect(state).to_have_text("Ended: finished")
        feed = page.locator('[data-feed="stream llm"]')
        await expect(feed.locator(".feed-state")).to_have_text("Ended: finished")
        await expect(page.locator("#raw")).to_contain_text("the end")


async def test_a_stream_is_read_as_parts_with_offsets(gateway: Gateway, browser: Browser) -> None:
    run = await gateway.trigger()
    await write(gateway, run, "log", '{"level": "info", "n": 1}', '{"level": "warn", "n": 2}')
    await say(gateway, run, "a", "b")
    async with opened_run(gateway, browser, run) as page:
        parts = stream(page, "log").locator(".stream-parts li")
        await expect(parts.locator(".offset")).to_have_text(["0", "1"])
        await expect(parts.locator(".at").nth(1)).to_have_text(re.compile(r"^\d\d:\d\d:\d\d\.\d+$"))
        await parts.nth(1).locator("button").click()
        await expect(stream(page, "log").locator(".picked")).to_contain_text('"level": "warn"')
        await stream(page).get_by_role("button", name="Parts").click()
        await expect(stream(page).locator(".stream-parts .data")).to_have_text(['"a"', '"b"'])
        await say(gateway, run, "c")
        await expect(stream(page).locator(".stream-parts .offset")).to_have_text(["0", "1", "2"])
        await stream(page).get_by_role("button", name="Text").click()
        await assert_says(page, "abc")
        await stream(page, "log").get_by_role("button", name="Text").click()
        await assert_says(page, '{"level":"info","n":1}\n{"level":"warn","n":2}\n', "log")


async def test_after_a_lost_network_no_part_is_missing_or_doubled(
    gateway: Gateway, browser: Browser
) -> None:
    run = await gateway.trigger()
    words = [f"word{number} " for number in range(300)]
    async with opened_run(gateway, browser, run) as page:
        await say(gateway, run, *words[:100])
        await assert_says(page, "".join(words[:100]))
        await page.context.set_offline(True)
        await assert_text(page, "#state", "Offline")
        await say(gateway, run, *words[100:200])
        await assert_says(page, "".join(words[:100]))
        await page.context.set_offline(False)
        await assert_says(page, "".join(words[:200]))
        await say(gateway, run, *words[200:])
        await assert_says(page, "".join(words))


@pytest.mark.chaos
async def test_a_killed_gateway_leaves_no_gap_in_a_stream(
    gateway: Gateway, browser: Browser
) -> None:
    run = await gateway.trigger()
    async with opened_run(gateway, browser, run) as page:
        await say(gateway, run, "before")
        await assert_says(page, "before")
        await gateway.kill()
        await assert_text(page, "#state", "Retrying")
        await gateway.start()
        await say(gateway, run, " and after")
        await assert_says(page, "before and after")


async def test_a_fresh_token_reads_a_stream_on(gateway: Gateway, browser: Browser) -> None:
    run = await gateway.trigger(tags=["brief"])
    await say(gateway, run, "one")
    async with opened(browser, f"{gateway.url}/#tags=brief&run={run}") as page:
        await paste(page, await gateway.token("read:tags:brief", lasts="7s"))
        await assert_says(page, "one")
        await assert_text(page, "#state", "Token expired")
        await say(gateway, run, " two")
        await assert_says(page, "one")
        await paste(page, await gateway.token("read:tags:brief"))
        await assert_says(page, "one two")


async def test_a_stream_that_begins_anew_replaces_what_was_shown(
    gateway: Gateway, browser: Browser
) -> None:
    """As after a restored database: the reader is ahead of the log and is told to forget."""
    run = await gateway.trigger()
    async with opened_run(gateway, browser, run) as page:
        await say(gateway, run, "old", " text")
        await assert_says(page, "old text")
        await page.context.set_offline(True)
        await assert_text(page, "#state", "Offline")
        connection = await asyncpg.connect(gateway.database_url)
        await connection.execute("DELETE FROM runcast.streams WHERE run_id = $1", run)
        await connection.close()
        await gateway.kill()  # what it remembers of the stream is gone with the log
        await gateway.start()
        await say(gateway, run, "new")
        await page.context.set_offline(False)
        await assert_says(page, "new")
        await expect(page.locator("#raw")).to_contain_text("reset")


async def test_a_long_stream_is_held_in_part_and_drawn_in_part(
    gateway: Gateway, browser: Browser
) -> None:
    run = await gateway.trigger()
    await write(gateway, run, "llm", *(f'"{number} "' for number in range(25_000)))
    async with opened_run(gateway, browser, run) as page:
        await assert_says(page, "".join(f"{number} " for number in range(25_000)))
        await stream(page).get_by_role("button", name="Parts").click()
        note = stream(page).locator(".stream-note")
        await expect(note).to_contain_text("the newest 10,000 parts; they begin with part 15000")
        offsets = stream(page).locator(".stream-parts .offset")
        await expect(offsets.last).to_have_text("24999")
        assert await offsets.count() < 50
        await say(gateway, run, "and one")
        await expect(offsets.last).to_have_text("25000")
        await stream(page).locator(".stream-parts").evaluate("list => list.scrollTo(0, 0)")
        await expect(offsets.first).to_have_text("15001")
        assert await page.locator("#raw li").count() < 50


async def test_without_websockets_few_streams_are_followed_at_once(
    gateway: Gateway, browser: Browser
) -> None:
    """Each takes one of the six connections that a browser has for all of its tabs."""
    run = await gateway.trigger()
    keys = ["a", "b", "c", "d"]
    for key in keys:
        await say(gateway, run, "1", key=key)
    async with opened_run(gateway, browser, run, websockets=False) as page:
        await expect(page.locator("#connection-facts")).to_contain_text("Server-Sent Events")
        for key in "abc":
            await assert_says(page, "1", key)
        await expect(stream(page, "d")).not_to_have_attribute("open", "")
        await stream(page, "d").locator(".stream-key").click()
        await assert_says(page, "1", "d")
        await expect(stream(page, "a")).not_to_have_attribute("open", "")
        for key in keys:
            await say(gateway, run, "2", key=key)
        for key in "bcd":
            await assert_says(page, "12", key)
        await expect(stream(page, "a").locator(".stream-state")).to_have_text("Not followed")
        await stream(page, "a").locator(".stream-key").click()
        await assert_says(page, "12", "a")


async def test_another_run_has_streams_of_its_own(gateway: Gateway, browser: Browser) -> None:
    first, second, third = [await gateway.trigger(tags=["own"]) for _ in range(3)]
    await say(gateway, first, "of the first")
    await say(gateway, second, "of the second")
    async with opened_run(gateway, browser, first) as page:
        await assert_says(page, "of the first")
        await page.click(f'#rows [data-run="{second}"] a')
        await assert_says(page, "of the second")
        await page.click(f'#rows [data-run="{third}"] a')
        await assert_text(page, "#detail-id", third)
        await expect(page.locator(".stream")).to_have_count(0)


async def test_markup_in_a_stream_stays_text(gateway: Gateway, browser: Browser) -> None:
    markup = "<img src=x onerror=\"document.title='owned'\">"
    run = await gateway.trigger()
    await asyncio.gather(say(gateway, run, markup), write(gateway, run, "raw", markup))
    async with opened_run(gateway, browser, run) as page:
        await assert_says(page, markup)
        await assert_says(page, markup, "raw")
        await stream(page, "raw").get_by_role("button", name="Parts").click()
        await expect(stream(page, "raw").locator(".data")).to_have_text(json.dumps(markup))
        await expect(page.locator("img")).to_have_count(0)
        assert "owned" not in await page.title()


async def test_a_stream_on_a_phone_scrolls_down_only(gateway: Gateway, browser: Browser) -> None:
    long = "long" * 30
    run = await gateway.trigger()
    await say(gateway, run, long * 20, key=long)
    await write(gateway, run, "objects", json.dumps({long: long}))
    url = f"{gateway.url}/#run={run}&token={gateway.key}"
    async with opened(browser, url, viewport=PHONE) as page:
        await assert_says(page, long * 20, long)
        await expect(stream(page, "objects").locator(".stream-parts li")).to_have_count(1)
        widths = await page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert widths[0] <= widths[1]
