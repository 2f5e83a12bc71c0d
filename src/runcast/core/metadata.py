"""
Metadata of a run: a JSON object, and the operations that change it.

Keys are literal, dots included; a key that starts with ``$.`` is a path whose components are
separated by dots (``\\.`` is a dot within one). A path makes the objects that are missing; at an
array a component is the index of an element, or of the place after the last one. Where a path
meets anything else (a number, a text, an index beyond), the operation has no effect.

Source: wire/trigger-wire.md 4.7.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import orjson

from runcast.errors import InvalidBody, PayloadTooLarge, Unprocessable

MAX_DEPTH = 100
MAX_OPERATIONS = 10_000
# Each removal compares with every element of an array.
MAX_REMOVALS = 1_000
MAX_KEY_LENGTH = 1024

Kind = Literal["set", "delete", "append", "remove", "increment", "replace"]

_KINDS: dict[str, Kind] = {kind: kind for kind in get_args(Kind)} | {
    "update": "replace",
    "decrement": "increment",
}
# In JavaScript readers these names reach what all objects share.
_PATH_NAMES_REFUSED = frozenset({"__proto__", "constructor", "prototype"})
_PATH_SEPARATOR = re.compile(r"(?<!\\)\.")
_INDEX = re.compile(r"0|[1-9][0-9]{0,8}", re.ASCII)
_INT64 = 2**63


@dataclass(frozen=True, slots=True)
class Operation:
    """One change of metadata. ``path`` has one component for a literal key, none for replace."""

    kind: Kind
    path: tuple[str, ...] = ()
    value: Any = None


def parse_operations(value: object) -> tuple[Operation, ...]:
    """
    Read a list of operations; ``update`` is replace, ``decrement`` increments by the negative.

    Raises:
        InvalidBody: Not a list of operations, or one that cannot be stored; says which.
    """
    if not isinstance(value, list):
        raise InvalidBody('operations is a list such as [{"type": "set", "key": …, "value": …}].')
    if len(value) > MAX_OPERATIONS:
        raise InvalidBody(f"At most {MAX_OPERATIONS} operations go into one request.")
    operations = tuple(_parse(index, item) for index, item in enumerate(value))
    if sum(operation.kind == "remove" for operation in operations) > MAX_REMOVALS:
        raise InvalidBody(f"At most {MAX_REMOVALS} remove operations go into one request.")
    return operations


def apply_operations(
    metadata: Mapping[str, Any], operations: Sequence[Operation]
) -> dict[str, Any]:
    """
    Apply operations in order and return the new metadata; the arguments stay as they are.

    Removing where there is no array and deleting what is not there have no effect; what is no
    number counts as 0 for increment; append makes an array, of the value that was there if any.

    Raises:
        Unprocessable: A number grew beyond what JSON can hold, or the metadata nests so deep
            that it can only be replaced as a whole.
    """
    current: dict[str, Any] = _copy(dict(metadata))
    for operation in operations:
        if operation.kind == "replace":
            current = _copy(operation.value)
        else:
            _apply(current, operation)
    return current


def check_size(text: str, limit_bytes: int) -> None:
    """
    Refuse metadata, as JSON text, that is larger than the limit.

    Raises:
        PayloadTooLarge: It is.
    """
    size = len(text.encode(errors="surrogatepass"))
    if size > limit_bytes:
        raise PayloadTooLarge(
            f"The metadata would have {size} bytes, at most {limit_bytes} are allowed; "
            "keep large values elsewhere."
        )


def check_storable(value: object, what: str = "metadata") -> None:
    """
    Refuse what JSON columns of the database cannot hold.

    Raises:
        InvalidBody: NUL characters or lone surrogates in any text or key, numbers that are not
            finite or wider than 64 bits, nesting deeper than ``MAX_DEPTH``, or no JSON value.
    """
    _check_storable(value, what, MAX_DEPTH)


def _check_storable(value: object, what: str, depth: int) -> None:
    if depth < 0:
        raise InvalidBody(f"{what} nests deeper than {MAX_DEPTH} levels.")
    match value:
        case None | bool():
            pass
        case str():
            _check_text(value, what)
        case int():
            if not -_INT64 <= value < _INT64 * 2:
                raise InvalidBody(f"{what} holds a whole number wider than 64 bits.")
        case float():
            if not math.isfinite(value):
                raise InvalidBody(f"{what} holds a number that is not finite.")
        case list():
            for item in value:
                _check_storable(item, what, depth - 1)
        case dict():
            for key, item in value.items():
                if not isinstance(key, str):
                    raise InvalidBody(f"{what} holds a key that is no text.")
                _check_text(key, what)
                _check_storable(item, what, depth - 1)
        case _:
            raise InvalidBody(f"{what} holds something that JSON does not have.")


def _check_text(text: str, what: str) -> None:
    if "\0" in text:
        raise InvalidBody(f"{what} holds a NUL character, which cannot be stored.")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidBody(f"{what} holds half of a surrogate pair, which is no text.") from error


def _parse(index: int, item: object) -> Operation:
    where = f"operations[{index}]"
    if not isinstance(item, dict):
        raise InvalidBody(f"{where} is no object with a type.")
    word = item.get("type")
    kind = _KINDS.get(word) if isinstance(word, str) else None
    if kind is None:
        raise InvalidBody(f"{where}.type is one of {', '.join(sorted(_KINDS))}.")
    if kind == "delete":
        return Operation(kind, (_literal(where, item.get("key")),))
    if "value" not in item:
        raise InvalidBody(f"{where} has no value.")
    value = item["value"]
    check_storable(value, f"{where}.value")
    if kind == "replace":
        if not isinstance(value, dict):
            raise InvalidBody(f"{where}.value is no object; metadata as a whole is one.")
        return Operation(kind, (), value)
    path = _path(where, item.get("key"))
    if kind == "increment":
        if not _is_number(value):
            raise InvalidBody(f"{where}.value is no number.")
        return Operation(kind, path, -value if word == "decrement" else value)
    return Operation(kind, path, value)


def _literal(where: str, key: object) -> str:
    if not isinstance(key, str) or not len(key) <= MAX_KEY_LENGTH:
        raise InvalidBody(f"{where}.key is a text of at most {MAX_KEY_LENGTH} characters.")
    _check_text(key, f"{where}.key")
    if key == "__proto__":
        raise InvalidBody(f'{where}.key may not be "__proto__".')
    return key


def _path(where: str, key: object) -> tuple[str, ...]:
    literal = _literal(where, key)
    if not literal.startswith("$."):
        return (literal,)
    components = tuple(
        component.replace("\\.", ".") for component in _PATH_SEPARATOR.split(literal[2:])
    )
    if not all(components):
        raise InvalidBody(f'{where}.key is a path with an empty component; write "$.a.b".')
    if len(components) > MAX_DEPTH:
        raise InvalidBody(f"{where}.key is a path of more than {MAX_DEPTH} components.")
    if refused := _PATH_NAMES_REFUSED.intersection(components):
        raise InvalidBody(f'{where}.key may not go through "{min(refused)}".')
    return components


def _apply(metadata: dict[str, Any], operation: Operation) -> None:
    match operation.kind:
        case "set":
            _change(metadata, operation.path, lambda _: _copy(operation.value))
        case "append":
            _change(metadata, operation.path, lambda old: _appended(old, operation.value))
        case "increment":
            _change(metadata, operation.path, lambda old: _sum(old, operation.value))
        case "remove":
            _remove(metadata, operation.path, operation.value)
        case _:
            metadata.pop(operation.path[0], None)


# Stands for a place where nothing is; null is something.
_ABSENT = object()


def _change(metadata: dict[str, Any], path: Sequence[str], changed: Callable[[Any], Any]) -> None:
    """Put ``changed(what is there)`` where the path leads, if it can lead anywhere."""
    holder: Any = metadata
    for component in path[:-1]:
        inner = _read(holder, component)
        if inner is _ABSENT:
            inner = {}
            if not _write(holder, component, inner):
                return
        holder = inner
    # Asked first, so that nothing is computed for a place that does not exist.
    if isinstance(holder, dict) or _index(holder, path[-1]) is not None:
        _write(holder, path[-1], changed(_read(holder, path[-1])))


def _remove(metadata: dict[str, Any], path: Sequence[str], value: Any) -> None:
    found: Any = metadata
    for component in path:
        found = _read(found, component)
    if isinstance(found, list):
        found[:] = [element for element in found if not _equal(element, value)]


def _read(holder: Any, component: str) -> Any:
    if isinstance(holder, dict):
        return holder.get(component, _ABSENT)
    index = _index(holder, component)
    return _ABSENT if index is None or index == len(holder) else holder[index]


def _write(holder: Any, component: str, value: Any) -> bool:
    if isinstance(holder, dict):
        holder[component] = value
        return True
    index = _index(holder, component)
    if index is None:
        return False
    holder[index : index + 1] = [value]
    return True


def _index(holder: Any, component: str) -> int | None:
    """The index that a component means in an array, the place after its last element included."""
    if not isinstance(holder, list) or not _INDEX.fullmatch(component):
        return None
    index = int(component)
    return index if index <= len(holder) else None


def _appended(old: Any, value: Any) -> list[Any]:
    if old is _ABSENT:
        return [_copy(value)]
    if isinstance(old, list):
        old.append(_copy(value))
        return old
    return [old, _copy(value)]


def _sum(old: Any, value: int | float) -> int | float:
    total = (old if _is_number(old) else 0) + value
    if isinstance(total, int) and not -_INT64 <= total < _INT64 * 2:
        total = float(total)
    if not math.isfinite(total):
        raise Unprocessable("An increment would leave the range of numbers; set the key instead.")
    return total


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _equal(one: Any, other: Any) -> bool:
    """Tell whether two JSON values are the same: 1 is 1.0, but true is not 1."""
    return bool(one == other) and _same_kinds(one, other)


def _same_kinds(one: Any, other: Any) -> bool:
    """Tell whether two values that are equal to Python differ nowhere in true and 1."""
    if isinstance(one, dict):
        return all(_same_kinds(value, other[key]) for key, value in one.items())
    if isinstance(one, list):
        return all(map(_same_kinds, one, other))
    return isinstance(one, bool) == isinstance(other, bool)


def _copy(value: Any) -> Any:
    # Writing and reading is the fastest deep copy, and refuses what could not be written later.
    try:
        return orjson.loads(orjson.dumps(value))
    except orjson.JSONEncodeError as error:
        raise Unprocessable(
            "The metadata nests too deep to be changed; replace it as a whole."
        ) from error
