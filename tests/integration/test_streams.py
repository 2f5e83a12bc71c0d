"""
Streams through whole gateways: what DESIGN.md promises as G3.

Every chunk once, in order, byte for byte, for every reader, whoever is killed in between.
"""

import asyncio
import json
import logging
import os
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Literal

import httpx
import pytest

from runcast.hub.stream_reader import StreamReader
from runcast.web.listener import listen
from tests.support.event_feed import following
from tests.support.gateway_app import GatewayApp, running_app, until
from tests.support.gateway_process import gateway_process
from tests.support.postgres import RestartablePostgres
from tests.support.stream_follower import StreamFollower
from tests.support.stream_writer import StreamWriter, last_index, write, writing, writing_path
from tests.support.wire import wired

SEED = int(os.environ.get("RUNCAST_TEST_SEED") or random.SystemRandom().randrange(1 << 32))
MIB = 1024 * 1024
TRANSPORTS: tuple[Literal["sse", "socket"], ...] = ("sse", "socket")


@pytest.fixture(autouse=True)
def nothing_went_wrong_unseen(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Whatever clients do, the gateway has no reason to log an error."""
    yield
    errors = [record for record in caplog.get_records("call") if record.levelno >= logging.ERROR]
    assert [record.getMessage() for record in errors] == []


@pytest.fixture(params=["auto", "portable"])
async def app(request: pytest.FixtureRequest, database_url: str) -> AsyncIterator[GatewayApp]:
    async with running_app(database_url, transport=request.param) as running:
        yield running


@pytest.fixture(params=["postgres", "redis"])
def chunk_store(request: pytest.FixtureRequest) -> dict[str, Any]:
    """The setting that chooses where chunks are."""
    if request.param == "postgres":
        return {}
    return {"redis_url": request.getfixturevalue("redis_url")}


@pytest.fixture
async def one_app(database_url: str, chunk_store: dict[str, Any]) -> AsyncIterator[GatewayApp]:
    """Where the tier makes no difference, but the store of the chunks may."""
    async with running_app(database_url, **chunk_store) as running:
        yield running


def beside(app: GatewayApp) -> AbstractAsyncContextManager[GatewayApp]:
    """A second gateway like this one."""
    settings = app.gateway.settings
    return running_app(settings.require_database_url(), redis_url=settings.redis_url)


def follower(app: GatewayApp, run_id: str, **options: Any) -> StreamFollower:
    return StreamFollower(app.url, run_id, options.pop("token", app.key), **options)


async def read_all(app: GatewayApp, run_id: str, **options: Any) -> list[str]:
    """Everything that the stream holds now, as a newcomer gets it."""
    reader = follower(app, run_id, **options)
    reader.start()
    await reader.caught_up()
    await reader.drop()
    return reader.texts


def numbered(count: int, dice: random.Random, *, first: int = 0) -> list[str]:
    """Lines of compact JSON, each with its number and something that is not ASCII."""
    words = ["token", "grün", "🌱", "\u2028", "\x7f", "名前", '\\"', "\\n"]
    return [
        f'{{"n":{n},"t":"{"".join(dice.choices(words, k=dice.randint(0, 8)))}"}}'
        for n in range(first, first + count)
    ]


async def post(app: GatewayApp, path: str, **options: Any) -> httpx.Response:
    async with httpx.AsyncClient(base_url=app.url, trust_env=False, headers=app.bearer) as client:
        return await client.post(path, **options)


class TestManyReaders:
    @pytest.mark.slow
    async def test_10000_chunks_are_byte_equal_for_20_readers_that_disconnect_at_random(
        self, database_url: str, chunk_store: dict[str, Any]
    ) -> None:
        dice = random.Random(SEED)
        lines = numbered(10_000, dice)
        async with (
            running_app(database_url, transport="auto", **chunk_store) as first,
            running_app(database_url, transport="portable", **chunk_store) as second,
        ):
            run_id = await first.insert()
            halfway = asyncio.Event()

            async def read(reader: StreamFollower, *, late: bool) -> None:
                if late:
                    await halfway.wait()
                while reader.ended is None:
                    await reader.follow_for(dice.randint(1, 3000))
                    assert reader.refused is None
                    reader.url = dice.choice([first.url, second.url])

            async def write_all(writer: StreamWriter) -> None:
                body = "".join(f"{line}\n" for line in lines).encode()
                place = 0
                while place < len(body):
                    size = dice.choice([1, 100, 5_000, 20_000])
                    await writer.send(body[place : place + size])
                    place += size
                    if place > len(body) / 2:
                        halfway.set()
                    await asyncio.sleep(0)

            readers = [
                follower(dice.choice([first, second]), run_id, transport=TRANSPORTS[number % 2])
                for number in range(20)
            ]
            async with asyncio.TaskGroup() as tasks:
                for number, reader in enumerate(readers):
                    tasks.create_task(read(reader, late=number % 4 == 0))
                async with writing(first.url, first.bearer, run_id, writer="w") as writer:
                    await write_all(writer)
                    assert (await writer.finish()).status == 200
                await first.finish(run_id)
            for reader in readers:
                assert reader.texts == lines, f"seed {SEED}: {reader.summary()}"
                assert reader.ended == "finished"
            assert sum(reader.connections for reader in readers) > 40
            for app in (first, second):
                assert not app.gateway.hub._tails

    async def test_who_comes_late_catches_up_and_goes_live(self, app: GatewayApp) -> None:
        run_id = await app.insert()
        async with writing(app.url, app.bearer, run_id, writer="w") as writer:
            await writer.send_lines(["1", "2"])
            for count, transport in enumerate(TRANSPORTS, 3):
                reader = follower(app, run_id, transport=transport)
                reader.start()
                await reader.has(count - 1)
                await writer.send_lines([str(count)])
                await reader.has(count)
                assert reader.texts == [str(n + 1) for n in range(count)]
                await reader.drop()

    async def test_lines_are_published_as_they_arrive(self, app: GatewayApp) -> None:
        run_id = await app.insert()
        readers = [follower(app, run_id, transport=transport) for transport in TRANSPORTS]
        for reader in readers:
            reader.start()
            await reader.caught_up()
        async with writing(app.url, app.bearer, run_id) as writer:
            for count in range(1, 6):
                await writer.send_lines([str(count)])
                for reader in readers:
                    await reader.has(count)
        for reader in readers:
            await reader.drop()

    async def test_a_writer_on_one_gateway_and_readers_on_another(
        self, one_app: GatewayApp, database_url: str
    ) -> None:
        run_id = await one_app.insert()
        async with beside(one_app) as other:
            readers = [follower(other, run_id, transport=transport) for transport in TRANSPORTS]
            for reader in readers:
                reader.start()
                await reader.caught_up()
            async with writing(one_app.url, one_app.bearer, run_id) as writer:
                for count in range(1, 6):
                    await writer.send_lines([str(count)])
                    for reader in readers:
                        await reader.has(count)
                await writer.finish()
            await one_app.finish(run_id)
            for reader in readers:
                await reader.over()
                assert (reader.texts, reader.ended) == (list("12345"), "finished")


class TestPlaces:
    @pytest.mark.parametrize("transport", TRANSPORTS)
    async def test_from_the_start_an_offset_or_the_latest(
        self, app: GatewayApp, transport: Literal["sse", "socket"]
    ) -> None:
        run_id = await app.insert()
        await write(app.url, app.bearer, run_id, b"0\n1\n2\n")
        places: list[tuple[str | int, list[str]]] = [
            ("start", ["0", "1", "2"]),
            (1, ["1", "2"]),
            (3, []),
            ("latest", []),
        ]
        for begin, expected in places:
            reader = follower(app, run_id, transport=transport, begin=begin)
            reader.start()
            await reader.caught_up()
            assert reader.texts == expected
            await reader.drop()

    @pytest.mark.parametrize("transport", TRANSPORTS)
    @pytest.mark.parametrize("bare", [False, True], ids=["id", "offset"])
    async def test_resuming_behind_any_part(
        self, app: GatewayApp, transport: Literal["sse", "socket"], bare: bool
    ) -> None:
        run_id = await app.insert()
        await write(app.url, app.bearer, run_id, b"0\n1\n2\n3\n")
        await post(app, writing_path(run_id) + "/close")
        reader = follower(app, run_id, transport=transport, bare=bare)
        while reader.ended is None:
            await reader.follow_for(1)
        assert reader.texts == ["0", "1", "2", "3"]

    async def test_a_cursor_wins_and_nonsense_is_refused(self, one_app: GatewayApp) -> None:
        run_id = await one_app.insert()
        await write(one_app.url, one_app.bearer, run_id, b"0\n1\n2\n")
        path = f"/realtime/v1/streams/{run_id}/llm"
        async with wired(one_app.port) as wire:
            await wire.get(f"{path}?cursor=0&from=latest", one_app.bearer)
            assert b"data: 0\n" not in await wire.read_until(b"event: up-to-date")
            assert b"data: 1\n" in wire.received
        refused = [
            ("?cursor=nonsense", {}, "invalid_cursor"),
            ("", {"last-event-id": "-1"}, "invalid_cursor"),
            ("?from=-1", {}, "invalid_parameter"),
            ("?from=soon", {}, "invalid_parameter"),
            ("", {"timeout-seconds": "0"}, "invalid_parameter"),
            ("", {"timeout-seconds": "601"}, "invalid_parameter"),
            ("", {"timeout-seconds": "1.5"}, "invalid_parameter"),
        ]
        async with httpx.AsyncClient(base_url=one_app.url, trust_env=False) as client:
            for query, headers, code in refused:
                answer = await client.get(path + query, headers=one_app.bearer | headers)
                assert (answer.status_code, answer.json()["code"]) == (400, code)

    async def test_a_place_that_never_was_is_said(self, app: GatewayApp) -> None:
        run_id = await app.insert()
        await write(app.url, app.bearer, run_id, b"0\n")
        for transport in TRANSPORTS:
            reader = follower(app, run_id, transport=transport, begin=7)
            reader.start()
            await reader.caught_up()
            assert reader.events == ["reset ahead", "up-to-date"]
            assert reader.texts == ["0"]
            await reader.drop()

    async def test_an_unknown_key_is_empty_and_may_begin_later(self, app: GatewayApp) -> None:
        run_id = await app.insert()
        readers = [follower(app, run_id, transport=transport) for transport in TRANSPORTS]
        for reader in readers:
            reader.start()
            await reader.caught_up()
        assert (await write(app.url, app.bearer, run_id, b"1\n")).status == 200
        for reader in readers:
            await reader.has(1)
            await reader.drop()

    async def test_an_unknown_run_is_not_found(self, one_app: GatewayApp) -> None:
        reader = follower(one_app, "run_0")
        await reader.follow()
        assert reader.refused == 404
        socket = follower(one_app, "run_0", transport="socket")
        await socket.follow()
        assert socket.events == ["problem not_found"]
        assert (await write(one_app.url, one_app.bearer, "run_0", b"1\n")).code == "not_found"


class TestText:
    async def test_all_of_unicode_comes_out_as_it_went_in(self, app: GatewayApp) -> None:
        run_id = await app.insert()
        everything = [
            "".join(
                chr(code)
                for code in range(start, start + 0x1000)
                if not 0xD800 <= code < 0xE000 and chr(code) not in "\0\r\n"
            )
            for start in range(0, 0x110000, 0x1000)
        ]
        lines = [text for text in everything if text]
        body = "".join(f"{line}\n" for line in lines).encode()
        assert (await write(app.url, app.bearer, run_id, body)).status == 200
        assert await read_all(app, run_id) == lines
        quoted = await read_all(app, run_id, transport="socket")
        assert [json.loads(text) for text in quoted] == lines

    async def test_escapes_and_text_that_is_no_json_come_out_as_they_went_in(
        self, app: GatewayApp
    ) -> None:
        run_id = await app.insert()
        lines = [r'"\u0000"', r'{"a":"\ud800"}', r'"\udc00\ud800"', "{", "data: x", ": y", " ", "é"]
        body = "".join(f"{line}\n" for line in lines).encode()
        assert (await write(app.url, app.bearer, run_id, body)).status == 200
        assert await read_all(app, run_id) == lines

    async def test_empty_lines_are_no_chunks_and_a_last_line_needs_no_newline(
        self, one_app: GatewayApp
    ) -> None:
        run_id = await one_app.insert()
        body = b"\n\n1\r\n\r\n2\n\n\n3"
        assert (await write(one_app.url, one_app.bearer, run_id, body, writer="w")).status == 200
        assert await read_all(one_app, run_id) == ["1", "2", "3"]
        assert await last_index(one_app.url, one_app.bearer, run_id, "w") == 2

    @pytest.mark.parametrize("body", [b"", b"\n", b"\r\n\n"])
    async def test_a_body_without_lines_is_fine(self, one_app: GatewayApp, body: bytes) -> None:
        run_id = await one_app.insert()
        assert (await write(one_app.url, one_app.bearer, run_id, body)).status == 200
        assert await read_all(one_app, run_id) == []

    async def test_lines_that_come_byte_by_byte(self, one_app: GatewayApp) -> None:
        run_id = await one_app.insert()
        lines = ['{"a":"🌱"}', "grün", "\u2028"]
        async with writing(one_app.url, one_app.bearer, run_id) as writer:
            for byte in "\n".join(lines).encode():
                await writer.send(bytes([byte]))
            assert (await writer.finish()).status == 200
        assert await read_all(one_app, run_id) == lines

    @pytest.mark.parametrize(
        ("line", "code"),
        [
            (b"a\0b", "invalid_body"),
            (b"a\rb", "invalid_body"),
            (b"\xff", "invalid_body"),
            (b'"\xed\xa0\x80"', "invalid_body"),
            (b"x" * (MIB + 1), "payload_too_large"),
        ],
        ids=["NUL", "CR", "no UTF-8", "surrogate", "1 MiB + 1"],
    )
    async def test_a_line_that_is_refused_leaves_what_came_before(
        self, one_app: GatewayApp, line: bytes, code: str
    ) -> None:
        run_id = await one_app.insert()
        body = b"1\n2\n" + line + b"\n3\n"
        answer = await write(one_app.url, one_app.bearer, run_id, body, writer="w")
        assert (answer.status, answer.code) == (413 if len(line) > MIB else 400, code)
        assert await read_all(one_app, run_id) == ["1", "2"]
        assert await last_index(one_app.url, one_app.bearer, run_id, "w") == 1

    async def test_a_writer_is_told_at_once_while_its_body_goes_on(
        self, one_app: GatewayApp
    ) -> None:
        run_id = await one_app.insert()
        async with writing(one_app.url, one_app.bearer, run_id) as writer:
            await writer.send(b"1\n\0\n")
            assert (await writer.answer()).code == "invalid_body"

    async def test_a_chunk_of_1_mib(self, app: GatewayApp) -> None:
        run_id = await app.insert()
        lines = ["x" * MIB, "é" * (MIB // 2), "y" * (MIB - 1)]
        body = "\n".join(lines).encode()
        assert (await write(app.url, app.bearer, run_id, body)).status == 200
        assert await read_all(app, run_id) == lines
        quoted = await read_all(app, run_id, transport="socket")
        assert [json.loads(text) for text in quoted] == lines


class TestWriters:
    @pytest.mark.parametrize("how", ["resumes", "begins again"])
    async def test_a_writer_that_is_killed_and_restarted_doubles_and_loses_nothing(
        self, one_app: GatewayApp, how: str
    ) -> None:
        dice = random.Random(SEED)
        app, lines = one_app, numbered(400, dice)
        run_id = await app.insert()
        reader = follower(app, run_id)
        reader.start()
        last = -1
        for _ in range(6):
            first = last + 1 if how == "resumes" else 0
            async with writing(app.url, app.bearer, run_id, writer="w", first=first) as writer:
                place, sure = first, min(last + dice.randint(20, 60), len(lines))
                while place < sure:
                    size = dice.randint(1, 30)
                    await writer.send_lines(lines[place : min(place + size, sure)])
                    place = min(place + size, sure)
                await writer.send(lines[sure].encode()[:5])  # torn
                if dice.random() < 0.5:
                    await reader.has(sure)
                writer.cut()
            last = await last_index(app.url, app.bearer, run_id, "w")
        rest = "\n".join(lines[last + 1 :]).encode()
        answer = await write(app.url, app.bearer, run_id, rest, writer="w", first=last + 1)
        assert answer.status == 200
        await app.finish(run_id)
        await reader.over()
        assert reader.texts == lines, f"seed {SEED}"
        assert reader.ended == "finished"

    async def test_two_writers_of_one_stream_interleave(
        self, one_app: GatewayApp, database_url: str
    ) -> None:
        run_id = await one_app.insert()
        reader = follower(one_app, run_id)
        reader.start()
        async with beside(one_app) as other:

            async def write_as(app: GatewayApp, name: str) -> None:
                async with writing(app.url, app.bearer, run_id, writer=name) as writer:
                    for n in range(0, 300, 10):
                        await writer.send_lines([f'"{name}{m}"' for m in range(n, n + 10)])
                    assert (await writer.finish()).status == 200

            await asyncio.gather(
                write_as(one_app, "a"), write_as(other, "b"), write_as(one_app, "c")
            )
            await reader.has(900)
            for name in "abc":
                mine = [text for text in reader.texts if text[1] == name]
                assert mine == [f'"{name}{n}"' for n in range(300)]
            assert await read_all(other, run_id) == reader.texts
        await reader.drop()

    async def test_the_same_writer_twice_at_once_doubles_nothing(self, one_app: GatewayApp) -> None:
        app, lines = one_app, [str(n) for n in range(500)]
        run_id = await app.insert()

        async def write_all() -> None:
            async with writing(app.url, app.bearer, run_id, writer="w") as writer:
                for n in range(0, 500, 25):
                    await writer.send_lines(lines[n : n + 25])
                assert (await writer.finish()).status == 200

        await asyncio.gather(*(write_all() for _ in range(4)))
        assert await read_all(app, run_id) == lines

    async def test_lines_without_a_writer_are_always_new(self, one_app: GatewayApp) -> None:
        run_id = await one_app.insert()
        for _ in range(2):
            await write(one_app.url, one_app.bearer, run_id, b"1\n", first=0)
        assert await read_all(one_app, run_id) == ["1", "1"]

    async def test_how_far_a_writer_is(self, one_app: GatewayApp) -> None:
        app, run_id = one_app, await one_app.insert()
        assert await last_index(app.url, app.bearer, run_id, "w") == -1
        await write(app.url, app.bearer, run_id, b"1\n2\n", writer="w")
        assert await last_index(app.url, app.bearer, run_id, "w") == 1
        assert await last_index(app.url, app.bearer, run_id, "v") == -1
        async with httpx.AsyncClient(base_url=app.url, trust_env=False) as client:
            for headers in ({}, {"x-client-id": "w" * 257}):
                answer = await client.head(writing_path(run_id), headers=app.bearer | headers)
                assert answer.status_code == 400

    async def test_an_index_that_is_none_is_refused(self, one_app: GatewayApp) -> None:
        run_id = await one_app.insert()
        for first in ("-1", "x", "1" * 16):
            answer = await post(
                one_app, writing_path(run_id), headers={"x-resume-from-chunk": first}, content=b"1"
            )
            assert (answer.status_code, answer.json()["code"]) == (400, "invalid_parameter")

    async def test_only_secret_keys_write(self, one_app: GatewayApp) -> None:
        run_id = await one_app.insert()
        bearer = one_app.bearing("read:runs", "write:runs", "admin")
        assert (await write(one_app.url, bearer, run_id, b"1\n")).status in (401, 403)
        assert await read_all(one_app, run_id) == []

    async def test_a_parents_stream_is_written_by_its_child(self, one_app: GatewayApp) -> None:
        app = one_app
        root = await app.insert()
        parent = await app.insert(parent_id=root, root_id=root)
        child = await app.insert(parent_id=parent, root_id=root)
        for target, run_id in (("self", child), ("parent", parent), ("root", root)):
            answer = await post(app, writing_path(child, "llm", target), content=f'"{target}"')
            assert answer.status_code == 200
            assert await read_all(app, run_id) == [f'"{target}"']
        assert (await post(app, writing_path(root, "llm", "parent"))).status_code == 404
        assert (await post(app, writing_path(root, "llm", "uncle"))).status_code == 400


class TestAppend:
    async def test_a_body_becomes_a_json_string(self, one_app: GatewayApp) -> None:
        run_id = await one_app.insert()
        sent = ['{"a":1}', "two\nlines\r\n", "", "🌱", "\x01"]
        for text in sent:
            answer = await post(one_app, writing_path(run_id) + "/append", content=text.encode())
            assert (answer.status_code, answer.json()) == (200, {"ok": True})
        assert [json.loads(text) for text in await read_all(one_app, run_id)] == sent

    async def test_a_part_id_makes_a_repetition_harmless(self, one_app: GatewayApp) -> None:
        run_id = await one_app.insert()
        for part_id in ("p1", "p1", "p2", "p1", "q" * 250 + "1", "q" * 250 + "2"):
            answer = await post(
                one_app,
                writing_path(run_id) + "/append",
                content=part_id[-2:],
                headers={"x-part-id": part_id},
            )
            assert answer.status_code == 200, answer.text
        assert await read_all(one_app, run_id) == ['"p1"', '"p2"', '"q1"', '"q2"']

    @pytest.mark.parametrize(
        ("content", "headers", "status"),
        [
            (b"x" * (512 * 1024 + 1), {}, 413),
            (b"a\0", {}, 400),
            (b"\xff", {}, 400),
            (b"a", {"x-part-id": "p" * 257}, 400),
            (b"a", {"x-part-id": "p" * 252}, 400),
        ],
        ids=["large", "NUL", "no UTF-8", "long id", "id that is too long with its prefix"],
    )
    async def test_what_cannot_be_appended(
        self, one_app: GatewayApp, content: bytes, headers: dict[str, str], status: int
    ) -> None:
        run_id = await one_app.insert()
        answer = await post(
            one_app, writing_path(run_id) + "/append", content=content, headers=headers
        )
        assert answer.status_code == status
        assert answer.json()["error"]
        assert await read_all(one_app, run_id) == []


class TestLimits:
    async def test_each_has_its_error(self, database_url: str) -> None:
        async with running_app(
            database_url, max_streams_per_run=2, max_stream_bytes=65536, max_chunk_bytes=65536
        ) as app:
            run_id = await app.insert()
            for key in ("a", "b", "a"):
                assert (await write(app.url, app.bearer, run_id, b"1\n", key=key)).status == 200
            answer = await write(app.url, app.bearer, run_id, b"1\n", key="c")
            assert (answer.status, answer.code) == (422, "too_many_streams")

            body = b"x" * 30_000 + b"\n"
            async with writing(app.url, app.bearer, run_id, key="a", writer="w") as writer:
                reader = follower(app, run_id, key="a")
                reader.start()
                for count in (3, 4):
                    await writer.send(body)
                    await reader.has(count)
                await writer.send(body)
                full = await writer.finish()
                assert (full.status, full.code) == (422, "stream_full")
                await reader.drop()
            assert len(await read_all(app, run_id, key="a")) == 4

    async def test_a_closed_stream_takes_nothing(self, one_app: GatewayApp) -> None:
        app, run_id = one_app, await one_app.insert()
        async with writing(app.url, app.bearer, run_id, writer="w") as writer:
            await writer.send_lines(["1"])
            reader = follower(app, run_id)
            reader.start()
            await reader.has(1)
            for _ in range(2):
                closed = await post(app, writing_path(run_id) + "/close")
                assert closed.json() == {"ok": True}
            await writer.send_lines(["2"])
            answer = await writer.finish()
            assert (answer.status, answer.code) == (400, "stream_closed")
        await reader.over()
        assert (reader.texts, reader.ended) == (["1"], "closed")
        # What is stored already may be sent again.
        assert (await write(app.url, app.bearer, run_id, b"1\n", writer="w")).status == 200

    async def test_a_finished_run_takes_nothing(self, one_app: GatewayApp) -> None:
        app, run_id = one_app, await one_app.insert()
        await app.finish(run_id)
        assert (await write(app.url, app.bearer, run_id, b"1\n")).code == "stream_closed"
        for path in ("", "/append"):
            answer = await post(app, writing_path(run_id) + path, content=b"1")
            assert (answer.status_code, answer.json()["code"]) == (400, "stream_closed")
        reader = follower(app, run_id)
        await reader.follow()
        assert (reader.texts, reader.ended) == ([], "finished")


class TestEnd:
    @pytest.mark.parametrize("transport", TRANSPORTS)
    async def test_a_finished_run_waits_for_its_connected_writer(
        self, app: GatewayApp, transport: Literal["sse", "socket"]
    ) -> None:
        run_id = await app.insert()
        early = follower(app, run_id, transport=transport)
        early.start()
        async with writing(app.url, app.bearer, run_id) as writer:
            await writer.send_lines(["1"])
            await early.has(1)
            await app.finish(run_id)
            async with following(app.url, f"/realtime/v1/runs/{run_id}", app.bearer) as feed:
                await feed.until("end")  # now it is known
            late = follower(app, run_id, transport=transport)
            late.start()
            await late.caught_up()
            await writer.send_lines(["2"])
            for reader in (early, late):
                await reader.has(2)
                assert reader.ended is None
            assert (await writer.finish()).status == 200
        for reader in (early, late):
            await reader.over()
            assert (reader.texts, reader.ended) == (["1", "2"], "finished")

    async def test_an_old_connection_that_is_found_dead_does_not_end_the_new_one(
        self, one_app: GatewayApp
    ) -> None:
        app, run_id = one_app, await one_app.insert()
        reader = follower(app, run_id)
        reader.start()
        async with (
            writing(app.url, app.bearer, run_id, writer="w") as old,
            writing(app.url, app.bearer, run_id, writer="w", first=1) as new,
        ):
            await old.send_lines(["1"])
            await reader.has(1)
            await new.send_lines(["2"])
            await reader.has(2)
            await app.finish(run_id)
            requests = len(app.server.server_state.tasks)
            old.cut()
            await until(lambda: len(app.server.server_state.tasks) < requests)
            await new.send_lines(["3"])
            await reader.has(3)
            assert (await new.finish()).status == 200
        await reader.over()
        assert (reader.texts, reader.ended) == (["1", "2", "3"], "finished")

    @pytest.mark.parametrize("told_by", ["the stream's close", "the run's end"])
    async def test_official_clients_get_parts_and_a_clean_end_alone(
        self, app: GatewayApp, told_by: str
    ) -> None:
        run_id = await app.insert()
        reader = follower(app, run_id, headers={"trigger-version": "4.5.0"})
        reader.start()
        await write(app.url, app.bearer, run_id, b"1\n")
        await reader.has(1)
        if told_by == "the run's end":
            await app.finish(run_id)
        else:
            await post(app, writing_path(run_id) + "/close")
        await reader.over()
        assert (reader.texts, reader.events, reader.cut) == (["1"], [], False)

    async def test_on_a_drain_official_clients_are_cut_and_others_are_told(
        self, app: GatewayApp
    ) -> None:
        run_id = await app.insert()
        await write(app.url, app.bearer, run_id, b"1\n")
        official = follower(app, run_id, headers={"trigger-version": "4.5.0"})
        other = follower(app, run_id)
        for reader in (official, other):
            reader.start()
            await reader.has(1)
        await other.caught_up()
        await app.stop()
        for reader in (official, other):
            await reader.over()
        assert (official.events, official.cut) == ([], True)
        assert (other.events, other.cut) == (["up-to-date", "reconnect draining"], False)

    async def test_nobody_waits_longer_than_they_like(self, app: GatewayApp) -> None:
        run_id = await app.insert()
        reader = follower(app, run_id, headers={"timeout-seconds": "1"})
        reader.start()
        await write(app.url, app.bearer, run_id, b"1\n")
        await reader.over()
        assert (reader.texts, reader.ended, reader.cut) == (["1"], "idle", False)

    async def test_a_run_that_is_deleted_while_it_is_read(self, app: GatewayApp) -> None:
        run_id = await app.insert()
        await write(app.url, app.bearer, run_id, b"1\n")
        readers = [follower(app, run_id, transport=transport) for transport in TRANSPORTS]
        for reader in readers:
            reader.start()
            await reader.caught_up()
        async with writing(app.url, app.bearer, run_id) as writer:
            await writer.send_lines(["2"])
            for reader in readers:
                await reader.has(2)
            await app.delete(run_id)
            for reader in readers:
                await reader.over()
                assert reader.events == ["up-to-date", "problem not_found"]
            await writer.send_lines(["3"])
            assert (await writer.finish()).code == "not_found"


class TestRights:
    async def test_a_token_needs_the_run(self, one_app: GatewayApp) -> None:
        app = one_app
        run_id = await app.insert(tags=["a"])
        await write(app.url, app.bearer, run_id, b"1\n")
        for scope in (f"read:runs:{run_id}", "read:tags:a", "read:tasks:hello"):
            assert await read_all(app, run_id, token=app.token(scope)) == ["1"]
        for transport in TRANSPORTS:
            reader = follower(app, run_id, token=app.token("read:tags:b"), transport=transport)
            await reader.follow()
            assert reader.texts == []
            assert reader.refused == 403 or reader.events == ["problem insufficient_scope"]

    async def test_a_token_that_loses_the_run_reads_no_more(self, app: GatewayApp) -> None:
        run_id = await app.insert(tags=["a"])
        token = app.token("read:tags:a")
        readers = [
            follower(app, run_id, transport=transport, token=token) for transport in TRANSPORTS
        ]
        for reader in readers:
            reader.start()
            await reader.caught_up()
        await app.update(run_id, tags=[])
        for reader in readers:
            await reader.over()
            assert reader.events == ["up-to-date", "problem insufficient_scope"]
        await write(app.url, app.bearer, run_id, b"secret\n")
        assert [reader.texts for reader in readers] == [[], []]

    async def test_a_token_that_expires_ends_the_reading(self, app: GatewayApp) -> None:
        run_id = await app.insert()
        await write(app.url, app.bearer, run_id, b"1\n")
        token = app.token(f"read:runs:{run_id}", seconds=1)
        readers = [
            follower(app, run_id, transport=transport, token=token) for transport in TRANSPORTS
        ]
        official = follower(app, run_id, token=token, headers={"trigger-version": "4.5.0"})
        for reader in (*readers, official):
            reader.start()
        for reader in (*readers, official):
            await reader.over()
        assert [reader.events[-1] for reader in readers] == ["expired expired_token"] * 2
        assert (official.texts, official.events, official.cut) == (["1"], [], True)

    async def test_a_token_in_the_address_reads_and_a_secret_key_there_does_not(
        self, one_app: GatewayApp
    ) -> None:
        run_id = await one_app.insert()
        path = f"/realtime/v1/streams/{run_id}/llm"
        token = one_app.token(f"read:runs:{run_id}")
        async with following(one_app.url, f"{path}?token={token}") as feed:
            await feed.expect("up-to-date")
        async with httpx.AsyncClient(base_url=one_app.url, trust_env=False) as client:
            assert (await client.get(path, params={"token": one_app.key})).status_code == 401


class TestKeys:
    async def test_subscribers_of_the_run_see_its_streams(self, one_app: GatewayApp) -> None:
        app, run_id = one_app, await one_app.insert()
        async with following(app.url, f"/realtime/v1/runs/{run_id}", app.bearer) as feed:
            assert "streams" not in (await feed.expect("run")).data
            await feed.expect("up-to-date")
            async with httpx.AsyncClient(base_url=app.url, trust_env=False) as client:
                for _ in range(2):
                    answer = await client.put(writing_path(run_id), headers=app.bearer)
                    assert (answer.status_code, answer.json()) == (202, {"version": "v1"})
            assert (await feed.expect("run")).data["streams"] == ["llm"]
            await write(app.url, app.bearer, run_id, b"1\n", key="logs")
            assert (await feed.expect("run")).data["streams"] == ["llm", "logs"]

    @pytest.mark.parametrize("key", ["a b", "a/b", "π", "%2F", "input"])
    async def test_keys_of_all_kinds(self, one_app: GatewayApp, key: str) -> None:
        run_id = await one_app.insert()
        answer = await write(one_app.url, one_app.bearer, run_id, b"1\n", key=key)
        assert answer.status == 200, answer.body
        for transport in TRANSPORTS:
            assert await read_all(one_app, run_id, key=key, transport=transport) == ["1"]

    @pytest.mark.parametrize("key", ["k" * 513, "a\nb", "\0"])
    async def test_keys_that_are_none(self, one_app: GatewayApp, key: str) -> None:
        run_id = await one_app.insert()
        assert (await write(one_app.url, one_app.bearer, run_id, b"1\n", key=key)).status == 400


class TestSlowReaders:
    async def test_a_stalled_reader_costs_little_and_is_dropped_and_nobody_else_waits(
        self, transport: str, database_url: str
    ) -> None:
        lines = [f"{n}" + "x" * 100_000 for n in range(60)]
        # The kernel's own time limit is put out of the way: here it is ours that counts.
        listener = listen("127.0.0.1", 0, stall_timeout_seconds=600)
        async with running_app(
            database_url, listener=listener, transport=transport, stall_timeout_seconds=1
        ) as app:
            run_id = await app.insert()
            async with wired(app.port, receive_buffer=4096) as wire:
                await wire.get(f"/realtime/v1/streams/{run_id}/llm", app.bearer)
                await wire.read_until(b"event: up-to-date")
                (stalled,) = app.gateway.hub.connections
                (reader,) = stalled.subscribers.values()
                assert isinstance(reader, StreamReader)
                other = follower(app, run_id)
                other.start()
                await other.caught_up()
                async with writing(app.url, app.bearer, run_id) as writer:
                    for count, line in enumerate(lines, 1):
                        await writer.send_lines([line])
                        await other.has(count)
                        assert stalled.outlet.unsent < 1_000_000
                        kept = sum(len(chunk.text) for chunk in reader.tail._recent)
                        assert kept <= app.gateway.settings.limits.stream_tail_bytes
                    assert (await writer.finish()).status == 200
                closed = app.gateway.hub.counts.closed
                await until(lambda: closed["slow_consumer"] == 1, lambda: closed)
            assert other.texts == lines
            await other.drop()

    async def test_a_slow_reader_gets_everything(self, transport: str, database_url: str) -> None:
        lines = [f"{n}" + "x" * 50_000 for n in range(40)]
        async with running_app(database_url, transport=transport) as app:
            run_id = await app.insert()
            async with wired(app.port, receive_buffer=4096) as wire:
                await wire.get(f"/realtime/v1/streams/{run_id}/llm", app.bearer, version="1.0")
                await wire.read_until(b"event: up-to-date")
                body = "".join(f"{line}\n" for line in lines).encode()
                assert (await write(app.url, app.bearer, run_id, body)).status == 200
                await app.finish(run_id)
                got = await wire.read_to_end()
            found = [line[6:] for line in got.decode().split("\n") if line.startswith("data: ")]
            assert found[-1] == '{"reason":"finished"}'
            assert [text for text in found if text[0] != "{"] == lines

    @pytest.fixture(params=["auto", "portable"])
    def transport(self, request: pytest.FixtureRequest) -> str:
        name: str = request.param
        return name


@pytest.mark.chaos
class TestKilled:
    async def test_a_gateway_killed_in_the_middle_loses_nothing_that_was_acknowledged(
        self, one_app: GatewayApp, database_url: str, tmp_path: Path
    ) -> None:
        variables = {"REDIS_URL": url} if (url := one_app.gateway.settings.redis_url) else {}
        dice = random.Random(SEED)
        app, lines = one_app, numbered(600, dice)
        run_id = await app.insert()
        elsewhere, there = follower(app, run_id), follower(app, run_id)
        elsewhere.start()
        acknowledged = -1
        with gateway_process(tmp_path, database_url, **variables) as process:
            there.url = process.url
            there.start()
            # Some whole bodies, whose answers promise that they are kept …
            for first in range(0, 200, 50):
                body = "".join(f"{line}\n" for line in lines[first : first + 50]).encode()
                answer = await write(process.url, app.bearer, run_id, body, writer="w", first=first)
                assert answer.status == 200
                acknowledged = first + 49
            # … and one that is never answered.
            async with writing(process.url, app.bearer, run_id, writer="w", first=200) as writer:
                for first in range(200, 500, 20):
                    await writer.send_lines(lines[first : first + 20])
                    if first == 300:
                        await there.has(250)
                process.kill()
        await there.over()
        assert there.cut
        last = await last_index(app.url, app.bearer, run_id, "w")
        assert last >= max(acknowledged, len(there.texts) - 1)
        with gateway_process(tmp_path, database_url, **variables) as process:
            assert await last_index(process.url, app.bearer, run_id, "w") == last
            rest = "\n".join(lines[last + 1 :]).encode()
            answer = await write(process.url, app.bearer, run_id, rest, writer="w", first=last + 1)
            assert answer.status == 200
            there.url = process.url
            there.start()
            await there.has(len(lines))
            await elsewhere.has(len(lines))
            assert there.texts == elsewhere.texts == lines, f"seed {SEED}"
            await there.drop()
        await elsewhere.drop()

    async def test_a_gateway_that_is_stopped_in_the_middle_loses_nothing_that_it_stored(
        self, one_app: GatewayApp, database_url: str
    ) -> None:
        lines = [str(n) for n in range(200)]
        async with beside(one_app) as other:
            run_id = await other.insert()
            reader = follower(other, run_id)
            reader.start()
            url, bearer = one_app.url, one_app.bearer
            async with writing(url, bearer, run_id, writer="w") as writer:
                await writer.send_lines(lines[:100])
                await reader.has(100)
                await writer.send(b'"torn')
                stopping = asyncio.create_task(one_app.stop())
                answer = await writer.answer()
                assert (answer.status, answer.code) == (503, "draining")
                await stopping
            assert await last_index(other.url, bearer, run_id, "w") == 99
            rest = "\n".join(lines[100:]).encode()
            answer = await write(other.url, bearer, run_id, rest, writer="w", first=100)
            assert answer.status == 200
            await other.finish(run_id)
            await reader.over()
            assert (reader.texts, reader.ended) == (lines, "finished")

    async def test_the_writers_of_a_killed_gateway_hold_a_stream_open_for_their_lease_alone(
        self, database_url: str, tmp_path: Path
    ) -> None:
        async with running_app(database_url, stream_lease_seconds=3) as app:
            run_id = await app.insert()
            early = follower(app, run_id)
            early.start()
            with gateway_process(
                tmp_path, database_url, RUNCAST_STREAM_LEASE_SECONDS="3"
            ) as process:
                async with writing(process.url, app.bearer, run_id, writer="w") as writer:
                    await writer.send_lines(["1"])
                    await early.has(1)
                    await app.finish(run_id)
                    late = follower(app, run_id, transport="socket")
                    late.start()
                    await late.has(1)
                    await writer.send_lines(["2"])
                    for reader in (early, late):
                        await reader.has(2)
                    process.kill()
            for reader in (early, late):
                await reader.over()
                assert (reader.texts, reader.ended) == (["1", "2"], "finished")

    async def test_postgres_killed_in_the_middle_of_writing_and_reading(
        self, restartable_postgres: RestartablePostgres
    ) -> None:
        dice = random.Random(SEED)
        lines = numbered(400, dice)
        async with running_app(restartable_postgres.url) as app:
            run_id = await app.insert()
            readers = [follower(app, run_id, transport=transport) for transport in TRANSPORTS]
            for reader in readers:
                reader.start()
            killing: asyncio.Task[None] | None = None
            last, acknowledged = -1, -1
            while last < len(lines) - 1:
                async with writing(
                    app.url, app.bearer, run_id, writer="w", first=last + 1
                ) as writer:
                    for first in range(last + 1, len(lines), 10):
                        await writer.send_lines(lines[first : min(first + 10, len(lines))])
                        if first > 150 and killing is None:
                            await readers[0].has(100)
                            killing = asyncio.create_task(restartable_postgres.kill())
                        await asyncio.sleep(0)
                    answer = await writer.finish()
                    assert answer.status in (200, 503), answer
                if killing is not None:
                    await killing
                last = await _when_it_answers(app, run_id)
                assert last >= acknowledged
                acknowledged = last
                assert answer.status == 503 or last == len(lines) - 1
            assert killing is not None
            for reader in readers:
                await reader.has(len(lines))
                assert reader.texts == lines, f"seed {SEED}"
                await reader.drop()


async def _when_it_answers(app: GatewayApp, run_id: str) -> int:
    headers = app.bearer | {"x-client-id": "w"}
    async with httpx.AsyncClient(base_url=app.url, trust_env=False, timeout=30) as client:
        for _ in range(600):
            answer = await client.head(writing_path(run_id), headers=headers)
            if answer.status_code == 200:
                return int(answer.headers["x-last-chunk-index"])
            assert answer.status_code == 503
            await asyncio.sleep(0.05)
    raise AssertionError("the database did not come back")
