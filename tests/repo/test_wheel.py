"""What is published: wheel and source archive bring the built page, and git does not."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]


def build(target: str, source: Path, into: Path, path: str | None = None) -> Path:
    """Make a wheel or sdist, and return its path."""
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", into],
        cwd=source,
        env=os.environ | {"PATH": path if path is not None else os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=150,
    )
    assert done.returncode == 0, done.stderr
    [archive] = into.iterdir()
    return archive


def test_wheel_and_sdist_bring_the_page(built_page: Path, tmp_path: Path) -> None:
    page = {file.relative_to(ROOT / "src").as_posix() for file in built_page.rglob("*.*")}
    wheel = build("wheel", ROOT, tmp_path / "wheel")
    assert page <= set(zipfile.ZipFile(wheel).namelist())

    archive = build("sdist", ROOT, tmp_path / "sdist")
    # The module can do this without a warning since Python 3.11.4, and Debian 12 has an older one.
    subprocess.run(["tar", "-xf", archive, "-C", tmp_path], check=True)
    [source] = tmp_path.glob("runcast-*")
    # Nothing of Node.js is needed to install from a source archive.
    again = build("wheel", source, tmp_path / "again", path=str(tmp_path))
    assert page <= set(zipfile.ZipFile(again).namelist())


def test_git_ignores_what_is_built() -> None:
    done = subprocess.run(
        ["git", "ls-files", "src/runcast/web/built"], cwd=ROOT, capture_output=True
    )
    assert (done.returncode, done.stdout) == (0, b"")
