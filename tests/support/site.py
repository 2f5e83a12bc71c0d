"""A web site of its own origin, as an application that uses the gateway has."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


@dataclass
class Site:
    """
    The files of a folder, and pages of the test by path, made anew each time if they are functions.

    ``missing`` paths answer 404; ``headers`` are those of all answers.
    """

    folder: Path
    url: str = ""
    pages: dict[str, str | Callable[[], str]] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    missing: set[str] = field(default_factory=set)


class _Handler(SimpleHTTPRequestHandler):
    extensions_map = SimpleHTTPRequestHandler.extensions_map | {".js": "text/javascript"}

    def __init__(self, site: Site, *args: Any) -> None:
        self._site = site
        super().__init__(*args, directory=str(site.folder))

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path in self._site.missing:
            return self.send_error(404)
        if path not in self._site.pages:
            return super().do_GET()
        page = self._site.pages[path]
        body = (page if isinstance(page, str) else page()).encode()
        self.send_response(200)
        kind = "text/html" if body.startswith(b"<") else "text/plain"
        kind = "text/javascript" if path.endswith(".js") else kind
        self.send_header("content-type", f"{kind}; charset=utf-8")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def end_headers(self) -> None:
        for name, value in self._site.headers.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def serving(folder: Path) -> Iterator[Site]:
    """Serve the files of a folder on a free port."""
    site = Site(folder)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, site))
    site.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
