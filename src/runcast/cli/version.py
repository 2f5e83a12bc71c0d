"""Which runcast this is."""

import importlib.metadata


def own_version() -> str:
    """The installed version, or words that say that nothing is installed."""
    try:
        return importlib.metadata.version("runcast")
    except importlib.metadata.PackageNotFoundError:
        return "(a checkout, not installed)"
