"""An SSE client for tests that shows every event as it came, comments and retry lines included."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from tests.support.gateway_app import PATIENCE_SECONDS

KEEP_ALIVE = ": keep-alive"


@dataclass(frozen=True)
class Event:
    """One block of lines; ``name`` is the comment where there is nothing else."""

    name: str
    data: Any = None
    id: str | None = None
    retry: int | None = None


class EventFeed:
    """A response that is being read."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self.retry: int | None = None
        self.connection: dict[str, Any] = {}
        self._lines = response.aiter_lines()

    async def next(self) -> Event:
        """
        The next event, or comment; retry lines are kept in ``retry``, the first word in
        ``connection``.

        Raises:
            StopAsyncIteration: The response came to its proper end.
        """
        while True:
            event = _parse(await self._block())
            if event.retry is not None:
                self.retry = event.retry
            if event.name == "connection":
                self.connection = event.data
                continue
            if event.name:
                return event

    async def expect(self, *names: str) -> Event:
        """Take exactly these events, comments apart, and give the last one."""
        event = Event("")
        for name in names:
            event = await self.next()
            while event.name == KEEP_ALIVE != name:
                event = await self.next()
            assert event.name == name, f"expected {name}, got {event}"
        return event

    async def until(self, name: str) -> Event:
        """Skip to the next event of this name."""
        while (event := await self.next()).name != name:
            pass
        return event

    async def ended(self) -> None:
        """Wait for the proper end of the response; nothing may come before it."""
        try:
            event = await self.next()
        except StopAsyncIteration:
            return
        raise AssertionError(f"expected the end, got {event}")

    async def _block(self) -> list[str]:
        lines: list[str] = []
        async with asyncio.timeout(PATIENCE_SECONDS):
            while (line := await anext(self._lines)) or not lines:
                if line:
                    lines.append(line)
        return lines


@asynccontextmanager
async def following(
    url: str, path: str, headers: Mapping[str, str] | None = None, *, method: str = "GET"
) -> AsyncIterator[EventFeed]:
    """Open a feed, on a connection of its own."""
    async with (
        httpx.AsyncClient(base_url=url, trust_env=False, timeout=PATIENCE_SECONDS) as client,
        client.stream(method, path, headers=headers) as response,
    ):
        if response.status_code >= 300:
            await response.aread()
        yield EventFeed(response)


def _parse(lines: list[str]) -> Event:
    found: dict[str, Any] = {"name": ""}
    for line in lines:
        if line.startswith(":"):
            found["name"] = line
            continue
        field, _, value = line.partition(": ")
        match field:
            case "event":
                found["name"] = value
            case "data":
                assert "data" not in found, "data is one line"
                found["data"] = json.loads(value)
            case "id":
                found["id"] = value
            case "retry":
                found["retry"] = int(value)
            case _:
                raise AssertionError(f"not a line of an event stream: {line!r}")
    if not found["name"] and "data" in found:
        found["name"] = "message"
    return Event(**found)
