"""Exceptions as the errors of runs."""

import re
import traceback

_MAX_MESSAGE_LENGTH = 10_000
_MAX_TRACE_LENGTH = 50_000
# What the database cannot hold as text.
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")


def failure_fields(error: BaseException) -> dict[str, str]:
    """
    What an exception becomes in a run: name, message and stack trace, bounded and storable.

    Whoever may read the run reads them, unless its token skips the column ``error``.
    """
    name = type(error).__name__
    trace = "".join(traceback.format_exception(error))
    return {
        "name": name,
        "message": _storable(str(error) or name)[:_MAX_MESSAGE_LENGTH],
        # The end is what tells most.
        "stackTrace": _storable(trace)[-_MAX_TRACE_LENGTH:],
    }


def _storable(text: str) -> str:
    return _UNSTORABLE.sub("\ufffd", text)
