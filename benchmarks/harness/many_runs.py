"""A table that has grown: up to a million runs, of which most are over."""

from benchmarks.harness.bench import Bench
from benchmarks.harness.store import Store

_PIECE = 100_000
_INSERT = """
    INSERT INTO runcast.runs (environment_id, task, status, tags, metadata, created_at)
    SELECT $1, 'task-' || g % 50,
        CASE WHEN g % 10 = 0 THEN 'EXECUTING' ELSE 'COMPLETED_SUCCESSFULLY' END,
        ARRAY['user:' || g % 20000, 'all', CASE WHEN g % 500 = 0 THEN 'old' ELSE 'new' END],
        '{"progress": 1}', now() - interval '13 days' + g * interval '1 second'
    FROM generate_series($2::bigint, $3::bigint - 1) AS g
"""


async def grow(bench: Bench, store: Store, before: int, wanted: int) -> None:
    """Add runs until there are so many, each a second younger than the one before."""
    for first in range(before, wanted, _PIECE):
        last = min(first + _PIECE, wanted)
        bench.say(f"inserting runs: {first:,} of {wanted:,}")
        await store.connection.execute(_INSERT, store.environment_id, first, last, timeout=600)
    await store.connection.execute("VACUUM ANALYZE runcast.runs", timeout=600)
