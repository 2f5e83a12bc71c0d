"""Tags of a run as requests give them."""

from collections.abc import Sequence

from runcast.core.metadata import check_storable
from runcast.errors import InvalidBody, Unprocessable

MAX_TAGS = 10
MAX_TAG_LENGTH = 128


def parse_tags(value: object) -> tuple[str, ...]:
    """
    Read tags: one text or a list of texts; blank ones and repetitions are dropped.

    Raises:
        InvalidBody: No text, longer than 128 characters, or with characters no tag has.
        Unprocessable: More than 10.
    """
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, list):
        raise InvalidBody('tags is a text or a list of texts, such as ["user_1"].')
    for tag in items:
        if not isinstance(tag, str) or len(tag) > MAX_TAG_LENGTH:
            raise InvalidBody(f"A tag is a text of at most {MAX_TAG_LENGTH} characters.")
        check_no_control("A tag", tag)
    tags = tuple(dict.fromkeys(tag for tag in items if tag.strip()))
    check_tag_count(tags)
    return tags


def check_tag_count(tags: Sequence[str]) -> None:
    """
    Refuse more distinct tags than a run may have.

    Raises:
        Unprocessable: More than 10.
    """
    if len(tags) > MAX_TAGS:
        raise Unprocessable(f"A run has at most {MAX_TAGS} tags, not {len(tags)}; drop some.")


def check_no_control(what: str, text: str) -> None:
    """
    Refuse text that is no name: with control characters or what the database cannot hold.

    Raises:
        InvalidBody: It is not.
    """
    check_storable(text, what)
    if any(ord(character) < 32 for character in text):
        raise InvalidBody(f"{what} holds a control character.")
