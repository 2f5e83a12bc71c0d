"""
Routing on the path as it was sent, so that ``%2F`` inside an id does not split it.

ASGI servers decode the path before routing. Here the router sees the raw path, and each parameter
written ``{name:part}`` is decoded by itself.
"""

from urllib.parse import unquote

from starlette.convertors import Convertor, register_url_convertor
from starlette.types import Scope

from runcast.errors import InvalidParameter

MAX_PART_LENGTH = 512


class PartConvertor(Convertor[str]):
    """One part of a path between slashes."""

    regex = "[^/]+"

    def convert(self, value: str) -> str:
        """
        Decode the part.

        Raises:
            InvalidParameter: Not UTF-8, too long, or with a NUL, which no database takes.
        """
        try:
            part = unquote(value, errors="strict")
        except UnicodeDecodeError:
            raise InvalidParameter("The address is not percent-encoded UTF-8.") from None
        if len(part) > MAX_PART_LENGTH or "\0" in part:
            raise InvalidParameter(
                f"A part of an address has at most {MAX_PART_LENGTH} characters and no NUL."
            )
        return part

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("part", PartConvertor())


def with_raw_path(scope: Scope) -> Scope:
    """Give the scope with the path as it was sent."""
    raw_path: bytes | None = scope.get("raw_path")
    if raw_path is None:
        return scope
    path = raw_path.decode("latin-1")
    return {**scope, "path": path}
