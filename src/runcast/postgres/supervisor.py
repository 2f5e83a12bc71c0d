"""
The detached process that owns one embedded Postgres: ``python -m runcast.postgres.supervisor``.

It starts postgres, starts it again whenever it ends, and stops it when its last user has left.
Users hold a shared lock; the supervisor tries to take that lock alone, so a user who was killed
counts as gone at once, and no list of users can be wrong.

    starting -> running <-> restarting
        \\          \\            \\
         `-> ended   `-> stopping -'-> ended
"""

import logging
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from urllib.parse import quote

from runcast.postgres.account import choose_account
from runcast.postgres.binaries import find_binaries, make_runnable
from runcast.postgres.cluster import Cluster, stop
from runcast.postgres.embedded_error import EmbeddedPostgresError
from runcast.postgres.file_lock import FileLock
from runcast.postgres.probe import answers
from runcast.postgres.server_directory import ServerDirectory, ServerRequest, ServerState

_LOOK_SECONDS = 0.1
_READY_SECONDS = 60.0
_READY_LOOK_SECONDS = 0.01
_LOCK_SECONDS = 10.0
_ORPHAN_SECONDS = 10.0
_RESTART_SECONDS = (0.05, 1.0)
# How often a first start is tried while processes of a killed predecessor still end.
_INHERITED_STARTS = 100
_INHERITED_PAUSE_SECONDS = 0.1
_REFUSED = 1
_SOCKET_PORT = 5432
_READY = "ready"
_DEFAULTS = {"max_connections": "200", "jit": "off"}

logger = logging.getLogger(__name__)


class _Wake:
    """Ends a wait when a signal comes: SIGTERM asks to stop, SIGCHLD tells that postgres ended."""

    def __init__(self) -> None:
        self.stop_asked = False
        self._reader, writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(writer, False)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, self._note)
        signal.signal(signal.SIGTERM, self._note)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def wait(self, seconds: float) -> None:
        if select.select([self._reader], [], [], seconds)[0]:
            os.read(self._reader, 4096)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.stop_asked |= number == signal.SIGTERM


