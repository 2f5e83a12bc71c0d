"""
An embedded Postgres for development and tests: started or joined, shared, stopped by the last.

Every user holds a shared lock on ``users.lock`` in the server's directory. Whoever finds no
supervisor starts one, under ``start.lock``; the supervisor owns postgres. What is killed is
started again: postgres by its supervisor, the supervisor by any user.
"""

import logging
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from runcast.postgres.embedded_error import EmbeddedPostgresError, EmbeddedPostgresInUse
from runcast.postgres.file_lock import FileLock
from runcast.postgres.probe import answers
from runcast.postgres.server_directory import ServerDirectory, ServerRequest, ServerState

_START_SECONDS = 90.0
_STOP_SECONDS = 40.0
_LOOK_SECONDS = 0.01
_WATCH_SECONDS = 0.5
_SETTING = re.compile(r"[a-z_][a-z0-9_.]*")
_OUR_SETTINGS = frozenset(
    {
        "data_directory",
        "listen_addresses",
        "port",
        "unix_socket_directories",
        "unix_socket_permissions",
    }
)

logger = logging.getLogger(__name__)


def default_data_dir(name: str = "dev") -> Path:
    """Return where a server's data is kept unless told otherwise: the system's or the user's."""
    if os.geteuid() == 0:
        return Path("/var/lib/runcast") / name
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "runcast" / name
    data_home = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(data_home) / "runcast" / name


def start_embedded(
    data_dir: Path,
    *,
    tcp: bool = False,
    settings: Mapping[str, str] | None = None,
    fresh: bool = False,
) -> "EmbeddedServer":
    """
    Start the server of a directory, or join it where it runs already.

    Blocks until it answers, about a second for new data: call it from a thread in async code.

    Args:
        data_dir: The server's directory; made when missing, otherwise empty or ours. Data stays
            there between starts.
        tcp: Listen on 127.0.0.1 too, on a free port and with a password. Without it the server
            is reached over a Unix socket that only this user and root can open.
        settings: Postgres settings, such as ``{"fsync": "off"}`` for data that may be lost.
            Joining a server without naming any accepts those it runs with.
        fresh: Delete the data first.

    Raises:
        EmbeddedPostgresInUse: Others use the server, and with ``fresh`` they must not, or it
            runs without the ``tcp`` or the ``settings`` asked for.
        EmbeddedPostgresError: It cannot be started; the message says why and what helps.
    """
    request = ServerRequest(tcp, _checked(settings or {}))
    directory = ServerDirectory(data_dir)
    try:
        return EmbeddedServer(directory, request, fresh=fresh)
    except OSError as error:
        raise EmbeddedPostgresError(
            f"The data directory {directory.path} cannot be used ({error}): "
            "choose another, or make it and its files your own."
        ) from error


class EmbeddedServer:
    """
    One user's hold on a running server, made by ``start_embedded``; the server runs until the
    last hold is closed or its process has ended.
    """

    def __init__(self, directory: ServerDirectory, request: ServerRequest, *, fresh: bool) -> None:
        self._directory = directory
        self._request = request
        self._closing = threading.Event()
        directory.create()
        self._users = FileLock(directory.users_lock)
        try:
            if fresh:
                _take_alone(directory, self._users)
                _delete_data(directory)
            self._users.wait_shared(_START_SECONDS)
            self._state = _ensure_running(directory, request)
        except BaseException:
            self._users.close()
            raise
        self._watcher = threading.Thread(
            target=self._watch, name="embedded-postgres-watch", daemon=True
        )
        self._watcher.start()

    @property
    def url(self) -> str:
        """What to connect to, as ``DATABASE_URL`` has it; holds the password when ``tcp``."""
        return self._state.url

    @property
    def data_dir(self) -> Path:
        return self._directory.path

    @property
    def version(self) -> int:
        """Major version of Postgres."""
        return self._state.version

    @property
    def log_file(self) -> Path:
        """Where Postgres and its supervisor write what they have to say."""
        return self._directory.log

    @property
    def state(self) -> ServerState:
        """The server as it is now: process ids change when something was killed."""
        return self._directory.read_state() or self._state

    def close(self) -> None:
        """
        Leave the server; the last user waits for it to stop. Closing twice is allowed.

        Blocks: call it from a thread in async code.
        """
        if self._closing.is_set():
            return
        self._closing.set()
        self._watcher.join()
        try:
            _wait_for_stop(self._directory, self._users)
        finally:
            self._users.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _watch(self) -> None:
        """Start the supervisor again whenever it was killed."""
        while not self._closing.wait(_WATCH_SECONDS):
            try:
                if not self._directory.is_supervised():
                    logger.warning("the embedded Postgres lost its supervisor; starting it again")
                    self._state = _ensure_running(self._directory, self._request)
            except (EmbeddedPostgresError, OSError) as error:
                logger.warning("the embedded Postgres did not start: %s", error)


