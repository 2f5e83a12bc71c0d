"""Runs as JSON: the object of run feeds and the objects of REST answers."""

import json
import math
from datetime import UTC, datetime, timedelta, timezone
from functools import partial
from typing import Any

import orjson
import pytest
from hypothesis import given, strategies as st

from runcast.core.run import UNSKIPPABLE_COLUMNS, Run
from runcast.core.run_json import (
    common_object,
    iso_time,
    list_object,
    realtime_object,
    retrieve_object,
)
from runcast.core.status import RAW_STATUSES, ApiVersion
from tests.support.runs import CREATED_AT, make_run

NEW, OLD = ApiVersion.V2025_07_16, ApiVersion.UNVERSIONED
CREATED = "2026-01-31T12:00:00.123Z"
ENVIRONMENT = {"id": "env_1", "name": "dev"}

FULL = make_run(
    status="COMPLETED_WITH_ERRORS",
    version=7,
    delay_until=CREATED_AT,
    started_at=CREATED_AT,
    expired_at=CREATED_AT,
    ttl="1h",
    payload='{"a":1}',
    output="[1]",
    metadata='{"m": 1}',
    error='{"type": "STRING_ERROR", "raw": "no"}',
    tags=("b", "a"),
    realtime_streams=("log",),
    batch_id="batch_1",
    parent_id="run_p",
    root_id="run_r",
    depth=2,
    region="eu",
    worker_version="1",
    attempt_count=3,
    is_test=True,
    usage_duration_ms=5,
    cost_in_cents=0.5,
    base_cost_in_cents=0.25,
    idempotency_key="hash",
    idempotency_key_options='{"key": "mine", "scope": "global"}',
)


def realtime(run: Run, *skip: str) -> dict[str, Any]:
    encoded = realtime_object(run, frozenset(skip))
    assert b"\n" not in encoded
    assert b"\r" not in encoded
    value: dict[str, Any] = orjson.loads(encoded)
    return value


def plain(answer: dict[str, Any]) -> dict[str, Any]:
    value: dict[str, Any] = orjson.loads(orjson.dumps(answer))
    return value


def assert_without_null(value: dict[str, Any]) -> None:
    assert [name for name, item in value.items() if item is None] == []


def test_a_plain_run_has_the_required_fields_and_no_more() -> None:
    assert realtime(make_run()) == {
        "id": "run_1",
        "taskIdentifier": "hello-world",
        "status": "QUEUED",
        "revision": 1,
        "payload": None,
        "createdAt": CREATED,
        "updatedAt": CREATED,
        "queuedAt": CREATED,
        "number": 1,
        "durationMs": 0,
        "costInCents": 0.0,
        "baseCostInCents": 0.0,
        "tags": [],
        "isTest": False,
        "depth": 0,
        "attemptCount": 0,
        "queue": "task/hello-world",
        "metadata": {},
    }


def test_a_full_run_has_every_field() -> None:
    assert realtime(FULL) == {
        "id": "run_1",
        "taskIdentifier": "hello-world",
        "status": "FAILED",
        "revision": 7,
        "payload": {"a": 1},
        "output": [1],
        "metadata": {"m": 1},
        "error": {"message": "no"},
        "createdAt": CREATED,
        "updatedAt": CREATED,
        "queuedAt": CREATED,
        "delayedUntil": CREATED,
        "startedAt": CREATED,
        "finishedAt": CREATED,
        "expiredAt": CREATED,
        "ttl": "1h",
        "number": 1,
        "durationMs": 5,
        "costInCents": 0.5,
        "baseCostInCents": 0.25,
        "tags": ["b", "a"],
        "isTest": True,
        "idempotencyKey": "mine",
        "batchId": "batch_1",
        "parentId": "run_p",
        "rootId": "run_r",
        "depth": 2,
        "attemptCount": 3,
        "streams": ["log"],
        "queue": "task/hello-world",
    }


@pytest.mark.parametrize("field", sorted(realtime(FULL)))
def test_every_field_can_be_skipped_but_those_that_tell_runs_apart(field: str) -> None:
    kept = {"id", "taskIdentifier", "status", "createdAt", "revision"}
    expected = realtime(FULL)
    if field not in kept:
        del expected[field]
    assert realtime(FULL, field) == expected


@pytest.mark.parametrize(
    ("column", "field"),
    [
        ("usageDurationMs", "durationMs"),
        ("completedAt", "finishedAt"),
        ("delayUntil", "delayedUntil"),
        ("runTags", "tags"),
        ("realtimeStreams", "streams"),
    ],
)
def test_columns_can_be_skipped_by_the_names_of_official_clients(column: str, field: str) -> None:
    expected = realtime(FULL)
    del expected[field]
    assert realtime(FULL, column) == expected


