"""Histograms: where a value falls, and what is told of many."""

from itertools import pairwise

from hypothesis import given, strategies as st

from runcast.core.histogram import Histogram


def test_a_value_belongs_to_the_smallest_bound_that_is_not_below_it() -> None:
    histogram = Histogram((1.0, 5.0))
    for value in (0.5, 1.0, 1.1, 5.0, 99.0):
        histogram.observe(value)
    assert histogram.buckets == [(1.0, 2), (5.0, 4), (float("inf"), 5)]
    assert histogram.total == 0.5 + 1.0 + 1.1 + 5.0 + 99.0


@given(st.lists(st.floats(0, 100)))
def test_each_bucket_holds_the_ones_before_it_and_the_last_holds_all(values: list[float]) -> None:
    histogram = Histogram()
    for value in values:
        histogram.observe(value)
    counts = [count for _, count in histogram.buckets]
    assert all(before <= after for before, after in pairwise(counts))
    assert counts[-1] == len(values)
    for bound, count in histogram.buckets:
        assert count == sum(value <= bound for value in values)
