"""The live page in a real Chromium, against a real gateway process on an embedded Postgres."""

import asyncio
import os
import re
from pathlib import Path

import pytest
from playwright.async_api import Browser, Page, ViewportSize

from tests.e2e.gateway_process import Gateway
from tests.e2e.live_page import PHONE, WIDE, assert_live, assert_text, opened, paste, row
from tests.support.browser import expect

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.usefixtures("built_page"),
]


async def test_a_run_is_seen_moving_through_its_states(gateway: Gateway, browser: Browser) -> None:
    async with opened(browser, f"{gateway.url}/#token={gateway.key}") as page:
        await assert_live(page)
        run = await gateway.trigger(tags=["user:42"])
        await assert_text(page, f"{row(run)} .pill", "Queued")
        await page.click(f"{row(run)} a")
        await assert_text(page, "#detail-status", "Queued")
        await assert_text(page, '#payload [data-key="pages"] .leaf', "3")
        for status, words in (("EXECUTING", "Executing"), ("COMPLETED", "Completed")):
            await gateway.change(run, status=status)
            await assert_text(page, "#detail-status", words)
            await assert_text(page, f"{row(run)} .pill", words)
        await gateway.change(run, output={"answer": 42})
        await assert_text(page, '#output [data-key="answer"] .leaf', "42")


async def test_metadata_moves_and_marks_what_changed(gateway: Gateway, browser: Browser) -> None:
    run = await gateway.trigger(metadata={"progress": 0.1, "stage": "reading", "model": "large"})
    async with opened(browser, f"{gateway.url}/#run={run}&token={gateway.key}") as page:
        await assert_text(page, "#detail-progress .percent", "10 %")
        await gateway.set_metadata(run, progress=0.6, stage="writing", model="large")
        await assert_text(page, "#detail-progress .percent", "60 %")
        await assert_text(page, '#metadata [data-key="stage"] .leaf', "writing")
        changed = page.locator("#metadata .changed")
        names = await changed.evaluate_all("rows => rows.map(row => row.dataset.key)")
        assert sorted(names) == ["progress", "stage"]
        bar = page.locator(f"{row(run)} progress")
        await expect(bar).to_have_js_property("value", 0.6)
        await gateway.set_metadata(run, stage="done")
        await expect(page.locator('#metadata [data-key="model"]')).to_have_count(0)
        await expect(page.locator("#detail-progress")).to_be_hidden()


async def test_the_token_stands_in_no_url(gateway: Gateway, browser: Browser) -> None:
    async with opened(browser, "about:blank") as page:
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.on("websocket", lambda socket: asked.append(socket.url))
        await page.goto(f"{gateway.url}/#tags=a&token={gateway.key}")
        await assert_live(page)
        assert page.url == f"{gateway.url}/#tags=a"
        assert any("/realtime/" in url for url in asked)
        # The first navigation only: a fragment is not sent.
        assert not any(gateway.key in url for url in asked if "#" not in url)
        await page.reload()
        await assert_live(page)


async def test_a_pasted_token_is_as_good_as_a_link(gateway: Gateway, browser: Browser) -> None:
    run = await gateway.trigger(tags=["pasted"])
    async with opened(browser, gateway.url) as page:
        await assert_text(page, "#state", "No token")
        await paste(page, await gateway.token("read:tags:pasted"))
        await assert_live(page)
        await expect(page.locator("#rows li")).to_have_count(1)
        await expect(page.locator(row(run))).to_be_visible()
        await expect(page.locator("[name=tags]")).to_have_value("pasted")


async def test_a_token_for_one_run_opens_that_run(gateway: Gateway, browser: Browser) -> None:
    run = await gateway.trigger("narrow")
    token = await gateway.token(f"read:runs:{run}")
    async with opened(browser, f"{gateway.url}/#token={token}") as page:
        await assert_text(page, "#detail-title", "narrow")
        await expect(page.locator("#list-note")).to_contain_text("does not open every run")
        await page.fill("[name=task]", "other")
        await page.press("[name=task]", "Enter")
        await assert_text(page, "#state", "Refused")


