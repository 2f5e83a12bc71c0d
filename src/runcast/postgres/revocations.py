"""Revocations in Postgres: making, listing and lifting them."""

from runcast.auth.revocation import NewRevocation, Revocation
from runcast.core.page import PageKey
from runcast.errors import TooManyRevocations
from runcast.ports import RevocationStore
from runcast.postgres.database import Database, Row

REVOCATION_COLUMNS = (
    "id, environment_id, kind, value, issued_before, created_at, since, kept_until, lifted"
)
_COUNTS = "environment_id = $1 AND kind <> 'key' AND NOT lifted AND kept_until > now()"
# A repetition is the same revocation; of two bounds the later one counts.
_REVOKE = f"""
    INSERT INTO @schema@.revocations AS old
        (environment_id, kind, value, issued_before, kept_until)
    SELECT $1, $2, $3, $4::timestamptz, $5::timestamptz
    WHERE $2 = 'environment' OR $6 > (SELECT count(*) FROM @schema@.revocations WHERE {_COUNTS})
        OR EXISTS (
            SELECT FROM @schema@.revocations
            WHERE environment_id = $1 AND kind = $2 AND md5(value) = md5($3)
        )
    ON CONFLICT (environment_id, kind, md5(value)) DO UPDATE SET
        issued_before = CASE WHEN old.lifted THEN EXCLUDED.issued_before
            ELSE greatest(old.issued_before, EXCLUDED.issued_before) END,
        kept_until = greatest(old.kept_until, EXCLUDED.kept_until),
        lifted = false
    RETURNING {REVOCATION_COLUMNS}"""
_LIST = f"""
    SELECT {REVOCATION_COLUMNS} FROM @schema@.revocations
    WHERE {_COUNTS} AND ($2::timestamptz IS NULL OR (created_at, id) < ($2, $3))
    ORDER BY created_at DESC, id DESC LIMIT $4"""
_LIFT = f"""
    UPDATE @schema@.revocations SET lifted = true WHERE {_COUNTS} AND id = $2
    RETURNING {REVOCATION_COLUMNS}"""


class PostgresRevocationStore(RevocationStore):
    """One statement for each call; triggers tell all gateways."""

    def __init__(self, database: Database, *, max_revocations: int) -> None:
        self._database = database
        self._max_revocations = max_revocations

    async def revoke(self, new: NewRevocation) -> Revocation:
        """Take tokens back from now on, on all gateways."""
        rows = await self._database.fetch(
            _REVOKE,
            new.environment_id,
            new.kind,
            new.value,
            new.issued_before,
            new.kept_until,
            self._max_revocations,
        )
        if not rows:
            raise TooManyRevocations(
                f"The environment has {self._max_revocations} revocations already: revoke all "
                "tokens issued before now, or lift some."
            )
        return to_revocation(rows[0])

    async def list_page(
        self, environment_id: str, *, older_than: PageKey | None, limit: int
    ) -> tuple[list[Revocation], PageKey | None]:
        """One page, newest first, and where the next one begins."""
        created_at = older_than.created_at if older_than else None
        last_id = older_than.id if older_than else None
        rows = await self._database.fetch(_LIST, environment_id, created_at, last_id, limit + 1)
        found = [to_revocation(row) for row in rows[:limit]]
        if len(rows) <= limit:
            return found, None
        return found, PageKey(found[-1].created_at, found[-1].id)

    async def lift(self, environment_id: str, revocation_id: str) -> Revocation | None:
        """Let a revocation count no more; None: there is none of this id."""
        rows = await self._database.fetch(_LIFT, environment_id, revocation_id)
        return to_revocation(rows[0]) if rows else None


def to_revocation(row: Row) -> Revocation:
    """Read a row of `REVOCATION_COLUMNS`."""
    return Revocation(
        id=row["id"],
        environment_id=row["environment_id"],
        kind=row["kind"],
        value=row["value"],
        issued_before=row["issued_before"],
        created_at=row["created_at"],
        since=row["since"],
        kept_until=row["kept_until"],
        lifted=row["lifted"],
    )
