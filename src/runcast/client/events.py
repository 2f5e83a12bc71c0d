"""What feeds of runs and of streams tell, beside the runs and parts themselves."""

from dataclasses import dataclass

from runcast.client.run import Run


@dataclass(frozen=True, slots=True)
class RunChanged:
    """A run as it is now."""

    run: Run


@dataclass(frozen=True, slots=True)
class RunGone:
    """
    A run left the feed.

    ``reason`` is ``deleted``, or ``unmatched``: it lost a tag that the feed or the token needs. It
    may come back.
    """

    run_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class UpToDate:
    """Everything so far was told; more will come."""


@dataclass(frozen=True, slots=True)
class Reset:
    """
    The feed could not be continued from where it was.

    In feeds of runs: forget what you have, all runs follow. In streams: parts are missing
    (``too_old``), or come again from the start (``ahead``).
    """

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class End:
    """Nothing more will come: the run is ``finished`` or ``deleted``, or the stream ``closed``."""

    reason: str


RunEvent = RunChanged | RunGone | UpToDate | Reset | End
