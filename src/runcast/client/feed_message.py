"""What a feed is told, whichever transport carried it."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class FeedMessage:
    """
    One message of a feed: a run, a part of a stream, or one of those that both have in common.

    ``name`` and ``data`` are the event and its data in docs/protocol.md; a part is named ``part``.
    ``position`` is where to resume from once this was dealt with: None where it carries none,
    empty where what was there before is to be forgotten. A message `POSITION` carries it alone.
    """

    name: str
    data: Any
    position: str | None = None


POSITION = "cursor"
PART = "part"
