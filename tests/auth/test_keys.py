"""Secret keys and key rings."""

import pytest

from runcast.auth.keys import KeyRing, SigningKey, looks_like_secret_key
from runcast.errors import InvalidParameter

NOW = 1_700_000_000.0
SECRET = "tr_dev_" + "k" * 20


def key(letter: str, expires_at: float | None = None) -> SigningKey:
    return SigningKey(f"tr_dev_{letter * 20}", expires_at)


def test_no_repr_shows_a_secret() -> None:
    ring = KeyRing("env_1", (SigningKey(SECRET), SigningKey(SECRET, NOW)))
    for text in (repr(ring), str(ring), repr(ring.keys[0]), f"{ring.keys[1]}"):
        assert SECRET not in text
        assert "kkk" not in text


@pytest.mark.parametrize(
    "text",
    [SECRET, "tr_prod_sk_" + "A1" * 12, "x" * 24, "x" * 256, "a.b.c" * 5],
)
def test_any_opaque_ascii_text_may_be_a_secret_key(text: str) -> None:
    assert looks_like_secret_key(text)
    assert SigningKey(text).secret == text


@pytest.mark.parametrize(
    "text", ["", "x" * 23, "x" * 257, SECRET + " ", SECRET + "\n", SECRET + "\0", SECRET + "é"]
)
def test_other_texts_are_no_secret_keys_and_do_not_show_in_the_error(text: str) -> None:
    assert not looks_like_secret_key(text)
    with pytest.raises(InvalidParameter, match="24 to 256") as caught:
        SigningKey(text)
    assert text == "" or text not in str(caught.value)


def test_active_keys_come_first_and_retired_ones_end_with_their_grace_period() -> None:
    ending, ended = key("a", NOW + 1), key("b", NOW)
    newer, older = key("c"), key("d")
    ring = KeyRing("env_1", (ending, newer, ended, older))
    assert list(ring.usable_keys(NOW)) == [newer, older, ending]
    assert list(ring.usable_keys(NOW + 1)) == [newer, older]
    assert [each.is_usable(NOW) for each in ring.keys] == [True, True, False, True]


def test_the_newest_active_key_signs() -> None:
    assert KeyRing("env_1", (key("a", NOW + 1), key("b"), key("c"))).signing_key(NOW) == key("b")


def test_a_retired_key_signs_only_while_there_is_no_other() -> None:
    ring = KeyRing("env_1", (key("a", NOW + 1),))
    assert ring.signing_key(NOW) == key("a", NOW + 1)
    with pytest.raises(InvalidParameter, match="create one"):
        ring.signing_key(NOW + 1)
