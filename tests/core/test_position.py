"""Positions and cursors: round trips, damage, and a model of what snapshots see."""

import base64
import contextlib

import pytest
from hypothesis import example, given, strategies as st

from runcast.core.position import Position, parse_cursor
from runcast.errors import InvalidCursor

BIGGEST = (1 << 63) - 1
TWO_TO_63 = (*[0x80] * 9, 0x01)


@st.composite
def positions(draw: st.DrawFn, biggest: int = BIGGEST, most: int = 50) -> Position:
    """Any snapshot: transactions in flight lie below ``xmax``, sorted and without repetition."""
    xmax = draw(st.integers(0, biggest))
    running = draw(st.sets(st.integers(0, xmax - 1), max_size=most)) if xmax else set()
    numbers = st.integers(0, BIGGEST)
    return Position(draw(numbers), xmax, tuple(sorted(running)), draw(numbers))


small_positions = positions(biggest=6, most=6)


def encode(*data: int) -> str:
    return base64.urlsafe_b64encode(bytes(data)).rstrip(b"=").decode()


class TestCursor:
    @given(positions())
    @example(Position(0, 0))
    @example(Position(BIGGEST, BIGGEST, (0, 1, BIGGEST - 1), BIGGEST))
    def test_comes_back_as_it_was(self, position: Position) -> None:
        assert parse_cursor(position.cursor()) == position

    def test_holds_thousands_of_transactions_in_flight(self) -> None:
        position = Position(1, 5_000_000, tuple(range(1_000_000, 1_090_000, 3)))
        assert len(position.in_flight) == 30_000
        assert parse_cursor(position.cursor()) == position

    @given(positions())
    def test_needs_no_quoting_anywhere(self, position: Position) -> None:
        assert set(position.cursor()) <= set(
            "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
        )

    @given(positions(most=5), positions(most=5))
    def test_is_another_for_another_position(self, one: Position, other: Position) -> None:
        assert (one.cursor() == other.cursor()) == (one == other)


class TestParsing:
    @given(st.text())
    @example("")
    @example("AQ==")
    @example("é")
    @example("\ud800")
    def test_any_text_is_a_cursor_or_an_invalid_cursor(self, text: str) -> None:
        with contextlib.suppress(InvalidCursor):
            assert parse_cursor(text).cursor() == text

    @given(st.binary(max_size=40))
    def test_so_are_any_bytes_in_base64(self, data: bytes) -> None:
        text = encode(1, *data)
        try:
            position = parse_cursor(text)
        except InvalidCursor:
            return
        assert position.cursor() == text
        assert all(0 <= xid < position.xmax for xid in position.in_flight)

    @pytest.mark.parametrize(
        ("text", "why"),
        [
            ("", "empty"),
            (encode(2, 1, 0, 10), "of a format that is not known"),
            (encode(1, 1, 0), "without xmax"),
            (encode(1, 1, 0, 0x80), "cut off inside a number"),
            (encode(1, 1, 0, 10, 0), "a distance of nothing"),
            (encode(1, 1, 0, 10, 11), "below the first transaction"),
            (encode(1, 1, 0, 0x80, 0), "a number with a leading zero"),
            (encode(1, 1, 0, *TWO_TO_63), "xmax of 64 bits"),
            (encode(1, 1, *TWO_TO_63, 1), "an incarnation of 64 bits"),
            (encode(1, *TWO_TO_63, 0, 1), "a database of 64 bits"),
            (encode(1, *[0xFF] * 10, 1, 0, 1), "a number without end"),
            (encode(1, 1, 0, 10, 5) + "=", "padded"),
            (Position(BIGGEST, 1).cursor().replace("_", "/"), "of the other alphabet"),
            (" " + encode(1, 1, 0, 10), "with a space"),
            ("A" * 65537, "too long"),
        ],
    )
    def test_refuses(self, text: str, why: str) -> None:
        with pytest.raises(InvalidCursor):
            parse_cursor(text)

    def test_accepts_the_largest_numbers(self) -> None:
        text = encode(1, 1, 0, *[0xFF] * 8, 0x7F)
        assert parse_cursor(text) == Position(1, BIGGEST)

    @given(positions(), st.data())
    def test_a_cursor_cut_short_is_never_taken_for_the_whole(
        self, position: Position, data: st.DataObject
    ) -> None:
        cursor = position.cursor()
        cut = cursor[: data.draw(st.integers(0, len(cursor) - 1))]
        with contextlib.suppress(InvalidCursor):
            assert parse_cursor(cut) != position


class TestFromSnapshot:
    @pytest.mark.parametrize(
        ("text", "position"),
        [
            ("10:10:", Position(7, 10)),
            ("10:20:10", Position(7, 20, (10,))),
            ("10:20:10,14,15", Position(7, 20, (10, 14, 15))),
        ],
    )
    def test_reads_the_text_of_postgres(self, text: str, position: Position) -> None:
        assert Position.from_snapshot(7, text) == position

    def test_takes_the_incarnation_along(self) -> None:
        assert Position.from_snapshot(7, "10:10:", 3) == Position(7, 10, (), 3)


def seen(position: Position) -> set[int]:
    return {number for number in range(10) if position.sees(number)}


class TestSeeing:
    @given(small_positions)
    def test_sees_all_below_xmax_but_what_was_in_flight(self, position: Position) -> None:
        assert seen(position) == set(range(position.xmax)) - set(position.in_flight)

    @given(small_positions, small_positions)
    @example(Position(1, 3), Position(1, 6, (3, 4, 5)))
    def test_covers_whoever_saw_no_more(self, one: Position, other: Position) -> None:
        assert one.covers(other) == (seen(one) >= seen(other))

    @given(small_positions, small_positions)
    def test_common_is_what_both_saw(self, one: Position, other: Position) -> None:
        assert seen(one.common(other)) == seen(one) & seen(other)

    @given(small_positions)
    def test_covers_itself(self, position: Position) -> None:
        assert position.covers(position)


class TestAfterACrash:
    @given(positions())
    def test_nothing_changes_while_the_server_lives(self, position: Position) -> None:
        assert position.in_incarnation(position.incarnation) is position

    @given(positions(most=5), st.integers(0, BIGGEST))
    @example(Position(1, 30_000, (10, 20_000)), 5)
    @example(Position(1, 100, (10,)), 5)
    def test_steps_back_and_never_sees_more(self, position: Position, incarnation: int) -> None:
        back = position.in_incarnation(incarnation)
        assert (back.database, back.incarnation) == (position.database, incarnation)
        assert position.covers(back)
        if incarnation != position.incarnation:
            assert back.xmax in (0, position.xmax - 16384)
            assert all(xid < back.xmax for xid in back.in_flight)
            assert parse_cursor(back.cursor()) == back
