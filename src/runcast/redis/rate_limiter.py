"""Rate limits in Redis, by its clock."""

from runcast.core.bucket import Draw
from runcast.core.rate import Rate
from runcast.ports import RateLimiter
from runcast.redis.courier import Courier, Script
from runcast.redis.server import RedisServer

# `Bucket.draw` in Lua. Arguments: wanted, burst, permits a second. Kept is when the bucket is full
# again, in seconds, for as long as it is not. Answers what was given and what is missing, as text:
# Redis would cut the fractions off.
_DRAW = Script(
    """
local time = redis.call('TIME')
local here = tonumber(time[1]) + tonumber(time[2]) / 1e6
local wanted, burst, rate = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local full_at = tonumber(redis.call('GET', KEYS[1]) or 0)
local lacks = math.max(0, rate * (full_at - here))
local gives = math.max(0, math.min(wanted, burst - lacks))
if gives > 0 then
    local lasts = (lacks + gives) / rate
    redis.call('SET', KEYS[1], string.format('%.6f', here + lasts),
        'PX', string.format('%.0f', math.ceil(1000 * lasts)))
end
return {string.format('%.17g', gives), string.format('%.17g', lacks + gives)}
"""
)


class RedisRateLimiter(RateLimiter):
    """One key for each bucket that is not full; draws that wait share a round trip."""

    def __init__(self, server: RedisServer, *, prefix: str) -> None:
        self._prefix = prefix
        self._courier = Courier(server)

    async def close(self) -> None:
        """Fail what waits."""
        await self._courier.close()

    async def draw(self, bucket: bytes, wanted: int, rate: Rate) -> Draw:
        """Draw permits, or all that are there."""
        permits, missing = await self._courier.call(
            _DRAW, [f"{self._prefix}rate:{bucket.hex()}"], [wanted, rate.burst, rate.per_second]
        )
        return Draw(float(permits), float(missing))
