"""The opaque cursors of run lists: where a page ended, as URL-safe text."""

import base64
import binascii
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from runcast.errors import InvalidCursor
from runcast.ports import PageKey

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_MAX_LENGTH = 512


@dataclass(frozen=True, slots=True)
class PageCursor:
    """
    Where a page ended, and how many cursors were followed to get there.

    Official clients that turn back send the cursor which led to their page along with the one
    that they follow: the higher ``step`` tells which is which.
    """

    key: PageKey
    step: int = 0


def format_page_cursor(cursor: PageCursor) -> str:
    """Write a cursor as text."""
    moment = (cursor.key.created_at - _EPOCH) // _MICROSECOND
    text = f"{cursor.step}:{moment}:{cursor.key.id}"
    return base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()


def parse_page_cursor(cursor: str) -> PageCursor:
    """
    Read a cursor that `format_page_cursor` wrote.

    Raises:
        InvalidCursor: It did not.
    """
    try:
        if len(cursor) > _MAX_LENGTH:
            raise ValueError("too long")
        padded = cursor + "=" * (-len(cursor) % 4)
        text = base64.b64decode(padded, altchars=b"-_", validate=True).decode()
        step, moment, row_id = text.split(":", 2)
        if not row_id or "\0" in row_id:
            raise ValueError("no id")
        return PageCursor(PageKey(_EPOCH + int(moment) * _MICROSECOND, row_id), int(step))
    except (ValueError, OverflowError, binascii.Error):
        raise InvalidCursor(
            "The cursor is none of this list's; take it from `pagination` of an earlier page."
        ) from None
