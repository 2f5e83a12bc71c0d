"""Windows: their way over the wire, how they are joined, and what is left of one that is late."""

import orjson
import pytest
from hypothesis import given, strategies as st

from runcast.core import window as window_module
from runcast.core.chunk import StreamMove, StreamName
from runcast.core.position import Position
from runcast.core.run import Departure, RunFacets
from runcast.core.window import MAX_KEYS, Window, parse_window


def at(xmax: int, *in_flight: int) -> Position:
    return Position(1, xmax, in_flight)


def run(name: str, *tags: str) -> RunFacets:
    return RunFacets("env_a", name, "task", tags, None, 1_800_000_000.123456)


def departure(name: str, changed_in: int) -> Departure:
    return Departure(run(name, "x"), changed_in, changed_in, False)


MOVE = StreamMove(StreamName("run_1", "llm"), 3, False)

texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=9)
numbers = st.integers(0, (1 << 63) - 1)
facets = st.builds(
    RunFacets,
    texts,
    texts,
    texts,
    st.lists(texts, max_size=3).map(tuple),
    st.none() | texts,
    st.floats(0, 4e9),
)
keys = st.text(st.characters(min_codepoint=32, exclude_categories=["Cs"]), min_size=1, max_size=9)
windows = st.builds(
    Window,
    st.just(at(5)),
    st.just(at(9, 7)),
    st.lists(facets, max_size=3).map(tuple),
    st.lists(st.builds(Departure, facets, numbers, numbers, st.booleans()), max_size=3).map(tuple),
    st.lists(
        st.builds(
            StreamMove, st.builds(StreamName, texts, keys), st.none() | numbers, st.booleans()
        ),
        max_size=3,
    ).map(tuple),
)


class TestWire:
    @given(windows)
    def test_comes_back_as_it_was(self, window: Window) -> None:
        assert parse_window(window.to_bytes()) == window

    def test_what_is_too_much_is_told_without_its_changes(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        window = Window(at(5), at(9), (run("run_1"),))
        monkeypatch.setattr(window_module, "MAX_BYTES", len(window.to_bytes()))
        assert parse_window(window.to_bytes()) == window
        longer = Window(at(5), at(9), (run("run_10"),))
        assert parse_window(longer.to_bytes()) == Window(at(5), at(9), whole=False)

    @given(st.binary() | st.recursive(st.integers(0, 9) | texts, st.lists).map(orjson.dumps))
    def test_anything_else_is_refused(self, data: bytes) -> None:
        with pytest.raises(ValueError, match=r"\w"):
            parse_window(data)

    @pytest.mark.parametrize(
        "change",
        [
            lambda told: [2, *told[1:]],
            lambda told: told[:-1],
            lambda told: [*told, []],
            lambda told: [told[0], "?", *told[2:]],
            lambda told: [*told[:3], [["env_a", "run_1"]], [], []],
            lambda told: [*told[:3], 1, [], []],
            lambda told: [*told[:3], [], [], [["run_1", "", 1, False]]],
        ],
    )
    def test_what_is_almost_one_is_refused(self, change: object) -> None:
        assert callable(change)
        told = orjson.loads(Window(at(5), at(9), (run("run_1"),)).to_bytes())
        with pytest.raises(ValueError, match=r"\w"):
            parse_window(orjson.dumps(change(told)))


class TestJoining:
    def test_what_begins_where_the_other_ends(self) -> None:
        one = Window(at(5), at(7), (run("run_1"),), (departure("run_1", 6),))
        other = Window(at(7), at(9), (run("run_1", "x"),), (), (MOVE,))
        assert one.joined(other) == Window(
            at(5), at(9), (run("run_1"), run("run_1", "x")), (departure("run_1", 6),), (MOVE,)
        )

    def test_what_began_earlier_is_told_again_without_departures_that_were_seen(self) -> None:
        late = Window(at(5), at(9), (run("run_1"),), (departure("run_1", 6), departure("run_1", 8)))
        joined = Window.at(at(7)).joined(late)
        assert joined == Window(at(7), at(9), (run("run_1"),), (departure("run_1", 8),))

    @pytest.mark.parametrize(
        ("before", "after"), [(at(5), at(7)), (at(7), at(7)), (at(3), at(6)), (at(8, 7), at(8, 7))]
    )
    def test_what_is_known_already_changes_nothing(self, before: Position, after: Position) -> None:
        known = Window(at(5), at(8, 7), (run("run_1"),))
        assert known.joined(Window(before, after, (run("run_2"),))) is known

    @pytest.mark.parametrize(
        "before",
        [
            pytest.param(at(8), id="later"),
            pytest.param(at(7, 3), id="saw what was in flight"),
            pytest.param(Position(2, 7, (3, 6)), id="another database"),
            pytest.param(Position(1, 7, (3, 6), 1), id="another incarnation"),
        ],
    )
    def test_a_gap(self, before: Position) -> None:
        later = Window(before, Position(before.database, 9, (), before.incarnation))
        assert Window(at(5), at(7, 3, 6)).joined(later) is None

    def test_too_much(self) -> None:
        many = tuple(run(f"run_{number}") for number in range(MAX_KEYS))
        full = Window(at(5), at(7), many)
        assert Window.at(at(5)).joined(full) == full
        assert full.joined(Window(at(7), at(9))) == Window(at(5), at(9), many)
        more = Window(at(5), at(9), whole=False)
        assert full.joined(Window(at(7), at(9), (run("one"),))) == more
        assert more.joined(Window(at(9), at(10))) == Window(at(5), at(10), whole=False)
