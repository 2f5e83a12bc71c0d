"""
Build what the gateway serves to browsers, unless that was done from the very same sources.

Needs Node.js 20 or newer and npm. Standard library only: `./dev`, the tests and the build hook of
the package run it as a program. Exit status 3: a need is missing, and nothing was changed.
"""

import hashlib
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

if sys.platform != "win32":
    import fcntl

HERE = Path(__file__).resolve().parent
CLIENT = HERE.parent / "js"
BUILT = HERE.parents[1] / "src" / "runcast" / "web" / "built"
NODE_MAJOR = 20
MISSING = 3


def main() -> int:
    """Build if that is needed and return the exit status; one process at a time."""
    with (HERE / ".npm-lock").open("w") as turnstile:
        if sys.platform != "win32":
            fcntl.flock(turnstile, fcntl.LOCK_EX)
        return build()


def build() -> int:
    """Build if that is needed and return the exit status."""
    stamp, state = BUILT / ".sources", digest(sources())
    if stamp.is_file() and stamp.read_text() == state:
        return 0
    node, npm = shutil.which("node"), shutil.which("npm")
    if not node or not npm or node_major(node) < NODE_MAJOR:
        say(f"the page was not built: that needs Node.js {NODE_MAJOR} or newer, and npm, on PATH")
        return MISSING
    say("building the page")
    if not install(npm) or subprocess.run([node, "build.mjs"], cwd=HERE).returncode:
        say("building the page failed (above)")
        return 1
    stamp.write_text(state)
    return 0


def sources() -> list[Path]:
    """Every file that the build reads."""
    folders = (HERE / "src", CLIENT / "src")
    files = [file for folder in folders for file in folder.rglob("*") if file.is_file()]
    return [*sorted(files), HERE / "build.mjs", HERE / "package-lock.json"]


def digest(files: Iterable[Path]) -> str:
    """Name the state of these files: their paths and what is in them."""
    state = hashlib.sha256()
    for file in files:
        content = hashlib.sha256(file.read_bytes()).hexdigest()
        state.update(f"{file.relative_to(HERE.parent).as_posix()} {content}\n".encode())
    return state.hexdigest()


def node_major(node: str) -> int:
    """Ask a Node.js for its major version; 0 when it gives no sensible answer."""
    answer = subprocess.run([node, "--version"], capture_output=True, text=True)
    match = re.match(r"v(\d+)\.", answer.stdout)
    return int(match[1]) if match else 0


def install(npm: str) -> bool:
    """Install the packages of the lock file, once; say whether they are there."""
    lock = digest([HERE / "package-lock.json"])
    stamp = HERE / "node_modules" / ".runcast-lock"
    if stamp.is_file() and stamp.read_text() == lock:
        return True
    command: Sequence[str] = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--silent"]
    if subprocess.run(command, cwd=HERE).returncode:
        say("npm ci failed (above). Is the package registry reachable? Then try again.")
        return False
    stamp.write_text(lock)
    return True


def say(text: str) -> None:
    """Print at once to standard error: standard output belongs to the programs we start."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
