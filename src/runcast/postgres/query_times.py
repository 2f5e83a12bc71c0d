"""How long statements take, by what they do to which table."""

import asyncio
import re
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

from runcast.core.histogram import Histogram

_WRITE = re.compile(r"\b(INSERT|UPDATE|DELETE)(?: INTO| FROM)? @schema@\.(\w+)")
_READ = re.compile(r"\b(?:FROM|JOIN) @schema@\.(\w+)")


class QueryTimes:
    """Seconds that statements took, by name."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, Histogram] = defaultdict(Histogram)

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Observe how long it takes what happens inside, also when it fails."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            yield
        finally:
            self.seconds[name].observe(loop.time() - began)


@lru_cache(maxsize=1024)  # there are as many texts as lists can be filtered
def name_of(sql: str) -> str:
    """Name a statement by the first thing that it writes, or else reads: ``select runs``."""
    if written := _WRITE.search(sql):
        return f"{written[1].lower()} {written[2]}"
    read = _READ.search(sql)
    return f"select {read[1]}" if read else "select"
