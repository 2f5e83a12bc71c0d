"""The opaque cursors of run lists: where a page ended, as URL-safe text."""

import base64
import binascii
from datetime import UTC, datetime, timedelta

from runcast.errors import InvalidCursor
from runcast.ports import PageKey

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_MAX_LENGTH = 512


def format_page_key(key: PageKey) -> str:
    """Write a page key as a cursor."""
    moment = (key.created_at - _EPOCH) // _MICROSECOND
    return base64.urlsafe_b64encode(f"{moment}:{key.id}".encode()).rstrip(b"=").decode()


def parse_page_key(cursor: str) -> PageKey:
    """
    Read a cursor that `format_page_key` wrote.

    Raises:
        InvalidCursor: It did not.
    """
    try:
        if len(cursor) > _MAX_LENGTH:
            raise ValueError("too long")
        padded = cursor + "=" * (-len(cursor) % 4)
        text = base64.b64decode(padded, altchars=b"-_", validate=True).decode()
        moment, colon, run_id = text.partition(":")
        if not colon or not run_id or "\0" in run_id:
            raise ValueError("no id")
        return PageKey(_EPOCH + int(moment) * _MICROSECOND, run_id)
    except (ValueError, OverflowError, binascii.Error):
        raise InvalidCursor(
            "The cursor is none of this list's; take it from `pagination` of an earlier page."
        ) from None
