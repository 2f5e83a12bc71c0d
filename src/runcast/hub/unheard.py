"""Tasks that many wait for, and in the end perhaps nobody."""

import asyncio
from typing import Any


def retrieved(task: asyncio.Task[Any]) -> None:
    """All who asked may have left: then nobody else looks at what went wrong."""
    if not task.cancelled():
        task.exception()
