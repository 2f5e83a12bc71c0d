"""What requests change in a run: patches, cancelling, tags, metadata."""

import itertools
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, strategies as st

from runcast.core.lifecycle import (
    changes_for_cancel,
    changes_for_debounce,
    changes_for_metadata,
    changes_for_patch,
    changes_for_reschedule,
    changes_for_tags_added,
)
from runcast.core.metadata import parse_operations
from runcast.core.new_run import Debounce, NewRun
from runcast.core.run import Run
from runcast.core.run_patch import PATCH_FIELDS
from runcast.core.status import FINAL_STATUSES, RAW_STATUSES, may_move
from runcast.core.tags import parse_tags
from runcast.errors import (
    IllegalTransition,
    InvalidBody,
    NotDelayed,
    PayloadTooLarge,
    Unprocessable,
)
from tests.support.runs import CREATED_AT, make_run

NOW = CREATED_AT + timedelta(seconds=90)
STARTED = CREATED_AT + timedelta(seconds=30)
LIMIT = 1024


def patched(run: Run, **patch: Any) -> dict[str, Any]:
    return changes_for_patch(run, patch, NOW)


def executing(**changes: Any) -> Run:
    return make_run(**{"status": "EXECUTING", "started_at": STARTED, **changes})


def assert_consistent(run: Run) -> None:
    """What the database insists on, whatever writes the row."""
    assert (run.completed_at is not None) == (run.status in FINAL_STATUSES)


@pytest.mark.parametrize(("old", "new"), list(itertools.product(sorted(RAW_STATUSES), repeat=2)))
def test_a_run_moves_where_it_may(old: str, new: str) -> None:
    run = make_run(status=old)
    if old == new:
        assert patched(run, status=new) == {}
    elif may_move(old, new):
        changes = patched(run, status=new)
        assert changes["status"] == new
        assert_consistent(replace(run, **changes))
    else:
        with pytest.raises(IllegalTransition, match=f"{old}.* {new}"):
            patched(run, status=new)


def test_starting_fills_in_the_time_once() -> None:
    assert patched(make_run(), status="EXECUTING") == {"status": "EXECUTING", "started_at": NOW}
    run = make_run(status="RETRYING_AFTER_FAILURE", started_at=STARTED)
    assert patched(run, status="EXECUTING") == {"status": "EXECUTING"}
    run = make_run()
    assert patched(run, status="EXECUTING", startedAt="2026-01-31T14:00:00+02:00") == {
        "status": "EXECUTING",
        "started_at": datetime(2026, 1, 31, 12, tzinfo=UTC),
    }


def test_queueing_fills_in_the_time_once() -> None:
    run = make_run(status="DELAYED", queued_at=None)
    assert patched(run, status="QUEUED") == {"status": "PENDING", "queued_at": NOW}
    assert patched(executing(), status="QUEUED") == {"status": "PENDING"}


def test_finishing_is_one_change_with_completion_and_duration() -> None:
    assert patched(executing(), status="COMPLETED", output={"ok": True}) == {
        "status": "COMPLETED_SUCCESSFULLY",
        "completed_at": NOW,
        "usage_duration_ms": 60_000,
        "output": '{"ok":true}',
    }


def test_what_the_worker_says_about_finishing_wins() -> None:
    changes = patched(
        executing(), status="FAILED", completedAt="2026-01-31T12:00:40.623456Z", usageDurationMs=7.6
    )
    assert changes["completed_at"] == CREATED_AT + timedelta(seconds=40.5)
    assert changes["usage_duration_ms"] == 8


def test_a_duration_told_before_is_kept() -> None:
    run = executing(usage_duration_ms=5)
    assert "usage_duration_ms" not in patched(run, status="COMPLETED")


def test_no_run_ends_before_it_starts() -> None:
    run = executing(started_at=NOW + timedelta(seconds=9))
    assert replace(run, **patched(run, status="COMPLETED")).usage_duration_ms == 0


def test_a_run_that_never_started_has_no_duration() -> None:
    assert patched(make_run(), status="EXPIRED") == {
        "status": "EXPIRED",
        "completed_at": NOW,
        "expired_at": NOW,
    }


