"""Environments and their keys in Postgres."""

import re
import secrets
import string
from dataclasses import dataclass
from datetime import datetime

from runcast.auth.keys import KeyRing, SigningKey, looks_like_secret_key
from runcast.errors import InvalidParameter, NotFound
from runcast.ports import KeyStore
from runcast.postgres.database import Database, Transaction

MAX_GRACE_SECONDS = 366 * 86_400
_RANDOM_LENGTH = 40
_ALPHABET = string.ascii_letters + string.digits
_SLUG = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")

# Clients never sign tokens with a key of this form (wire/trigger-wire.md 1.2): it authenticates
# a backend and does nothing else.
_ADDITIONAL_KEY = re.compile(r"tr_(dev|stg|prod|preview)_sk_[0-9a-zA-Z]{24}")

_INSERT_KEY = "INSERT INTO @schema@.environment_keys (key, environment_id) VALUES ($1, $2)"


@dataclass(frozen=True, slots=True)
class Environment:
    """A world of its own: its runs, its keys, its tokens."""

    id: str
    slug: str
    name: str
    created_at: datetime


class PostgresKeyStore(KeyStore):
    """Reads keys for every request that needs them, and manages them for the command line."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def read_key_ring(self, environment_id: str) -> KeyRing | None:
        """The keys of an environment, retired ones included; None: no such environment."""
        rows = await self._database.fetch(
            "SELECT key, expires_at FROM @schema@.environments"
            " LEFT JOIN @schema@.environment_keys ON environment_id = id"
            " WHERE id = $1 ORDER BY environment_keys.created_at DESC, key",
            environment_id,
        )
        if not rows:
            return None
        return KeyRing(
            environment_id,
            tuple(
                SigningKey(row["key"], row["expires_at"] and row["expires_at"].timestamp())
                for row in rows
                if row["key"] is not None and not _ADDITIONAL_KEY.fullmatch(row["key"])
            ),
        )

    async def read_environment_name(self, environment_id: str) -> str | None:
        """What people call an environment; None: no such environment."""
        rows = await self._database.fetch(
            "SELECT name FROM @schema@.environments WHERE id = $1", environment_id
        )
        return rows[0]["name"] if rows else None

    async def read_environment_id(self, key: str) -> str | None:
        """The environment that a secret key authenticates now, or None."""
        if not looks_like_secret_key(key):
            return None
        rows = await self._database.fetch(
            "SELECT environment_id FROM @schema@.environment_keys"
            " WHERE key = $1 AND (expires_at IS NULL OR expires_at > now())",
            key,
        )
        return rows[0]["environment_id"] if rows else None

    async def list_environments(self) -> list[Environment]:
        """All environments, oldest first."""
        rows = await self._database.fetch(
            "SELECT id, slug, name, created_at FROM @schema@.environments ORDER BY created_at, id"
        )
        return [Environment(*row) for row in rows]

    async def create_environment(
        self, slug: str, name: str, key: str | None = None
    ) -> tuple[str, str]:
        """
        Create an environment with one active key, the given one or a fresh one.

        Returns:
            The environment's id and the key.

        Raises:
            InvalidParameter: The slug, the name or the key has not the form of one.
            Unprocessable: An environment has this slug, or uses this key.
        """
        if not _SLUG.fullmatch(slug):
            raise InvalidParameter(
                "A slug has 1 to 63 lower-case letters, digits and dashes, and begins with no dash."
            )
        if not 0 < len(name) <= 200:
            raise InvalidParameter("An environment's name has 1 to 200 characters.")
        if key is not None:
            _check_root_key(key)
        async with self._database.transaction() as transaction:
            rows = await transaction.fetch(
                "INSERT INTO @schema@.environments (slug, name) VALUES ($1, $2) RETURNING id",
                slug,
                name,
            )
            environment_id: str = rows[0]["id"]
            return environment_id, await _insert_key(transaction, environment_id, slug, key)

    async def rotate_key(self, environment_id: str, grace_seconds: float) -> str:
        """
        Make a fresh key the active one; until the grace ends, the others work as before.

        A key that was retired earlier keeps its own end.

        Raises:
            InvalidParameter: The grace is negative or longer than a year.
            NotFound: There is no such environment.
        """
        if not 0 <= grace_seconds <= MAX_GRACE_SECONDS:
            raise InvalidParameter("The grace period has 0 seconds to 366 days.")
        async with self._database.transaction() as transaction:
            rows = await transaction.fetch(
                "SELECT slug FROM @schema@.environments WHERE id = $1 FOR NO KEY UPDATE",
                environment_id,
            )
            if not rows:
                raise NotFound("There is no such environment: `runcast keys list` shows all.")
            await transaction.fetch(
                "UPDATE @schema@.environment_keys"
                " SET expires_at = now() + make_interval(secs => $2)"
                " WHERE environment_id = $1 AND expires_at IS NULL AND key !~ $3",
                environment_id,
                float(grace_seconds),
                f"^{_ADDITIONAL_KEY.pattern}$",
            )
            return await _insert_key(transaction, environment_id, rows[0]["slug"])


async def _insert_key(
    transaction: Transaction, environment_id: str, slug: str, key: str | None = None
) -> str:
    fresh = "".join(secrets.choice(_ALPHABET) for _ in range(_RANDOM_LENGTH))
    chosen = key or f"tr_{slug}_{fresh}"
    await transaction.fetch(_INSERT_KEY, chosen, environment_id)
    return chosen


def _check_root_key(key: str) -> None:
    SigningKey(key)
    if _ADDITIONAL_KEY.fullmatch(key):
        raise InvalidParameter(
            "A key like tr_dev_sk_… cannot sign tokens; leave the key out to get a fresh one."
        )
