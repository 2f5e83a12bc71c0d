"""Time spans, durations and expirations as callers write them."""

import math
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given, strategies as st

from runcast.core.timespan import (
    MAX_UNIX_TIME,
    parse_duration,
    parse_timespan,
    resolve_expiration,
)
from runcast.errors import InvalidParameter

NOW = 1_700_000_000.0
DAY = 86_400

# Every unit that the documentation lists, and no other.
UNITS = {
    1: ["sec", "secs", "second", "seconds", "s"],
    60: ["minute", "minutes", "min", "mins", "m"],
    3600: ["hour", "hours", "hr", "hrs", "h"],
    DAY: ["day", "days", "d"],
    7 * DAY: ["week", "weeks", "w"],
    int(365.25 * DAY): ["year", "years", "yr", "yrs", "y"],
}
SECONDS_BY_UNIT = [(name, seconds) for seconds, names in UNITS.items() for name in names]


@pytest.mark.parametrize(("unit", "seconds"), SECONDS_BY_UNIT)
def test_every_documented_unit_is_understood(unit: str, seconds: int) -> None:
    assert parse_timespan(f"3{unit}") == 3 * seconds
    assert parse_timespan(f"3 {unit.upper()}") == 3 * seconds


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1hr", 3600),
        ("15 minutes", 900),
        ("2.5 hours", 9000),
        ("+1h", 3600),
        ("+ 1 h", 3600),
        (" 1h", 3600),
        ("-1h", -3600),
        ("- 1h", -3600),
        ("1 day ago", -DAY),
        ("1d AGO", -DAY),
        ("1 week from now", 7 * DAY),
        ("0s", 0),
        ("0.4s", 0),
        ("0.5s", 1),
        ("1.5s", 2),
        ("2.5s", 3),
        ("007 s", 7),
    ],
)
def test_signs_suffixes_and_fractions_follow_the_grammar(text: str, seconds: float) -> None:
    assert parse_timespan(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "1",
        "h",
        "1 month",
        "1mo",
        "1h30m",
        "  1h",
        "1h ",
        "1h\n",
        "1  h",
        "1\th",
        ".5h",
        "1.h",
        "1e3s",
        "1,5h",
        "infs",
        "nan s",
        "1hago",
        "1h from  now",
        "+-1h",
        "\u0661h",  # an Arabic-Indic digit
        "1\u017f",  # a long s, which Unicode folds to "s"
        "1" * 65 + "s",
    ],
)
def test_anything_else_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(InvalidParameter, match="15 minutes"):
        parse_timespan(text)


@pytest.mark.parametrize("text", ["-1h ago", "+1h from now", "-1h from now"])
def test_a_sign_and_a_suffix_exclude_each_other(text: str) -> None:
    with pytest.raises(InvalidParameter, match="either"):
        parse_timespan(text)


@pytest.mark.parametrize("text", ["9" * 60 + "y", "9000y", "-9000y", "9000 years ago"])
def test_spans_beyond_all_dates_are_refused(text: str) -> None:
    with pytest.raises(InvalidParameter, match="9999"):
        parse_timespan(text)


@given(st.integers(0, 10**9), st.sampled_from(SECONDS_BY_UNIT), st.booleans(), st.booleans())
def test_a_span_backwards_is_the_negated_span(
    number: int, unit: tuple[str, int], space: bool, suffix: bool
) -> None:
    text = f"{number}{' ' if space else ''}{unit[0]}"
    backwards = f"{text} ago" if suffix else f"-{text}"
    if number * unit[1] <= MAX_UNIX_TIME:
        assert parse_timespan(text) == number * unit[1] == -parse_timespan(backwards)
    else:
        for each in (text, backwards):
            with pytest.raises(InvalidParameter):
                parse_timespan(each)


@given(st.text(alphabet=st.sampled_from("0123456789.+- smhdwyeargofn\n\0é"), max_size=80))
def test_no_text_raises_anything_but_invalid_parameter(text: str) -> None:
    for parse in (parse_timespan, parse_duration):
        try:
            seconds = parse(text)
        except InvalidParameter:
            continue
        assert math.isfinite(seconds)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1s", 1),
        ("30m", 1800),
        ("1h30m", 5400),
        ("1hr30m", 5400),
        ("30m1h", 5400),
        ("1h1h", 7200),
        ("2w3d", 17 * DAY),
        ("0s", 0),
    ],
)
def test_the_parts_of_a_duration_are_summed(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "1", "h", "1.5h", "-1h", "1 h", "1H", "1y", "1min", "1h\n", "1h" * 33, "\u0661h"]
)
def test_other_durations_are_refused_with_an_example(text: str) -> None:
    with pytest.raises(InvalidParameter, match="1h30m"):
        parse_duration(text)


def test_durations_beyond_all_dates_are_refused() -> None:
    with pytest.raises(InvalidParameter, match="9999"):
        parse_duration("9" * 60 + "w")


@given(st.lists(st.tuples(st.integers(0, 999), st.sampled_from("wdhms")), min_size=1, max_size=8))
def test_a_duration_equals_the_spans_of_its_parts(parts: list[tuple[int, str]]) -> None:
    text = "".join(f"{number}{unit}" for number, unit in parts)
    assert parse_duration(text) == sum(parse_timespan(f"{number}{unit}") for number, unit in parts)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("1h", NOW + 3600),
        ("1h ago", NOW - 3600),
        (1_800_000_000, 1_800_000_000.0),
        (1_800_000_000.5, 1_800_000_000.5),
        (0, 0.0),
        (datetime(2030, 1, 1, tzinfo=UTC), 1_893_456_000.0),
        (datetime(2030, 1, 1, 2, tzinfo=timezone(timedelta(hours=2))), 1_893_456_000.0),
        (datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC), float(MAX_UNIX_TIME)),
    ],
)
def test_expirations_resolve_to_unix_seconds(
    value: str | float | datetime, expected: float
) -> None:
    moment = resolve_expiration(value, now=NOW)
    assert moment == expected
    assert isinstance(moment, float)


@pytest.mark.parametrize(
    "value",
    [
        math.inf,
        -math.inf,
        math.nan,
        10**400,
        -(10**400),
        -1,
        1_800_000_000_000,
        "100 years ago",
        "7990 years",
        datetime.max.replace(tzinfo=timezone(-timedelta(hours=23))),
        datetime.min.replace(tzinfo=timezone(timedelta(hours=23))),
    ],
)
def test_moments_outside_of_all_sensible_years_are_refused(value: str | float | datetime) -> None:
    with pytest.raises(InvalidParameter, match="not milliseconds"):
        resolve_expiration(value, now=NOW)


def test_a_datetime_without_time_zone_is_refused() -> None:
    with pytest.raises(InvalidParameter, match="time zone"):
        resolve_expiration(datetime(2030, 1, 1), now=NOW)  # noqa: DTZ001


def test_a_boolean_is_not_a_number() -> None:
    with pytest.raises(InvalidParameter, match="time span"):
        resolve_expiration(True, now=NOW)
