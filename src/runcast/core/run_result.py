"""How a finished run ended, as clients that wait for it read it: with its output, or its error."""

from typing import Any

import orjson

from runcast.core.run import Run
from runcast.core.run_error import internal_error, stored_error
from runcast.errors import InvalidBody

_UNSAID = internal_error("UNSPECIFIED_ERROR", "The run ended without saying why.")


def result_object(run: Run) -> dict[str, Any]:
    """
    Tell how a finished run ended.

    The output is the text of its packet, to be read by its type. The error is one of the four
    kinds that are stored; what SQL programs stored as something else is brought into one.

    Source: wire/trigger-wire.md 4.5 "Result".
    """
    result: dict[str, Any] = {"ok": False, "id": run.id, "taskIdentifier": run.task}
    if run.status != "COMPLETED_SUCCESSFULLY":
        return result | {"error": orjson.loads(_error(run))}
    result |= {"ok": True, "outputType": run.output_type}
    if run.output is not None:
        result["output"] = run.output
    return result


def _error(run: Run) -> str:
    if run.error is None:
        return _UNSAID
    try:
        return stored_error(orjson.loads(run.error))
    except (InvalidBody, orjson.JSONDecodeError):
        return stored_error({"type": "CUSTOM_ERROR", "raw": run.error})
