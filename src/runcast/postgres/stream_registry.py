"""Which streams the runs have; their chunks may be kept elsewhere."""

from runcast.core.chunk import StreamName
from runcast.errors import NotFound, TooManyStreams
from runcast.postgres.database import Database


class StreamRegistry:
    """
    The streams of runs, counted under the lock of their run.

    Args:
        max_streams: Streams a run may have.
    """

    def __init__(self, database: Database, *, max_streams: int) -> None:
        self._database = database
        self._max_streams = max_streams

    async def register(self, name: StreamName, *, renew: bool = False) -> int:
        """
        Make a stream known, also on its run's row unless it takes input; gives its number.

        ``renew`` says that it is written to, so that it does not become old.

        Raises:
            NotFound: There is no such run.
            TooManyStreams: The run has as many streams as it may.
        """
        return await self._database.retrying(lambda: self._register(name, renew))

    async def _register(self, name: StreamName, renew: bool) -> int:
        async with self._database.transaction() as transaction:
            # The run's row is the lock under which its streams are counted.
            runs = await transaction.fetch(
                "SELECT realtime_streams FROM @schema@.runs WHERE id = $1 FOR UPDATE", name.run_id
            )
            if not runs:
                raise NotFound("There is no such run.")
            if renew:
                await transaction.fetch(
                    """UPDATE @schema@.streams SET updated_at = now()
                    WHERE run_id = $1 AND key = $2""",
                    name.run_id,
                    name.key,
                )
            rows = await transaction.fetch(
                """INSERT INTO @schema@.streams (run_id, key)
                SELECT $1, $2 WHERE (
                    SELECT count(*) FROM @schema@.streams WHERE run_id = $1 AND key <> $2) < $3
                ON CONFLICT (run_id, key) DO NOTHING RETURNING id""",
                name.run_id,
                name.key,
                self._max_streams,
            ) or await transaction.fetch(
                "SELECT id FROM @schema@.streams WHERE run_id = $1 AND key = $2",
                name.run_id,
                name.key,
            )
            if not rows:
                raise TooManyStreams(f"A run has at most {self._max_streams} streams.")
            if name.announced and name.key not in runs[0]["realtime_streams"]:
                await transaction.fetch(
                    """UPDATE @schema@.runs
                    SET realtime_streams = array_append(realtime_streams, $2) WHERE id = $1""",
                    name.run_id,
                    name.key,
                )
        return int(rows[0]["id"])

    async def prune(self, *, older_than_seconds: float, limit: int = 100) -> int:
        """
        Delete streams that nobody wrote to for so long; returns how many of them.

        One with a connected writer stays.
        """
        rows = await self._database.fetch(
            """DELETE FROM @schema@.streams WHERE id IN (
                SELECT id FROM @schema@.streams
                WHERE updated_at < now() - make_interval(secs => $1) AND NOT EXISTS (
                    SELECT FROM @schema@.stream_writers
                    WHERE stream_id = streams.id AND open_until > now())
                ORDER BY updated_at LIMIT $2 FOR UPDATE SKIP LOCKED
            ) RETURNING id""",
            older_than_seconds,
            limit,
        )
        return len(rows)
