"""The directory of one embedded server: its files, its locks, and what its supervisor last said."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Self

from runcast.postgres.embedded_error import EmbeddedPostgresError
from runcast.postgres.file_lock import FileLock

_LOG_BYTES = 8 * 1024 * 1024
_LOG_TAIL_LINES = 15


@dataclass(frozen=True, slots=True)
class ServerRequest:
    """How a server shall be run: reachable over TCP or not, and Postgres settings by name."""

    tcp: bool = False
    settings: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> str:
        return json.dumps({"tcp": self.tcp, "settings": dict(self.settings)})

    @classmethod
    def from_json(cls, text: str) -> Self:
        return cls(**json.loads(text))


@dataclass(frozen=True, slots=True)
class ServerState:
    """What the users of a running server need to know. ``version`` is Postgres' major version."""

    url: str
    socket: str
    port: int
    postmaster_pid: int
    supervisor_pid: int
    version: int
    binaries: str
    tcp: bool
    settings: dict[str, str]

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        return cls(**json.loads(text))


class ServerDirectory:
    """Names and touches the files below one path; decides nothing else about the server."""

    def __init__(self, path: Path) -> None:
        self.path = path.expanduser().resolve()
        self.data = self.path / "data"
        self.socket = self.path / "socket"
        self.log = self.path / "server.log"
        self.users_lock = self.path / "users.lock"
        self.start_lock = self.path / "start.lock"
        self.supervisor_lock = self.path / "supervisor.lock"
        self._state = self.path / "server.json"
        self._password = self.path / "password"

    def create(self) -> None:
        """
        Make the directory and its lock file, or check that an existing one is ours.

        Root's directory may be passed through by others, so that Postgres can run as an
        unprivileged user; any other user's stays closed.

        Raises:
            EmbeddedPostgresError: It holds files, but none that say it is ours.
        """
        _make_directories(self.path)
        # In this order: whoever makes it ours at this moment writes the lock file first of all.
        if any(self.path.iterdir()) and not self.users_lock.exists():
            raise EmbeddedPostgresError(
                f"{self.path} holds other files: name an empty or a new data directory."
            )
        _open_to_pass(self.path)
        FileLock(self.users_lock).close()

    def is_supervised(self) -> bool:
        """Tell whether a living supervisor owns the server."""
        with FileLock(self.supervisor_lock) as lock:
            return not lock.try_shared()

    def data_version(self) -> int | None:
        """Return the major version that the data was made with; None when there is no data."""
        try:
            return int((self.data / "PG_VERSION").read_text())
        except FileNotFoundError:
            return None

    def read_state(self) -> ServerState | None:
        """Return what the last supervisor wrote; None when it ended in order or wrote nothing."""
        try:
            return ServerState.from_json(self._state.read_text())
        except (OSError, ValueError, TypeError):  # absent, or written by another version of runcast
            return None

    def write_state(self, state: ServerState) -> None:
        self._write(self._state, state.to_json())

    def remove_state(self) -> None:
        self._state.unlink(missing_ok=True)

    def read_password(self) -> str:
        return self._password.read_text()

    def write_password(self, password: str) -> None:
        self._write(self._password, password)

    def rotate_log(self) -> None:
        """Set a log aside that has grown large, in place of the one set aside before."""
        if self.log.exists() and self.log.stat().st_size > _LOG_BYTES:
            self.log.replace(self.log.with_suffix(".log.1"))

    def log_size(self) -> int:
        return self.log.stat().st_size if self.log.exists() else 0

    def log_tail(self, *, start: int = 0) -> str:
        """Return the last lines of the log, none from before the byte position ``start``."""
        try:
            with self.log.open("rb") as log:
                log.seek(max(start, log.seek(0, os.SEEK_END) - 16_384))
                lines = log.read().decode(errors="replace").splitlines()
        except OSError:
            return ""
        return "\n".join(lines[-_LOG_TAIL_LINES:])

    def _write(self, file: Path, text: str) -> None:
        """Replace a file in one step, readable by its owner only."""
        fresh = file.with_suffix(".new")
        fresh.unlink(missing_ok=True)
        with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
            out.write(text)
        fresh.replace(file)


def _make_directories(path: Path) -> None:
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    for folder in reversed(missing):
        folder.mkdir(mode=0o700, exist_ok=True)
        _open_to_pass(folder)


def _open_to_pass(folder: Path) -> None:
    """Let others pass through a folder of root's, whatever the umask was."""
    found = folder.stat()
    if os.geteuid() == 0 == found.st_uid and found.st_mode & 0o111 != 0o111:
        folder.chmod(found.st_mode & 0o7777 | 0o111)
