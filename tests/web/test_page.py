"""How built files are served, the live page among them."""

import asyncio
import re
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette

from runcast.web.page import routes_to

CONTENTS = {
    "page/index.html": b"<!doctype html>",
    "page/page.js": b"export {};",
    "page/page.css": b"body {}",
    "element/run-progress.js": b"customElements;",
    "page/page.js.map": b"{}",
    ".sources": b"0",
}
PATHS = ["/", "/page/index.html", "/page/page.js", "/page/page.css", "/element/run-progress.js"]


@pytest.fixture
def site(tmp_path: Path) -> Starlette:
    for path, content in CONTENTS.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(content)
    return Starlette(routes=routes_to(tmp_path))


async def get(site: Starlette, path: str, method: str = "GET", **headers: str) -> httpx.Response:
    transport = httpx.ASGITransport(site, raise_app_exceptions=False)
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        return await client.request(method, path, headers=names)


@pytest.mark.parametrize("path", PATHS)
async def test_every_file_is_served_with_its_type_and_policy(site: Starlette, path: str) -> None:
    answer = await get(site, path)
    assert (answer.status_code, answer.content) == (200, CONTENTS[path[1:] or "page/index.html"])
    suffix = path.rpartition(".")[2] if "." in path else "html"
    expected = {"html": "text/html", "css": "text/css", "js": "text/javascript"}[suffix]
    assert answer.headers["content-type"] == f"{expected}; charset=utf-8"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-cache"
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert not re.search(r"unsafe|https?:|\*", policy)


@pytest.mark.parametrize("path", PATHS)
async def test_an_unchanged_file_is_not_sent_again(site: Starlette, path: str) -> None:
    etag = (await get(site, path)).headers["etag"]
    for known in (etag, f"W/{etag}", f'"other", {etag}', "*"):
        again = await get(site, path, if_none_match=known)
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] == etag
    assert (await get(site, path, if_none_match='"other"')).status_code == 200


async def test_files_differ_in_their_etags(site: Starlette) -> None:
    etags = {(await get(site, path)).headers["etag"] for path in PATHS}
    assert len(etags) == len(PATHS) - 1  # "/" and "/page/index.html" are one file


async def test_head_tells_the_same_without_a_body(site: Starlette) -> None:
    answer = await get(site, "/", "HEAD")
    assert (answer.status_code, answer.content) == (200, b"")
    assert int(answer.headers["content-length"]) == len((await get(site, "/")).content)


@pytest.mark.parametrize(
    "path", ["page/no.js", "page/page.js.map", ".sources", "page/..%2F.sources", "page/page.css/"]
)
async def test_nothing_else_is_served(site: Starlette, path: str) -> None:
    assert (await get(site, f"/{path}")).status_code != 200


async def test_without_a_built_page_the_root_says_what_to_run(tmp_path: Path) -> None:
    answer = await get(await asyncio.to_thread(unbuilt, tmp_path / "none"), "/")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert "./dev build" in answer.text


def unbuilt(folder: Path) -> Starlette:
    return Starlette(routes=routes_to(folder))


def test_the_page_asks_for_nothing_from_elsewhere(built_page: Path) -> None:
    paths = {route.path for route in routes_to(built_page)}
    assert {"/", "/page/index.html", "/page/page.js", "/page/page.css"} <= paths
    for path in paths - {"/"}:
        text = (built_page / path[1:]).read_text()
        # Names of vocabularies, and a place that React names in its errors: nothing is loaded.
        text = re.sub(r"http://www\.w3\.org/|https://react\.dev/errors/", "", text)
        assert not re.search(r"https?://\w|//[a-z]", text), path
        assert not re.search(r"outerHTML|insertAdjacentHTML|document\.write|eval\(", text), path
    index = (built_page / "page/index.html").read_text()
    assert not re.search(r"<script(?! type=\"module\" src=)|\sstyle=|\son[a-z]+=\"", index)