def _checked(settings: Mapping[str, str]) -> dict[str, str]:
    for name in settings:
        if name in _OUR_SETTINGS or not _SETTING.fullmatch(name):
            raise EmbeddedPostgresError(f"{name!r} is not a setting that can be chosen here.")
    return dict(settings)


def _ensure_running(directory: ServerDirectory, request: ServerRequest) -> ServerState:
    """Return the state of a server that answers, starting one where no supervisor lives."""
    with FileLock(directory.start_lock) as start:
        start.wait_exclusive(_START_SECONDS)
        for _ in range(int(_START_SECONDS / _LOOK_SECONDS)):
            if not directory.is_supervised():
                _launch_supervisor(directory, request)
            state = directory.read_state()
            if state and answers(state.socket):
                _check_fits(state, request)
                return state
            time.sleep(_LOOK_SECONDS)
    raise EmbeddedPostgresError(
        f"The Postgres of {directory.path} does not answer; the end of {directory.log}:\n"
        f"{directory.log_tail()}"
    )


def _launch_supervisor(directory: ServerDirectory, request: ServerRequest) -> None:
    # -P: whatever lies in the working directory is not imported.
    command = [sys.executable, "-P", "-m", "runcast.postgres.supervisor", str(directory.path)]
    launched = subprocess.run(
        command,
        input=request.to_json(),
        capture_output=True,
        text=True,
        start_new_session=True,  # Ctrl-C in a terminal is for the user, who then leaves in order
        timeout=_START_SECONDS,
    )
    if launched.returncode != 0:
        raise EmbeddedPostgresError(launched.stderr.strip())


def _check_fits(state: ServerState, request: ServerRequest) -> None:
    wanted = request.settings.items()
    if (request.tcp and not state.tcp) or not wanted <= state.settings.items():
        raise EmbeddedPostgresInUse(
            "The server runs already, but without the TCP port or the settings asked for: "
            "end the processes that use it, or start like them."
        )


def _take_alone(directory: ServerDirectory, users: FileLock) -> None:
    """Hold the users' lock alone while no supervisor lives; refuse where there are other users."""
    for _ in range(int(_STOP_SECONDS / _LOOK_SECONDS)):
        if users.try_exclusive():
            if not directory.is_supervised():
                return
            users.release()  # for the supervisor to see that nobody is left
        elif users.try_shared():
            raise EmbeddedPostgresInUse(
                f"Another process uses the server of {directory.path}: end it before "
                "starting anew, which deletes the data."
            )
        time.sleep(_LOOK_SECONDS)
    raise EmbeddedPostgresError(
        f"The server of {directory.path} did not stop within {_STOP_SECONDS:.0f} seconds: see "
        f"{directory.log}."
    )


def _wait_for_stop(directory: ServerDirectory, users: FileLock) -> None:
    """Give up the users' lock; if we were the last, wait until the supervisor has ended."""
    for _ in range(int(_STOP_SECONDS / _LOOK_SECONDS)):
        if not users.try_exclusive() and users.try_shared():
            return  # others stay
        users.release()
        if not directory.is_supervised():
            return
        time.sleep(_LOOK_SECONDS)


def _delete_data(directory: ServerDirectory) -> None:
    for folder in (directory.data, directory.data.with_suffix(".new")):
        if folder.exists():
            shutil.rmtree(folder)
