"""Holding up what the gateway reads from the store, for tests that act in between."""

import asyncio
from typing import Any

from tests.support.gateway_app import GatewayApp


class Gate:
    """Holds up snapshots, so that a test can act while one is on its way."""

    def __init__(self, app: GatewayApp) -> None:
        runs = app.gateway.services.runs
        self._read = runs.read_snapshots
        self._reached = asyncio.Event()
        self._open = asyncio.Event()
        runs.read_snapshots = self._wait  # type: ignore[method-assign]

    async def reached(self) -> None:
        await self._reached.wait()

    def open(self) -> None:
        self._open.set()

    async def _wait(self, *arguments: Any, **named: Any) -> Any:
        if not self._open.is_set():
            self._reached.set()
            await self._open.wait()
        return await self._read(*arguments, **named)
