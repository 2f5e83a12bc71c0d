"""
Objects as files below one directory; gateways that share it share the objects.

A file holds one line of JSON, which says what the object is, and then its content. Its name is a
hash of the object's name: no name leads anywhere else, and any name can be had.
"""

import asyncio
import os
import tempfile
from collections.abc import AsyncIterable, AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import orjson

from runcast.core.object_name import object_digest
from runcast.errors import BackendError
from runcast.ports import ObjectStore, StoredObject, Use

_PIECE_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class _NewFile:
    """A file under a name of its own until it is whole."""

    file: BinaryIO
    path: Path


class LocalObjectStore(ObjectStore):
    """
    Writes are atomic: whoever reads gets the older object or the new one, whole.

    Args:
        directory: Made when the first object is written.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    async def write(
        self, environment_id: str, name: str, content_type: str, pieces: AsyncIterable[bytes]
    ) -> None:
        """
        Store an object, or put it in the place of an older one; all of it or nothing.

        Raises:
            BackendError: The directory cannot be written to, or is full.
        """
        path = self._path(environment_id, name)
        head = orjson.dumps({"name": name, "type": content_type}) + b"\n"
        with _translated("written"):
            new = await asyncio.to_thread(_create, path.parent, head)
        try:
            async for piece in pieces:
                with _translated("written"):
                    await asyncio.to_thread(new.file.write, piece)
            with _translated("written"):
                await asyncio.to_thread(_put_in_place, new, path)
        finally:
            await asyncio.shield(asyncio.to_thread(_discard, new))

    @asynccontextmanager
    async def open(self, environment_id: str, name: str) -> AsyncIterator[StoredObject | None]:
        """
        Read an object while the context lasts; None where there is none of this name.

        Raises:
            BackendError: It could not be read.
        """
        with _translated("read"):
            found = await asyncio.to_thread(_open, self._path(environment_id, name))
        if found is None:
            yield None
            return
        file, content_type, size = found
        try:
            yield StoredObject(content_type, size, _pieces(file))
        finally:
            await asyncio.shield(asyncio.to_thread(file.close))

    async def delete(self, environment_id: str, name: str) -> None:
        """
        Delete an object; that there is none is fine.

        Raises:
            BackendError: It could not be deleted.
        """
        with _translated("deleted"):
            await asyncio.to_thread(self._path(environment_id, name).unlink, missing_ok=True)

    async def address(self, use: Use, environment_id: str, name: str, *, now: float) -> None:
        """Files are reached through a gateway."""

    def _path(self, environment_id: str, name: str) -> Path:
        digest = object_digest(environment_id, name)
        return self._directory / digest[:2] / digest


@contextmanager
def _translated(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BackendError(
            f"The object could not be {what}; the directory RUNCAST_OBJECTS_DIR needs a look."
        ) from error


def _create(directory: Path, head: bytes) -> _NewFile:
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor, name = tempfile.mkstemp(prefix="new-", dir=directory)
    new = _NewFile(os.fdopen(descriptor, "wb"), Path(name))
    new.file.write(head)
    return new


def _put_in_place(new: _NewFile, path: Path) -> None:
    new.file.flush()
    os.fsync(new.file.fileno())
    new.file.close()
    new.path.replace(path)


def _discard(new: _NewFile) -> None:
    """Remove what is left of a file that is not in its place."""
    with suppress(OSError):  # on a full disk closing fails as well
        new.file.close()
    with suppress(OSError):
        new.path.unlink(missing_ok=True)


def _open(path: Path) -> tuple[BinaryIO, str, int] | None:
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return None
    head = orjson.loads(file.readline())
    return file, head["type"], os.fstat(file.fileno()).st_size - file.tell()


async def _pieces(file: BinaryIO) -> AsyncIterator[bytes]:
    while True:
        with _translated("read"):
            piece = await asyncio.to_thread(file.read, _PIECE_BYTES)
        if not piece:
            return
        yield piece
