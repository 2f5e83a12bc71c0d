"""
Numbered SQL migrations: applied in order, each in its own transaction, recorded with a checksum.

A migration file is plain SQL. Unqualified names mean the gateway's schema, which comes first on
the search path; ``@schema@`` stands for its quoted name where a literal one is needed.
"""

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import asyncpg

from runcast.errors import BackendError

MIGRATIONS = Path(__file__).parent / "migrations"
_FILE = re.compile(r"(\d{4})_([a-z0-9_]+)\.sql")
_SCHEMA = re.compile(r"(?!pg_)[a-z_][a-z0-9_]{0,62}")
_PLACEHOLDER = "@schema@"


class SchemaError(BackendError):
    """The database's schema is not what this version of runcast works with."""

    code = "schema_error"


class SchemaMissing(SchemaError):
    """Migrations are yet to be applied."""

    code = "schema_missing"


class SchemaTooNew(SchemaError):
    """A newer version of runcast has migrated this database."""

    code = "schema_too_new"


class SchemaChanged(SchemaError):
    """A migration was edited after it had been applied."""

    code = "schema_changed"


class MigrationFailed(SchemaError):
    """Postgres refused a migration, or was lost on the way; nothing of that migration was kept."""

    code = "migration_failed"


class InvalidSchemaName(SchemaError):
    """The schema's name cannot be used."""

    code = "invalid_schema_name"


@dataclass(frozen=True, slots=True)
class Migration:
    """One file; ``checksum`` is the SHA-256 of its text in hexadecimal, whatever its line ends."""

    number: int
    name: str
    sql: str
    checksum: str

    @property
    def file_name(self) -> str:
        return f"{self.number:04}_{self.name}.sql"


@dataclass(frozen=True, slots=True)
class AppliedMigration:
    """What a database records of one migration."""

    number: int
    name: str
    checksum: str
    applied_at: datetime


@dataclass(frozen=True, slots=True)
class SchemaStatus:
    """How far a database is: what it has, and what it lacks, in order."""

    applied: tuple[AppliedMigration, ...]
    pending: tuple[Migration, ...]


async def migrate(
    connection: asyncpg.Connection, *, schema: str = "runcast", directory: Path = MIGRATIONS
) -> list[Migration]:
    """
    Apply what the database lacks and return it, in order; nothing when it is up to date.

    Any number of gateways may do this at once: each migration runs under an advisory lock and
    is looked for again once the lock is held. A database that is up to date is only read.

    Args:
        connection: Outside of a transaction, and not a pool's whose time limit for a command
            is shorter than a migration may take.
        schema: Where all objects live; made when missing.
        directory: The files ``NNNN_name.sql``, numbered from 0001 without a gap.

    Raises:
        SchemaTooNew: The database has a migration that is not among the files.
        SchemaChanged: A file differs from what was applied.
        MigrationFailed: Postgres refused; earlier migrations stay, this one left nothing.
        InvalidSchemaName: Not a lower-case identifier, or one that Postgres keeps for itself.
    """
    _check_schema_name(schema)
    assert not connection.is_in_transaction(), "each migration needs a transaction of its own"
    known = await asyncio.to_thread(load_migrations, directory)
    applied = []
    while (await _status(connection, schema, known)).pending:
        migration = await _apply_next(connection, schema, known)
        if migration is not None:
            applied.append(migration)
    return applied


async def status(
    connection: asyncpg.Connection, *, schema: str = "runcast", directory: Path = MIGRATIONS
) -> SchemaStatus:
    """
    Read how far a database is, changing nothing.

    Raises:
        SchemaTooNew, SchemaChanged, MigrationFailed, InvalidSchemaName: As ``migrate``.
    """
    _check_schema_name(schema)
    known = await asyncio.to_thread(load_migrations, directory)
    return await _status(connection, schema, known)


async def verify_schema(
    connection: asyncpg.Connection, *, schema: str = "runcast", directory: Path = MIGRATIONS
) -> None:
    """
    Check that a database is what this version of runcast works with.

    Raises:
        SchemaMissing: It is empty or behind.
        SchemaTooNew, SchemaChanged, MigrationFailed, InvalidSchemaName: As ``migrate``.
    """
    found = await status(connection, schema=schema, directory=directory)
    if found.pending:
        lacking = ", ".join(migration.file_name for migration in found.pending)
        raise SchemaMissing(
            f"The schema {schema} of this database lacks {lacking}: run `runcast migrate`."
        )


def load_migrations(directory: Path = MIGRATIONS) -> tuple[Migration, ...]:
    """
    Read all migration files, in order.

    Raises:
        SchemaError: A name is not ``NNNN_name.sql``, or a number is missing or given twice.
    """
    migrations = tuple(_load(file) for file in sorted(directory.glob("*.sql")))
    for number, migration in enumerate(migrations, start=1):
        if migration.number != number:
            raise SchemaError(
                f"Migration {number:04} is missing or given twice before {migration.file_name}: "
                "install runcast again, or renumber the files."
            )
    return migrations


