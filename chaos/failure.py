"""Errors of the suite itself."""


class ChaosError(Exception):
    """The suite cannot run as it was asked to; the message says why, and what helps."""
