"""The targets of issue 5, as ratios between contestants of one run."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Target:
    """
    A ratio to reach: at most ``target``, or at least where ``at_least``.

    ``naive`` and ``limit`` say, in words, where the usual way and the physics stand.
    """

    meaning: str
    target: float
    stretch: float
    naive: str = ""
    limit: str = ""
    at_least: bool = False
    unit: str = " times"

    def judge(self, value: float) -> str:
        """``stretch``, ``target`` or ``missed``."""
        for name, bound in (("stretch", self.stretch), ("target", self.target)):
            if value >= bound if self.at_least else value <= bound:
                return name
        return "missed"


TARGETS = {
    "sse/raw": Target(
        "SSE, server CPU per delivery / raw uvloop", 1.25, 1.1, "4.0 to 4.4", "C 0.8"
    ),
    "sse/nchan": Target("SSE, the same / nginx with nchan", 1.0, 0.85, "2.5 to 3.5", "0.63"),
    "portable/raw": Target("SSE, portable tier, the same / raw uvloop", 1.7, 1.5, "4.2"),
    "burst": Target(
        "16-deep burst, CPU per delivery / one message's own", 0.3, 0.15, "0.95", "0.11"
    ),
    "sse-memory": Target(
        "memory per idle SSE subscription", 6.0, 4.0, "45 KB", "1.4 KB", unit=" KB"
    ),
    "websocket/nchan": Target("WebSocket, CPU per delivery / nchan", 1.2, 1.0, "3.3", "0.8"),
    "websocket-memory": Target("memory per idle WebSocket", 20.0, 10.0, "26 to 32 KB", unit=" KB"),
    "poll/portable": Target("long-poll, CPU per answered poll / portable SSE delivery", 6.0, 4.0),
    "writers-8": Target(
        "commits/s with tracking and a busy tailer / without, 8 writers",
        0.75,
        0.9,
        "0.3",
        "1",
        at_least=True,
    ),
    "writers-32": Target("the same, 32 writers", 0.6, 0.8, "0.16", "1", at_least=True),
    "latency/listen": Target(
        "commit to SSE client, p50 at 500 commits/s / LISTEN callback", 4.0, 2.0, "", "1"
    ),
    "appends/insert": Target(
        "durable appends/s over HTTP / one INSERT per chunk", 15.0, 30.0, "1", "46", at_least=True
    ),
    "append-latency/xread": Target(
        "append to reader p99, 10,000 chunks/s, 200 streams / XREAD", 1.5, 1.0
    ),
    "unwatched": Target("CPU per change of an unwatched run", 5.0, 2.0, "", "0", unit=" µs"),
    "storm": Target("Postgres queries for 5,000 reconnects at once", 500.0, 50.0, "5,000", unit=""),
}
