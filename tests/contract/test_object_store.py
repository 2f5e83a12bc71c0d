"""What every `ObjectStore` promises: the directory and the bucket."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Protocol

import pytest

from runcast.errors import BackendError
from runcast.objects.local import LocalObjectStore
from runcast.objects.s3 import S3ObjectStore
from runcast.ports import ObjectStore
from tests.support.s3 import S3Server

PART = 8 * 1024 * 1024


class World(Protocol):
    """A store, and another one that is away."""

    store: ObjectStore
    broken: ObjectStore

    def files(self) -> list[Path]: ...


class LocalWorld:
    def __init__(self, folder: Path) -> None:
        self._folder = folder / "objects"
        self.store: ObjectStore = LocalObjectStore(self._folder)
        no_folder = folder / "file"
        no_folder.write_text("a file")
        self.broken: ObjectStore = LocalObjectStore(no_folder)

    def files(self) -> list[Path]:
        return [each for each in self._folder.rglob("*") if each.is_file()]


class BucketWorld:
    def __init__(self, server: S3Server) -> None:
        self._server = server
        self._bucket = server.create_bucket()
        self.store: ObjectStore = S3ObjectStore(self._bucket)
        self.broken: ObjectStore = S3ObjectStore(server.unreachable_bucket())

    def files(self) -> list[Path]:
        return self._server.files(self._bucket)


@pytest.fixture(params=["local", "s3"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> World:
    if request.param == "local":
        return LocalWorld(tmp_path)
    return BucketWorld(request.getfixturevalue("s3_server"))


async def pieces(*contents: bytes) -> AsyncIterator[bytes]:
    for content in contents:
        yield content


async def read(store: ObjectStore, name: str, environment_id: str = "env_a") -> bytes | None:
    async with store.open(environment_id, name) as found:
        if found is None:
            return None
        content = b"".join([piece async for piece in found.pieces])
        assert found.size == len(content)
        return content


async def kind(store: ObjectStore, name: str) -> str | None:
    async with store.open("env_a", name) as found:
        return None if found is None else found.content_type


@pytest.mark.parametrize(
    "contents",
    [[], [b""], [b"1"], [b"ab", b"", b"cd"], [b"x" * PART], [b"x" * PART, b"y"], [b"x" * 100] * 99],
    ids=["nothing", "empty", "one", "several", "a part", "more than a part", "many"],
)
async def test_what_is_written_is_read(world: World, contents: list[bytes]) -> None:
    await world.store.write("env_a", "a/b.json", "application/super+json", pieces(*contents))
    assert await read(world.store, "a/b.json") == b"".join(contents)
    assert await kind(world.store, "a/b.json") == "application/super+json"
    assert len(world.files()) == 1


async def test_what_was_never_written_is_not_there(world: World) -> None:
    assert await read(world.store, "x") is None
    assert await kind(world.store, "x") is None


@pytest.mark.parametrize("name", ["ü/ö x.json", "a+b&c=d?e#f%20g", "x" * 512, "packets/a:b*|", "é"])
async def test_every_name_names_one_object(world: World, name: str) -> None:
    for each in (name, f"{name[:500]}/below", name[:-1] or "-"):
        await world.store.write("env_a", each, "text/plain", pieces(each.encode()))
    for each in (name, f"{name[:500]}/below", name[:-1] or "-"):
        assert await read(world.store, each) == each.encode()


async def test_environments_have_their_own_names(world: World) -> None:
    await world.store.write("env_a", "x", "text/plain", pieces(b"a"))
    await world.store.write("env_b", "x", "text/plain", pieces(b"b"))
    assert await read(world.store, "x", "env_a") == b"a"
    await world.store.delete("env_a", "x")
    assert await read(world.store, "x", "env_b") == b"b"


async def test_a_newer_object_takes_the_place_of_the_older_one(world: World) -> None:
    await world.store.write("env_a", "x", "text/plain", pieces(b"older"))
    await world.store.write("env_a", "x", "application/json", pieces(b"1"))
    assert await read(world.store, "x") == b"1"
    assert await kind(world.store, "x") == "application/json"
    assert len(world.files()) == 1


@pytest.mark.parametrize("before", [0, 1, PART // 1024 + 10])
async def test_what_breaks_off_leaves_nothing_behind(world: World, before: int) -> None:
    async def breaking() -> AsyncIterator[bytes]:
        for _ in range(before):
            yield b"x" * 1024
        raise KeyError("broken off")

    await world.store.write("env_a", "old", "text/plain", pieces(b"1"))
    for name in ("old", "new"):
        with pytest.raises(KeyError, match="broken off"):
            await world.store.write("env_a", name, "text/plain", breaking())
    assert await read(world.store, "old") == b"1"
    assert await read(world.store, "new") is None
    assert len(world.files()) == 1


async def test_a_reader_gets_one_object_whole_while_others_take_its_place(world: World) -> None:
    async def write(letter: bytes) -> None:
        await world.store.write("env_a", "x", "text/plain", pieces(*[letter * 1000] * 300))

    await write(b"a")
    async with asyncio.TaskGroup() as group:
        for letter in (b"b", b"c", b"d"):
            group.create_task(write(letter))
        seen = [group.create_task(read(world.store, "x")) for _ in range(5)]
    for task in seen:
        content = task.result()
        assert content is not None
        assert len(content) == 300_000
        assert len(set(content)) == 1


async def test_what_is_deleted_is_gone_and_deleting_again_is_fine(world: World) -> None:
    await world.store.write("env_a", "x", "text/plain", pieces(b"1"))
    await world.store.write("env_a", "y", "text/plain", pieces(b"2"))
    for _ in range(2):
        await world.store.delete("env_a", "x")
        assert await read(world.store, "x") is None
    assert await read(world.store, "y") == b"2"


@pytest.mark.parametrize(
    "act",
    [
        lambda store: store.write("env_a", "x", "text/plain", pieces(b"1")),
        lambda store: read(store, "x"),
        lambda store: store.delete("env_a", "x"),
    ],
    ids=["write", "read", "delete"],
)
async def test_a_store_that_is_away_says_what_to_do(
    world: World, act: Callable[[ObjectStore], AsyncIterator[None]]
) -> None:
    with pytest.raises(BackendError, match="object") as caught:
        await act(world.broken)  # type: ignore[misc]
    assert "127.0.0.1" not in caught.value.message
