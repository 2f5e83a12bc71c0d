"""How the files of the live page are served."""

import re
from importlib import resources

import httpx
import pytest
from starlette.applications import Starlette

from runcast.web.page import page_routes

FILES = [
    "/",
    *(f"/page/{file.name}" for file in resources.files("runcast.web").joinpath("page").iterdir()),
]


async def get(path: str, method: str = "GET", **headers: str) -> httpx.Response:
    transport = httpx.ASGITransport(Starlette(routes=page_routes), raise_app_exceptions=False)
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        return await client.request(method, path, headers=names)


@pytest.mark.parametrize("path", FILES)
async def test_every_file_is_served_with_its_type_and_policy(path: str) -> None:
    answer = await get(path)
    assert answer.status_code == 200
    suffix = path.rpartition(".")[2] if "." in path else "html"
    expected = {"html": "text/html", "css": "text/css", "js": "text/javascript"}[suffix]
    assert answer.headers["content-type"] == f"{expected}; charset=utf-8"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-cache"
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert not re.search(r"unsafe|https?:|\*", policy)


@pytest.mark.parametrize("path", FILES)
async def test_an_unchanged_file_is_not_sent_again(path: str) -> None:
    etag = (await get(path)).headers["etag"]
    for known in (etag, f"W/{etag}", f'"other", {etag}', "*"):
        again = await get(path, if_none_match=known)
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] == etag
    assert (await get(path, if_none_match='"other"')).status_code == 200


async def test_files_differ_in_their_etags() -> None:
    etags = {(await get(path)).headers["etag"] for path in FILES}
    assert len(etags) == len(FILES) - 1  # "/" and "/page/index.html" are one file


async def test_head_tells_the_same_without_a_body() -> None:
    answer = await get("/", "HEAD")
    assert (answer.status_code, answer.content) == (200, b"")
    assert int(answer.headers["content-length"]) == len((await get("/")).content)


@pytest.mark.parametrize("name", ["no-such.js", "..%2Fpage.py", "%2e%2e/page.py", "page.css/"])
async def test_nothing_but_the_page_is_served(name: str) -> None:
    assert (await get(f"/page/{name}")).status_code != 200


async def test_the_page_asks_for_nothing_from_elsewhere() -> None:
    for path in FILES:
        text = (await get(path)).text.replace("http://www.w3.org/2000/svg", "")
        text = re.sub(r"^\s*//.*", "", text, flags=re.MULTILINE)
        assert not re.search(r"https?://|//[a-z]", text), path
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write", text), path
        assert not re.search(r"<script(?! type=\"module\" src=)|\sstyle=|\son[a-z]+=", text), path
