"""Names of objects."""

import pytest

from runcast.core.object_name import check_object_name, object_digest
from runcast.errors import InvalidParameter


@pytest.mark.parametrize("name", ["a", "packets/run_1/payload.json", "ü b/…", "a" * 512, "..."])
def test_plain_parts_with_slashes_between_are_a_name(name: str) -> None:
    assert check_object_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/",
        "/a",
        "a/",
        "a//b",
        ".",
        "..",
        "a/../b",
        "a/./b",
        "a\\b",
        "a\nb",
        "a" * 513,
        "\ud800",
    ],
)
def test_anything_else_is_refused(name: str) -> None:
    with pytest.raises(InvalidParameter, match="slashes between them"):
        check_object_name(name)


def test_every_name_of_every_environment_has_a_digest_of_its_own() -> None:
    pairs = [("env", "a"), ("env", "a/b"), ("env", "A"), ("en", "va"), ("", "enva"), ("other", "a")]
    digests = {object_digest(*pair) for pair in pairs}
    assert len(digests) == len(pairs)
    assert all(len(digest) == 64 and digest.isalnum() for digest in digests)
