"""
Routing on the path as it was sent, so that ``%2F`` inside an id does not split it.

ASGI servers decode the path before routing. Here the router sees the raw path, and the parameters
that it finds are decoded one by one.
"""

from urllib.parse import unquote

from starlette.types import Scope

from runcast.errors import InvalidParameter

MAX_PART_LENGTH = 512


def with_raw_path(scope: Scope) -> Scope:
    """Give the scope with the path as it was sent."""
    raw_path: bytes | None = scope.get("raw_path")
    return scope if raw_path is None else {**scope, "path": raw_path.decode("latin-1")}


def decode_part(part: str) -> str:
    """
    Decode what stood between two slashes.

    Raises:
        InvalidParameter: Not UTF-8, too long, or with a NUL, which no database takes.
    """
    try:
        text = unquote(part, errors="strict")
    except UnicodeDecodeError:
        raise InvalidParameter("The address is not percent-encoded UTF-8.") from None
    if len(text) > MAX_PART_LENGTH or "\0" in text:
        raise InvalidParameter(
            f"A part of an address has at most {MAX_PART_LENGTH} characters and no NUL."
        )
    return text
