"""The suite's one clock: Unix time, because tokens and databases have it too."""

import time


def now() -> float:
    """Unix time in seconds."""
    return time.time()  # noqa: TID251 - the one clock here
