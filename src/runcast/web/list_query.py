"""What lists have in common in their queries: values joined with commas, times, page cursors."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated

from pydantic import BeforeValidator

from runcast.core.timespan import parse_duration
from runcast.errors import InvalidParameter
from runcast.ports import PageKey
from runcast.web.operation import Call
from runcast.web.page_cursor import PageCursor, format_page_cursor, parse_page_cursor
from runcast.web.text_field import ShortText

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def split(value: object) -> object:
    """Take a list apart that is joined with commas."""
    return [part for part in value.split(",") if part] if isinstance(value, str) else value


Texts = Annotated[list[ShortText], BeforeValidator(split)]


def created_since(call: Call, earliest: str | None, period: str | None) -> datetime | None:
    """
    Give the later of both bounds, ``filter[createdAt][from]`` and ``filter[createdAt][period]``.

    Raises:
        InvalidParameter: One cannot be read.
    """
    since = moment("filter[createdAt][from]", earliest)
    if period is None:
        return since
    start = _period_start(call, period)
    return start if since is None else max(since, start)


def moment(name: str, text: str | None) -> datetime | None:
    """
    Read a time of a query.

    Raises:
        InvalidParameter: Neither an ISO 8601 time nor Unix time in milliseconds.
    """
    if text is None:
        return None
    try:
        if text.isascii() and text.removeprefix("-").isdecimal():
            return _EPOCH + timedelta(milliseconds=int(text))
        found = datetime.fromisoformat(text)
        return found.replace(tzinfo=found.tzinfo or UTC).astimezone(UTC)
    except (ValueError, OverflowError):
        raise InvalidParameter(
            f"{name} is an ISO 8601 time or Unix time in milliseconds."
        ) from None


@dataclass(frozen=True, slots=True)
class Turn:
    """Which page is asked for: the newest, or one on either side of a page before."""

    older_than: PageKey | None
    newer_than: PageKey | None
    step: int

    def pagination(self, *, older: PageKey | None, newer: PageKey | None) -> dict[str, str]:
        """The cursors that lead to the pages beside this one."""
        keys = {"next": older, "previous": newer}
        return {
            name: format_page_cursor(PageCursor(key, self.step + 1))
            for name, key in keys.items()
            if key is not None
        }


def read_turn(after: str | None, before: str | None) -> Turn:
    """
    Read ``page[after]`` and ``page[before]``; of both, the one that was handed out later counts.

    Raises:
        InvalidCursor: One cannot be read.
    """
    older = parse_page_cursor(after) if after else None
    newer = parse_page_cursor(before) if before else None
    if older and newer:
        older, newer = (older, None) if older.step > newer.step else (None, newer)
    followed = older or newer
    return Turn(
        older_than=older.key if older else None,
        newer_than=newer.key if newer else None,
        step=followed.step if followed else 0,
    )


def _period_start(call: Call, period: str) -> datetime:
    try:
        return call.time - timedelta(seconds=parse_duration(period))
    except OverflowError:
        return _EPOCH
    except InvalidParameter as error:
        raise InvalidParameter(f"filter[createdAt][period]: {error.message}") from None
