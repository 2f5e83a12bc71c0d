"""One database connection, for those who need no pool."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from runcast.errors import BackendError

_CONNECT_SECONDS = 10.0


@asynccontextmanager
async def connected(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    """
    Open a connection and close it at the end.

    Raises:
        BackendError: The database cannot be reached, or was lost on the way.
    """
    connection = await connect(database_url)
    try:
        yield connection
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
        raise BackendError(f"The database refused: {error}") from error
    finally:
        connection.terminate()


async def connect(database_url: str) -> asyncpg.Connection:
    """
    Open a connection that works through poolers too: nothing is prepared on the server.

    Raises:
        BackendError: The database cannot be reached; says why and what helps.
    """
    try:
        return await asyncpg.connect(database_url, timeout=_CONNECT_SECONDS, statement_cache_size=0)
    except TimeoutError:
        reason = f"it did not answer within {_CONNECT_SECONDS:.0f} seconds"
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, ValueError) as error:
        reason = str(error)
    raise BackendError(
        f"The database of DATABASE_URL cannot be reached: {reason}. Is the server running, and "
        "are host, port, user and password right? `runcast doctor` looks closer."
    )
