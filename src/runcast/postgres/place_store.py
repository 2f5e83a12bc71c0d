"""Places of connections in Postgres, by the clock of the database."""

from collections.abc import Mapping

from runcast.core.places import Held, Wish
from runcast.ports import PlaceStore
from runcast.postgres.database import Database

# One gateway after the other, in an order in which none waits for one that waits for it.
_LOCK = """
    SELECT pg_advisory_xact_lock(key) FROM (
        SELECT DISTINCT hashtextextended('@schema@ places ' || id, 0) AS key
        FROM unnest($1::text[]) AS asked (id) ORDER BY key
    ) AS locks"""
# `places.hold` in SQL: $1 gateway, $5 limit, $6 lease in seconds.
_HOLD = """
    WITH found AS (
        SELECT id, used, wanted,
            coalesce(sum(places) FILTER (WHERE gateway <> $1), 0)::integer AS others,
            coalesce(sum(places) FILTER (WHERE gateway = $1), 0)::integer AS own
        FROM unnest($2::text[], $3::integer[], $4::integer[]) AS asked (id, used, wanted)
        LEFT JOIN @schema@.connection_places
            ON environment_id = id AND held_until > clock_timestamp()
        GROUP BY id, used, wanted
    ), answered AS (
        SELECT *, greatest(used, given, least(wanted, own)) AS kept
        FROM (
            SELECT *, greatest(0, least(wanted, $5::integer - others)) AS given FROM found
        ) AS answer
    ), held AS (
        INSERT INTO @schema@.connection_places (environment_id, gateway, places, held_until)
        SELECT id, $1, kept, clock_timestamp() + make_interval(secs => $6) FROM answered
        ON CONFLICT (environment_id, gateway)
            DO UPDATE SET places = excluded.places, held_until = excluded.held_until
    )
    SELECT id, given, $5 - others - kept AS unheld FROM answered"""


class PostgresPlaceStore(PlaceStore):
    """A row for each gateway and environment, in a table that waits for no disk."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def hold(
        self, gateway: str, wishes: Mapping[str, Wish], *, limit: int, lease_seconds: float
    ) -> Mapping[str, Held]:
        """Hold places for a gateway, in place of what it held."""
        used = [wish.used for wish in wishes.values()]
        wanted = [wish.wanted for wish in wishes.values()]
        async with self._database.transaction() as transaction:
            await transaction.fetch(_LOCK, list(wishes))
            rows = await transaction.fetch(
                _HOLD, gateway, list(wishes), used, wanted, limit, lease_seconds
            )
        return {row["id"]: Held(row["given"], row["unheld"]) for row in rows}
