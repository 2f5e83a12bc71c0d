"""Waiting for what other processes bring about, bounded."""

import asyncio
from collections.abc import Awaitable, Callable

from benchmarks.harness.failure import BenchmarkError

_LOOK_SECONDS = 0.05


async def until(what: str, holds: Callable[[], Awaitable[bool]], *, seconds: float = 30.0) -> None:
    """
    Look again and again.

    Raises:
        BenchmarkError: It did not come true in time; says ``what``.
    """
    for _ in range(int(seconds / _LOOK_SECONDS)):
        if await holds():
            return
        await asyncio.sleep(_LOOK_SECONDS)
    raise BenchmarkError(f"After {seconds:.0f} seconds still not: {what}.")
