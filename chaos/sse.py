"""Server-Sent Events out of the pieces of an answer."""

from collections.abc import AsyncIterator, Iterable
from typing import NamedTuple

from chaos.http import Answer


class Event(NamedTuple):
    """
    One block of lines.

    ``name`` is empty where there is none; ``cursor`` is None without an ``id:``, and empty where
    that is to be forgotten.
    """

    name: str
    data: bytes
    cursor: str | None


async def events(answer: Answer) -> AsyncIterator[Event]:
    """The events of an answer as they come; raises as its pieces do."""
    rest = b""
    async for piece in answer.pieces():
        *blocks, rest = (rest + piece).split(b"\n\n")
        for block in blocks:
            yield _event(block.split(b"\n"))


def _event(lines: Iterable[bytes]) -> Event:
    name, data, cursor = "", b"", None
    for line in lines:
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        match field:
            case b"event":
                name = value.decode()
            case b"data":
                data += value
            case b"id":
                cursor = value.decode()
    return Event(name, data, cursor)
