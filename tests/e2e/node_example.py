"""Examples with packages of npm, each in a copy of its own."""

import json
import shutil
from pathlib import Path
from typing import Any

from tests.support.npm import install_packages

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"


def copy_of(name: str, folder: Path, *, installed: str | None = None) -> Path:
    """
    Copy an example, with links to each package, because Vite writes beside them.

    ``installed`` names an example that locks the same packages, whose installation it shares.
    """
    installed = installed or name
    assert _locked(name) == _locked(installed), "one installation serves both examples"
    install_packages(EXAMPLES / installed)
    copy = folder / "examples" / name
    ignore = shutil.ignore_patterns("node_modules", ".npm-lock", "dist")
    shutil.copytree(EXAMPLES / name, copy, ignore=ignore)
    (folder / "clients").symlink_to(ROOT / "clients")
    (copy / "node_modules").mkdir()
    for package in (EXAMPLES / installed / "node_modules").iterdir():
        if package.name != ".vite":
            (copy / "node_modules" / package.name).symlink_to(package)
    return copy


def _locked(name: str) -> Any:
    """The packages that an example locks, without itself."""
    packages = json.loads((EXAMPLES / name / "package-lock.json").read_text())["packages"]
    return {path: package for path, package in packages.items() if path}
