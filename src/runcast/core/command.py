"""Every message that a WebSocket client sends; docs/protocol.md "WebSocket" describes them."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson

from runcast.errors import InvalidBody

_SUBSCRIPTION_ID = re.compile(r"[!-~]{1,64}")
_RUNS_FIELDS = {"run", "batch", "tags", "task", "createdAt"}
_MAX_SHOWN = 40


@dataclass(frozen=True, slots=True)
class Authenticate:
    """Show a token: first, or a newer one at any time."""

    token: str


@dataclass(frozen=True, slots=True)
class RunsAsked:
    """Which runs a subscription asks for; see `core.selector.Selector`."""

    run: str | None = None
    batch: str | None = None
    tags: tuple[str, ...] = ()
    task: str | None = None
    created_at: str | None = None


@dataclass(frozen=True, slots=True)
class StreamAsked:
    """Which stream a subscription asks for; ``begin`` is ``start``, ``latest`` or an offset."""

    run: str
    key: str
    begin: str | int


@dataclass(frozen=True, slots=True)
class Subscribe:
    """Begin a subscription under a name of the client's choice."""

    id: str
    asked: RunsAsked | StreamAsked
    cursor: str | None
    skip_columns: str
    stay: bool


@dataclass(frozen=True, slots=True)
class Unsubscribe:
    """End a subscription."""

    id: str


@dataclass(frozen=True, slots=True)
class Ping:
    """Ask for a sign of life."""


Command = Authenticate | Subscribe | Unsubscribe | Ping


class InvalidCommand(InvalidBody):
    """A message that cannot be followed; ``subscription_id`` if it named one."""

    code = "invalid_command"

    def __init__(self, message: str, subscription_id: str | None = None) -> None:
        super().__init__(message)
        self.subscription_id = subscription_id


def parse_command(text: str | bytes) -> Command:
    """
    Read one message.

    Raises:
        InvalidCommand: Not JSON, not an object, or not one of the messages described.
    """
    try:
        message = orjson.loads(text)
    except orjson.JSONDecodeError:
        raise InvalidCommand("A message is one JSON object.") from None
    if not isinstance(message, dict):
        raise InvalidCommand("A message is one JSON object.")
    kind = message.pop("type", None)
    parser = _PARSERS.get(kind) if isinstance(kind, str) else None
    if parser is None:
        known = ", ".join(_PARSERS)
        raise InvalidCommand(f'The "type" of a message is one of: {known}.')
    command = parser(message)
    if message:
        name = next(iter(message))[:_MAX_SHOWN]
        raise InvalidCommand(f'A message of type "{kind}" has no field "{name}".', _id_of(command))
    return command


def _authenticate(message: dict[str, Any]) -> Authenticate:
    return Authenticate(_text(message, "token"))


def _subscribe(message: dict[str, Any]) -> Subscribe:
    name = _subscription_id(message)
    try:
        asked = _stream_asked(message) if "stream" in message else _runs_asked(message)
        stay = message.pop("stay", False)
        if not isinstance(stay, bool):
            raise InvalidCommand('"stay" is true or false.')
        cursor = _text(message, "cursor", optional=True)
        skip = message.pop("skipColumns", [])
        if not isinstance(skip, list) or not all(isinstance(column, str) for column in skip):
            raise InvalidCommand('"skipColumns" is a list of texts.')
        return Subscribe(name, asked, cursor, ",".join(skip), stay)
    except InvalidCommand as error:
        raise InvalidCommand(error.message, name) from None


def _runs_asked(message: dict[str, Any]) -> RunsAsked:
    runs = message.pop("runs", None)
    if not isinstance(runs, dict) or runs.keys() - _RUNS_FIELDS:
        raise InvalidCommand(
            '"runs" says which runs: {"run": id}, {"batch": id}, any of '
            '{"tags": […], "task": …, "createdAt": …}, or {} for all.'
        )
    tags = runs.get("tags", [])
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        raise InvalidCommand('"tags" is a list of texts.')
    if runs.keys() & {"run", "batch"} and len(runs) > 1:
        raise InvalidCommand('"run" and "batch" stand alone.')
    # A null is no text here: left by a template, it must not open every run.
    return RunsAsked(
        run=_text(runs, "run") if "run" in runs else None,
        batch=_text(runs, "batch") if "batch" in runs else None,
        tags=tuple(tags),
        task=_text(runs, "task") if "task" in runs else None,
        created_at=_text(runs, "createdAt") if "createdAt" in runs else None,
    )


def _stream_asked(message: dict[str, Any]) -> StreamAsked:
    stream = message.pop("stream")
    if not isinstance(stream, dict) or stream.keys() != {"run", "key"}:
        raise InvalidCommand('"stream" says which one: {"run": id, "key": key}.')
    begin = message.pop("from", "start")
    valid = begin in ("start", "latest") or (type(begin) is int and 0 <= begin < 1 << 62)
    if not valid:
        raise InvalidCommand('"from" is "start", "latest" or an offset.')
    return StreamAsked(_text(stream, "run"), _text(stream, "key"), begin)


def _unsubscribe(message: dict[str, Any]) -> Unsubscribe:
    return Unsubscribe(_subscription_id(message))


def _ping(message: dict[str, Any]) -> Ping:
    return Ping()


_PARSERS: dict[str, Callable[[dict[str, Any]], Command]] = {
    "authenticate": _authenticate,
    "subscribe": _subscribe,
    "unsubscribe": _unsubscribe,
    "ping": _ping,
}


def _subscription_id(message: dict[str, Any]) -> str:
    name = message.pop("id", None)
    if not isinstance(name, str) or not _SUBSCRIPTION_ID.fullmatch(name):
        raise InvalidCommand('The "id" of a subscription is 1 to 64 printable ASCII characters.')
    return name


def _text(message: dict[str, Any], name: str, *, optional: bool = False) -> Any:
    value = message.pop(name, None)
    if value is None and optional:
        return None
    if not isinstance(value, str):
        raise InvalidCommand(f'"{name}" is a text.')
    return value


def _id_of(command: Command) -> str | None:
    return command.id if isinstance(command, Subscribe | Unsubscribe) else None
