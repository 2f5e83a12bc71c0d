"""The live page, built from its sources of now."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.needs import missing

_ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def built_page(node: Path) -> Path:
    """Folder of the built files; a gateway serves them when it starts after this."""
    if not shutil.which("npm"):
        missing("npm", "install it beside Node.js")
    command = [sys.executable, str(_ROOT / "clients" / "page" / "build.py")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, f"{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return _ROOT / "src" / "runcast" / "web" / "built"
