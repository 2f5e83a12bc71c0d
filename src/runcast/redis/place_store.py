"""Places of connections in Redis, by its clock."""

import asyncio
from collections.abc import Mapping

from runcast.core.places import Held, Wish
from runcast.ports import PlaceStore
from runcast.redis.courier import Courier, Script
from runcast.redis.server import RedisServer

# `places.hold` in Lua. Arguments: gateway, used, wanted, limit, lease in milliseconds. Kept is a
# hash of one environment: for each gateway how many places, and until when in milliseconds.
_HOLD = Script(
    """
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local used, wanted = tonumber(ARGV[2]), tonumber(ARGV[3])
local limit, lease = tonumber(ARGV[4]), tonumber(ARGV[5])
local others, own = 0, 0
local held = redis.call('HGETALL', KEYS[1])
for n = 1, #held, 2 do
    local places, till = string.match(held[n + 1], '^(%d+) (%d+)$')
    if tonumber(till) <= now then
        redis.call('HDEL', KEYS[1], held[n])
    elseif held[n] == ARGV[1] then
        own = tonumber(places)
    else
        others = others + tonumber(places)
    end
end
local given = math.max(0, math.min(wanted, limit - others))
local kept = math.max(used, given, math.min(wanted, own))
if kept > 0 then
    redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f %.0f', kept, now + lease))
    redis.call('PEXPIRE', KEYS[1], ARGV[5])
else
    redis.call('HDEL', KEYS[1], ARGV[1])
end
return {given, limit - others - kept}
"""
)


class RedisPlaceStore(PlaceStore):
    """One key for each environment; what is asked together shares a round trip."""

    def __init__(self, server: RedisServer, *, prefix: str) -> None:
        self._prefix = prefix
        self._courier = Courier(server)

    async def close(self) -> None:
        """Fail what waits."""
        await self._courier.close()

    async def hold(
        self, gateway: str, wishes: Mapping[str, Wish], *, limit: int, lease_seconds: float
    ) -> Mapping[str, Held]:
        """Hold places for a gateway, in place of what it held."""
        lease = round(lease_seconds * 1000)
        answers = await asyncio.gather(
            *(
                self._courier.call(
                    _HOLD,
                    [f"{self._prefix}places:{name}"],
                    [gateway, wish.used, wish.wanted, limit, lease],
                )
                for name, wish in wishes.items()
            )
        )
        return {name: Held(*answer) for name, answer in zip(wishes, answers, strict=True)}
