"""
Statuses of a run: the raw ones that are stored, the public ones that clients read, how runs move.

    DELAYED ────────────┐               ┌────────────────────────┐
    PENDING ────────────┤               │ EXECUTING              │
                        ├─► DEQUEUED ─► │ WAITING_TO_RESUME      │ ─► a final status
    PENDING_VERSION ────┤               │ RETRYING_AFTER_FAILURE │
    WAITING_FOR_DEPLOY ─┘               │ PAUSED                 │
                                        └────────────────────────┘

The rules of moving, which `may_move` enforces:

- A finished run never moves.
- Any unfinished run may take any final status, and may skip steps forward: a worker may tell late.
- A run that has started may be queued and dequeued again (a retry, a resume), but is never again
  DELAYED, PENDING_VERSION or WAITING_FOR_DEPLOY.
- A dequeued run may be put back, but not to DELAYED.

Source: wire/trigger-wire.md 2.7.
"""

from collections.abc import Iterable
from enum import Enum

from runcast.errors import InvalidBody, InvalidParameter


class ApiVersion(Enum):
    """Which generation of clients an answer is for."""

    UNVERSIONED = "unversioned"
    V2025_07_16 = "2025-07-16"

    @classmethod
    def from_header(cls, value: str | None) -> "ApiVersion":
        """Read ``x-trigger-api-version``: clients that send any version know the newer statuses."""
        return cls.V2025_07_16 if value else cls.UNVERSIONED


NOT_STARTED_STATUSES = frozenset(
    {"DELAYED", "PENDING", "PENDING_VERSION", "WAITING_FOR_DEPLOY", "DEQUEUED"}
)
STARTED_STATUSES = frozenset({"EXECUTING", "RETRYING_AFTER_FAILURE", "WAITING_TO_RESUME", "PAUSED"})
FINAL_STATUSES = frozenset(
    {
        "CANCELED",
        "INTERRUPTED",
        "COMPLETED_SUCCESSFULLY",
        "COMPLETED_WITH_ERRORS",
        "SYSTEM_FAILURE",
        "CRASHED",
        "EXPIRED",
        "TIMED_OUT",
    }
)
RAW_STATUSES = NOT_STARTED_STATUSES | STARTED_STATUSES | FINAL_STATUSES

_PUBLIC = {
    "DELAYED": "DELAYED",
    "PENDING": "QUEUED",
    "PENDING_VERSION": "PENDING_VERSION",
    "WAITING_FOR_DEPLOY": "PENDING_VERSION",
    "DEQUEUED": "DEQUEUED",
    "EXECUTING": "EXECUTING",
    "RETRYING_AFTER_FAILURE": "EXECUTING",
    "WAITING_TO_RESUME": "WAITING",
    "PAUSED": "WAITING",
    "CANCELED": "CANCELED",
    "INTERRUPTED": "FAILED",
    "COMPLETED_SUCCESSFULLY": "COMPLETED",
    "COMPLETED_WITH_ERRORS": "FAILED",
    "SYSTEM_FAILURE": "SYSTEM_FAILURE",
    "CRASHED": "CRASHED",
    "EXPIRED": "EXPIRED",
    "TIMED_OUT": "TIMED_OUT",
}
# 3.3 clients throw at names that are newer than themselves.
_PUBLIC_UNVERSIONED = _PUBLIC | {
    "PENDING_VERSION": "WAITING_FOR_DEPLOY",
    "WAITING_FOR_DEPLOY": "WAITING_FOR_DEPLOY",
    "DEQUEUED": "EXECUTING",
    "RETRYING_AFTER_FAILURE": "REATTEMPTING",
    "WAITING_TO_RESUME": "FROZEN",
    "PAUSED": "FROZEN",
    "INTERRUPTED": "INTERRUPTED",
}
_PUBLIC_BY_VERSION = {
    ApiVersion.V2025_07_16: _PUBLIC,
    ApiVersion.UNVERSIONED: _PUBLIC_UNVERSIONED,
}

PUBLIC_STATUSES = frozenset(_PUBLIC.values()) | frozenset(_PUBLIC_UNVERSIONED.values())
"""Every name that clients of either generation use."""

_RAW_OF_WORD = {
    "QUEUED": ("PENDING",),
    "EXECUTING": ("EXECUTING",),
    "WAITING": ("WAITING_TO_RESUME",),
    "FROZEN": ("PAUSED", "WAITING_TO_RESUME"),
    "REATTEMPTING": ("RETRYING_AFTER_FAILURE",),
    "COMPLETED": ("COMPLETED_SUCCESSFULLY",),
    "FAILED": ("COMPLETED_WITH_ERRORS",),
}
_PLAINEST_RAW = {
    word: raws[0] for word, raws in _RAW_OF_WORD.items() if word not in RAW_STATUSES
} | {raw: raw for raw in RAW_STATUSES}

_QUEUED = frozenset({"QUEUED", "WAITING_FOR_DEPLOY", "DELAYED", "PENDING_VERSION"})
_EXECUTING = frozenset({"EXECUTING", "REATTEMPTING", "FROZEN", "DEQUEUED"})


def public_status(raw: str, api: ApiVersion) -> str:
    """Translate a raw status into the name that clients of this generation know."""
    return _PUBLIC_BY_VERSION[api][raw]


def raw_statuses(words: Iterable[str]) -> tuple[str, ...]:
    """
    Translate the words of a status filter into the raw statuses that they ask for, sorted.

    Raises:
        InvalidParameter: A word is not a public status.

    Source: wire/trigger-wire.md 4.5 "List".
    """
    found: set[str] = set()
    for word in words:
        if word not in PUBLIC_STATUSES:
            allowed = ", ".join(sorted(PUBLIC_STATUSES))
            raise InvalidParameter(f"{word[:60]!a} is not a status; use {allowed}.")
        found.update(_RAW_OF_WORD.get(word, (word,)))
    return tuple(sorted(found))


def raw_from_any(text: str) -> str:
    """
    Read a status that may be raw or public; a public name of several raw ones means the plainest.

    Raises:
        InvalidBody: It is neither.
    """
    raw = _PLAINEST_RAW.get(text)
    if raw is None:
        allowed = ", ".join(sorted(_PLAINEST_RAW))
        raise InvalidBody(f"{text[:60]!a} is not a status; use {allowed}.")
    return raw


def may_move(old: str, new: str) -> bool:
    """Tell whether a run may change from one raw status to another (the rules are on top)."""
    if old in FINAL_STATUSES:
        return False
    if old in STARTED_STATUSES:
        return new not in {"DELAYED", "PENDING_VERSION", "WAITING_FOR_DEPLOY"}
    return old != "DEQUEUED" or new != "DELAYED"


def status_flags(raw: str, api: ApiVersion) -> dict[str, bool]:
    """
    The booleans that REST answers carry beside ``status``.

    Whatever is final is completed, and failed unless it is COMPLETED: also CANCELED, and also
    EXPIRED and TIMED_OUT, on which clients that poll would otherwise spin.
    """
    public = public_status(raw, api)
    completed = raw in FINAL_STATUSES
    return {
        "isQueued": public in _QUEUED,
        "isExecuting": public in _EXECUTING,
        "isWaiting": public == "WAITING",
        "isCompleted": completed,
        "isSuccess": public == "COMPLETED",
        "isFailed": completed and public != "COMPLETED",
        "isCancelled": public == "CANCELED",
    }
