"""Tailers of which one reads and another follows it through Redis."""

import asyncio
import functools
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from runcast.core.relaying import Relaying, RelayPace, Role
from runcast.core.tailing import State
from runcast.postgres.relayed_tailer import RelayedTailer
from runcast.redis.server import RedisServer
from runcast.redis.window_relay import RedisWindowRelay
from tests.support.gateway_app import until
from tests.support.recording_sink import Following, following

# Nobody doubts a leader that is slow because the machine is busy, nor reads beside it.
PATIENT = RelayPace(beat=0.02, silence=10.0, look=3600.0)


@dataclass
class Relayed(Following):
    """A tailer with a relay, and its sink."""

    relay: RedisWindowRelay

    @property
    def machine(self) -> Relaying:
        return self.relay.machine

    async def is_now(self, role: Role) -> None:
        """Wait until its role is this."""
        await until(lambda: self.machine.role is role, lambda: self.machine.role)


@asynccontextmanager
async def window_relay(
    redis_url: str, name: str, pace: RelayPace = PATIENT
) -> AsyncIterator[RedisWindowRelay]:
    """Carry messages under a name for as long as the context lasts."""
    server = RedisServer(redis_url)
    relay = RedisWindowRelay(server, Relaying(pace), name=name)
    carrying = asyncio.create_task(relay.run())
    try:
        yield relay
    finally:
        carrying.cancel()
        await asyncio.wait({carrying})
        await server.close()


@asynccontextmanager
async def relayed(
    database_url: str,
    redis_url: str,
    name: str,
    pace: RelayPace = PATIENT,
    *,
    wanted: set[str] | None = None,
) -> AsyncIterator[Relayed]:
    """Follow a database, by itself or through the others of this name."""
    async with window_relay(redis_url, name, pace) as relay:
        kind = functools.partial(RelayedTailer, relay=relay)
        async with following(database_url, kind=kind, wanted=wanted) as feed:
            yield Relayed(feed.tailer, feed.sink, relay)


@asynccontextmanager
async def leader_and_follower(
    database_url: str, redis_url: str, pace: RelayPace = PATIENT
) -> AsyncIterator[tuple[Relayed, Relayed]]:
    """Two tailers of which the second reads nothing any more; nobody wants the first one's rows."""
    name = f"test:{secrets.token_hex(6)}"
    async with relayed(database_url, redis_url, name, pace, wanted=set()) as leader:
        await leader.is_now(Role.LEADING)
        async with relayed(database_url, redis_url, name, pace) as follower:
            await follower.is_now(Role.FOLLOWING)
            await until(lambda: follower.tailer.state is State.RELIEVED)
            yield leader, follower
