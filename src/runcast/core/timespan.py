"""Lengths of time as people write them: "15 minutes", "2h ago", and the shorter "1h30m"."""

import math
import re
from datetime import datetime

from runcast.errors import InvalidParameter

# The last second of the year 9999: what a datetime can still hold.
MAX_UNIX_TIME = 253_402_300_799

_MAX_LENGTH = 64
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800, "y": 31_557_600}

# ASCII, because under Unicode rules the long s (U+017F) would be another way to write "s".
_TIMESPAN = re.compile(
    r"(?P<sign>[+-])? ?(?P<number>[0-9]+(?:\.[0-9]+)?) ?"
    r"(?P<unit>s|secs?|seconds?|m|mins?|minutes?|h|hrs?|hours?|d|days?|w|weeks?|y|yrs?|years?)"
    r"(?: (?P<suffix>ago|from now))?",
    re.IGNORECASE | re.ASCII,
)
_DURATION = re.compile(r"(?:[0-9]+(?:w|d|hr|h|m|s))+", re.ASCII)
_DURATION_PART = re.compile(r"([0-9]+)(w|d|hr|h|m|s)", re.ASCII)


def parse_timespan(text: str) -> float:
    """
    Read a time span such as ``15 minutes``, ``1h``, ``2.5 hours from now`` or ``1 day ago``.

    Returns:
        Whole seconds, halves rounded up; negative with a leading ``-`` or a trailing ``ago``.

    Raises:
        InvalidParameter: Not of that form, signed and suffixed at once, or beyond all dates.

    Source: reference/frontend__overview.md "Expiration".
    """
    match = _TIMESPAN.fullmatch(text) if len(text) <= _MAX_LENGTH else None
    if match is None:
        raise InvalidParameter(
            "A time span is a number and a unit of seconds, minutes, hours, days, weeks or years, "
            'such as "15 minutes", "1h" or "2 days from now".'
        )
    if match["sign"] and match["suffix"]:
        raise InvalidParameter('Write a time span either with a sign or with "ago" or "from now".')
    unit = _SECONDS[match["unit"][0].lower()]
    seconds = _bounded(math.floor(float(match["number"]) * unit + 0.5))
    backwards = match["sign"] == "-" or (match["suffix"] or "").lower() == "ago"
    return -seconds if backwards else seconds


def parse_duration(text: str) -> float:
    """
    Read a duration such as ``30m``, ``1h30m`` or ``2w3d``: parts in any order, summed to seconds.

    Raises:
        InvalidParameter: Not of that form, or beyond all dates.

    Source: wire/trigger-wire.md 4.2 "Durations".
    """
    if len(text) > _MAX_LENGTH or not _DURATION.fullmatch(text):
        raise InvalidParameter(
            'A duration is one or more of a whole number and w, d, h, hr, m or s, such as "1h30m".'
        )
    parts: list[tuple[str, str]] = _DURATION_PART.findall(text)
    return _bounded(sum(int(number) * _SECONDS[unit[0]] for number, unit in parts))


def resolve_expiration(value: str | int | float | datetime, *, now: float) -> float:
    """
    Turn an expiration as callers give it into Unix time in seconds.

    Args:
        value: A time span counted from ``now``, or Unix seconds, or a datetime with a time zone.
        now: Unix time in seconds.

    Returns:
        Unix time between 1970 and the end of 9999; it may be before ``now``.

    Raises:
        InvalidParameter: Nothing of the above, or outside of those years.
    """
    if isinstance(value, str):
        moment = now + parse_timespan(value)
    elif isinstance(value, datetime):
        if value.utcoffset() is None:
            raise InvalidParameter("An expiration datetime needs a time zone, such as UTC.")
        moment = value.timestamp()
    elif isinstance(value, bool):
        raise InvalidParameter("An expiration is a time span, Unix time in seconds or a datetime.")
    else:
        moment = value
    # Compared before any conversion: NaN fails here, and so does 10**400.
    if not 0 <= moment <= MAX_UNIX_TIME:
        raise InvalidParameter(
            "An expiration lies between 1970 and 9999; as a number it is Unix time in seconds, "
            "not milliseconds."
        )
    return float(moment)


def _bounded(seconds: int) -> float:
    if seconds > MAX_UNIX_TIME:
        raise InvalidParameter("A length of time may not reach beyond the year 9999.")
    return float(seconds)
