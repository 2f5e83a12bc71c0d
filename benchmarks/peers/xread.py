"""
Reads streams of Redis with XREAD and prints how old their chunks were.

  xread.py SOCKET STREAMS SECONDS

Reads until SECONDS after the first chunk came.
"""

import asyncio
import json
import sys
import time
from typing import Any

from redis.asyncio import Redis


async def main(address: str, streams: int, seconds: float) -> None:
    """Read, then print one line of JSON."""
    redis = Redis(unix_socket_path=address, protocol=2)
    positions: dict[str, str | bytes] = {f"s:{i}": "0-0" for i in range(streams)}
    ages: list[float] = []
    until = time.perf_counter() + 30.0
    print("ready", flush=True)
    while time.perf_counter() < until:
        found: Any = await redis.xread(positions, block=100)  # type: ignore[arg-type]
        now = time.perf_counter_ns()
        for name, entries in found or []:
            for _, fields in entries:
                ages.append((now - int(fields[b"d"].split(b"~")[1])) / 1e6)
            positions[name.decode()] = entries[-1][0]
        if ages and until > now / 1e9 + seconds:
            until = now / 1e9 + seconds
    ages.sort()
    figures = {"p50_ms": ages[len(ages) // 2], "p99_ms": ages[int(len(ages) * 0.99)]}
    print(json.dumps({"count": len(ages), **figures}), flush=True)
    await redis.aclose()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3])))
