"""
The live page: static files at `/` and `/page/…`, read once from the package.

The page is a client of the public API like any other. It holds no secret and needs no token to
be fetched; what it shows is what the token of the person in front of it allows.
"""

import hashlib
from importlib import resources
from pathlib import PurePath

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from runcast.errors import NotFound

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
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class _Asset:
    """One file of the page with its headers."""

    def __init__(self, content: bytes, content_type: str) -> None:
        self.content = content
        self.etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
        self.headers = {**_HEADERS, "Content-Type": content_type, "ETag": self.etag}

    def response_to(self, request: Request) -> Response:
        """Answer with the file, or with 304 when the caller has this very version."""
        if _names(request.headers.get("if-none-match", ""), self.etag):
            return Response(status_code=304, headers=self.headers)
        return Response(self.content, headers=self.headers)


def _names(if_none_match: str, etag: str) -> bool:
    """Tell whether an ``If-None-Match`` header names ``etag`` (RFC 9110 section 13.1.2)."""
    tags = (tag.strip().removeprefix("W/") for tag in if_none_match.split(","))
    return if_none_match.strip() == "*" or etag in tags


def _read_assets() -> dict[str, _Asset]:
    folder = resources.files("runcast.web").joinpath("page")
    return {
        file.name: _Asset(file.read_bytes(), _CONTENT_TYPES[suffix])
        for file in folder.iterdir()
        if (suffix := PurePath(file.name).suffix) in _CONTENT_TYPES
    }


_ASSETS = _read_assets()


async def _index(request: Request) -> Response:
    return _ASSETS["index.html"].response_to(request)


async def _asset(request: Request) -> Response:
    asset = _ASSETS.get(request.path_params["name"])
    if asset is None:
        raise NotFound("The live page has no such file.")
    return asset.response_to(request)


page_routes = [Route("/", _index), Route("/page/{name}", _asset)]
