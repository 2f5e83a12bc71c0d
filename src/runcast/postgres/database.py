"""
The door to Postgres for all stores: a pool of connections, transactions, and the driver's errors
turned into ours.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any, TypeAlias, TypeVar

import asyncpg

from runcast.core.histogram import Histogram
from runcast.errors import (
    BackendError,
    ConfigurationError,
    GatewayError,
    InvalidBody,
    NotFound,
    Unprocessable,
)
from runcast.postgres.query_times import QueryTimes, name_of

Row: TypeAlias = asyncpg.Record
_Result = TypeVar("_Result")
_SCHEMA = re.compile(r"[a-z_][a-z0-9_]{0,62}")
_ATTEMPTS = 5
_OPEN_TIMEOUT_SECONDS = 10.0


class Contended(BackendError):
    """Postgres gave up one of several transactions that stood in each other's way."""


class Transaction:
    """
    One open transaction.

    SQL is written with ``@schema@`` before every name of ours, so that no search path is needed.
    Texts go in and out of ``jsonb`` as they are.
    """

    def __init__(
        self,
        connection: "asyncpg.pool.PoolConnectionProxy[Row]",
        schema: str,
        times: QueryTimes,
    ) -> None:
        self._connection = connection
        self._schema = schema
        self._times = times

    async def fetch(self, sql: str, *arguments: object) -> list[Row]:
        """Run one statement and return its rows."""
        with self._times.timed(name_of(sql)):
            return await self._connection.fetch(_placed(sql, self._schema), *arguments)

    async def fetch_many(self, sql: str, arguments: Iterable[Sequence[object]]) -> list[Row]:
        """Run one statement for each sequence of arguments in one go; return all their rows."""
        with self._times.timed(name_of(sql)):
            return await self._connection.fetchmany(_placed(sql, self._schema), arguments)