def test_a_finished_run_is_never_revived_but_may_be_corrected() -> None:
    run = make_run(status="COMPLETED_SUCCESSFULLY", output="1")
    with pytest.raises(IllegalTransition, match="trigger a new one"):
        patched(run, status="EXECUTING")
    assert patched(run, output=[2], costInCents=1.5, completedAt="2026-01-31T13:00:00Z") == {
        "output": "[2]",
        "cost_in_cents": 1.5,
        "completed_at": datetime(2026, 1, 31, 13, tzinfo=UTC),
    }


def test_finishing_twice_changes_nothing_more() -> None:
    run = executing()
    run = replace(run, **patched(run, status="COMPLETED", output="1", usageDurationMs=5))
    later = NOW + timedelta(minutes=1)
    patch = {"status": "COMPLETED", "output": "1", "usageDurationMs": 5}
    assert changes_for_patch(run, patch, later) == {}


@pytest.mark.parametrize("status", [None, "EXECUTING"])
def test_completion_needs_a_final_status(status: str | None) -> None:
    patch = {"completedAt": "2026-01-31T13:00:00Z"} | ({"status": status} if status else {})
    with pytest.raises(InvalidBody, match="completedAt goes with a final status"):
        changes_for_patch(make_run(), patch, NOW)


@pytest.mark.parametrize(
    ("patch", "changes"),
    [
        ({}, {}),
        ({"queuedAt": "2026-01-31T12:00:00.123456Z"}, {}),
        ({"delayUntil": "2026-02-01T00:00:00Z"}, {"delay_until": datetime(2026, 2, 1, tzinfo=UTC)}),
        ({"expiredAt": "2026-02-01T00:00:00Z"}, {"expired_at": datetime(2026, 2, 1, tzinfo=UTC)}),
        ({"ttl": "1h30m"}, {"ttl": "1h30m"}),
        ({"machine": "small-2x"}, {"machine": "small-2x"}),
        ({"region": "eu"}, {"region": "eu"}),
        ({"queue": "mine"}, {"queue": "mine"}),
        ({"version": "20260131.1"}, {"worker_version": "20260131.1"}),
        ({"workerVersion": "2"}, {"worker_version": "2"}),
        ({"attemptCount": 2}, {"attempt_count": 2}),
        ({"attemptCount": 2.0}, {"attempt_count": 2}),
        ({"costInCents": 2, "baseCostInCents": 0.1},
         {"cost_in_cents": 2.0, "base_cost_in_cents": 0.1}),
        ({"tags": ["b", "a", "b", " "]}, {"tags": ("b", "a")}),
        ({"runTags": "one"}, {"tags": ("one",)}),
        ({"tags": []}, {}),
        ({"metadata": {"a": 1}}, {"metadata": '{"a":1}'}),
        ({"metadata": {}}, {}),
        ({"error": "no"}, {"error": '{"type":"STRING_ERROR","raw":"no"}'}),
        ({"output": "hello"}, {"output": "hello", "output_type": "text/plain"}),
        ({"output": '{"a": 1}'}, {"output": '{"a": 1}'}),
        ({"output": '{"a": 1}', "outputType": "text/plain"},
         {"output": '{"a": 1}', "output_type": "text/plain"}),
        ({"outputType": "text/plain"}, {"output_type": "text/plain"}),
        ({"output": None}, {}),
        ({"payload": [1], "payloadType": "application/json"}, {"payload": "[1]"}),
    ],
)  # fmt: skip
def test_fields(patch: dict[str, Any], changes: dict[str, Any]) -> None:
    assert changes_for_patch(make_run(), patch, NOW) == changes


def test_a_new_type_reads_the_stored_text_anew() -> None:
    run = make_run(output="hello", output_type="text/plain")
    assert patched(run, outputType="application/json") == {
        "output": '"hello"',
        "output_type": "application/json",
    }


@pytest.mark.parametrize(
    ("field", "column"),
    [
        ("payload", "payload"),
        ("output", "output"),
        ("error", "error"),
        ("delayUntil", "delay_until"),
        ("ttl", "ttl"),
        ("machine", "machine"),
        ("region", "region"),
        ("version", "worker_version"),
        ("workerVersion", "worker_version"),
    ],
)
def test_null_clears(field: str, column: str) -> None:
    run = make_run(
        payload="1",
        output="1",
        error="{}",
        delay_until=NOW,
        ttl="1h",
        machine="micro",
        region="eu",
        worker_version="1",
    )
    assert patched(run, **{field: None}) == {column: None}


