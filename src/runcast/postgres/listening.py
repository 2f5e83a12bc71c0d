"""Connections on which the database tells of what was committed."""

import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from typing import TypeAlias

import asyncpg

_CLOSE_SECONDS = 1.0

# How a connection shows that it, or its server, is lost.
LOST = (
    OSError,
    TimeoutError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)

Row: TypeAlias = "asyncpg.Record"
Hear: TypeAlias = Callable[[object, int, str, object], None]


@contextlib.asynccontextmanager
async def listening(
    url: str,
    channels: Mapping[str, Hear],
    *,
    name: str,
    answer_seconds: float,
    on_lost: Callable[[], None],
    **settings: str,
) -> AsyncIterator["asyncpg.Connection[Row]"]:
    """
    Open a connection that listens, and close it at the end.

    What is committed from then on is heard, so whoever looks afterwards misses nothing.

    Args:
        channels: Whom to call with each message of a channel: with connection, process id of the
            sender, channel and payload.
        name: What the server's administrator sees, after ``runcast``.
        answer_seconds: A database that takes longer for an answer is given up.
        on_lost: Called when the connection is closed, by whomever.
        settings: Of the server, for this connection.

    Raises:
        OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError,
            asyncpg.InternalClientError: It cannot be opened; see `LOST`.
    """
    connection = await asyncpg.connect(
        url,
        timeout=answer_seconds,
        command_timeout=answer_seconds,
        server_settings={"application_name": f"runcast {name}", "jit": "off", **settings},
    )
    try:
        connection.add_termination_listener(lambda _: on_lost())
        for channel, hear in channels.items():
            await connection.add_listener(channel, hear)
        yield connection
    finally:
        with contextlib.suppress(*LOST):
            await connection.close(timeout=_CLOSE_SECONDS)
