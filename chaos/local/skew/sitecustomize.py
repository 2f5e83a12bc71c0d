"""First on a gateway's PYTHONPATH: its clock is wrong by the seconds that stand in a file."""

import mmap
import os
import struct
import time

if name := os.environ.get("CHAOS_CLOCK"):
    with open(name, "rb") as file:
        skew = mmap.mmap(file.fileno(), 8, access=mmap.ACCESS_READ)
    right = time.time  # noqa: TID251

    def wrong() -> float:
        """Unix time as a machine has it whose clock is set."""
        seconds: float = struct.unpack_from("d", skew)[0]
        return right() + seconds

    time.time = wrong  # noqa: TID251
