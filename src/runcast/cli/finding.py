"""What a check of `runcast doctor` found."""

from dataclasses import dataclass
from enum import Enum


class Level(Enum):
    """How bad it is: only ``BAD`` makes the doctor fail."""

    FINE = "ok"
    NOTE = "note"
    BAD = "BAD"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line about one thing, and what to do about it where something is to be done."""

    level: Level
    topic: str
    text: str
    remedy: str = ""


def fine(topic: str, text: str) -> Finding:
    """All is well."""
    return Finding(Level.FINE, topic, text)


def note(topic: str, text: str, remedy: str) -> Finding:
    """It works, but somebody should know."""
    return Finding(Level.NOTE, topic, text, remedy)


def bad(topic: str, text: str, remedy: str) -> Finding:
    """A gateway will not work like this."""
    return Finding(Level.BAD, topic, text, remedy)
