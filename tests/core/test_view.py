"""Views: what a change means to those who may see some runs and not others."""

import itertools

from hypothesis import example, given, strategies as st

from runcast.core.frame import GoneFrame, RunFrame, StateFrame
from runcast.core.run import Departure, Run, RunChange, RunFacets
from runcast.core.scope import compile_scopes
from runcast.core.selector import Selector
from runcast.core.view import View
from tests.support.runs import CREATED_AT, make_run

TAGS = st.lists(st.sampled_from(["a", "b", "c"]), max_size=3, unique=True).map(tuple)
SCOPES = ["read:tags:a", "read:tags:b", "read:runs:run_1", "read:tasks:hello-world", "read:runs"]

views = st.builds(
    View,
    st.one_of(
        st.builds(Selector, st.just("env_1"), tags=TAGS, task=st.sampled_from([None, "other"])),
        st.just(Selector("env_1", run_id="run_1")),
        st.just(Selector("env_2")),
    ),
    st.lists(st.sampled_from(SCOPES), max_size=2).map(compile_scopes),
)


def facets(tags: tuple[str, ...]) -> RunFacets:
    return RunFacets("env_1", "run_1", "hello-world", tags, None, CREATED_AT.timestamp())


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[tuple[str, ...] | None], RunChange]:
    """States of a run one after another (None: deleted), and the change that tells of them."""
    states: list[tuple[str, ...] | None] = list(draw(st.lists(TAGS, min_size=1, max_size=4)))
    if draw(st.booleans()):
        states.append(None)
    departures = [
        Departure(facets(old), 2 * index, 100 + index, deleted=new is None)
        for index, (old, new) in enumerate(itertools.pairwise(states), start=1)
        if old is not None and (new is None or not set(old) <= set(new))
    ]
    run = _run(states)
    known = run.facets if run else departures[-1].facets
    return states, RunChange(known, run, tuple(departures))


def _run(states: list[tuple[str, ...] | None]) -> Run | None:
    if states[-1] is None:
        return None
    return make_run(tags=states[-1], version=2 * len(states), changed_in=100 + len(states))


def judge(view: View, change: RunChange) -> StateFrame | None:
    return view.judge(change, RunFrame(change.run) if change.run else None)


@given(views, histories())
@example(
    View(Selector("env_1", tags=("a",)), compile_scopes(["read:tags:b"])),
    (
        [("a", "b"), ("a",), ("a", "c"), ()],
        RunChange(
            facets(()),
            make_run(tags=(), version=9),
            (
                Departure(facets(("a", "b")), 2, 101, deleted=False),
                Departure(facets(("a", "c")), 6, 103, deleted=False),
            ),
        ),
    ),
)
def test_tells_the_state_the_leaving_or_nothing(
    view: View, history: tuple[list[tuple[str, ...] | None], RunChange]
) -> None:
    states, change = history
    shown = [
        tags is not None
        and view.selector.matches(facets(tags))
        and view.permissions.may_read(facets(tags))
        for tags in states
    ]
    verdict = judge(view, change)
    if shown[-1]:
        assert isinstance(verdict, RunFrame)
        assert verdict.run is change.run
    elif any(shown):
        assert isinstance(verdict, GoneFrame)
        assert verdict.run_id == "run_1"
        assert verdict.reason == ("deleted" if states[-1] is None else "unmatched")
    else:
        assert verdict is None, "an id was told that was never in view"


@given(views, TAGS)
def test_shows_what_is_asked_for_and_may_be_read(view: View, tags: tuple[str, ...]) -> None:
    run = facets(tags)
    assert view.shows(run) == (view.selector.matches(run) and view.permissions.may_read(run))


def test_the_leaving_is_dated_by_the_change_that_took_the_run_out_of_view() -> None:
    view = View(Selector("env_1", tags=("a",)), compile_scopes(["read:runs"]))
    out = Departure(facets(("a", "b")), 4, 104, deleted=False)
    later = Departure(facets(("b",)), 6, 106, deleted=False)
    change = RunChange(facets(()), make_run(tags=()), (out, later))
    assert judge(view, change) == GoneFrame("run_1", "unmatched", 4, 104)
