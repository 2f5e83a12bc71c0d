"""A lock on a file, shared or exclusive; it ends with its holder, also when that is killed."""

import os
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from runcast.postgres.embedded_error import EmbeddedPostgresError

try:
    import fcntl
except ModuleNotFoundError as missing:
    raise EmbeddedPostgresError(
        "The embedded Postgres runs on Linux and macOS; on Windows set DATABASE_URL or use WSL."
    ) from missing

_RETRY_SECONDS = 0.01


class FileLock:
    """
    One holder's handle on the lock file; it starts out unlocked.

    Taking the lock in the other mode converts it. A conversion is not atomic: the old mode is
    given up first, also when the new one is then refused.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def try_shared(self) -> bool:
        """Take the lock beside other shared holders; False when one holds it exclusively."""
        return self._try(fcntl.LOCK_SH)

    def try_exclusive(self) -> bool:
        """Take the lock alone; False when anybody else holds it."""
        return self._try(fcntl.LOCK_EX)

    def wait_shared(self, seconds: float) -> None:
        """Take the lock beside others, waiting for an exclusive holder to end."""
        self._wait(fcntl.LOCK_SH, seconds)

    def wait_exclusive(self, seconds: float) -> None:
        """Take the lock alone, waiting for every other holder to end."""
        self._wait(fcntl.LOCK_EX, seconds)

    def release(self) -> None:
        """Give the lock up; it can be taken again."""
        if self._descriptor is not None:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def close(self) -> None:
        """Give the lock up for good."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _wait(self, mode: int, seconds: float) -> None:
        for _ in range(int(seconds / _RETRY_SECONDS)):
            if self._try(mode):
                return
            time.sleep(_RETRY_SECONDS)
        raise EmbeddedPostgresError(
            f"{self._path} stayed locked for {seconds:.0f} seconds: "
            "end the process that holds it, or choose another data directory."
        )

    def _try(self, mode: int) -> bool:
        assert self._descriptor is not None, "a closed lock cannot be taken"
        try:
            fcntl.flock(self._descriptor, mode | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
