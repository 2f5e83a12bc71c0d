"""A backend with nothing but the standard library and `runcast`: runs jobs, mints tokens."""

import json
import os
import threading
import time
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from runcast import Client

HERE = Path(__file__).parent
CLIENT = HERE.parents[1] / "clients" / "js" / "dist"  # as long as it is not on npm
PORT = int(os.environ.get("PORT", "8000"))
USER = "user:42"  # whoever your sessions say it is
STEPS = ("Reading the orders", "Adding them up", "Drawing the charts", "Writing the report")

runcast = Client()


def carry_out(run_id: str) -> None:
    """Do the job; a worker in another process would do the same."""
    with runcast.runs.take(run_id) as run:
        log = run.writer("log")
        for step, title in enumerate(STEPS):
            for tenth in range(10):
                run.metadata.set("progress", (step * 10 + tenth) / (len(STEPS) * 10))
                time.sleep(0.05)
            log.write(f"{title}: done.\n")
        run.metadata.set("progress", 1)


class Handler(SimpleHTTPRequestHandler):
    """The page, the modules of `@runcast/client`, and two routes."""

    def translate_path(self, path: str) -> str:
        """Find a file: below /runcast/ it is one of the client."""
        is_client = path.startswith("/runcast/")
        self.directory = str(CLIENT if is_client else HERE / "page")
        return super().translate_path(path.removeprefix("/runcast") if is_client else path)

    def do_GET(self) -> None:
        """Give a token that opens this user's runs, the address of the gateway, or a file."""
        if self.path == "/api/token":
            self.answer(runcast.create_public_token([f"read:tags:{USER}"], expires="15m"))
        elif self.path == "/api/gateway":
            self.answer(os.environ.get("RUNCAST_URL", "http://127.0.0.1:8080"))
        else:
            super().do_GET()

    def do_POST(self) -> None:
        """Start a job."""
        run = runcast.tasks.trigger("report", {"steps": len(STEPS)}, tags=USER)
        threading.Thread(target=carry_out, args=[run.id]).start()
        self.answer(run.id)

    def answer(self, what: str) -> None:
        """Send a text as JSON."""
        body = json.dumps(what).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing of each request."""


with ThreadingHTTPServer(("127.0.0.1", PORT), Handler) as server:
    print(f"Open http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()
