"""Tabs of one origin share one connection, in Chromium and against a real gateway."""

from typing import Any

import pytest
from playwright.async_api import BrowserContext, Page

from tests.support.eventually import eventually
from tests.support.gateway_app import until
from tests.support.restartable_gateway import RestartableGateway
from tests.support.site import Site

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

_FOLLOW = """
async ([baseURL, token, next, runs, options]) => {
  const { createClient } = await import("/dist/index.js");
  window.asked = 0;
  const give = async () => ((window.asked += 1) > 1 ? next : token);
  window.client = createClient({ baseURL, token: give, ...options });
  window.feeds = runs.map((id) => window.client.run(id));
  for (const feed of window.feeds) feed.subscribe(() => {});
}
"""
_SHOWS = """
(step) => window.feeds.every((feed) => {
  const { run, status } = feed.getSnapshot();
  return status === "live" && run.metadata.step === step;
})
"""


async def open_tab(
    tabs: BrowserContext,
    gateway: RestartableGateway,
    token: str,
    *runs: str,
    next_token: str | None = None,
    **options: Any,
) -> Page:
    """A tab that follows these runs; asked again for a token it gives ``next_token``."""
    page = await tabs.new_page()
    await page.goto("/")
    await page.evaluate(_FOLLOW, [gateway.url, token, next_token or token, runs, options])
    return page


async def show(gateway: RestartableGateway, run: str, step: int, *pages: Page) -> None:
    """Change a run, and wait until these tabs, which follow nothing else, show it."""
    await gateway.app.update(run, metadata={"step": step})
    for page in pages:
        await page.wait_for_function(_SHOWS, arg=step)


def sockets(gateway: RestartableGateway) -> int:
    return sum(each.kind == "websocket" for each in gateway.app.gateway.hub.connections)


async def connection(page: Page) -> dict[str, Any]:
    state: dict[str, Any] = await page.evaluate("window.client.connection.getSnapshot()")
    return state


async def asked_again(pages: list[Page]) -> bool:
    """Tell whether one of the tabs was asked for a second token."""
    return any([await page.evaluate("window.asked") > 1 for page in pages])


async def test_a_worker_has_the_connection_of_all_tabs_and_dies_with_none_of_them(
    tabs: BrowserContext, gateway: RestartableGateway
) -> None:
    run = await gateway.app.insert(metadata={"step": 0})
    # The worker asks whichever tab there is for tokens: the first are good for three seconds.
    brief, fresh = [gateway.app.token(f"read:runs:{run}", seconds=each) for each in (3, 600)]
    pages = [await open_tab(tabs, gateway, brief, run, next_token=fresh) for _ in range(3)]
    await show(gateway, run, 1, *pages)
    (connection_of_all,) = gateway.app.gateway.hub.connections
    for page in pages:
        assert await connection(page) == {
            "status": "open",
            "transport": "websocket",
            "reconnects": 0,
            "via": "worker",
        }
    await eventually(lambda: asked_again(pages))
    for step, page in enumerate(pages[:2], start=2):
        await page.close()
        await show(gateway, run, step, *pages[step - 1 :])
    assert [*gateway.app.gateway.hub.connections] == [connection_of_all]
    await pages[2].close()
    await gateway.app.deserted()


async def test_tabs_that_may_start_no_worker_survive_the_death_of_the_one_that_leads(
    tabs: BrowserContext, site: Site, gateway: RestartableGateway
) -> None:
    run = await gateway.app.insert(metadata={"step": 0})
    token = gateway.app.token(f"read:runs:{run}")
    # One that is told so, and two where the file is missing, as after many a bundler.
    pages = [await open_tab(tabs, gateway, token, run, shareTabs="locks")]
    site.missing.add("/dist/tab-worker.js")
    pages += [await open_tab(tabs, gateway, token, run) for _ in range(2)]
    await show(gateway, run, 1, *pages)
    assert [(await connection(page)).get("via") for page in pages] == [None, "tab", "tab"]
    assert sockets(gateway) == 1
    for step, page in enumerate(pages[:2], start=2):
        await page.close()
        await show(gateway, run, step, *pages[step - 1 :])
        await until(lambda: sockets(gateway) == 1, lambda: sockets(gateway))


