"""
Where a reader stands in the series of run changes: a database snapshot.

Sequences and timestamps become visible out of commit order, a snapshot says exactly which
transactions were visible. What is new since a position is what its snapshot did not see.
"""

import base64
import binascii
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from runcast.errors import InvalidCursor

_FORMAT = 1
_MAX_CURSOR = 65536  # a snapshot with some 30,000 transactions in flight
_SHORT_CURSOR = 128  # what strangers send is kept no longer than this

# More transactions than a server begins between two flushes of its log (a fifth of a second).
_UNFLUSHED = 16384


@dataclass(frozen=True, slots=True)
class Position:
    """
    One database snapshot: every transaction below ``xmax`` and not in ``in_flight`` was visible.

    ``database`` names the database and its timeline: transaction numbers of another one mean
    nothing here. ``incarnation`` is that of the server, see `in_incarnation`. ``in_flight`` is
    sorted and holds no duplicates.
    """

    database: int
    xmax: int
    in_flight: tuple[int, ...] = ()
    incarnation: int = 0

    @classmethod
    def from_snapshot(cls, database: int, snapshot: str, incarnation: int = 0) -> "Position":
        """Read PostgreSQL's text form of a ``pg_snapshot``: ``xmin:xmax:xip,xip``."""
        _, xmax, in_flight = snapshot.split(":")
        return cls(
            database,
            int(xmax),
            tuple(int(xid) for xid in in_flight.split(",")) if in_flight else (),
            incarnation,
        )

    def in_incarnation(self, incarnation: int) -> "Position":
        """
        Give a position that misses nothing if the server crashed since this one was taken.

        A transaction that ended without effect may be forgotten by a crash, and its number given
        to another one, which this position would take for seen. So it steps back by more numbers
        than can have been forgotten: some changes are read twice, none is missed.
        """
        if incarnation == self.incarnation:
            return self
        xmax = max(self.xmax - _UNFLUSHED, 0)
        in_flight = tuple(xid for xid in self.in_flight if xid < xmax)
        return Position(self.database, xmax, in_flight, incarnation)

    def sees(self, transaction: int) -> bool:
        """Tell whether this snapshot saw the commit of ``transaction``."""
        return transaction < self.xmax and transaction not in self.in_flight

    def covers(self, other: "Position") -> bool:
        """
        Tell whether all that ``other`` saw is seen from here as well.

        A reader that stands at a position which covers another one has missed nothing of it.
        """
        beyond = other.xmax - self.xmax
        # Above our bound the other saw everything but what it lists as in flight.
        if beyond > 0 and sum(xid >= self.xmax for xid in other.in_flight) < beyond:
            return False
        return not any(other.sees(transaction) for transaction in self.in_flight)

    def reaches(self, other: "Position") -> bool:
        """Tell whether this is a position of the same server that covers the other one."""
        return (
            self.database == other.database
            and self.incarnation == other.incarnation
            and self.covers(other)
        )

    def common(self, other: "Position") -> "Position":
        """Give what both saw, of one incarnation: changes since then are all that either lacks."""
        xmax = min(self.xmax, other.xmax)
        in_flight = {xid for xid in (*self.in_flight, *other.in_flight) if xid < xmax}
        return Position(self.database, xmax, tuple(sorted(in_flight)), self.incarnation)

    def cursor(self) -> str:
        """
        Format the position as the opaque resume token that clients hold.

        URL-safe text: a version byte, then the database, the incarnation, ``xmax`` and the
        distances from ``xmax`` down through the transactions in flight, each as a variable-length
        integer.
        """
        return _cursor(self)


def parse_cursor(text: str) -> Position:
    """
    Read a cursor that :meth:`Position.cursor` made.

    Raises:
        InvalidCursor: The text was not made by a runcast gateway.
    """
    return _parse_short(text) if len(text) <= _SHORT_CURSOR else _parse(text)


# A crowd of polls stands at one position, and each brings it and takes it.
@lru_cache(maxsize=64)
def _cursor(position: Position) -> str:
    numbers = [position.database, position.incarnation, position.xmax]
    upper = position.xmax
    for transaction in reversed(position.in_flight):
        numbers.append(upper - transaction)
        upper = transaction
    packed = bytes([_FORMAT]) + b"".join(_varint(number) for number in numbers)
    return base64.urlsafe_b64encode(packed).rstrip(b"=").decode()


def _parse(text: str) -> Position:
    if len(text) > _MAX_CURSOR:
        raise InvalidCursor("The cursor is too long; leave it out to start from a snapshot.")
    try:
        packed = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        if packed[:1] != bytes([_FORMAT]):
            raise ValueError("unknown format")
        database, incarnation, xmax, *distances = _varints(packed[1:])
        in_flight: list[int] = []
        upper = xmax
        for distance in distances:
            if not 0 < distance <= upper:
                raise ValueError("distance out of range")
            upper -= distance
            in_flight.append(upper)
        if max(database, incarnation, xmax) >= 1 << 63:
            raise ValueError("number out of range")
        position = Position(database, xmax, tuple(reversed(in_flight)), incarnation)
    except (ValueError, binascii.Error, UnicodeError):
        raise InvalidCursor(
            "The cursor is not one of this gateway's; leave it out to start from a snapshot."
        ) from None
    if position.cursor() != text:  # one spelling only, so that equal cursors are equal texts
        raise InvalidCursor("The cursor is damaged; leave it out to start from a snapshot.")
    return position


_parse_short = lru_cache(maxsize=1024)(_parse)


def _varint(number: int) -> bytes:
    parts = bytearray()
    while number > 0x7F:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    parts.append(number)
    return bytes(parts)


def _varints(packed: bytes) -> Iterable[int]:
    number = shift = 0
    for byte in packed:
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            yield number
            number = shift = 0
        elif shift > 63:
            raise ValueError("number too long")
    if shift:
        raise ValueError("cut off")
