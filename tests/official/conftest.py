"""The official packages, for all tests that use them."""

from pathlib import Path

import pytest

from tests.support.npm import install_packages


@pytest.fixture(scope="session")
def clients(node: Path) -> Path:
    """Install the packages; gives node."""
    install_packages(Path(__file__).parent)
    return node
