"""A gateway as a process of its own, to be killed and to be stopped."""

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.cli.command_line import CommandLine
from tests.support.postgres import wait_until


class GatewayProcess:
    """A running `runcast serve`."""

    def __init__(self, url: str, process: "subprocess.Popen[str]") -> None:
        self.url = url
        self._process = process

    def kill(self) -> None:
        """kill -9."""
        self._process.kill()
        self._process.wait()

    def pause(self) -> None:
        """Stop it where it is: connections stay, nothing answers."""
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        self._process.send_signal(signal.SIGCONT)


@contextmanager
def gateway_process(folder: Path, database_url: str, **variables: str) -> Iterator[GatewayProcess]:
    """Run one, with its log in the folder, for as long as the context lasts."""
    runcast = CommandLine(folder, DATABASE_URL=database_url, **variables)
    before = runcast.log.count("runcast serves ") if (folder / "log").exists() else 0
    with runcast.started("serve", "--port", "0") as process:

        def serves() -> bool:
            assert process.poll() is None, runcast.log
            return runcast.log.count("runcast serves ") > before

        wait_until(serves)
        yield GatewayProcess(runcast.log.rpartition("runcast serves ")[2].split()[0], process)
