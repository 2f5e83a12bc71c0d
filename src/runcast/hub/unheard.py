"""Tasks and futures that many wait for, and in the end perhaps nobody."""

import asyncio
from typing import Any


def retrieved(future: asyncio.Future[Any]) -> None:
    """All who asked may have left: then nobody else looks at what went wrong."""
    if not future.cancelled():
        future.exception()
