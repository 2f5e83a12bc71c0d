"""The body of ``PATCH /api/v1/runs/{run}`` as OpenAPI describes it; core reads it."""

from typing import Any

from pydantic import RootModel
from pydantic.config import ConfigDict

from runcast.core.run_patch import MACHINES, PATCH_FIELDS
from runcast.core.status import PUBLIC_STATUSES, RAW_STATUSES

_NULL = {"type": "null"}
_TIME = {"type": "string", "format": "date-time", "description": "ISO 8601 with a zone."}
_NAME = {"type": "string", "minLength": 1, "maxLength": 512, "pattern": r"^[^\x00-\x1f]*$"}
_PACKET_TYPE = {
    "type": "string",
    "minLength": 1,
    "maxLength": 128,
    "pattern": r"^[\x20-\x7e]+$",
    "description": "How to read the value when it is a string, such as text/plain.",
}
_CENTS = {"type": "number", "minimum": 0, "maximum": 1e15}
_TAG = {"type": "string", "maxLength": 128, "pattern": r"^[^\x00-\x1f]*$"}
_TAGS = {
    "anyOf": [_TAG, {"type": "array", "items": _TAG}],
    "description": "All tags of the run, at most 10; blank and repeated ones do not count.",
}
_VERSION = {"anyOf": [_NAME, _NULL], "description": "The version of the worker."}

_PROPERTIES: dict[str, Any] = {
    "status": {
        "enum": sorted(PUBLIC_STATUSES | RAW_STATUSES),
        "description": "Raw or public. A finished run keeps its status.",
    },
    "queuedAt": _TIME,
    "startedAt": _TIME,
    "completedAt": _TIME | {"description": "ISO 8601 with a zone; goes with a final status."},
    "expiredAt": _TIME,
    "delayUntil": {"anyOf": [_TIME, _NULL]},
    "ttl": {"anyOf": [{"type": "string", "pattern": r"^([0-9]{1,9}(w|d|hr|h|m|s))+$"}, _NULL]},
    "payload": {"description": "A JSON value; null clears it."},
    "payloadType": _PACKET_TYPE,
    "output": {"description": "A JSON value; null clears it."},
    "outputType": _PACKET_TYPE,
    "error": {
        "anyOf": [{"type": "string"}, {"type": "object"}, _NULL],
        "description": 'A message, or {"message", "name"?, "stackTrace"?}, or as it is stored.',
    },
    "attemptCount": {"type": "integer", "minimum": 0, "maximum": 2**31 - 1},
    "usageDurationMs": {"type": "number", "minimum": 0, "maximum": 2**53 - 1},
    "costInCents": _CENTS,
    "baseCostInCents": _CENTS,
    "tags": _TAGS,
    "runTags": _TAGS,
    "metadata": {"type": "object", "description": "All metadata of the run."},
    "queue": _NAME,
    "machine": {"enum": [*MACHINES, None]},
    "region": {"anyOf": [_NAME, _NULL]},
    "version": _VERSION,
    "workerVersion": _VERSION,
}
assert _PROPERTIES.keys() == PATCH_FIELDS


class RunPatch(RootModel[dict[str, Any]]):
    """What a worker tells of a run: what is left out stays, and times that follow are filled in."""

    model_config = ConfigDict(
        json_schema_extra={"properties": _PROPERTIES, "additionalProperties": False}
    )