def _load(file: Path) -> Migration:
    match = _FILE.fullmatch(file.name)
    if match is None:
        raise SchemaError(f"{file.name} is not named NNNN_name.sql: rename it.")
    sql = file.read_text(encoding="utf-8")  # any line end becomes \n
    checksum = hashlib.sha256(sql.encode()).hexdigest()
    return Migration(int(match[1]), match[2], sql, checksum)


async def _status(
    connection: asyncpg.Connection, schema: str, known: tuple[Migration, ...]
) -> SchemaStatus:
    async with _translated(f"The migrations of schema {schema} cannot be read"):
        applied = await _read_applied(connection, schema)
    _check_history(schema, applied, known)
    numbers = {migration.number for migration in applied}
    return SchemaStatus(applied, tuple(one for one in known if one.number not in numbers))


async def _read_applied(
    connection: asyncpg.Connection, schema: str
) -> tuple[AppliedMigration, ...]:
    # Not by to_regclass: it answers from a cache that is older than the wait for the lock.
    if not await connection.fetchval(
        "SELECT EXISTS (SELECT FROM pg_catalog.pg_tables"
        " WHERE schemaname = $1 AND tablename = 'migrations')",
        schema,
    ):
        return ()
    rows = await connection.fetch(
        "SELECT number, name, checksum, applied_at "
        f"FROM {_quoted(schema)}.migrations ORDER BY number"
    )
    return tuple(AppliedMigration(*row) for row in rows)


def _check_history(
    schema: str, applied: tuple[AppliedMigration, ...], known: tuple[Migration, ...]
) -> None:
    files = {migration.number: migration for migration in known}
    for record in applied:
        file = files.get(record.number)
        if file is None:
            raise SchemaTooNew(
                f"The schema {schema} has migration {record.number:04}_{record.name}, which this "
                "version of runcast does not know: upgrade runcast to at least the version that "
                "applied it."
            )
        if file.checksum != record.checksum:
            raise SchemaChanged(
                f"{file.file_name} is not what was applied to the schema {schema} on "
                f"{record.applied_at:%Y-%m-%d}: restore the file and write a new migration "
                "instead, or give a development database a fresh start."
            )


async def _apply_next(
    connection: asyncpg.Connection, schema: str, known: tuple[Migration, ...]
) -> Migration | None:
    """Apply the first pending migration under the lock; None when others have applied them all."""
    async with (
        _translated(f"The schema {schema} cannot be migrated"),
        # Whatever the server's default: after the wait for the lock, others' work is to be seen.
        connection.transaction(isolation="read_committed"),
    ):
        await _lock(connection, schema)
        pending = (await _status(connection, schema, known)).pending
        if not pending:
            return None
        migration = pending[0]
        await _prepare(connection, schema)
        sql = migration.sql.replace(_PLACEHOLDER, _quoted(schema))
        async with _translated(f"{migration.file_name} failed and left nothing behind", sql):
            await connection.execute(sql)
            await connection.execute("SET CONSTRAINTS ALL IMMEDIATE")  # fail here, not at commit
        await connection.execute(
            f"INSERT INTO {_quoted(schema)}.migrations (number, name, checksum) "
            "VALUES ($1, $2, $3)",
            *(migration.number, migration.name, migration.checksum),
        )
        return migration


async def _lock(connection: asyncpg.Connection, schema: str) -> None:
    """Keep other migrating gateways waiting until this transaction ends, however long it takes."""
    await connection.execute("SET LOCAL statement_timeout = 0")
    await connection.execute("SET LOCAL lock_timeout = 0")
    await connection.execute(
        "SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", f"runcast migrate {schema}"
    )


async def _prepare(connection: asyncpg.Connection, schema: str) -> None:
    # Looked for first: CREATE SCHEMA IF NOT EXISTS needs a permission even to do nothing.
    if not await connection.fetchval(
        "SELECT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = $1)", schema
    ):
        await connection.execute(f"CREATE SCHEMA {_quoted(schema)}")
    await connection.execute(f"SET LOCAL search_path TO {_quoted(schema)}, pg_catalog")
    await connection.execute(
        "CREATE TABLE IF NOT EXISTS migrations ("
        " number integer PRIMARY KEY, name text NOT NULL, checksum text NOT NULL,"
        " applied_at timestamptz NOT NULL DEFAULT now())"
    )


@asynccontextmanager
async def _translated(what: str, sql: str = "") -> AsyncIterator[None]:
    """Raise the driver's errors as ours, with what was being done and, if known, the line."""
    try:
        yield
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
        position = getattr(error, "position", None)  # in characters, where Postgres knows it
        line = f" near line {sql.count(chr(10), 0, int(position)) + 1}" if position and sql else ""
        raise MigrationFailed(f"{what}{line}: {error}") from error


def _check_schema_name(schema: str) -> None:
    if not _SCHEMA.fullmatch(schema) or schema == "information_schema":
        raise InvalidSchemaName(
            f"{schema!r} cannot be the name of the schema: use at most 63 lower-case letters, "
            "digits and underscores, not beginning with a digit or pg_."
        )


def _quoted(schema: str) -> str:
    return f'"{schema}"'
