"""Presigned addresses: good for what was signed, with a key that holds, until their time."""

import pytest

from runcast.auth.keys import KeyRing, SigningKey
from runcast.auth.presigned import check_address, sign_address
from runcast.errors import ExpiredToken, InvalidToken

KEY = SigningKey("tr_dev_" + "a" * 24)
RETIRED = SigningKey("tr_dev_" + "b" * 24, expires_at=1050.0)
RING = KeyRing("env_1", (KEY, RETIRED))
PATH = "/api/v1/objects/env_1/a%2Fb"


def check(
    *,
    method: str = "GET",
    path: str = PATH,
    expires: str = "1100",
    signature: str = sign_address(KEY, "GET", PATH, 1100),
    now: float = 1000.0,
) -> None:
    check_address(RING, method, path, expires=expires, signature=signature, now=now)


def test_is_good_until_its_time() -> None:
    check(now=1099.9)
    with pytest.raises(ExpiredToken):
        check(now=1100.0)


def test_a_retired_key_counts_while_its_grace_lasts() -> None:
    signature = sign_address(RETIRED, "GET", PATH, 1100)
    check(signature=signature)
    with pytest.raises(InvalidToken):
        check(signature=signature, now=1050.0)


@pytest.mark.parametrize(
    "change",
    [
        {"method": "PUT"},
        {"path": PATH + "x"},
        {"path": PATH.replace("%2F", "/")},
        {"expires": "1101"},
        {"expires": ""},
        {"expires": "-1"},
        {"expires": "1e9"},
        {"expires": "9" * 13},
        {"signature": ""},
        {"signature": "ü"},
        {"signature": sign_address(SigningKey("c" * 24), "GET", PATH, 1100)},
    ],
)
def test_nothing_else_is(change: dict[str, str]) -> None:
    with pytest.raises(InvalidToken):
        check(**change)  # type: ignore[arg-type]
