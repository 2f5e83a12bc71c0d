"""The system account that postgres runs as: postgres refuses root, so root lends it another one."""

import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from runcast.postgres.embedded_error import EmbeddedPostgresError
from runcast.postgres.server_directory import ServerDirectory

_LENT_TO = ("postgres", "nobody")
# In a user namespace of its own, root is somebody else, while its files stay root's.
_NAMESPACE = ("unshare", "-U", "--map-user=65534", "--map-group=65534")


class SpawnOptions(TypedDict, total=False):
    """Arguments of ``subprocess.Popen`` that switch the user."""

    user: int
    group: int
    extra_groups: list[int]


@dataclass(frozen=True, slots=True)
class Account:
    """Who runs postgres: ourselves, another user (``lent``), or ourselves behind ``prefix``."""

    uid: int
    gid: int
    name: str
    lent: bool = False
    prefix: tuple[str, ...] = ()

    @property
    def spawn_options(self) -> SpawnOptions:
        if not self.lent:
            return {}
        return {"user": self.uid, "group": self.gid, "extra_groups": []}

    def give(self, path: Path) -> None:
        """Make the account the owner of one file or directory of ours."""
        if self.lent:
            os.chown(path, self.uid, self.gid)

    def may(self, flag: str, path: Path) -> bool:
        """
        Ask, as this account, whether ``test`` finds ``flag`` true of ``path``.

        False as well when the account cannot be switched to. Asking the system covers what
        reading mode bits would not: access lists, capabilities, namespaces.
        """
        try:
            command: list[str | Path] = [*self.prefix, "test", flag, path]
            asked = subprocess.run(command, cwd="/", capture_output=True, **self.spawn_options)
        except (OSError, subprocess.SubprocessError):
            return False
        return asked.returncode == 0


def choose_account(directory: ServerDirectory) -> Account:
    """
    Find an account that can run postgres in this directory.

    The owner of existing data decides; new data goes to the first account that works.

    Raises:
        EmbeddedPostgresError: No account works; the message says what to change.
    """
    tried = list(_candidates(directory))
    for account in tried:
        if account.may("-x", directory.path):
            return account
    names = ", ".join(account.name for account in tried) or "no other user"
    if os.geteuid() != 0:
        raise EmbeddedPostgresError(
            f"The user id {os.geteuid()} has no entry in the password database, which initdb "
            "needs: add one, run as another user, or set DATABASE_URL."
        )
    raise EmbeddedPostgresError(
        f"Postgres does not run as root, and nobody else can use {directory.path} (tried "
        f"{names}): choose a data directory below a folder that all users may pass through, "
        "such as /var/lib/runcast, or run as an ordinary user, or set DATABASE_URL."
    )


def _candidates(directory: ServerDirectory) -> Iterator[Account]:
    ourselves = os.geteuid()
    owner = directory.data.stat().st_uid if directory.data.exists() else None
    if ourselves != 0 and (entry := _entry(ourselves)):
        yield Account(entry.pw_uid, entry.pw_gid, entry.pw_name)
    if ourselves == 0 and owner != 0:
        entries = [_entry(owner)] if owner else [_entry(name) for name in _LENT_TO]
        for entry in filter(None, entries):
            yield Account(entry.pw_uid, entry.pw_gid, entry.pw_name, lent=True)
    if owner in (None, ourselves) and shutil.which(_NAMESPACE[0]):
        yield Account(ourselves, os.getegid(), "a user namespace", prefix=_NAMESPACE)


def _entry(who: int | str) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwuid(who) if isinstance(who, int) else pwd.getpwnam(who)
    except KeyError:
        return None
