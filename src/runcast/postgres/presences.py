"""Which connections of writers are open: those that say so at one time share a statement."""

import asyncio
from contextvars import Context
from dataclasses import dataclass

from runcast.errors import BackendError, GatewayError, NotFound
from runcast.postgres.database import Database

_HOLD = """
    INSERT INTO @schema@.stream_writers (stream_id, writer, open_until)
    SELECT id, presence, now() + make_interval(secs => $3)
    FROM (
        SELECT streams.id, presence
        FROM (SELECT DISTINCT * FROM unnest($1::bigint[], $2::text[])) AS held (id, presence)
        JOIN @schema@.streams ON streams.id = held.id
        FOR KEY SHARE OF streams
    ) AS known
    ON CONFLICT (stream_id, writer) DO UPDATE SET open_until = EXCLUDED.open_until
    RETURNING writer
"""
# The stream first: whoever appends locks it before its writers.
_END = """
    WITH touched AS (
        UPDATE @schema@.streams SET updated_at = now() WHERE id = $1 RETURNING id
    )
    DELETE FROM @schema@.stream_writers USING touched WHERE stream_id = touched.id AND writer = $2
"""


@dataclass(slots=True, eq=False)
class _Held:
    """One presence that is yet to be said."""

    stream_id: int
    presence: str
    done: asyncio.Future[None]


class Presences:
    """
    Says that connections of writers are open, or ended.

    Args:
        lease_seconds: How long one counts as open.
    """

    def __init__(self, database: Database, *, lease_seconds: float) -> None:
        self._database = database
        self._lease_seconds = lease_seconds
        self._waiting: list[_Held] = []
        self._saying: asyncio.Task[None] | None = None

    async def hold(self, stream_id: int, presence: str) -> None:
        """
        Let a connection count as open for the lease.

        Raises:
            NotFound: The stream is gone.
        """
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Held(stream_id, presence, done))
        if self._saying is None:
            self._saying = asyncio.create_task(self._say_all(), context=Context())
        await done

    async def end(self, stream_id: int, presence: str) -> None:
        """A connection ended: that touches the stream, so that readers look whether it is over."""
        await self._database.fetch(_END, stream_id, presence)

    async def _say_all(self) -> None:
        try:
            while self._waiting:
                group, self._waiting = self._waiting, []
                await self._say(group)
        finally:
            self._saying = None
            _fail(self._waiting, BackendError("The gateway stopped."))
            self._waiting = []

    async def _say(self, group: list[_Held]) -> None:
        known: set[str] = set()
        try:
            rows = await self._database.fetch(
                _HOLD,
                [held.stream_id for held in group],
                [held.presence for held in group],
                self._lease_seconds,
            )
            known = {row["writer"] for row in rows}
        except GatewayError as error:
            _fail(group, error)
        except BaseException:
            _fail(group, BackendError("The database could not be told of a writer; try again."))
            raise
        for held in group:
            if held.done.done():
                continue
            if held.presence in known:
                held.done.set_result(None)
            else:
                held.done.set_exception(NotFound("The run of this stream does not exist any more."))


def _fail(group: list[_Held], error: GatewayError) -> None:
    for held in group:
        if not held.done.done():
            held.done.set_exception(error)