async def test_what_a_closed_tab_followed_is_not_followed_any_more(
    tabs: BrowserContext, gateway: RestartableGateway
) -> None:
    runs = [await gateway.app.insert(metadata={"step": 0}) for _ in range(2)]
    token = gateway.app.token("read:runs")
    leader = await open_tab(tabs, gateway, token, runs[0])
    await show(gateway, runs[0], 1, leader)
    other = await open_tab(tabs, gateway, token, runs[1])
    await show(gateway, runs[1], 1, other)
    (connection,) = gateway.app.gateway.hub.connections
    assert len(connection.subscribers) == 2
    await other.close()
    await until(lambda: len(connection.subscribers) == 1)
    await show(gateway, runs[0], 2, leader)


async def test_shared_tabs_go_on_after_a_restart_of_the_gateway(
    tabs: BrowserContext, gateway: RestartableGateway
) -> None:
    run = await gateway.app.insert(metadata={"step": 0})
    token = gateway.app.token(f"read:runs:{run}")
    pages = [await open_tab(tabs, gateway, token, run) for _ in range(2)]
    await show(gateway, run, 1, *pages)
    await gateway.restart()
    await show(gateway, run, 2, *pages)
    assert sockets(gateway) == 1


async def test_tokens_with_other_rights_have_connections_of_their_own(
    tabs: BrowserContext, gateway: RestartableGateway
) -> None:
    runs = [await gateway.app.insert(metadata={"step": 0}) for _ in range(2)]
    pages = [
        await open_tab(tabs, gateway, gateway.app.token(f"read:runs:{run}"), run) for run in runs
    ]
    for run, page in zip(runs, pages, strict=True):
        await show(gateway, run, 1, page)
    assert sockets(gateway) == 2


async def test_sharing_can_be_switched_off(
    tabs: BrowserContext, gateway: RestartableGateway
) -> None:
    run = await gateway.app.insert(metadata={"step": 0})
    token = gateway.app.token(f"read:runs:{run}")
    pages = [await open_tab(tabs, gateway, token, run, shareTabs=False) for _ in range(2)]
    await show(gateway, run, 1, *pages)
    assert sockets(gateway) == 2


async def test_a_tab_whose_token_has_other_rights_now_leaves_the_others(
    tabs: BrowserContext, gateway: RestartableGateway
) -> None:
    run = await gateway.app.insert(metadata={"step": 0})
    # The leader's token is soon asked for again, and then it is another user's.
    token = gateway.app.token(f"read:runs:{run}", seconds=3)
    wide = gateway.app.token("read:runs", seconds=600)
    leader = await open_tab(tabs, gateway, token, run, next_token=wide, shareTabs="locks")
    await show(gateway, run, 1, leader)
    other = await open_tab(tabs, gateway, gateway.app.token(f"read:runs:{run}"), run)
    await show(gateway, run, 2, leader, other)
    await until(lambda: sockets(gateway) == 2, lambda: sockets(gateway))
    await show(gateway, run, 3, leader, other)


@pytest.mark.parametrize("share", [True, False])
async def test_a_laptop_that_slept_shows_what_it_missed(
    tabs: BrowserContext, gateway: RestartableGateway, share: bool
) -> None:
    run = await gateway.app.insert(metadata={"step": 0})
    token = gateway.app.token(f"read:runs:{run}")
    page = await open_tab(tabs, gateway, token, run, shareTabs=share)
    await show(gateway, run, 1, page)
    devtools = await tabs.new_cdp_session(page)
    await tabs.set_offline(True)
    await devtools.send("Page.setWebLifecycleState", {"state": "frozen"})
    gateway.cut()
    await gateway.app.update(run, metadata={"step": 2})
    await devtools.send("Page.setWebLifecycleState", {"state": "active"})
    await tabs.set_offline(False)
    await page.wait_for_function(_SHOWS, arg=2)
