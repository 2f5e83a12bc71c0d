"""What `runcast doctor` asks of the database that a gateway is to use."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from time import perf_counter

import asyncpg

from runcast.cli.finding import Finding, bad, fine, note
from runcast.errors import GatewayError
from runcast.postgres import migrate as migrations
from runcast.postgres.binaries import OLDEST_VERSION
from runcast.postgres.connection import connect
from runcast.settings import Settings

_BELL_SECONDS = 3.0
# Connections of a gateway that are not of its pool: for changes, the schedule, revocations.
_LISTENING = 3
_MAX_CLOCK_DIFFERENCE_SECONDS = 1.0
_TABLES = (
    ("runs", "SELECT, INSERT, UPDATE"),
    ("batches", "SELECT, INSERT, UPDATE"),
    ("departures", "SELECT, INSERT, DELETE"),
    ("environments", "SELECT"),
    ("environment_keys", "SELECT"),
    ("following", "SELECT, UPDATE"),
    ("rate_limits", "SELECT, INSERT, UPDATE, DELETE"),
    ("connection_places", "SELECT, INSERT, UPDATE, DELETE"),
    ("objects", "SELECT, INSERT, UPDATE, DELETE"),
    ("object_checks", "SELECT, INSERT, UPDATE, DELETE"),
)
_DIRECT = (
    "Give DATABASE_URL the address of Postgres itself, or of a pool in session mode: through a "
    "pooler in transaction mode (pgbouncer's usual one) LISTEN does not work, and changes would "
    "not be noticed."
)


async def check_database(settings: Settings, now: Callable[[], float]) -> AsyncIterator[Finding]:
    """Look at everything that a gateway needs from its database; stops where nothing more works."""
    assert settings.database_url is not None
    try:
        connection = await connect(settings.database_url)
    except GatewayError as error:
        yield bad(
            "database",
            error.message,
            "Start the server or correct DATABASE_URL; `runcast dev` brings a database of its own.",
        )
        return
    try:
        yield _check_version(connection)
        yield await _check_primary(connection)
        yield await _check_clock(connection, now)
        yield await _check_room(connection, settings)
        yield await _check_bell(connection, settings.database_url)
        async for finding in _check_schema(connection, settings.schema_name):
            yield finding
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
        yield bad("database", f"A question was refused: {error}", "See the log of the database.")
    finally:
        connection.terminate()


def _check_version(connection: asyncpg.Connection) -> Finding:
    version = connection.get_server_version()
    text = f"Postgres {version.major}.{version.minor} answers"
    if version.major < OLDEST_VERSION:
        return bad("database", text, f"Postgres {OLDEST_VERSION} or newer is needed: upgrade it.")
    return fine("database", text)


async def _check_primary(connection: asyncpg.Connection) -> Finding:
    if await connection.fetchval("SELECT pg_is_in_recovery()"):
        return bad(
            "writing",
            "this server is a standby and takes no writes",
            "Give DATABASE_URL the address of the primary.",
        )
    return fine("writing", "this server is a primary")


async def _check_clock(connection: asyncpg.Connection, now: Callable[[], float]) -> Finding:
    started, before = perf_counter(), now()
    theirs = float(
        await connection.fetchval("SELECT extract(epoch FROM clock_timestamp())::float8")
    )
    between = before + (perf_counter() - started) / 2
    difference = theirs - between
    text = f"the database is {abs(difference):.2f} s {'ahead' if difference > 0 else 'behind'}"
    if abs(difference) > _MAX_CLOCK_DIFFERENCE_SECONDS:
        return bad("clock", text, "Let both machines set their clocks by NTP: tokens depend on it.")
    return fine("clock", text)


async def _check_room(connection: asyncpg.Connection, settings: Settings) -> Finding:
    most = int(await connection.fetchval("SELECT current_setting('max_connections')"))
    used = int(await connection.fetchval("SELECT count(*) FROM pg_stat_activity"))
    text = f"{used} of {most} connections are used; a gateway takes up to "
    wanted = settings.pool_max_connections + _LISTENING
    remedy = "Lower RUNCAST_POOL_MAX_CONNECTIONS or raise max_connections of the database."
    if settings.workers == 1:
        text += str(wanted)
    else:
        text += f"{wanted}, and here are {settings.workers} workers, one more in a restart"
        wanted *= settings.workers + 1
        remedy = f"That is {wanted}. Lower RUNCAST_WORKERS, or: {remedy}"
    if used + wanted > most:
        return note("connections", text, remedy)
    return fine("connections", text)


async def _check_bell(connection: asyncpg.Connection, database_url: str) -> Finding:
    """Ring ourselves as the database rings a gateway; a pooler may lose that."""
    channel = f"runcast_doctor_{secrets.token_hex(6)}"
    rung = asyncio.Event()
    # A pooler invents the process id that it announces; Postgres tells the true one.
    pooled = connection.get_server_pid() != await connection.fetchval("SELECT pg_backend_pid()")
    await connection.add_listener(channel, lambda *_: rung.set())
    bell = await connect(database_url)
    try:
        await bell.execute("SELECT pg_notify($1, '')", channel)
        await asyncio.wait_for(rung.wait(), _BELL_SECONDS)
    except TimeoutError:
        what = "a pooler stands in between, and " if pooled else ""
        return bad("LISTEN", f"{what}a notification did not arrive", _DIRECT)
    finally:
        bell.terminate()
    if pooled:
        return note("LISTEN", "a notification arrived through a pooler", _DIRECT)
    return fine("LISTEN", "a notification arrived")


async def _check_schema(connection: asyncpg.Connection, schema: str) -> AsyncIterator[Finding]:
    try:
        found = await migrations.status(connection, schema=schema)
    except migrations.SchemaError as error:
        yield bad("schema", error.message, "Use the version of runcast that fits the database.")
        return
    if found.pending and not found.applied:
        yield await _check_may_create(connection, schema)
    elif found.pending:
        names = ", ".join(migration.file_name for migration in found.pending)
        yield bad("schema", f"{schema} lacks {names}", "Run `runcast migrate`.")
    else:
        yield fine("schema", f"{schema} is up to date ({len(found.applied)} migrations)")
        yield await _check_permissions(connection, schema)


async def _check_may_create(connection: asyncpg.Connection, schema: str) -> Finding:
    if await connection.fetchval("SELECT has_database_privilege(current_database(), 'CREATE')"):
        return bad("schema", f"{schema} is not there yet", "Run `runcast migrate`.")
    user = await connection.fetchval("SELECT current_user")
    return bad(
        "schema",
        f"{schema} is not there yet, and {user} may not create it",
        f'Let an administrator run: CREATE SCHEMA "{schema}" AUTHORIZATION "{user}"; '
        "then run `runcast migrate`.",
    )


async def _check_permissions(connection: asyncpg.Connection, schema: str) -> Finding:
    user = await connection.fetchval("SELECT current_user")
    lacking = [
        f"{privilege} on {table}"
        for table, privileges in _TABLES
        for privilege in privileges.split(", ")
        if not await connection.fetchval(
            "SELECT has_schema_privilege($1, 'USAGE') AND has_table_privilege($2, $3)",
            *(schema, f'"{schema}"."{table}"', privilege),
        )
    ]
    if not await connection.fetchval(
        "SELECT has_sequence_privilege($1, 'UPDATE')", f'"{schema}"."bell"'
    ):
        lacking.append("UPDATE on sequence bell")
    if lacking:
        return bad(
            "permissions",
            f"{user} lacks {', '.join(lacking)}",
            f'Run, as the owner: GRANT USAGE ON SCHEMA "{schema}" TO "{user}"; GRANT ALL ON ALL '
            f'TABLES IN SCHEMA "{schema}" TO "{user}"; GRANT ALL ON ALL SEQUENCES IN SCHEMA '
            f'"{schema}" TO "{user}";',
        )
    return fine("permissions", f"{user} may do what a gateway does")
