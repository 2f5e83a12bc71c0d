"""Runs `runcast` as its users do: a process of its own, in an environment without our variables."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

RUNCAST = (sys.executable, "-m", "runcast")


@dataclass(frozen=True)
class Ready:
    """What `runcast dev --json` says."""

    url: str
    key: str
    database_url: str


class CommandLine:
    """The command line in a folder, with more variables where a test names them."""

    def __init__(self, folder: Path, **variables: str) -> None:
        self._folder = folder
        self._variables = variables

    def having(self, **variables: str) -> "CommandLine":
        return CommandLine(self._folder, **{**self._variables, **variables})

    def run(self, *words: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [*RUNCAST, *words],
            cwd=self._folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=150,
        )

    @contextmanager
    def started(self, *words: str) -> "Iterator[subprocess.Popen[str]]":
        """Start a command that runs until it is told to end; at the latest when the block ends."""
        # Its log goes to a file: a pipe that nobody reads would stop it.
        with (
            (self._folder / "log").open("a") as log,
            subprocess.Popen(
                [*RUNCAST, *words],
                cwd=self._folder,
                env=self.environment,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            ) as process,
        ):
            try:
                yield process
            finally:
                if process.poll() is None:
                    process.kill()

    @contextmanager
    def gateway(self, *words: str) -> Iterator[Ready]:
        """Run `runcast dev` and end it in order, which has to give status 0."""
        with self.started("dev", "--port", "0", "--json", *words) as process:
            yield self.read_ready(process)
            assert end(process) == 0, self.log

    def read_ready(self, process: "subprocess.Popen[str]") -> Ready:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, self.log
        said = json.loads(line)
        return Ready(said["url"], said["secretKey"], said["databaseUrl"])

    @property
    def log(self) -> str:
        """What started commands have written to standard error."""
        return (self._folder / "log").read_text()

    @property
    def environment(self) -> dict[str, str]:
        ours = ("RUNCAST_", "DATABASE_URL", "REDIS_URL")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        return kept | {"COLUMNS": "100", "NO_COLOR": "1"} | self._variables


def end(process: "subprocess.Popen[str]", number: int = signal.SIGTERM) -> int:
    """Ask a process to end and return its exit status."""
    process.send_signal(number)
    return process.wait()


def complaint(finished: "subprocess.CompletedProcess[str]") -> str:
    """The one readable line that a failed command ends with."""
    assert finished.returncode in (1, 2), finished
    assert "Traceback" not in finished.stderr
    assert finished.stdout == ""
    return finished.stderr.strip().splitlines()[-1]