async def test_filters_narrow_the_list(gateway: Gateway, browser: Browser) -> None:
    wanted = await gateway.trigger("alpha", tags=["blue", "big"])
    await gateway.trigger("alpha", tags=["blue"])
    await gateway.trigger("beta", tags=["blue", "big"])
    async with opened(browser, f"{gateway.url}/#token={gateway.key}") as page:
        await page.fill("[name=tags]", "blue, big")
        await page.fill("[name=task]", "alpha")
        await page.click("text=Filter")
        await expect(page.locator("#rows li")).to_have_count(1)
        await expect(page.locator(row(wanted))).to_be_visible()


async def test_statuses_are_counted_and_narrow_the_list(gateway: Gateway, browser: Browser) -> None:
    waiting, moving, third = [await gateway.trigger(tags=["chips"]) for _ in range(3)]
    async with opened(browser, f"{gateway.url}/#tags=chips&token={gateway.key}") as page:
        await assert_text(page, "#statuses", "Queued 3")
        await gateway.change(moving, status="EXECUTING")
        await gateway.change(third, status="EXECUTING")
        await assert_text(page, '#statuses [data-status="EXECUTING"]', "Executing 2")
        await assert_text(page, '#statuses [data-status="QUEUED"]', "Queued 1")
        await page.click('[data-status="EXECUTING"]')
        await expect(page.locator("#rows li")).to_have_count(2)
        await expect(page.locator(row(waiting))).to_have_count(0)
        assert page.url.endswith("#tags=chips&status=EXECUTING")
        await page.click(f"{row(moving)} a")  # a link keeps the filter
        await assert_text(page, "#detail-id", moving)
        await gateway.change(moving, status="COMPLETED")
        await expect(page.locator("#rows li")).to_have_count(1)
        await gateway.change(third, status="FAILED", error={"type": "STRING_ERROR", "raw": "no"})
        await expect(page.locator("#list-note")).to_contain_text("has such a status")
        await assert_text(page, '#statuses [data-status="EXECUTING"]', "Executing 0")
        await page.click('[data-status="EXECUTING"]')
        await expect(page.locator("#rows li")).to_have_count(3)


async def test_a_timeline_tells_what_time_was_spent_with(
    gateway: Gateway, browser: Browser
) -> None:
    run = await gateway.trigger(tags=["time"])
    async with opened(browser, f"{gateway.url}/#run={run}&token={gateway.key}") as page:
        names = page.locator("#timeline-spans .name")
        await expect(names).to_have_text(["Queued"])
        await gateway.change(run, status="EXECUTING")
        await expect(names).to_have_text(["Queued", "Executing"])
        await gateway.change(run, status="COMPLETED")
        await expect(names).to_have_text(["Queued", "Executed"])
        moments = page.locator("#timeline-moments dt")
        await expect(moments).to_have_text(["Created", "Queued", "Started", "Finished"])


async def test_after_a_lost_network_nothing_is_missing(gateway: Gateway, browser: Browser) -> None:
    moving = await gateway.trigger(tags=["network"])
    async with opened(
        browser, f"{gateway.url}/#tags=network&run={moving}&token={gateway.key}"
    ) as page:
        await assert_live(page)
        await assert_text(page, "#detail-status", "Queued")
        await page.context.set_offline(True)
        await assert_text(page, "#state", "Offline")
        await gateway.change(moving, status="EXECUTING")
        await gateway.set_metadata(moving, stage="while you were away")
        await gateway.change(moving, status="FAILED", error={"type": "STRING_ERROR", "raw": "no"})
        created = await gateway.trigger(tags=["network"])
        await assert_text(page, "#detail-status", "Queued")  # as it was when the line was cut
        await page.context.set_offline(False)
        await assert_live(page)
        await assert_text(page, "#detail-status", "Failed")
        await assert_text(page, '#metadata [data-key="stage"] .leaf', "while you were away")
        await assert_text(page, f"{row(moving)} .pill", "Failed")
        await assert_text(page, f"{row(created)} .pill", "Queued")
        await expect(page.locator("#rows li")).to_have_count(2)