def test_unskippable_columns_and_unknown_names_change_nothing() -> None:
    assert realtime(FULL, *UNSKIPPABLE_COLUMNS, "revision", "nonsense") == realtime(FULL)


def test_a_missing_payload_can_be_skipped() -> None:
    assert "payload" not in realtime(make_run(), "payload")


def test_packets_in_the_object_store_are_absent() -> None:
    run = make_run(
        payload="packets/1",
        payload_type="application/store",
        output="packets/2",
        output_type="application/store",
    )
    assert not {"payload", "output"} & set(realtime(run))


def test_line_breaks_between_stored_values_vanish() -> None:
    run = make_run(payload='{\n"a":\r\n"x\\ny"}', metadata='{"b":\n[1,\n2]}', output="a\nb",
                   output_type="text/plain")  # fmt: skip
    result = realtime(run)
    assert result["payload"] == {"a": "x\ny"}
    assert result["metadata"] == {"b": [1, 2]}
    assert result["output"] == "a\nb"


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_costs_that_are_no_number_are_zero(number: float) -> None:
    assert realtime(make_run(cost_in_cents=number))["costInCents"] == 0
    assert common_object(make_run(base_cost_in_cents=number), NEW)["baseCostInCents"] == 0


@pytest.mark.parametrize(
    ("options", "key"),
    [
        (None, "hash"),
        ('{"key": "mine"}', "mine"),
        ('{"key": ["a", "b"]}', "hash"),
        ("{}", "hash"),
        ("[]", "hash"),
        ("broken", "hash"),
    ],
)
def test_the_idempotency_key_is_the_users_if_known(options: str | None, key: str) -> None:
    run = make_run(idempotency_key="hash", idempotency_key_options=options)
    assert realtime(run)["idempotencyKey"] == key
    assert common_object(run, NEW)["idempotencyKey"] == key


def test_without_a_key_there_is_none_even_if_options_name_one() -> None:
    assert "idempotencyKey" not in realtime(make_run(idempotency_key_options='{"key": "mine"}'))


@pytest.mark.parametrize(
    ("time", "text"),
    [
        (datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), "2026-01-02T03:04:05.000Z"),
        (datetime(2026, 1, 2, 3, 4, 5, 999_999, tzinfo=UTC), "2026-01-02T03:04:05.999Z"),
        (
            datetime(2026, 1, 2, 3, 4, 5, 678_000, tzinfo=timezone(timedelta(hours=2))),
            "2026-01-02T01:04:05.678Z",
        ),
    ],
)
def test_times_are_utc_with_milliseconds(time: datetime, text: str) -> None:
    assert iso_time(time) == text


REQUIRED = {
    "id": str, "status": str, "taskIdentifier": str, "createdAt": str, "updatedAt": str,
    "tags": list, "isQueued": bool, "isExecuting": bool, "isWaiting": bool, "isCompleted": bool,
    "isSuccess": bool, "isFailed": bool, "isCancelled": bool, "isTest": bool,
    "costInCents": float, "baseCostInCents": float, "durationMs": int, "depth": int,
    "triggerFunction": str,
}  # fmt: skip


@pytest.mark.parametrize("api", ApiVersion)
@pytest.mark.parametrize("status", sorted(RAW_STATUSES))
def test_common_fields_are_complete_and_never_null(status: str, api: ApiVersion) -> None:
    answer = plain(common_object(make_run(status=status), api))
    assert_without_null(answer)
    assert {name: type(answer[name]) for name in REQUIRED} == REQUIRED
    assert set(answer) - set(REQUIRED) <= {"metadata", "finishedAt"}


def test_a_full_run_has_the_optional_common_fields() -> None:
    answer = plain(common_object(FULL, OLD))
    optional = {name: answer[name] for name in set(answer) - set(REQUIRED)}
    assert answer["tags"] == ["a", "b"]
    assert optional == {
        "idempotencyKey": "mine",
        "version": "1",
        "ttl": "1h",
        "startedAt": CREATED,
        "finishedAt": CREATED,
        "delayedUntil": CREATED,
        "expiredAt": CREATED,
        "metadata": {"m": 1},
        "batchId": "batch_1",
        "region": "eu",
    }


def test_what_clients_require_cannot_be_withheld_but_tags_are_emptied() -> None:
    names = frozenset({*REQUIRED, "metadata", "completedAt", "runTags"})
    answer = plain(common_object(FULL, NEW, withhold=names))
    assert set(REQUIRED) <= set(answer)
    assert answer["tags"] == []
    assert not {"metadata", "finishedAt"} & set(answer)


def test_retrieve_adds_packets_error_relations_and_attempts() -> None:
    root, child = make_run(id="run_r"), make_run(id="run_c")
    answer = plain(retrieve_object(FULL, NEW, root=root, parent=root, children=[child]))
    assert_without_null(answer)
    assert answer["payload"] == {"a": 1}
    assert "output" not in answer
    assert answer["error"] == {"message": "no"}
    assert answer["attempts"] == []
    assert answer["attemptCount"] == 3
    assert answer["relatedRuns"] == {
        "root": plain(common_object(root, NEW)),
        "parent": plain(common_object(root, NEW)),
        "children": [plain(common_object(child, NEW))],
    }


