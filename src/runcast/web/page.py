"""
What browsers load: the live page at `/`, and the other bundles of `clients/page/build.mjs`.

Every built file is served at its path below `built`, read once. The page is a client of the
public API like any other. It holds no secret and needs no token to be fetched; what it shows is
what the token of the person in front of it allows.
"""

import hashlib
from pathlib import Path

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

BUILT = Path(__file__).with_name("built")

_INDEX = "page/index.html"
_NOT_BUILT = """\
This gateway works, but it was installed without its live page.

In a checkout, run
    ./dev build
(it needs Node.js 20 or newer, and npm) and start the gateway again.
A wheel from a package index and the container image bring the page.

The API does not need it: see /openapi.json
"""

_CONTENT_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
}

# Nothing from elsewhere, nothing inline, and no text that becomes markup: whatever stands in a
# tag or in metadata cannot run. The icon is a data: image in index.html.
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)

_HEADERS = {
    "Cache-Control": "no-cache",  # kept, but asked about each time: a 304 after the first visit
    "Content-Security-Policy": _POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "cross-origin",  # the element is for pages of others
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class _Asset:
    """One built file with its headers."""

    def __init__(self, content: bytes, content_type: str) -> None:
        self.content = content
        self.etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
        self.headers = {**_HEADERS, "Content-Type": content_type, "ETag": self.etag}

    async def response_to(self, request: Request) -> Response:
        """Answer with the file, or with 304 when the caller has this very version."""
        if _names(request.headers.get("if-none-match", ""), self.etag):
            return Response(status_code=304, headers=self.headers)
        return Response(self.content, headers=self.headers)


def _names(if_none_match: str, etag: str) -> bool:
    """Tell whether an ``If-None-Match`` header names ``etag`` (RFC 9110 section 13.1.2)."""
    tags = (tag.strip().removeprefix("W/") for tag in if_none_match.split(","))
    return if_none_match.strip() == "*" or etag in tags


async def _not_built(request: Request) -> Response:
    return PlainTextResponse(_NOT_BUILT, status_code=404, headers={"Cache-Control": "no-store"})


def routes_to(folder: Path) -> list[Route]:
    """Serve the built files of a folder; without a page in it, `/` says how to get one."""
    assets = {
        file.relative_to(folder).as_posix(): _Asset(file.read_bytes(), content_type)
        for file in sorted(folder.rglob("*"))
        if (content_type := _CONTENT_TYPES.get(file.suffix))
    }
    index = assets[_INDEX].response_to if _INDEX in assets else _not_built
    return [
        Route("/", index),
        *(Route(f"/{path}", asset.response_to) for path, asset in assets.items()),
    ]


page_routes = routes_to(BUILT)  # files are read now, not while requests are served