@pytest.mark.parametrize(
    "field",
    sorted(
        PATCH_FIELDS
        - {"payload", "output", "error", "delayUntil", "ttl", "machine", "region"}
        - {"version", "workerVersion"}
    ),
)
def test_null_is_refused_where_it_says_nothing(field: str) -> None:
    with pytest.raises(InvalidBody, match=f"May not be null: {field};"):
        patched(make_run(), **{field: None})


@pytest.mark.parametrize(
    ("patch", "message"),
    [
        ({"colour": 1, "id": "x", "status": "QUEUED"}, "Cannot be patched: 'colour', 'id'. What"),
        ({"status": 5}, "status is a text"),
        ({"status": "DONE"}, "'DONE' is not a status"),
        ({"startedAt": "yesterday"}, "startedAt is a time in ISO 8601"),
        ({"startedAt": "2026-01-31T12:00:00"}, "startedAt is a time .* zone"),
        ({"startedAt": 1769860800}, "startedAt is a time"),
        ({"startedAt": "0001-01-01T00:00:00+14:00"}, "startedAt is a time"),
        ({"attemptCount": "2"}, "attemptCount is a number"),
        ({"attemptCount": True}, "attemptCount is a number"),
        ({"attemptCount": 1.5}, "attemptCount is a whole number"),
        ({"attemptCount": -1}, "attemptCount is a whole number"),
        ({"attemptCount": 2**31}, "attemptCount is a whole number"),
        ({"usageDurationMs": -1}, "usageDurationMs is a number of milliseconds"),
        ({"usageDurationMs": float("nan")}, "usageDurationMs is a finite number"),
        ({"usageDurationMs": 10**400}, "usageDurationMs is a number of milliseconds"),
        ({"costInCents": -0.1}, "costInCents is a number from 0"),
        ({"costInCents": float("inf")}, "costInCents is a finite number"),
        ({"ttl": "soon"}, "ttl: A duration is"),
        ({"machine": "huge"}, "machine is one of micro"),
        ({"machine": ["micro"]}, "machine is one of micro"),
        ({"region": ""}, "region is a text of 1 to 512"),
        ({"queue": "q" * 513}, "queue is a text of 1 to 512"),
        ({"queue": "a\nb"}, "queue holds a control character"),
        ({"version": 5}, "version is a text"),
        ({"tags": [5]}, "A tag is a text"),
        ({"metadata": [1]}, "metadata is an object"),
        ({"metadata": {"a": "\0"}}, "metadata holds a NUL"),
        ({"error": 5}, "error is a string or an object"),
        ({"outputType": 5}, "outputType is a content type"),
    ],
)
def test_nonsense_is_refused(patch: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidBody, match=message):
        changes_for_patch(make_run(), patch, NOW)


def test_the_message_about_unknown_fields_is_bounded() -> None:
    with pytest.raises(InvalidBody) as refusal:
        changes_for_patch(make_run(), {f"{n}\n{'x' * 1000}": 1 for n in range(1000)}, NOW)
    assert len(refusal.value.message) < 2000
    assert refusal.value.message.isprintable()


def test_metadata_of_a_patch_has_a_limit() -> None:
    with pytest.raises(PayloadTooLarge):
        changes_for_patch(make_run(), {"metadata": {"a": "x" * 100}}, NOW, metadata_limit_bytes=100)


def test_success_ends_the_error_of_an_earlier_attempt() -> None:
    run = executing(error='{"raw": "no", "type": "STRING_ERROR"}')
    assert patched(run, status="COMPLETED")["error"] is None
    assert "error" not in patched(run, status="FAILED")
    assert "error" not in patched(run, status="COMPLETED", error="no")


def test_the_same_error_again_is_no_change() -> None:
    run = executing(error='{"raw": "no", "type": "STRING_ERROR"}')
    assert patched(run, error="no") == {}
    assert "error" in patched(run, error="other")
    assert "error" in patched(executing(error="by hand"), error="no")


