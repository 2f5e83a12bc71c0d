"""Runs to be created, written down for later."""

from dataclasses import fields
from datetime import UTC, datetime

from hypothesis import given, strategies as st

from runcast.core.batch import failed_item
from runcast.core.new_run import Debounce, NewRun

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
TIMES = st.datetimes(timezones=st.just(UTC))
SECONDS = st.floats(0, 1e9)


def maybe(values: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    return st.none() | values


NEW_RUNS = st.builds(
    NewRun,
    environment_id=TEXTS,
    task=TEXTS,
    payload=maybe(TEXTS),
    tags=st.lists(TEXTS).map(tuple),
    delay_until=maybe(TIMES),
    idempotency_key_expires_at=maybe(TIMES),
    max_duration_seconds=maybe(SECONDS),
    priority_ms=st.integers(-(2**53), 2**53),
    batch_index=st.integers(0, 1000),
    debounce=maybe(st.builds(Debounce, TEXTS, TIMES, st.booleans(), maybe(SECONDS))),
)


@given(NEW_RUNS)
def test_what_was_written_is_read_again(new_run: NewRun) -> None:
    assert NewRun.from_json(new_run.to_json()) == new_run


def test_a_failed_item_has_nothing_that_could_fail_again() -> None:
    time = datetime(2026, 1, 1, tzinfo=UTC)
    item = NewRun(
        environment_id="env_a",
        task="t",
        payload="p",
        parent_id="run_gone",
        idempotency_key="k",
        one_time_token="t",
        request="r",
        debounce=Debounce("k", time),
        batch_index=3,
        trigger_function="batchTrigger",
    )
    failed = failed_item(item, "why")
    kept = {"environment_id", "task", "batch_index", "trigger_function"}
    assert {name: getattr(failed, name) for name in kept} == {
        name: getattr(item, name) for name in kept
    }
    assert failed.status == "SYSTEM_FAILURE"
    plain = NewRun(environment_id="env_a", task="t")
    for field in fields(NewRun):
        if field.name not in kept | {"status", "error"}:
            assert getattr(failed, field.name) == getattr(plain, field.name), field.name