@pytest.mark.chaos
@pytest.mark.parametrize("how", ["kill", "stop"])
async def test_a_gateway_that_goes_and_returns_leaves_no_gap(
    gateway: Gateway, browser: Browser, how: str
) -> None:
    tag = f"restart-{how}"
    run = await gateway.trigger(tags=[tag])
    async with opened(browser, f"{gateway.url}/#tags={tag}&run={run}&token={gateway.key}") as page:
        await assert_live(page)
        await gateway.change(run, status="EXECUTING")
        await assert_text(page, "#detail-status", "Executing")
        await (gateway.kill() if how == "kill" else gateway.stop())
        await assert_text(page, "#state", "Retrying")
        await gateway.start()
        await gateway.change(run, status="COMPLETED")
        created = await gateway.trigger(tags=[tag])
        await assert_live(page)
        await assert_text(page, "#detail-status", "Completed")
        await expect(page.locator(row(created))).to_be_visible()
        await expect(page.locator("#rows li")).to_have_count(2)


async def test_an_expired_token_is_said_and_a_fresh_one_goes_on(
    gateway: Gateway, browser: Browser
) -> None:
    run = await gateway.trigger(tags=["short"])
    async with opened(browser, f"{gateway.url}/#tags=short&run={run}") as page:
        await paste(page, await gateway.token("read:tags:short", lasts="7s"))
        await assert_text(page, "#detail-status", "Queued")
        await assert_text(page, "#state", "Token expired")
        await expect(page.locator("#token-title")).to_contain_text("has expired")
        await gateway.change(run, status="EXECUTING")
        await assert_text(page, "#detail-status", "Queued")  # what was seen stays
        await paste(page, await gateway.token("read:tags:short"))
        await assert_live(page)
        await assert_text(page, "#detail-status", "Executing")


async def test_a_deleted_run_leaves_the_list_and_is_said(
    gateway: Gateway, browser: Browser
) -> None:
    run = await gateway.trigger(tags=["doomed"])
    async with opened(browser, f"{gateway.url}/#tags=doomed&run={run}&token={gateway.key}") as page:
        await assert_text(page, "#detail-status", "Queued")
        await gateway.delete(run)
        await expect(page.locator(row(run))).to_have_count(0)
        await expect(page.locator("#detail-notice")).to_contain_text("was deleted")


async def test_markup_stays_text(gateway: Gateway, browser: Browser) -> None:
    markup = "<img src=x onerror=\"document.title='owned'\">"
    run = await gateway.trigger("markup", tags=[markup], metadata={markup: markup})
    await gateway.change(run, status="EXECUTING")
    await gateway.change(run, status="COMPLETED", output={markup: markup})
    async with opened(browser, f"{gateway.url}/#run={run}&token={gateway.key}") as page:
        await assert_text(page, "#detail-tags .tag", markup)
        await assert_text(page, f"{row(run)} .tag", markup)
        await assert_text(page, "#metadata .key", markup)
        await assert_text(page, "#metadata .leaf", markup)
        await expect(page.locator("#output")).to_contain_text("<img src=x")
        await page.click("#raw .part >> nth=0")
        await expect(page.locator("img")).to_have_count(0)
        assert "owned" not in await page.title()


@pytest.mark.parametrize("what", ["", "&run={run}"], ids=["list", "run"])
async def test_a_phone_scrolls_down_only(gateway: Gateway, browser: Browser, what: str) -> None:
    long = "long" * 30
    run = await gateway.trigger(
        "x".join([long] * 3),
        tags=[long, "short", f"{long}-2"],
        metadata={long: long, "nested": {"list": [long]}},
    )
    url = f"{gateway.url}/#token={gateway.key}{what.format(run=run)}"
    async with opened(browser, url, viewport=PHONE) as page:
        await assert_live(page)
        shown = "#metadata [data-key=nested]" if what else row(run)
        await expect(page.locator(shown)).to_be_visible()
        for offline in (False, True) if what else (False,):
            await page.context.set_offline(offline)
            await assert_text(page, "#state", "Offline" if offline else "Live")
            widths = await page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
            assert widths[0] <= widths[1]