@pytest.mark.parametrize("status", sorted(RAW_STATUSES))
def test_cancelling_ends_every_unfinished_run(status: str) -> None:
    run = make_run(status=status, started_at=STARTED)
    changes = changes_for_cancel(run, NOW)
    if status in FINAL_STATUSES:
        assert changes == {}
        return
    cancelled = replace(run, **changes)
    assert cancelled.status == "CANCELED"
    assert cancelled.completed_at == NOW
    assert cancelled.usage_duration_ms == 60_000
    assert cancelled.error is not None
    assert json.loads(cancelled.error)["type"] == "STRING_ERROR"


def test_tags_are_added_after_those_already_there() -> None:
    run = make_run(tags=("a", "b"))
    assert changes_for_tags_added(run, ("b", "c")) == {"tags": ("a", "b", "c")}
    assert changes_for_tags_added(run, ("b", "a")) == {}
    assert changes_for_tags_added(run, ()) == {}


def test_an_eleventh_tag_is_refused_and_none_added() -> None:
    run = make_run(tags=tuple("abcdefghi"))
    assert len(changes_for_tags_added(run, ("i", "j"))["tags"]) == 10
    with pytest.raises(Unprocessable, match="at most 10 tags, not 11"):
        changes_for_tags_added(run, ("j", "k"))


@pytest.mark.parametrize(
    ("value", "tags"),
    [
        ("a", ("a",)),
        (["a", "b", "a"], ("a", "b")),
        (["", "  ", "a b"], ("a b",)),
        ([], ()),
        (["x" * 128], ("x" * 128,)),
        ([str(n % 10) for n in range(30)], tuple("0123456789")),
    ],
)
def test_tags_are_distinct_and_not_blank(value: object, tags: tuple[str, ...]) -> None:
    assert parse_tags(value) == tags


@pytest.mark.parametrize(
    "value", [None, 5, {"a": 1}, [None], ["x" * 129], ["a\0"], ["a\n"], ["\ud800"]]
)
def test_what_is_no_tag_is_refused(value: object) -> None:
    with pytest.raises(InvalidBody):
        parse_tags(value)


def test_more_than_ten_tags_are_refused() -> None:
    with pytest.raises(Unprocessable):
        parse_tags([str(n) for n in range(11)])


def test_metadata_operations_and_replacement() -> None:
    run = make_run(metadata='{"n": 1}')
    operations = parse_operations([{"type": "increment", "key": "n", "value": 1}])
    assert changes_for_metadata(run, operations, LIMIT, NOW) == {"metadata": '{"n":2}'}
    assert changes_for_metadata(run, {"é": True}, LIMIT, NOW) == {"metadata": '{"é":true}'}


def test_metadata_that_stays_the_same_is_no_change() -> None:
    run = make_run(metadata='{"b": 1, "a": [true]}')
    assert changes_for_metadata(run, {"a": [True], "b": 1}, LIMIT, NOW) == {}
    assert changes_for_metadata(run, (), LIMIT, NOW) == {}
    assert changes_for_metadata(run, {"a": [1], "b": 1}, LIMIT, NOW) != {}


@pytest.mark.parametrize(("minutes", "allowed"), [(59, True), (60, True), (61, False)])
def test_metadata_of_a_finished_run_can_change_for_an_hour(minutes: int, allowed: bool) -> None:
    run = make_run(status="CANCELED", completed_at=NOW - timedelta(minutes=minutes))
    if allowed:
        assert changes_for_metadata(run, {"a": 1}, LIMIT, NOW)
    else:
        with pytest.raises(Unprocessable, match="an hour after"):
            changes_for_metadata(run, {"a": 1}, LIMIT, NOW)


def test_metadata_over_the_limit_is_refused_whole() -> None:
    run = make_run(metadata=json.dumps({"a": "x" * 1000}))
    operations = parse_operations([{"type": "set", "key": "b", "value": "x" * 100}])
    with pytest.raises(PayloadTooLarge, match=f"at most {LIMIT}"):
        changes_for_metadata(run, operations, LIMIT, NOW)