def test_retrieve_of_a_plain_run_leaves_out_what_is_not_there() -> None:
    answer = plain(retrieve_object(make_run(), NEW))
    assert answer["relatedRuns"] == {"children": []}
    assert set(answer) - set(REQUIRED) == {"metadata", "relatedRuns", "attempts", "attemptCount"}


def test_output_is_shown_once_the_run_succeeded() -> None:
    run = make_run(status="COMPLETED_SUCCESSFULLY", output='{"json": {"a": 1}}',
                   output_type="application/super+json")  # fmt: skip
    assert plain(retrieve_object(run, NEW))["output"] == {"a": 1}
    assert "output" not in retrieve_object(run, NEW, withhold=frozenset({"output"}))


def test_packets_in_the_object_store_come_as_urls() -> None:
    store = {"payload_type": "application/store", "output_type": "application/store"}
    run = make_run(status="COMPLETED_SUCCESSFULLY", payload="p", output="o", **store)
    shown = partial(retrieve_object, api=NEW, payload_url="https://x/p", output_url="https://x/o")
    answer = shown(run)
    assert answer["payloadPresignedUrl"] == "https://x/p"
    assert answer["outputPresignedUrl"] == "https://x/o"
    assert not {"payload", "output"} & set(answer)
    withheld = shown(run, withhold=frozenset({"payload", "output"}))
    assert not [name for name in withheld if name.endswith("Url")]
    assert "payloadPresignedUrl" not in shown(FULL)


def test_a_list_item_names_its_environment_and_hides_stream_keys() -> None:
    run = make_run(metadata='{"$$streams": ["a"], "$$streamsVersion": "v1", '
                            '"$$streamsBaseUrl": "x", "mine": 1}')  # fmt: skip
    answer = plain(list_object(run, NEW, environment=ENVIRONMENT))
    assert answer["env"] == ENVIRONMENT
    assert answer["metadata"] == {"mine": 1}
    assert set(answer) - set(REQUIRED) == {"metadata", "env"}
    assert plain(common_object(run, NEW))["metadata"]["$$streams"] == ["a"]


def test_a_list_item_keeps_metadata_withheld() -> None:
    run = make_run(metadata='{"$$streams": []}')
    hidden = frozenset({"metadata"})
    assert "metadata" not in list_object(run, NEW, environment=ENVIRONMENT, withhold=hidden)


@pytest.mark.parametrize(
    "metadata", ['["$$streams"]', "$$streams", '{"$$streams": ' + "[" * 300 + "]" * 300 + "}",
                 '{"x$$streams": ' + "[" * 300 + "]" * 300 + "}"]
)  # fmt: skip
def test_metadata_written_by_others_never_breaks_a_list(metadata: str) -> None:
    json.loads(orjson.dumps(list_object(make_run(metadata=metadata), NEW, environment=ENVIRONMENT)))


texts = st.text() | st.sampled_from(['{"a":\n1}', "[1,\r2]", '"\\ud800"', "1e999"])
kinds = st.sampled_from(
    ["application/json", "application/super+json", "text/plain", "application/store", "x/y"]
)
runs = st.builds(
    make_run,
    status=st.sampled_from(sorted(RAW_STATUSES)),
    payload=st.none() | texts,
    payload_type=kinds,
    output=st.none() | texts,
    output_type=kinds,
    metadata=texts,
    error=st.none() | texts,
    tags=st.lists(st.text(), max_size=3).map(tuple),
    ttl=st.none() | st.text(),
    idempotency_key=st.none() | st.text(),
    idempotency_key_options=st.none() | texts,
    cost_in_cents=st.floats(),
    version=st.integers(0, 2**63 - 1),
    started_at=st.none() | st.datetimes(timezones=st.just(UTC)),
)


@given(runs, st.frozensets(st.sampled_from(sorted(realtime(FULL)))))
def test_whatever_is_stored_every_object_is_valid_json_on_one_line(
    run: Run, skip: frozenset[str]
) -> None:
    encoded = realtime_object(run, skip)
    assert b"\n" not in encoded
    assert b"\r" not in encoded
    value = json.loads(encoded)
    assert value["id"] == run.id
    assert value["revision"] == run.version
    assert [name for name, item in value.items() if item is None] in ([], ["payload"], ["output"],
        ["payload", "output"])  # fmt: skip
    for api in ApiVersion:
        json.loads(orjson.dumps(retrieve_object(run, api, parent=run, withhold=skip)))
        json.loads(orjson.dumps(list_object(run, api, environment=ENVIRONMENT, withhold=skip)))