@pytest.mark.parametrize("viewport", [WIDE, PHONE], ids=["wide", "phone"])
async def test_light_and_dark_follow_the_system(
    gateway: Gateway, browser: Browser, viewport: ViewportSize, tmp_path: Path
) -> None:
    run = await gateway.trigger(tags=["theme"], metadata={"progress": 0.4, "stage": "reading"})
    backgrounds = []
    for dark in (False, True):
        url = f"{gateway.url}/#run={run}&token={gateway.key}"
        async with opened(browser, url, viewport=viewport, dark=dark) as page:
            await assert_text(page, "#detail-status", "Queued")
            await page.screenshot(path=tmp_path / f"dark-{dark}.png", full_page=True)
            backgrounds.append(
                await page.evaluate("getComputedStyle(document.body).backgroundColor")
            )
    assert backgrounds == ["rgb(245, 246, 248)", "rgb(12, 14, 19)"]


async def test_the_keyboard_reaches_everything(gateway: Gateway, browser: Browser) -> None:
    older = await gateway.trigger(tags=["keys"])
    newer = await gateway.trigger(tags=["keys"])
    async with opened(browser, f"{gateway.url}/#tags=keys&token={gateway.key}") as page:
        await expect(page.locator("#rows li")).to_have_count(2)
        await page.focus(f"{row(newer)} a")
        await page.keyboard.press("ArrowDown")
        await expect(page.locator(f"{row(older)} a")).to_be_focused()
        await page.keyboard.press("Enter")
        await assert_text(page, "#detail-id", older)
        await expect(page.locator(f"{row(older)} a")).to_be_focused()
        await page.set_viewport_size(PHONE)
        await page.focus("#back")
        await page.keyboard.press("Enter")
        await expect(page.locator(f"{row(older)} a")).to_be_focused()
        await page.keyboard.press("Enter")
        await expect(page.locator("#detail")).to_be_focused()


async def test_keys_find_runs_and_walk_through_them(gateway: Gateway, browser: Browser) -> None:
    older, newer = [await gateway.trigger("walk", tags=["walk"]) for _ in range(2)]
    other = await gateway.trigger("other", tags=["walk"])
    async with opened(browser, f"{gateway.url}/#tags=walk&token={gateway.key}") as page:
        await expect(page.locator("#rows li")).to_have_count(3)
        await page.keyboard.press("/")
        await page.keyboard.type("WALK")
        await expect(page.locator("#statuses")).to_have_text("Queued 3")  # by its tag
        await page.fill("#find", newer)
        await expect(page.locator("#rows li")).to_have_count(1)
        await page.fill("#find", "")
        await page.keyboard.press("Escape")
        await page.keyboard.press("j")
        await expect(page.locator(f"{row(other)} a")).to_be_focused()
        await page.keyboard.press("j")
        await page.keyboard.press("j")
        await page.keyboard.press("j")
        await expect(page.locator(f"{row(older)} a")).to_be_focused()
        await page.keyboard.press("k")
        await page.keyboard.press("Enter")
        await assert_text(page, "#detail-id", newer)
        await page.keyboard.press("?")
        await expect(page.locator("#help")).to_be_visible()
        await page.keyboard.press("Escape")
        await expect(page.locator("#help")).to_be_hidden()
        await assert_text(page, "#detail-id", newer)
        await page.keyboard.press("Escape")
        await expect(page.locator("#detail")).to_have_count(0)
        await page.keyboard.press("/")
        await page.keyboard.type(older)
        await page.keyboard.press("Enter")
        await assert_text(page, "#detail-id", older)


async def test_a_person_may_choose_the_colours(gateway: Gateway, browser: Browser) -> None:
    async with opened(browser, gateway.url, dark=True) as page:
        for colour in ("rgb(12, 14, 19)", "rgb(245, 246, 248)", "rgb(12, 14, 19)"):
            await expect(page.locator("body")).to_have_css("background-color", colour)
            await page.click("#theme")
        await page.click("#theme")
        await page.reload()
        await expect(page.locator("body")).to_have_css("background-color", "rgb(245, 246, 248)")


