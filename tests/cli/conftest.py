"""Fixtures of the command line's tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.command_line import CommandLine, Ready
from tests.support.postgres import created_database


@pytest.fixture
def command_line(tmp_path: Path) -> CommandLine:
    """`runcast`, without a database."""
    return CommandLine(tmp_path)


@pytest.fixture(scope="module")
def gateway(postgres_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ready]:
    """A running gateway without demo runs, shared by the tests of a file."""
    with created_database(postgres_server) as url:
        folder = tmp_path_factory.mktemp("gateway")
        with CommandLine(folder, DATABASE_URL=url).gateway("--no-demo") as ready:
            yield ready
