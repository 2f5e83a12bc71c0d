"""Versions of the official clients, as they say them in the header ``trigger-version``."""

import re

_VERSION = re.compile(r"(\d{1,6})\.(\d{1,6})", re.ASCII)
# From here on clients read batches of a stream's parts.
_READS_BATCHES = (4, 1)


def client_version(trigger_version: str | None) -> tuple[int, int] | None:
    """Read major and minor; None for a client that does not say."""
    found = _VERSION.match(trigger_version or "")
    return (int(found[1]), int(found[2])) if found else None


def reads_batches(trigger_version: str | None) -> bool:
    """Tell whether a client reads streams in batches (v2); one that says nothing does not."""
    version = client_version(trigger_version)
    return version is not None and version >= _READS_BATCHES
