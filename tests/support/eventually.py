"""Waiting for what a database shows, which tells nobody in this process when it changes."""

import asyncio
from collections.abc import Awaitable, Callable

from runcast.errors import BackendError

# Longer than anything here should take on a busy machine; only failures wait for it.
PATIENCE_SECONDS = 45.0
_LOOK_SECONDS = 0.02


async def eventually(holds: Callable[[], Awaitable[bool]]) -> None:
    """Wait, bounded, until something holds; a database that is away is asked again."""
    for _ in range(int(PATIENCE_SECONDS / _LOOK_SECONDS)):
        try:
            if await holds():
                return
        except BackendError:
            pass
        await asyncio.sleep(_LOOK_SECONDS)
    raise AssertionError("did not come true")
