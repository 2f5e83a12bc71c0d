"""Rates as they are written in settings."""

import pytest
from hypothesis import given, strategies as st

from runcast.core.rate import Rate


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("600/60", Rate(600, 60.0, 600)),
        (" 250/10  burst  750 ", Rate(250, 10.0, 750)),
        ("1/0.5", Rate(1, 0.5, 1)),
    ],
)
def test_a_rate_is_read_as_it_is_written(text: str, rate: Rate) -> None:
    assert Rate.parse(text) == rate


@given(st.integers(1, 9_999_999), st.integers(1, 99_999), st.integers(1, 9_999_999))
def test_what_is_shown_can_be_read(refill: int, seconds: int, burst: int) -> None:
    rate = Rate(refill, float(seconds), burst)
    assert Rate.parse(str(rate)) == rate


@pytest.mark.parametrize(
    "text",
    [
        *("", "600", "/60", "600/", "600/0", "0/60", "-1/60", "1/1e3", "600 / 60", "\u0661/60"),
        *("99999999/1", "1/1.2345", "600/60 burst 0", "600/60 burst", "6/60burst 7"),
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="rate"):
        Rate.parse(text)


@pytest.mark.parametrize(("burst", "share"), [(1, 1), (99, 1), (100, 2), (600, 12), (20_000, 100)])
def test_a_share_is_a_fiftieth_of_the_burst_within_bounds(burst: int, share: int) -> None:
    assert Rate(1, 1.0, burst).share == share
