"""The time of day, for tokens and for gateways that say until when to wait."""

from datetime import UTC, datetime


def now() -> float:
    """Unix time in seconds."""
    return datetime.now(UTC).timestamp()
