"""The data of an embedded server and the postgres process that serves it."""

import ctypes
import hashlib
import os
import secrets
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from runcast.postgres.account import Account
from runcast.postgres.binaries import Binaries
from runcast.postgres.embedded_error import EmbeddedPostgresError
from runcast.postgres.server_directory import ServerDirectory

# A Unix socket's path has at most 103 bytes on macOS, 107 on Linux, and Postgres adds its name.
_SOCKET_PATH_BYTES = 103
_FAST_STOP_SECONDS = 20
_IMMEDIATE_STOP_SECONDS = 10
_PR_SET_PDEATHSIG = 1


class Cluster:
    """One data directory with the binaries and the account that fit it."""

    def __init__(self, directory: ServerDirectory, account: Account, binaries: Binaries) -> None:
        self._directory = directory
        self._account = account
        self._binaries = binaries
        self._end_with_parent = _end_with_parent()

    def initialize(self, *, durable: bool) -> None:
        """
        Make new data unless there are some, with a password for connections over TCP.

        Connections over the Unix socket need none: its folder lets in only its owner and root.
        The data appear in one step, so that an interrupted start leaves none behind. Unless
        ``durable``, a power loss right after may destroy them.
        """
        if self._directory.data.exists():
            return
        fresh = self._directory.data.with_suffix(".new")
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(mode=0o700)
        self._account.give(fresh)
        password = secrets.token_urlsafe(24)
        self._directory.write_password(password)
        with tempfile.NamedTemporaryFile("w", dir=self._directory.path) as password_file:
            password_file.write(password)
            password_file.flush()
            self._account.give(Path(password_file.name))
            self._run_initdb(fresh, password_file.name, durable=durable)
        fresh.rename(self._directory.data)

    def remove_stale_pid_file(self) -> None:
        """
        Remove a ``postmaster.pid`` whose process id went to another program since.

        Postgres would take that program for a server of its own; in a container, where process
        ids are low, this happens. A file that may be right is left for Postgres to judge.
        """
        pid = self.postmaster_pid()
        if pid is None:
            return
        try:
            name = Path(f"/proc/{pid}/comm").read_text().strip()
        except OSError:
            return
        if name != "postgres":
            (self._directory.data / "postmaster.pid").unlink(missing_ok=True)

    def postmaster_pid(self) -> int | None:
        """Return the process id that Postgres left in its data; that process may be gone."""
        try:
            return int((self._directory.data / "postmaster.pid").read_text().split("\n")[0])
        except (OSError, ValueError):
            return None

    def socket_folder(self) -> Path:
        """
        Make a folder for the Unix socket that lets in only the account.

        In the server's directory, or, where that path is too long for a socket, in the
        temporary folder under a name that stays the same from start to start.
        """
        folder = self._directory.socket
        if len(os.fsencode(folder / ".s.PGSQL.65535")) > _SOCKET_PATH_BYTES:
            mark = hashlib.sha256(os.fsencode(self._directory.path)).hexdigest()[:12]
            folder = Path("/tmp") / f"runcast-{os.geteuid()}-{mark}"
        try:
            folder.mkdir(mode=0o700)
            self._account.give(folder)
        except FileExistsError:
            found = folder.lstat()
            owners = (os.geteuid(), self._account.uid)
            if not stat.S_ISDIR(found.st_mode) or found.st_uid not in owners:
                raise EmbeddedPostgresError(
                    f"{folder}, where the server's socket belongs, is somebody else's: remove it, "
                    "or choose a data directory with a shorter path."
                ) from None
            self._account.give(folder)
            folder.chmod(0o700)
        return folder

    def remove_socket_folder(self, folder: Path) -> None:
        """Remove the folder again where it is outside of the server's directory."""
        if folder != self._directory.socket:
            shutil.rmtree(folder, ignore_errors=True)

    def spawn(self, settings: Mapping[str, str]) -> "subprocess.Popen[bytes]":
        """Start postgres as our child, which on Linux ends with us however we end."""
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return subprocess.Popen(
            [*self._account.prefix, self._binaries.postgres, "-D", self._directory.data, *options],
            env=_environment(),
            cwd="/",
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=self._end_with_parent,
            **self._account.spawn_options,
        )

    def _run_initdb(self, folder: Path, password_file: str, *, durable: bool) -> None:
        made = subprocess.run(
            [
                *(*self._account.prefix, self._binaries.initdb, "-D", folder, "-U", "postgres"),
                *("--auth-local=trust", "--auth-host=scram-sha-256", "--pwfile", password_file),
                *("--encoding=UTF8", "--no-locale", "--no-instructions"),
                *(() if durable else ("--no-sync",)),
            ],
            env=_environment(),
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            preexec_fn=self._end_with_parent,
            **self._account.spawn_options,
        )
        if made.returncode != 0:
            raise EmbeddedPostgresError(
                f"initdb failed in {folder}:\n{made.stderr.strip()[-2000:]}"
            )


def stop(process: "subprocess.Popen[bytes]") -> None:
    """End postgres: orderly if it can be, else as in a crash, which its log makes good again."""
    for number, seconds in (
        (signal.SIGINT, _FAST_STOP_SECONDS),
        (signal.SIGQUIT, _IMMEDIATE_STOP_SECONDS),
        (signal.SIGKILL, None),
    ):
        process.send_signal(number)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            continue
        return


def _environment() -> dict[str, str]:
    """Give postgres none of our environment that could configure it or hold secrets."""
    kept = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
    environment = {name: os.environ[name] for name in kept if name in os.environ}
    return environment | {"LC_ALL": "C", "TZ": "UTC"}


def _end_with_parent() -> Callable[[], None] | None:
    """
    Return what a child calls to get SIGQUIT when its parent dies.

    None where the system knows no such signal: there the next supervisor ends the orphan.
    """
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl
    parent = os.getpid()

    def ask() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGQUIT)
        if os.getppid() != parent:  # it died before it was asked for
            os._exit(1)

    return ask
