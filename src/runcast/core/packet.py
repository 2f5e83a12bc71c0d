"""
Packets: a text and the type that says how to read it. Payloads and outputs are packets.

Stored text is never trusted to be what its type says: any SQL program may have written it.

Source: wire/trigger-wire.md 4.3.
"""

import json
from enum import Enum
from typing import Final

import orjson

from runcast.errors import InvalidBody, PayloadTooLarge

JSON: Final = "application/json"
SUPER_JSON: Final = "application/super+json"
TEXT: Final = "text/plain"
STORE: Final = "application/store"

# What the database holds per packet.
MAX_PACKET_BYTES = 16 * 1024 * 1024
_MAX_TYPE_LENGTH = 128


class Missing(Enum):
    """Says "not there", where JSON's null says something else."""

    MISSING = "missing"


MISSING: Final = Missing.MISSING


def packet_from_trigger(
    payload: object = MISSING, payload_type: object = MISSING
) -> tuple[str | None, str]:
    """
    Make the packet that a trigger stores of a JSON value and the type it came with.

    With ``application/json``, which is also the default, the value is written as JSON, a string in
    quotes. Any other type goes with a string, stored as it is. No payload gives no text.

    Raises:
        InvalidBody: The type is no type, or needs a string and got something else.
        PayloadTooLarge: More than a packet holds.
    """
    kind = JSON if payload_type in (MISSING, None) else packet_type("payloadType", payload_type)
    if payload is MISSING or (payload is None and kind != JSON):
        return None, kind
    if kind == JSON:
        return checked_text("payload", json_text("payload", payload)), kind
    if not isinstance(payload, str):
        raise InvalidBody(f"payload is a string when payloadType is {kind!a}.")
    return checked_text("payload", payload), kind


def packet_from_patch(name: str, value: object, value_type: str | None) -> tuple[str | None, str]:
    """
    Make the packet that a worker means by a value, given with a type or without.

    A string with a type is the packet's text. A string without one is JSON text if it can be read
    as such, and plain text otherwise: ``"done"`` is the text done, ``"[1]"`` a list. Whatever else
    is a JSON value. Null means that there is no packet. So that readers never meet JSON that is
    none, a string given as ``application/json`` that cannot be read becomes a JSON string.

    Args:
        name: The field, for messages.
        value: A JSON value or MISSING.
        value_type: A checked packet type, or None where none was given.

    Raises:
        InvalidBody: The type needs a string and got something else, or needs super JSON.
        PayloadTooLarge: More than a packet holds.
    """
    if value is None:
        return None, value_type or JSON
    if not isinstance(value, str):
        if value_type not in (None, JSON):
            raise InvalidBody(f"{name} is a string when {name}Type is {value_type!a}.")
        return checked_text(name, json_text(name, value)), JSON
    text = checked_text(name, value)
    if value_type is None:
        return text, TEXT if _readable(text) is None else JSON
    if value_type == JSON and _readable(text) is None:
        return checked_text(name, json_text(name, text)), JSON
    if value_type == SUPER_JSON and _super_part(text) is None:
        raise InvalidBody(f'{name} is no super JSON, which is text of {{"json": …, "meta": …}}.')
    return text, value_type


def packet_type(name: str, value: object) -> str:
    """
    Check a packet's type; types that nobody knows are text.

    Raises:
        InvalidBody: Not a short printable text.
    """
    if not isinstance(value, str) or not 0 < len(value) <= _MAX_TYPE_LENGTH:
        raise InvalidBody(f'{name} is a content type such as "{JSON}" or "{TEXT}".')
    if not value.isascii() or not value.isprintable():
        raise InvalidBody(f"{name} holds characters that no content type has.")
    return value


def in_object_store(kind: str) -> bool:
    """Tell whether a packet's text is only the path of where its value is kept."""
    return kind == STORE


def decoded(text: str | None, kind: str) -> orjson.Fragment | None:
    """
    Read a packet into JSON that can be put into an answer; never fails.

    The JSON has no line breaks. Text that is not what ``kind`` promises comes as a JSON string.

    Returns:
        None where there is no value here: no text, or one kept in the object store.
    """
    if text is None or in_object_store(kind):
        return None
    if kind == JSON:
        return json_fragment(text)
    part = _super_part(text) if kind == SUPER_JSON else None
    return orjson.Fragment(part if part is not None else _quoted(text))


def json_fragment(text: str) -> orjson.Fragment:
    """Embed stored JSON text as one line, or as a JSON string where it cannot be read."""
    readable = _readable(text)
    return orjson.Fragment(_quoted(text) if readable is None else _on_one_line(readable))


def is_readable_json(text: str) -> bool:
    """Tell whether this is JSON text, also where only JavaScript could read it."""
    return _readable(text) is not None


def json_text(name: str, value: object) -> str:
    """
    Write a JSON value as compact text.

    Raises:
        InvalidBody: It nests too deep, or holds what JSON or Unicode cannot.
    """
    try:
        return orjson.dumps(value).decode()
    except orjson.JSONEncodeError as error:
        raise InvalidBody(f"{name} cannot be written as JSON: {error}.") from error


def checked_text(name: str, text: str) -> str:
    """
    Let through what the database can hold as text.

    Raises:
        InvalidBody: It has NUL characters or lone surrogates.
        PayloadTooLarge: More than a packet holds.
    """
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        raise InvalidBody(f"{name} holds half of a surrogate pair, which is no text.") from error
    if "\0" in text:
        raise InvalidBody(f"{name} holds a NUL character, which cannot be stored.")
    if size > MAX_PACKET_BYTES:
        raise PayloadTooLarge(
            f"{name} has {size} bytes, at most {MAX_PACKET_BYTES} are kept; "
            "store it elsewhere and send a reference."
        )
    return text


def repaired_json(text: str) -> str | None:
    """
    Give JSON text that everybody can read for what only JavaScript could; None if nobody can.

    JavaScript writes half of a surrogate pair (a string cut inside an emoji) as an escape that it
    can read, and nobody else: it is replaced, so that the rest survives.
    """
    if "\\u" not in text:
        return None
    try:
        loose = json.dumps(json.loads(text), ensure_ascii=False, allow_nan=False)
        repaired = loose.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        orjson.loads(repaired)
    except (ValueError, RecursionError):
        return None
    return repaired


def _super_part(text: str) -> bytes | None:
    readable = _readable(text)
    if readable is None:
        return None
    value = orjson.loads(readable)
    if not isinstance(value, dict) or "json" not in value:
        return None
    try:
        return orjson.dumps(value["json"])
    except orjson.JSONEncodeError:
        return None  # nests deeper than can be written


def _readable(text: str) -> str | None:
    """The text if every JSON reader can read it, repaired if JavaScript could; or None."""
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return repaired_json(text)
    return text


def _on_one_line(readable: str) -> str:
    # In valid JSON line breaks stand only between values: inside strings they are escaped.
    return readable.replace("\n", " ").replace("\r", " ")


def _quoted(text: str) -> bytes:
    return orjson.dumps(text.encode(errors="replace").decode())
