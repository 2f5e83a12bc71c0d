"""
What clients of shapes bring back with every request, so that no gateway has to remember them.

- The **handle** names the subscription: the database and the incarnation that positions belong to,
  the lower bound on creation times, which shape it is, and some letters of its own. Between the
  parts of an answer that is sent in parts it also says how far these are.
- The **offset** is the position of the last answer that had something to tell.
- The **cursor** is newer: the position up to which there was nothing. It differs each time.

Clients treat all three as opaque and send back what the last answer said.

Source: wire/trigger-wire.md 2.2 to 2.4, and the Electric clients 1.0.14 and 1.0.0-beta.1.
"""

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import orjson

from runcast.core.page import PageKey, Paging
from runcast.core.position import Position, parse_cursor
from runcast.core.selector import Selector
from runcast.errors import InvalidCursor

INITIAL_OFFSET = "-1"
# Of the protocol, though no official client sends it: without what is there, only what comes.
NOW_OFFSET = "now"

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_MAX_HANDLE = 8192
# Beyond this a list of transactions in flight does not fit into an address: give an older position,
# from which some changes are sent again.
_MAX_IN_FLIGHT_DIGITS = 600
_MAX_CURSOR = 600

_HANDLE = re.compile(
    r"(?P<database>\d{1,19})\.(?P<incarnation>\d{1,19})\.(?P<bound>\d{0,15})"
    r"\.(?P<shape>[0-9a-f]{12})\.(?P<letters>[0-9a-f]{8})"
    r"(?:\.(?P<since>[\w-]*)\.(?P<first>[\w-]+)\.(?P<created>\d{1,18})\.(?P<run>[\w-]+))?",
    re.ASCII,
)
_OFFSET = re.compile(r"(\d{1,19})_(\d{1,640})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Echo:
    """
    Where a subscription stands.

    ``shape`` comes from `shape_name`; ``letters`` are eight hexadecimal digits that tell
    subscriptions apart. ``created_after`` is Unix time in seconds, whole milliseconds. ``paging``
    is there between the parts of one answer.
    """

    shape: str
    letters: str
    created_after: float | None
    position: Position
    paging: Paging | None = None

    def at(self, position: Position, paging: Paging | None = None) -> "Echo":
        """Where the same subscription stands later."""
        return Echo(self.shape, self.letters, self.created_after, position, paging)

    @property
    def handle(self) -> str:
        """The value of ``electric-handle``."""
        bound = "" if self.created_after is None else str(round(self.created_after * 1000))
        database, incarnation = self.position.database, self.position.incarnation
        handle = f"{database}.{incarnation}.{bound}.{self.shape}.{self.letters}"
        if self.paging is None:
            return handle
        since, first, after = self.paging.since, self.paging.first, self.paging.after
        run_id = base64.urlsafe_b64encode(after.id.encode()).decode().rstrip("=")
        created = (after.created_at - _EPOCH) // _MICROSECOND
        return f"{handle}.{_text(since) if since else ''}.{_text(first)}.{created}.{run_id}"

    @property
    def offset(self) -> str:
        """The value of ``electric-offset``: digits, an underscore, digits."""
        position = self.position
        if not position.in_flight:
            return f"{position.xmax}_0"
        number = 1
        upper = position.xmax
        for transaction in reversed(position.in_flight):
            # Bytes of a length that is told, after a leading one.
            distance = upper - transaction
            size = (distance.bit_length() + 7) // 8
            number = (number << 8 | size) << 8 * size | distance
            upper = transaction
            if number.bit_length() > 3 * _MAX_IN_FLIGHT_DIGITS:
                return whole_offset(position) + "_0"
        return f"{position.xmax}_{number}"

    @property
    def cursor(self) -> str:
        """The value of ``electric-cursor``, to which the caller adds what makes it differ."""
        return _text(self.position)


def shape_name(selector: Selector, scopes: frozenset[str]) -> str:
    """
    Name what is asked for and who asks: a position in one shape is none in another.

    The lower bound on creation times is left out: the handle brings it back by itself.
    """
    what = (
        selector.environment_id,
        selector.run_id,
        selector.tags,
        selector.task,
        selector.batch_id,
        sorted(scopes),
    )
    return hashlib.sha256(orjson.dumps(what)).hexdigest()[:12]


def whole_offset(position: Position) -> str:
    """A position in one number: that of the oldest transaction that it may not have seen."""
    return str(position.in_flight[0] if position.in_flight else position.xmax)


def parse_echo(handle: str, offset: str, cursor: str) -> Echo | None:
    """Read what a client brought back; None where it cannot be from here, or is damaged."""
    found = _HANDLE.fullmatch(handle) if len(handle) <= _MAX_HANDLE else None
    if found is None:
        return None
    database, incarnation, bound, shape, letters, *parts = found.groups()
    position = _offset_position(offset, int(database), int(incarnation))
    if position is None:
        return None
    newer = _position(cursor.partition(".")[0])
    if newer is not None and _goes_on(newer, position):
        position = newer
    created_after = int(bound) / 1000 if bound else None
    paging = None
    if parts[-1] is not None:
        paging = _paging(*parts)
        if paging is None:
            return None
    return Echo(shape, letters, created_after, position, paging)


def _paging(since: str, first: str, created: str, run_id: str) -> Paging | None:
    since_position, first_position = _position(since), _position(first)
    if first_position is None or (since and since_position is None):
        return None
    try:
        name = base64.b64decode(run_id + "=" * (-len(run_id) % 4), altchars=b"-_", validate=True)
        after = PageKey(_EPOCH + int(created) * _MICROSECOND, name.decode())
    except (ValueError, OverflowError, binascii.Error):
        return None
    return Paging(since_position, first_position, after)


def _offset_position(offset: str, database: int, incarnation: int) -> Position | None:
    found = _OFFSET.fullmatch(offset)
    if found is None or max(database, incarnation, int(found[1])) >= 1 << 63:
        return None
    xmax, number = int(found[1]), int(found[2])
    if number == 0:
        return Position(database, xmax, (), incarnation)
    packed = number.to_bytes((number.bit_length() + 7) // 8, "big")
    if packed[0] != 1:
        return None
    in_flight: list[int] = []
    upper, place = xmax, 1
    while place < len(packed):
        size = packed[place]
        distance = int.from_bytes(packed[place + 1 : place + 1 + size], "big")
        if place + 1 + size > len(packed) or not 0 < distance <= upper:
            return None
        upper -= distance
        in_flight.append(upper)
        place += 1 + size
    return Position(database, xmax, tuple(reversed(in_flight)), incarnation)


def _goes_on(newer: Position, older: Position) -> bool:
    same = (newer.database, newer.incarnation) == (older.database, older.incarnation)
    return same and newer.covers(older)


def _position(text: str) -> Position | None:
    try:
        return parse_cursor(text)
    except InvalidCursor:
        return None


def _text(position: Position) -> str:
    text = position.cursor()
    if len(text) <= _MAX_CURSOR:
        return text
    oldest = position.in_flight[0]
    return Position(position.database, oldest, (), position.incarnation).cursor()
