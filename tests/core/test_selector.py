"""Selectors: what they match, under which key they are found, and what they refuse."""

from collections.abc import Callable

import pytest
from hypothesis import given, strategies as st

from runcast.core.run import RunFacets
from runcast.core.selector import MAX_ID_LENGTH, MAX_TAGS, Selector, index_keys
from runcast.errors import InvalidSelector

# Few words each, so that random selectors and random runs meet often.
ENVIRONMENTS = st.sampled_from(["env_1", "env_2"])
WORDS = st.sampled_from(["a", "b", "c"])
TIMES = st.sampled_from([10.0, 20.0, 30.0])
tags = st.lists(WORDS, max_size=3, unique=True).map(tuple)

facets = st.builds(
    RunFacets,
    environment_id=ENVIRONMENTS,
    id=WORDS,
    task=WORDS,
    tags=tags,
    batch_id=st.none() | WORDS,
    created_at=TIMES,
)
selectors = st.one_of(
    st.builds(
        Selector,
        environment_id=ENVIRONMENTS,
        run_id=WORDS,
        created_after=st.none() | TIMES,
    ),
    st.builds(
        Selector,
        environment_id=ENVIRONMENTS,
        tags=tags,
        task=st.none() | WORDS,
        batch_id=st.none() | WORDS,
        created_after=st.none() | TIMES,
    ),
)

PLAIN = RunFacets("env_1", "run_1", "encode", ("a", "b"), "batch_1", 20.0)


@given(selectors, facets)
def test_whatever_matches_is_found_under_the_selectors_key(
    selector: Selector, run: RunFacets
) -> None:
    if selector.matches(run):
        assert selector.index_key in index_keys(run)


@given(selectors, facets)
def test_all_that_is_given_must_hold(selector: Selector, run: RunFacets) -> None:
    assert selector.matches(run) == (
        run.environment_id == selector.environment_id
        and selector.run_id in (None, run.id)
        and selector.task in (None, run.task)
        and selector.batch_id in (None, run.batch_id)
        and set(selector.tags) <= set(run.tags)
        and run.created_at >= (selector.created_after or 0)
    )


@given(facets)
def test_the_keys_of_a_run_are_distinct_and_of_its_environment(run: RunFacets) -> None:
    keys = index_keys(run)
    assert len(keys) == len(set(keys))
    assert {environment for environment, _, _ in keys} == {run.environment_id}


@pytest.mark.parametrize(
    ("selector", "key"),
    [
        (Selector("env_1"), ("env_1", "all", "")),
        (Selector("env_1", run_id="run_1"), ("env_1", "run", "run_1")),
        (Selector("env_1", task="t", tags=("b", "a")), ("env_1", "tag", "a")),
        (Selector("env_1", task="t"), ("env_1", "task", "t")),
        (Selector("env_1", batch_id="b", tags=("a",), task="t"), ("env_1", "batch", "b")),
    ],
)
def test_the_key_is_of_the_rarest_condition(selector: Selector, key: tuple[str, str, str]) -> None:
    assert selector.index_key == key


def test_equal_questions_are_equal_values() -> None:
    one, other = Selector("env_1", tags=("b", "a", "b")), Selector("env_1", tags=("a", "b"))
    assert one == other
    assert hash(one) == hash(other)
    assert one.tags == ("a", "b")


def test_the_time_of_creation_is_inclusive() -> None:
    assert Selector("env_1", created_after=20.0).matches(PLAIN)
    assert not Selector("env_1", created_after=20.1).matches(PLAIN)


@pytest.mark.parametrize(
    "ask",
    [
        lambda name: Selector("env_1", run_id=name),
        lambda name: Selector("env_1", task=name),
        lambda name: Selector("env_1", batch_id=name),
    ],
)
@pytest.mark.parametrize("name", ["", "x" * (MAX_ID_LENGTH + 1), "a\0b", "a\ud800"])
def test_refuses_ids_that_cannot_be(ask: Callable[[str], Selector], name: str) -> None:
    with pytest.raises(InvalidSelector):
        ask(name)


@pytest.mark.parametrize("tag", ["", "x" * 129, "a\nb", "a\0b", "a\udfff"])
def test_refuses_tags_that_no_run_has(tag: str) -> None:
    with pytest.raises(InvalidSelector):
        Selector("env_1", tags=(tag,))


def test_refuses_more_tags_than_a_run_has() -> None:
    Selector("env_1", tags=tuple(f"tag{n}" for n in range(MAX_TAGS)))
    with pytest.raises(InvalidSelector, match="fewer"):
        Selector("env_1", tags=tuple(f"tag{n}" for n in range(MAX_TAGS + 1)))


@pytest.mark.parametrize(
    "ask",
    [
        lambda: Selector("env_1", run_id="run_1", tags=("a",)),
        lambda: Selector("env_1", run_id="run_1", task="t"),
        lambda: Selector("env_1", run_id="run_1", batch_id="b"),
    ],
)
def test_one_run_stands_alone(ask: Callable[[], Selector]) -> None:
    with pytest.raises(InvalidSelector, match="alone"):
        ask()
