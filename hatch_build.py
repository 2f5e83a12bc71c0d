"""Build hook: a wheel or source archive that is made in a checkout brings the live page."""

import subprocess
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_NEEDS_MISSING = 3


class LivePageHook(BuildHookInterface):  # type: ignore[type-arg]
    """
    Build the page before the files are collected.

    Without Node.js the build goes on, with the page that is there or none, and warns: then the
    gateway's `/` says what to do. An editable install needs no page, and a source archive has one.
    """

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        build = Path(self.root, "clients", "page", "build.py")
        if version == "editable" or not build.exists():
            return
        status = subprocess.run([sys.executable, build]).returncode
        if status == _NEEDS_MISSING:
            self.app.display_warning("made without building the live page (see above)")
        elif status:
            raise RuntimeError("building the live page failed (see above)")
