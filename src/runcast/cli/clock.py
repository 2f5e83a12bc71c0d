"""The time of day, for commands that make or check tokens."""

from datetime import UTC, datetime


def now() -> float:
    """Unix time in seconds."""
    return datetime.now(UTC).timestamp()