class Database:
    """
    A pool of connections to one database; opens them when they are needed.

    Every error of the driver comes out as a `GatewayError` whose message holds neither the URL
    nor a value; the driver's own error is its cause. Nothing is retried, except in `retrying`.
    """

    def __init__(
        self,
        url: str,
        *,
        schema: str = "runcast",
        max_connections: int = 10,
        acquire_timeout_seconds: float = 10.0,
        statement_timeout_seconds: float = 30.0,
    ) -> None:
        if not _SCHEMA.fullmatch(schema):
            raise ConfigurationError(
                "The schema is a lower-case SQL name such as runcast: letters, digits, underscores."
            )
        self._url = url
        self._schema = schema
        self._max_connections = max_connections
        self._acquire_timeout = acquire_timeout_seconds
        self._statement_timeout = statement_timeout_seconds
        self._pool: asyncpg.Pool[Row] | None = None
        self._waiting = 0
        self._times = QueryTimes()

    @property
    def queries(self) -> Mapping[str, Histogram]:
        """Seconds that statements took, by name; "commit" is how long commits did."""
        return self._times.seconds

    @property
    def figures(self) -> dict[str, int]:
        """Numbers of the pool by name: busy, idle, waiting, max."""
        size = idle = 0
        if self._pool is not None:
            size, idle = self._pool.get_size(), self._pool.get_idle_size()
        return {
            "busy": size - idle,
            "idle": idle,
            "waiting": self._waiting,
            "max": self._max_connections,
        }

    async def open(self) -> None:
        """Make the pool ready; the first connection is made by whoever first needs it."""
        with_margin = self._statement_timeout + 5  # the server's own limit comes first
        async with _translated():
            self._pool = await asyncpg.create_pool(
                self._url,
                min_size=0,
                max_size=self._max_connections,
                command_timeout=with_margin,
                timeout=_OPEN_TIMEOUT_SECONDS,
                reset=_keep_as_is,
                server_settings={
                    "application_name": "runcast",
                    "statement_timeout": str(int(self._statement_timeout * 1000)),
                    "idle_in_transaction_session_timeout": str(int(with_margin * 1000)),
                    # Plans depend on how rare a tag is and how old a position: plan with values.
                    "plan_cache_mode": "force_custom_plan",
                    "jit": "off",
                },
            )

    async def close(self) -> None:
        """Close all connections; those in use get a moment to finish."""
        pool, self._pool = self._pool, None
        if pool is None:
            return
        try:
            async with asyncio.timeout(self._acquire_timeout):
                await pool.close()
        except TimeoutError:
            pool.terminate()

    def terminate(self) -> None:
        """Cut off whoever still uses it: they are not to wait for a server that hangs."""
        if self._pool is not None:
            self._pool.terminate()

    async def fetch(self, sql: str, *arguments: object) -> list[Row]:
        """Run one statement on its own and return its rows."""
        async with self._connection() as connection:
            with self._times.timed(name_of(sql)):
                return await connection.fetch(_placed(sql, self._schema), *arguments)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        """Open a transaction whose every statement sees what is committed by then."""
        async with (
            self._connection() as connection,
            AsyncExitStack() as committing,
            connection.transaction(isolation="read_committed"),
        ):
            yield Transaction(connection, self._schema, self._times)
            committing.enter_context(self._times.timed("commit"))

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Transaction]:
        """Open a transaction that only reads, all of it in one snapshot."""
        async with (
            self._connection() as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            yield Transaction(connection, self._schema, self._times)

    async def retrying(self, work: Callable[[], Awaitable[_Result]]) -> _Result:
        """Do work that is a transaction of its own, a few times over while it is `Contended`."""
        for _ in range(_ATTEMPTS - 1):
            try:
                return await work()
            except Contended:
                continue
        return await work()

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator["asyncpg.pool.PoolConnectionProxy[Row]"]:
        pool = self._pool  # that it is given back to, also while `close` waits for it
        assert pool is not None, "Database.open() comes first"
        async with _translated():
            self._waiting += 1
            try:
                connection = await pool.acquire(timeout=self._acquire_timeout)
            finally:
                self._waiting -= 1
            try:
                yield connection
            finally:
                # Also for whoever is cancelled while that goes on.
                await asyncio.shield(asyncio.ensure_future(_give_back(pool, connection)))


async def _give_back(
    pool: "asyncpg.Pool[Row]", connection: "asyncpg.pool.PoolConnectionProxy[Row]"
) -> None:
    # One that cannot be given back is closed: what was asked is answered all the same, or was
    # given up.
    with suppress(TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
        await pool.release(connection)


@asynccontextmanager
async def _translated() -> AsyncIterator[None]:
    try:
        yield
    except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
        raise translate(error) from error
    except TimeoutError as error:
        raise BackendError("The database did not answer in time; try again.") from error
    except OSError as error:
        raise BackendError("The database cannot be reached; try again.") from error


def translate(error: Exception) -> GatewayError:
    """Say in our terms what an error of the driver means to whoever sent the request."""
    match error:
        case asyncpg.CheckViolationError():
            return Unprocessable(_broken_rule(error))
        case asyncpg.NotNullViolationError():
            return Unprocessable(f"{error.column_name} cannot be null.")
        case asyncpg.UniqueViolationError():
            return Unprocessable(
                _TAKEN.get(error.constraint_name or "", "Something of that name exists already.")
            )
        case asyncpg.ForeignKeyViolationError():
            return NotFound("The environment, batch or run that this belongs to does not exist.")
        case asyncpg.CharacterNotInRepertoireError() | asyncpg.UntranslatableCharacterError():
            return InvalidBody("Text cannot hold NUL characters or half surrogate pairs.")
        case asyncpg.DataError():
            return InvalidBody(
                "A value cannot be stored: text is Unicode without NUL and half surrogate pairs, "
                "numbers and times are in range, JSON is well formed."
            )
        case asyncpg.ProgramLimitExceededError():
            return Unprocessable("A key, tag or name is too long to be indexed; use a shorter one.")
        case (
            asyncpg.DeadlockDetectedError()
            | asyncpg.SerializationError()
            | asyncpg.LockNotAvailableError()
        ):
            return Contended("Too many writers want the same runs at once; try again.")
        case asyncpg.QueryCanceledError():
            return BackendError("The database took too long; ask for less, or try again.")
        case (
            asyncpg.UndefinedTableError()
            | asyncpg.UndefinedColumnError()
            | asyncpg.UndefinedFunctionError()
            | asyncpg.InvalidSchemaNameError()
        ):
            return BackendError("The database is not of this version: run `runcast migrate`.")
        case asyncpg.ClientConfigurationError():
            return ConfigurationError("The database URL is not valid: check DATABASE_URL.")
        case asyncpg.InvalidAuthorizationSpecificationError() | asyncpg.InvalidCatalogNameError():
            return BackendError("The database refused the login: check DATABASE_URL.")
        case asyncpg.PostgresError():
            return BackendError(f"The database failed (SQLSTATE {error.sqlstate}); try again.")
        case _:
            return BackendError("The connection to the database was lost; try again.")


_TAKEN = {
    "runs_pkey": "A run with this id exists already: leave the id out to get a fresh one.",
    "batches_pkey": "A batch with this id exists already: leave the id out to get a fresh one.",
    "environments_slug_key": "An environment with this slug exists already: choose another slug.",
    "environment_keys_pkey": "This key is in use already: choose another one.",
    "runs_debounce_key": "Another delayed run of this task has this debounce key.",
    "runs_idempotency_key": "Another run of this task has this idempotency key.",
}


def _broken_rule(error: asyncpg.CheckViolationError) -> str:
    """Our triggers say what is wrong and what to do; a plain constraint has only its name."""
    if error.hint is None:
        return f"The value breaks the rule {error.constraint_name} of the database."
    problem = str(error.args[0])
    return f"{problem[:1].upper()}{problem[1:]}. {error.hint}"


def _placed(sql: str, schema: str) -> str:
    return sql.replace("@schema@", schema)


async def _keep_as_is(connection: Any) -> None:
    """Save the round trip that undoes session settings: nothing here makes any."""
