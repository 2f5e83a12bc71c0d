"""Versions of the official clients, as they say them in the header ``trigger-version``."""

import re

_VERSION = re.compile(r"(\d{1,6})\.(\d{1,6})", re.ASCII)
# From here on clients read batches of a stream's parts.
_READS_BATCHES = (4, 1)


def reads_batches(trigger_version: str | None) -> bool:
    """Tell whether a client reads streams in batches (v2); one that says nothing does not."""
    found = _VERSION.match(trigger_version or "")
    return found is not None and (int(found[1]), int(found[2])) >= _READS_BATCHES
