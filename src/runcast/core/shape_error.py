"""
The error of a run as official clients accept it: exactly one of four kinds, or they give up.

Source: wire/trigger-wire.md 4.6, and the schemas of the packages 3.3.17 and 4.8.3.
"""

from collections.abc import Mapping
from typing import Any

import orjson

from runcast.core.run_error import INTERNAL_ERROR_CODES, public_error

# What clients of 3.3 do not know; a run with an unknown code is lost to them.
_NEWER_CODES = frozenset({"BATCH_ITEM_COULD_NOT_TRIGGER", "PAYLOAD_TOO_LARGE", "UNSPECIFIED_ERROR"})


def shape_error(stored: str, knows_newer_codes: bool) -> str:
    """
    Bring a stored error into one of the four kinds, as JSON text; never fails.

    An internal error whose code the client may not know comes as one with a name and a message.
    """
    try:
        value = orjson.loads(stored)
    except orjson.JSONDecodeError:
        value = None
    fields = _kind(value, stored, knows_newer_codes) if isinstance(value, dict) else None
    if fields is None:
        raw = value if isinstance(value, str) else stored
        fields = {"type": "STRING_ERROR", "raw": raw}
    return orjson.dumps(fields).decode()


def _kind(value: Mapping[str, Any], stored: str, knows_newer_codes: bool) -> dict[str, Any] | None:
    """The fields of the kind that this is, or None if it is nothing that can be read."""
    match value:
        case {"type": "STRING_ERROR" | "CUSTOM_ERROR" as kind, "raw": str(raw)}:
            return {"type": kind, "raw": raw}
        case {"type": "INTERNAL_ERROR", "code": str(code)}:
            known = code in INTERNAL_ERROR_CODES
            if known and (knows_newer_codes or code not in _NEWER_CODES):
                return {"type": "INTERNAL_ERROR", "code": code} | _texts(
                    value, "message", "stackTrace"
                )
            message = _texts(value, "message").get("message", f"Internal error ({code})")
            return _built_in(value, "InternalError", message)
        case {"message": str(message)}:
            return _built_in(value, "Error", message)
        case {"raw": _} | {"type": "BUILT_IN_ERROR"} | {"name": str()}:
            return _built_in(value, "Error", public_error(stored)["message"])
    return None


def _built_in(value: Mapping[str, Any], name: str, message: str) -> dict[str, Any]:
    fields: dict[str, Any] = {"type": "BUILT_IN_ERROR", "name": name, "message": message}
    fields["stackTrace"] = ""
    fields |= _texts(value, "name", "stackTrace")
    causes = value.get("causes")
    if isinstance(causes, list):
        read = [
            _texts(cause, "name", "message", "stackTrace")
            for cause in causes
            if isinstance(cause, dict) and isinstance(cause.get("message"), str)
        ]
        if read:
            fields["causes"] = read
    return fields


def _texts(value: Mapping[str, Any], *names: str) -> dict[str, str]:
    return {name: value[name] for name in names if isinstance(value.get(name), str)}