async def test_the_runs_that_a_run_made_are_seen_moving(gateway: Gateway, browser: Browser) -> None:
    parent = await gateway.trigger("parent")
    items = [{"task": "part", "payload": {}}]
    batch = await gateway.ask(
        "POST", "/api/v2/tasks/batch", {"items": items, "parentRunId": parent}
    )
    [child] = (await gateway.ask("GET", f"/api/v2/batches/{batch['id']}"))["runs"]
    async with opened(browser, f"{gateway.url}/#run={parent}&token={gateway.key}") as page:
        status = page.locator(f'#children [data-run="{child}"] .pill')
        await expect(status).to_have_text("Queued")
        await gateway.change(child, status="EXECUTING")
        await expect(status).to_have_text("Executing")
        await page.click(f'#children [data-run="{child}"] a')
        await assert_text(page, "#detail-id", child)
        await page.click(f"#facts >> text={parent}")
        await assert_text(page, "#detail-id", parent)


async def test_the_connection_is_there_to_see(gateway: Gateway, browser: Browser) -> None:
    run = await gateway.trigger(tags=["panel"])
    token = await gateway.token("read:tags:panel")
    async with opened(browser, f"{gateway.url}/#tags=panel&run={run}&token={token}") as page:
        facts = page.locator("#connection-facts dd")
        await expect(facts.nth(0)).to_have_text("WebSocket")
        await expect(facts.nth(1)).to_have_text(re.compile(r"^\d+ ms$"))
        await expect(facts.nth(2)).to_have_text("0")
        await expect(facts.nth(3)).to_contain_text("read:tags:panelends in 14 min")
        for feed in ("Runs", "This run"):
            shown = page.locator(f'[data-feed="{feed}"]')
            await expect(shown.locator(".feed-state")).to_have_text("Live")
            await expect(shown.locator(".cursor")).not_to_have_text("none yet")
        await page.locator("#raw .part", has_text="up-to-date").first.click()
        await expect(page.locator("#raw .picked")).to_contain_text('"cursor"')


async def test_what_the_empty_page_tells_to_run_makes_a_run(
    gateway: Gateway, browser: Browser
) -> None:
    async with opened(browser, f"{gateway.url}/#tags=it's+new&token={gateway.key}") as page:
        await run_shown(page, "#list-note pre", gateway)
        await expect(page.locator("#rows li")).to_have_count(1)
        await page.click("#rows a")
        await run_shown(page, "#metadata pre", gateway)
        await assert_text(page, "#metadata [data-key=step] .leaf", "half way")
        await run_shown(page, "#streams-card pre", gateway)
        await assert_text(page, ".stream-text", "Hello world")


async def run_shown(page: Page, selector: str, gateway: Gateway) -> None:
    """Run a command of the page as a person does who copied it."""
    command = await page.locator(selector).inner_text()
    process = await asyncio.create_subprocess_shell(
        command,
        env=os.environ | {"RUNCAST_SECRET_KEY": gateway.key},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    said, errors = await process.communicate()
    assert process.returncode == 0, errors
    assert b"error" not in said, said


async def test_large_values_are_drawn_as_far_as_a_person_wants(
    gateway: Gateway, browser: Browser
) -> None:
    run = await gateway.trigger(metadata={"text": "x" * 10_000})
    await gateway.change(run, status="EXECUTING")
    await gateway.change(run, status="COMPLETED", output={"rows": [{"n": n} for n in range(1500)]})
    async with opened(browser, f"{gateway.url}/#run={run}&token={gateway.key}") as page:
        await page.click("#output button.key")
        entries = page.locator("#output .tree .tree > li")
        await expect(entries).to_have_count(101)
        await page.click("#output >> text=show 1,000 more of 1,500")
        await expect(entries).to_have_count(1101)
        text = page.locator("#metadata .leaf")
        await expect(text).to_contain_text("show all 10,000 characters")
        await page.click("#metadata .more")
        await expect(text).to_have_text("x" * 10_000)