class Supervisor:
    """Runs one server from start to stop; made and used in the supervisor process only."""

    def __init__(self, directory: ServerDirectory, request: ServerRequest) -> None:
        self._directory = directory
        self._request = request
        self._wake = _Wake()
        self._restart_seconds = _RESTART_SECONDS[0]

    def run(self, announce_ready: Callable[[], None]) -> None:
        """
        Serve until nobody uses the server any more, or SIGTERM.

        Raises:
            EmbeddedPostgresError: It could not be started; said before ``announce_ready``.
        """
        with (
            FileLock(self._directory.supervisor_lock) as ours,
            FileLock(self._directory.users_lock) as users,
        ):
            ours.wait_exclusive(_LOCK_SECONDS)
            previous = self._directory.read_state()
            self._directory.remove_state()
            cluster, self._version, self._binaries = self._make_cluster()
            self._end_orphan(cluster, previous)
            cluster.initialize(durable=self._request.settings.get("fsync") != "off")
            folder = cluster.socket_folder()
            self._port = self._choose_port(previous)
            self._socket = str(folder / f".s.PGSQL.{self._port}")
            try:
                self._serve(cluster, folder, users, announce_ready)
            finally:
                cluster.remove_socket_folder(folder)

    def _make_cluster(self) -> tuple[Cluster, int, Path]:
        account = choose_account(self._directory)
        binaries = find_binaries(self._directory.data_version())
        binaries = make_runnable(binaries, account, self._directory)
        return Cluster(self._directory, account, binaries), binaries.version, binaries.folder

    def _choose_port(self, previous: ServerState | None) -> int:
        """Take the port of a predecessor that was killed, so that its users find us there."""
        if not self._request.tcp:
            return _SOCKET_PORT
        if previous and previous.tcp and _is_free(previous.port):
            return previous.port
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
            return port

    def _serve(
        self,
        cluster: Cluster,
        folder: Path,
        users: FileLock,
        announce_ready: Callable[[], None],
    ) -> None:
        settings = _DEFAULTS | self._own_settings(folder) | dict(self._request.settings)
        process = self._first_start(cluster, settings)
        try:
            announce_ready()
            while not (self._wake.stop_asked or users.try_exclusive()):
                if process.poll() is not None:
                    process = self._restart(cluster, settings, process.returncode)
                elif self._restart_seconds > _RESTART_SECONDS[0] and answers(self._socket):
                    self._restart_seconds = _RESTART_SECONDS[0]
                self._wake.wait(_LOOK_SECONDS)
        finally:
            self._directory.remove_state()
            logger.info("stopping")
            stop(process)

    def _own_settings(self, folder: Path) -> dict[str, str]:
        return {
            "listen_addresses": "127.0.0.1" if self._request.tcp else "",
            "port": str(self._port),
            "unix_socket_directories": str(folder),
            "unix_socket_permissions": "0700",
        }

    def _end_orphan(self, cluster: Cluster, previous: ServerState | None) -> None:
        """End a postgres that outlived its supervisor, which only some systems let happen."""
        pid = cluster.postmaster_pid()
        if pid is None or previous is None or not answers(previous.socket):
            return
        logger.info("ending process %d, whose supervisor was killed", pid)
        os.kill(pid, signal.SIGQUIT)
        for _ in range(int(_ORPHAN_SECONDS / _READY_LOOK_SECONDS)):
            if cluster.postmaster_pid() is None:
                return
            self._wake.wait(_READY_LOOK_SECONDS)

    def _first_start(
        self, cluster: Cluster, settings: Mapping[str, str]
    ) -> "subprocess.Popen[bytes]":
        """Start postgres and wait until it answers; give up, with what it logged, if it ends."""
        cluster.remove_stale_pid_file()
        attempts = 1 if cluster.postmaster_pid() is None else _INHERITED_STARTS
        log_start = self._directory.log_size()
        for _ in range(attempts):
            log_start = self._directory.log_size()
            process = self._spawn(cluster, settings)
            if self._becomes_ready(process):
                return process
            if process.returncode != _REFUSED:
                break
            self._wake.wait(_INHERITED_PAUSE_SECONDS)
        raise EmbeddedPostgresError(
            f"Postgres {self._version} from {self._binaries} did not start; the end of "
            f"{self._directory.log}:\n{self._directory.log_tail(start=log_start)}"
        )

    def _becomes_ready(self, process: "subprocess.Popen[bytes]") -> bool:
        for _ in range(int(_READY_SECONDS / _READY_LOOK_SECONDS)):
            if process.poll() is not None:
                return False
            if answers(self._socket):
                return True
            if self._wake.stop_asked:
                break
            self._wake.wait(_READY_LOOK_SECONDS)
        stop(process)
        return False

    def _restart(
        self, cluster: Cluster, settings: Mapping[str, str], returncode: int
    ) -> "subprocess.Popen[bytes]":
        """Start postgres again after a pause that grows while it does not come up."""
        logger.warning("postgres ended with %d; starting it again", returncode)
        self._wake.wait(self._restart_seconds)
        self._restart_seconds = min(2 * self._restart_seconds, _RESTART_SECONDS[1])
        return self._spawn(cluster, settings)

    def _spawn(self, cluster: Cluster, settings: Mapping[str, str]) -> "subprocess.Popen[bytes]":
        process = cluster.spawn(settings)
        self._directory.write_state(
            ServerState(
                url=self._url(),
                socket=self._socket,
                port=self._port,
                postmaster_pid=process.pid,
                supervisor_pid=os.getpid(),
                version=self._version,
                binaries=str(self._binaries),
                tcp=self._request.tcp,
                settings=dict(self._request.settings),
            )
        )
        return process

    def _url(self) -> str:
        if self._request.tcp:
            password = quote(self._directory.read_password(), safe="")
            return f"postgresql://postgres:{password}@127.0.0.1:{self._port}/postgres"
        folder = quote(str(Path(self._socket).parent))
        return f"postgresql://postgres@/postgres?host={folder}&port={self._port}"


def main() -> int:
    """
    Leave a supervisor behind; end when its server is ready, or with status 1 and the reason.

    The one argument is the server's directory; standard input says how to run it. Because this
    process ends, the supervisor is nobody's child, and nobody has to wait for its end.
    """
    directory = ServerDirectory(Path(sys.argv[1]))
    request = ServerRequest.from_json(sys.stdin.read())
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.close(reader)
        return _supervise(directory, request, writer)
    os.close(writer)
    with open(reader) as report:
        said = report.read() or f"The supervisor was ended; see {directory.log}."
    if said == _READY:
        return 0
    sys.stderr.write(said)
    return 1


def _supervise(directory: ServerDirectory, request: ServerRequest, report: int) -> int:
    try:
        _detach(directory)
        Supervisor(directory, request).run(lambda: _say(report, _READY))
    except EmbeddedPostgresError as error:
        logger.error("%s", error.message)
        _say(report, error.message)
        return 1
    except OSError as error:
        logger.exception("giving up")
        _say(report, f"{error}; see {directory.log}.")
        return 1
    return 0


def _detach(directory: ServerDirectory) -> None:
    """Leave the terminal, the working directory and the standard streams of the user."""
    os.setsid()
    os.chdir("/")
    directory.rotate_log()
    log = os.open(directory.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    for source, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    logging.basicConfig(format="%(asctime)s supervisor: %(message)s", level=logging.INFO)


def _say(report: int, text: str) -> None:
    """Tell the starting user once; what comes later, nobody waits for."""
    try:
        os.write(report, text.encode())
        os.close(report)
    except OSError:
        logger.info("the user who started this server is gone or was already told")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


if __name__ == "__main__":
    sys.exit(main())
