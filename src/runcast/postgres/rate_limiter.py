"""Rate limits in Postgres, by the clock of the database."""

from runcast.core.bucket import Draw
from runcast.core.rate import Rate
from runcast.ports import RateLimiter
from runcast.postgres.database import Database

# `Bucket.draw` in SQL: $2 wanted, $3 burst, $4 permits a second. The time is taken once the row is
# locked; a subquery with a volatile function is evaluated once.
_DRAW = """
    INSERT INTO @schema@.rate_limits AS old (bucket, full_at, missing, drawn)
    VALUES ($1, clock_timestamp() + make_interval(secs => $2::float8 / $4::float8), $2, $2)
    ON CONFLICT (bucket) DO UPDATE SET (full_at, missing, drawn) = (
        SELECT here + make_interval(secs => (lacks + gives) / $4), lacks + gives, gives
        FROM (
            SELECT here, lacks, greatest(0, least($2, $3::float8 - lacks)) AS gives
            FROM (
                SELECT here, greatest(0, $4 * extract(epoch FROM full_at - here)::float8) AS lacks
                FROM (SELECT clock_timestamp() AS here, old.full_at) AS clock
            ) AS found
        ) AS draw
    )
    RETURNING drawn, missing"""


class PostgresRateLimiter(RateLimiter):
    """One row for each bucket; one statement for each draw, which waits for no commit to disk."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def draw(self, bucket: bytes, wanted: int, rate: Rate) -> Draw:
        """Draw permits, or all that are there."""
        rows = await self._database.fetch(
            _DRAW, bucket, float(wanted), float(rate.burst), rate.per_second
        )
        return Draw(rows[0]["drawn"], rows[0]["missing"])
