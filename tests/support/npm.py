"""npm packages for tests, installed as a lock file says: once, also by several test processes."""

import fcntl
import hashlib
import shutil
import subprocess
from pathlib import Path

from tests.support.needs import missing

_SECONDS = 600


def install_packages(folder: Path) -> None:
    """Run ``npm ci`` in a folder, unless that was done already for its lock file."""
    npm = shutil.which("npm") or missing("npm", "install it beside Node.js")
    lock = hashlib.sha256((folder / "package-lock.json").read_bytes()).hexdigest()
    stamp = folder / "node_modules" / ".runcast-lock"
    # Beside the packages, because npm ci deletes their folder first.
    with (folder / ".npm-lock").open("w") as turnstile:
        fcntl.flock(turnstile, fcntl.LOCK_EX)
        if stamp.exists() and stamp.read_text() == lock:
            return
        install = subprocess.run(
            [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
        )
        if install.returncode:
            missing(f"the packages of {folder.name}", f"npm ci failed: {install.stderr[-2000:]}")
        stamp.write_text(lock)
