"""Entity tags over versions of runs: telling that nothing changed without writing it out."""

import hashlib
from collections.abc import Iterable

from runcast.core.run import Run
from runcast.web.operation import Call


def runs_etag(call: Call, runs: Iterable[Run], *more: object) -> str:
    """
    Make a weak tag that changes whenever the answer to this caller would.

    ``more`` is what else the answer depends on. Versions of runs never come back, not even after
    a deletion.
    """
    facts = [
        call.api.value,
        sorted(call.withheld),
        [(run.id, run.version) for run in runs],
        more,
    ]
    return f'W/"{hashlib.sha256(repr(facts).encode()).hexdigest()[:32]}"'


def is_known(call: Call, etag: str) -> bool:
    """Tell whether the caller said that it has what this tag names."""
    known = call.request.headers.get("if-none-match", "")
    opaque = etag.removeprefix("W/")
    return known.strip() == "*" or opaque in (
        each.strip().removeprefix("W/") for each in known.split(",")
    )