@pytest.mark.parametrize("stored", ["broken", "[1]", '{"a": ' + "[" * 300 + "]" * 300 + "}"])
def test_metadata_that_cannot_be_read_can_be_replaced(stored: str) -> None:
    run = make_run(metadata=stored)
    with pytest.raises(Unprocessable, match="replace it as a whole"):
        changes_for_metadata(run, (), LIMIT, NOW)
    assert changes_for_metadata(run, {"a": 1}, LIMIT, NOW) == {"metadata": '{"a":1}'}


times = st.datetimes(timezones=st.just(UTC)).map(datetime.isoformat)
patches = st.fixed_dictionaries(
    {},
    optional={
        "status": st.sampled_from(sorted(RAW_STATUSES)),
        "startedAt": times,
        "queuedAt": times,
        "output": st.none() | st.integers(-(2**53), 2**53) | st.just("text"),
        "usageDurationMs": st.integers(0, 10),
        "tags": st.lists(st.sampled_from("abc")),
        "error": st.just("no"),
        "metadata": st.dictionaries(st.sampled_from("ab"), st.integers(0, 1)),
    },
)


@given(st.lists(patches, max_size=6))
def test_after_any_patches_a_run_is_consistent_and_patching_again_is_no_change(
    series: list[dict[str, Any]],
) -> None:
    run = make_run()
    for patch in series:
        try:
            changes = changes_for_patch(run, patch, NOW)
        except IllegalTransition:
            continue
        finished_at = run.completed_at
        run = replace(run, **changes)
        assert_consistent(run)
        assert finished_at in (None, run.completed_at)
        assert run.usage_duration_ms >= 0
        assert changes_for_patch(run, patch, NOW) == {}


@pytest.mark.parametrize("status", sorted(RAW_STATUSES))
def test_only_a_delayed_run_is_rescheduled(status: str) -> None:
    run = make_run(status=status)
    if status == "DELAYED":
        assert changes_for_reschedule(run, NOW) == {"delay_until": NOW}
        assert changes_for_reschedule(replace(run, delay_until=NOW), NOW) == {}
    else:
        with pytest.raises(NotDelayed, match=status):
            changes_for_reschedule(run, NOW)


def trigger(until: int, *, most: float | None = None, trailing: bool = False) -> NewRun:
    """One more trigger, that asks for so many seconds after the run's creation."""
    debounce = Debounce("k", CREATED_AT + timedelta(seconds=until), trailing, most)
    return NewRun(environment_id="env_1", task="t", payload='"new"', debounce=debounce)


def delayed(seconds: int) -> Run:
    return make_run(status="DELAYED", delay_until=CREATED_AT + timedelta(seconds=seconds))


class TestDebounce:
    def test_a_trigger_pushes_the_run_later_and_never_earlier(self) -> None:
        later = CREATED_AT + timedelta(seconds=20)
        assert changes_for_debounce(delayed(10), None, trigger(20)) == {"delay_until": later}
        assert changes_for_debounce(delayed(30), None, trigger(20)) == {}

    @given(st.integers(1, 50), st.integers(1, 50), st.none() | st.integers(1, 50))
    def test_no_trigger_is_pushed_past_any_limit(
        self, until: int, first: int, second: int | None
    ) -> None:
        limit = CREATED_AT + timedelta(seconds=first)
        changes = changes_for_debounce(delayed(1), limit, trigger(until, most=second))
        allowed = min(first, first if second is None else second)
        if until > allowed:
            assert changes is None
        else:
            assert changes is not None
            known = changes.get("debounce_until", limit)
            assert known == CREATED_AT + timedelta(seconds=allowed)

    def test_only_a_trailing_trigger_brings_its_data(self) -> None:
        assert changes_for_debounce(delayed(30), None, trigger(20, trailing=True)) == {
            "payload": '"new"'
        }
        full = replace(
            trigger(20, trailing=True),
            payload=None,
            payload_type="text/plain",
            metadata='{"a":1}',
            tags=("x",),
            max_attempts=3,
            max_duration_seconds=1.5,
            machine="micro",
        )
        changes = changes_for_debounce(replace(delayed(30), payload='"old"'), None, full)
        assert changes == {
            "payload": None,
            "payload_type": "text/plain",
            "metadata": '{"a":1}',
            "seed_metadata": '{"a":1}',
            "tags": ("x",),
            "max_attempts": 3,
            "max_duration_seconds": 1.5,
            "machine": "micro",
        }
