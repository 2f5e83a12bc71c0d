"""One page of a snapshot, where a test wants no more."""

from runcast.core.page import ChangePage, PageKey, SnapshotPart
from runcast.core.selector import Selector
from runcast.ports import RunReader


async def read_snapshot(
    runs: RunReader, selector: Selector, *, after: PageKey | None = None, limit: int = 10
) -> ChangePage:
    part = SnapshotPart(selector, after, limit)
    return (await runs.read_snapshots([part]))[part]
