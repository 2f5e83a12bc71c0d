"""Settings of every test: one asyncio backend, no blocking calls in the loop, steady hypothesis."""

import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from blockbuster import BlockBuster, blockbuster_ctx
from hypothesis import settings

from tests.support.machine import is_ci

pytest_plugins = [
    "tests.support.needs",
    "tests.support.page",
    "tests.support.postgres",
    "tests.support.redis",
    "tests.support.s3",
]

settings.register_profile("dev", deadline=None)
settings.register_profile("ci", deadline=None, print_blob=True, derandomize=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if is_ci() else "dev"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--uvloop", action="store_true", help="run async tests on uvloop")


def pytest_configure() -> None:
    # A shell that runs us in the background has Ctrl-C ignored, and programs that we start inherit
    # that; tests send it to them.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """asyncio only: the gateway runs on nothing else."""
    return "asyncio", {"use_uvloop": request.config.getoption("--uvloop")}


@pytest.fixture(scope="session", autouse=True)
def blockbuster() -> Iterator[BlockBuster]:
    """
    Raise ``BlockingError`` when runcast code blocks a running event loop.

    Reading a password or certificate file when a connection is opened is asyncpg's way and allowed.
    """
    with blockbuster_ctx("runcast") as watch:
        for function in watch.functions.values():
            function.can_block_in("asyncpg/connect_utils.py", _ASYNCPG_READS_FILES)
        yield watch


_ASYNCPG_READS_FILES = {"_parse_connect_dsn_and_args", "_dot_postgresql_path"}
