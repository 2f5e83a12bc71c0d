"""Shapes: rows that no client can choke on, messages, and what clients bring back."""

import json
import math
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest
from hypothesis import given, strategies as st

from runcast.core.frame import (
    Expired,
    Frame,
    GoneFrame,
    KeepAlive,
    Problem,
    Reconnect,
    Reset,
    RunFrame,
    UpToDate,
)
from runcast.core.page import PageKey, Paging
from runcast.core.position import Position
from runcast.core.run import Run
from runcast.core.selector import Selector
from runcast.core.shape import ShapeFormat, ShapeSseFormat, messages_body
from runcast.core.shape_echo import Echo, parse_echo, shape_name, whole_offset
from runcast.core.shape_error import shape_error
from runcast.core.shape_row import Dialect, Row, shape_row, shape_schema
from runcast.core.status import RAW_STATUSES
from tests.support.runs import CREATED_AT, make_run

NEW = Dialect()
OLD = Dialect(unversioned=True, finds_streams_in_metadata=True, knows_newer_codes=False)
NOTHING: frozenset[str] = frozenset()

# What the schemas of both generations refuse to be without.
REQUIRED = {"id", "taskIdentifier", "friendlyId", "status", "createdAt", "updatedAt"}
REQUIRED_BY_OLD = {"number", "isTest", "usageDurationMs", "costInCents", "baseCostInCents"}


def row(run: Run, dialect: Dialect = NEW, *skip: str) -> Row:
    return shape_row(run, dialect, frozenset(skip))


def schema(dialect: Dialect = NEW, *skip: str) -> dict[str, Any]:
    value: dict[str, Any] = orjson.loads(shape_schema(dialect, frozenset(skip)))
    return value


def parsed_array(text: str) -> list[str]:
    """As PostgreSQL and the client's parser read an array literal of quoted elements."""
    items, item, quoted, escaped = [], "", False, False
    for character in text[1:-1]:
        if escaped:
            item, escaped = item + character, False
        elif quoted and character == "\\":
            escaped = True
        elif character == '"':
            if quoted:
                items.append(item)
            item, quoted = "", not quoted
        elif quoted:
            item += character
        else:
            assert character == ","
    assert not quoted
    return items


class TestDialect:
    @pytest.mark.parametrize(
        ("version", "streams", "codes"),
        [
            (None, False, True),
            ("4.8.3", False, True),
            ("4.5.0-beta.1", False, True),
            ("4.4.9", False, False),
            ("4.1.0", False, False),
            ("4.0.6", True, False),
            ("nonsense", False, True),
            ("10.0", False, True),
        ],
    )
    def test_of_versioned_clients(self, version: str | None, streams: bool, codes: bool) -> None:
        dialect = Dialect.of(versioned=True, trigger_version=version)
        assert dialect == Dialect(False, streams, codes)

    def test_of_the_generation_before(self) -> None:
        assert Dialect.of(versioned=False, trigger_version="3.3.17") == OLD


class TestRow:
    def test_holds_texts_and_nothing_else(self) -> None:
        run = make_run(
            status="COMPLETED_SUCCESSFULLY",
            payload='{"a":1}',
            output="done",
            output_type="text/plain",
            tags=("a", 'b,"\\}'),
            realtime_streams=("log",),
            usage_duration_ms=1500,
            cost_in_cents=0.25,
            is_test=True,
        )
        time = "2026-01-31T12:00:00.123"
        assert row(run) == {
            "id": "run_1",
            "taskIdentifier": "hello-world",
            "friendlyId": "run_1",
            "status": "COMPLETED_SUCCESSFULLY",
            "createdAt": time,
            "updatedAt": time,
            "startedAt": None,
            "delayUntil": None,
            "queuedAt": time,
            "expiredAt": None,
            "completedAt": time,
            "number": "1",
            "isTest": "t",
            "usageDurationMs": "1500",
            "costInCents": "0.25",
            "baseCostInCents": "0.0",
            "ttl": None,
            "payload": '{"a":1}',
            "payloadType": "application/json",
            "metadata": "{}",
            "metadataType": "application/json",
            "output": "done",
            "outputType": "text/plain",
            "runTags": '{"a","b,\\"\\\\}"}',
            "error": None,
            "realtimeStreams": '{"log"}',
        }

    def test_has_the_columns_of_the_schema_and_says_nowhere_that_one_is_not_null(self) -> None:
        assert schema().keys() == row(make_run()).keys()
        assert schema()["runTags"] == {"type": "text", "dims": 1}
        assert schema()["createdAt"] == {"type": "timestamp"}
        assert not any("not_null" in column for column in schema().values())

    def test_without_tags_and_streams(self) -> None:
        plain = row(make_run())
        assert (plain["runTags"], plain["realtimeStreams"]) == (None, "{}")

    @given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1))
    def test_arrays_are_read_as_they_were(self, tags: list[str]) -> None:
        text = row(make_run(tags=tuple(tags)))["runTags"]
        assert text is not None
        assert parsed_array(text) == tags

    @pytest.mark.parametrize("status", sorted(RAW_STATUSES))
    def test_old_clients_get_only_statuses_that_they_know(self, status: str) -> None:
        run = make_run(status=status)
        assert row(run)["status"] == status
        expected = {"DEQUEUED": "EXECUTING", "PENDING_VERSION": "WAITING_FOR_DEPLOY"}
        assert row(run, OLD)["status"] == expected.get(status, status)

    def test_costs_that_are_no_numbers(self) -> None:
        odd = row(make_run(cost_in_cents=math.nan, base_cost_in_cents=math.inf))
        assert (odd["costInCents"], odd["baseCostInCents"]) == ("0.0", "0.0")

    @pytest.mark.parametrize(
        ("text", "kind", "shown"),
        [
            ("{", "application/json", "text/plain"),
            ("NaN", "application/json", "text/plain"),
            ('"\\ud800"', "application/json", "application/json"),
            ("1", "application/super+json", "text/plain"),
            ("null", "application/super+json", "text/plain"),
            ('{"json":1', "application/super+json", "text/plain"),
            ('{"json":1}', "application/super+json", "application/super+json"),
            ("{", "text/plain", "text/plain"),
            ("packets/1.json", "application/store", "application/store"),
        ],
    )
    def test_packets_that_are_not_what_their_type_says_are_text(
        self, text: str, kind: str, shown: str
    ) -> None:
        shaped = row(make_run(payload=text, payload_type=kind, output=text, output_type=kind))
        assert (shaped["payload"], shaped["payloadType"]) == (text, shown)
        assert (shaped["output"], shaped["outputType"]) == (text, shown)

    @pytest.mark.parametrize("text", ["1", '"text"', "null", "[1]", "{", "true"])
    def test_metadata_that_is_no_object_is_left_out(self, text: str) -> None:
        assert row(make_run(metadata=text))["metadata"] is None


class TestStreamsInMetadata:
    @pytest.mark.parametrize(
        ("metadata", "expected"),
        [
            ("{}", {"$$streams": ["a", "b"]}),
            ('{"x":1}', {"x": 1, "$$streams": ["a", "b"]}),
            ('{"$$streams":["b","c"]}', {"$$streams": ["b", "c", "a"]}),
            ('{"$$streams":"no list"}', {"$$streams": ["a", "b"]}),
            ('{"$$streams":[1,"a"]}', {"$$streams": ["a", "b"]}),
            ("[1]", {"$$streams": ["a", "b"]}),
        ],
    )
    def test_old_clients_find_them_there(self, metadata: str, expected: dict[str, Any]) -> None:
        run = make_run(metadata=metadata, realtime_streams=("a", "b"))
        text = row(run, OLD)["metadata"]
        assert text is not None
        assert json.loads(text) == expected

    def test_new_clients_do_not(self) -> None:
        run = make_run(metadata='{"x":1}', realtime_streams=("a",))
        assert row(run)["metadata"] == '{"x":1}'

    def test_where_there_are_none_the_metadata_is_as_stored(self) -> None:
        assert row(make_run(metadata='{"x": 1}'), OLD)["metadata"] == '{"x": 1}'


class TestSkippedColumns:
    def test_are_in_neither_row_nor_schema(self) -> None:
        skip = ("payload", "output", "runTags", "costInCents")
        assert not set(skip) & row(make_run(), NEW, *skip).keys()
        assert not set(skip) & schema(NEW, *skip).keys()

    def test_by_the_names_of_our_own_object(self) -> None:
        shaped = row(make_run(tags=("a",)), NEW, "tags", "finishedAt", "durationMs", "streams")
        assert not {"runTags", "completedAt", "usageDurationMs", "realtimeStreams"} & shaped.keys()

    def test_what_clients_cannot_do_without_stays(self) -> None:
        everything = frozenset(schema())
        assert shape_row(make_run(), NEW, everything).keys() == REQUIRED
        assert orjson.loads(shape_schema(NEW, everything)).keys() == REQUIRED

    def test_old_clients_get_more_but_without_meaning(self) -> None:
        run = make_run(number=7, is_test=True, usage_duration_ms=1, cost_in_cents=1.5)
        shaped = shape_row(run, OLD, frozenset(schema()))
        assert shaped.keys() == REQUIRED | REQUIRED_BY_OLD
        assert orjson.loads(shape_schema(OLD, frozenset(schema()))).keys() == shaped.keys()
        assert {name: shaped[name] for name in REQUIRED_BY_OLD} == {
            "number": "0",
            "isTest": "f",
            "usageDurationMs": "0",
            "costInCents": "0",
            "baseCostInCents": "0",
        }


class TestError:
    @pytest.mark.parametrize(
        ("stored", "expected"),
        [
            ({"type": "STRING_ERROR", "raw": "no"}, {"type": "STRING_ERROR", "raw": "no"}),
            ({"type": "CUSTOM_ERROR", "raw": "{}"}, {"type": "CUSTOM_ERROR", "raw": "{}"}),
            (
                {"type": "INTERNAL_ERROR", "code": "TASK_RUN_CRASHED", "message": "m", "x": 1},
                {"type": "INTERNAL_ERROR", "code": "TASK_RUN_CRASHED", "message": "m"},
            ),
            (
                {"type": "INTERNAL_ERROR", "code": "NEVER_HEARD_OF"},
                {
                    "type": "BUILT_IN_ERROR",
                    "name": "InternalError",
                    "message": "Internal error (NEVER_HEARD_OF)",
                    "stackTrace": "",
                },
            ),
            (
                {"message": "no"},
                {"type": "BUILT_IN_ERROR", "name": "Error", "message": "no", "stackTrace": ""},
            ),
            (
                {
                    "type": "BUILT_IN_ERROR",
                    "name": "TypeError",
                    "message": "no",
                    "stackTrace": "at x",
                    "causes": [{"message": "y", "name": 1}, {"name": "z"}, "w"],
                },
                {
                    "type": "BUILT_IN_ERROR",
                    "name": "TypeError",
                    "message": "no",
                    "stackTrace": "at x",
                    "causes": [{"message": "y"}],
                },
            ),
            ("text", {"type": "STRING_ERROR", "raw": "text"}),
            ([1], {"type": "STRING_ERROR", "raw": "[1]"}),
            ({"other": 1}, {"type": "STRING_ERROR", "raw": '{"other": 1}'}),
        ],
    )
    def test_is_brought_into_one_of_four_kinds(self, stored: Any, expected: dict[str, Any]) -> None:
        assert json.loads(shape_error(json.dumps(stored), True)) == expected

    def test_text_that_is_no_json(self) -> None:
        assert json.loads(shape_error("no{", True)) == {"type": "STRING_ERROR", "raw": "no{"}

    def test_codes_that_came_later_are_told_otherwise_to_old_clients(self) -> None:
        stored = '{"type": "INTERNAL_ERROR", "code": "PAYLOAD_TOO_LARGE", "message": "big"}'
        assert json.loads(shape_error(stored, True))["type"] == "INTERNAL_ERROR"
        old = json.loads(shape_error(stored, False))
        assert (old["type"], old["message"]) == ("BUILT_IN_ERROR", "big")

    @given(
        st.dictionaries(
            st.sampled_from(["type", "raw", "code", "name", "message", "stackTrace", "causes"]),
            st.sampled_from(["BUILT_IN_ERROR", "CUSTOM_ERROR", "STRING_ERROR", "INTERNAL_ERROR"])
            | st.none()
            | st.integers()
            | st.text(st.characters(exclude_categories=["Cs"]))
            | st.lists(st.dictionaries(st.sampled_from(["message", "name"]), st.integers())),
        )
    )
    def test_always_fits_the_schema_of_clients(self, value: dict[str, Any]) -> None:
        error = json.loads(shape_error(json.dumps(value), False))
        match error["type"]:
            case "STRING_ERROR" | "CUSTOM_ERROR":
                assert isinstance(error["raw"], str)
            case "INTERNAL_ERROR":
                assert isinstance(error["code"], str)
            case kind:
                assert kind == "BUILT_IN_ERROR"
                assert all(isinstance(error[n], str) for n in ("name", "message", "stackTrace"))


class TestMessages:
    def test_of_runs(self) -> None:
        changed = make_run(updated_at=CREATED_AT + timedelta(seconds=1))
        form = ShapeFormat(NEW, NOTHING)
        message = orjson.loads(form.encode(RunFrame(changed), None))
        assert message["key"] == '"public"."TaskRun"/"run_1"'
        assert message["value"] == row(changed)
        assert message["headers"] == {"operation": "update"}
        fresh = orjson.loads(form.encode(RunFrame(make_run()), None))
        assert fresh["headers"] == {"operation": "insert"}
        first = ShapeFormat(NEW, NOTHING, snapshot=True).encode(RunFrame(changed), None)
        assert orjson.loads(first)["headers"] == {"operation": "insert"}

    def test_are_made_once_for_equal_formats(self) -> None:
        frame = RunFrame(make_run())
        one = ShapeFormat(NEW, frozenset({"payload"})).encode(frame, None)
        assert ShapeFormat(NEW, frozenset({"payload"})).encode(frame, None) is one
        assert ShapeFormat(OLD, frozenset({"payload"})).encode(frame, None) is not one

    def test_of_nothing_but_runs(self) -> None:
        form = ShapeFormat(NEW, NOTHING)
        frames: list[Frame] = [
            *(UpToDate(), KeepAlive(), Reset("ahead", ""), Expired(), Reconnect(1)),
            *(Problem("x", "y"), GoneFrame("run_1", "deleted", 1, 1)),
        ]
        assert [form.encode(frame, "cursor") for frame in frames] == [b""] * len(frames)

    def test_packed_are_part_of_a_list(self) -> None:
        form = ShapeFormat(NEW, NOTHING)
        packed = form.pack([b'{"a":1}', b"", b'{"b":2}'])
        whole = b"".join(messages_body([packed], up_to_date=True))
        assert orjson.loads(whole) == [{"a": 1}, {"b": 2}, {"headers": {"control": "up-to-date"}}]
        part = b"".join(messages_body([packed, packed], up_to_date=False))
        assert orjson.loads(part) == [{"a": 1}, {"b": 2}, {"a": 1}, {"b": 2}]
        assert b"".join(messages_body([], up_to_date=False)) == b"[]"


class TestServerSentEvents:
    form = ShapeSseFormat(ShapeFormat(NEW, NOTHING), chunked=False)

    def events(self, frame: Any, position: Position | None) -> list[Any]:
        text = self.form.encode(frame, position.cursor() if position else None).decode()
        return [
            json.loads(block.removeprefix("data: ")) for block in text.split("\n\n") if block != ""
        ]

    def test_a_group_ends_with_where_it_leads(self) -> None:
        position = Position(1, 20, (12, 15))
        run, control = self.events(RunFrame(make_run()), position)
        assert run["value"]["id"] == "run_1"
        assert control["headers"] == {"control": "up-to-date", "global_last_seen_lsn": "12"}
        assert [self.events(UpToDate(), Position(1, 20))[0]["headers"]["global_last_seen_lsn"]] == [
            "20"
        ]

    def test_what_left_is_not_told_and_a_reset_is(self) -> None:
        assert self.events(GoneFrame("run_1", "unmatched", 1, 1), None) == []
        (reset,) = self.events(Reset("ahead", ""), None)
        assert reset == {"headers": {"control": "must-refetch"}}
        assert self.form.encode(Expired(), None) == b""
        assert self.form.encode(KeepAlive(), "x").startswith(b":")

    def test_chunked(self) -> None:
        chunked = ShapeSseFormat(ShapeFormat(NEW, NOTHING), chunked=True)
        assert chunked.pack([b"abc"]) == b"3\r\nabc\r\n"
        assert chunked.pack([b""]) == b""


@st.composite
def positions(draw: st.DrawFn) -> Position:
    xmax = draw(st.integers(3, 2**62))
    in_flight = draw(st.sets(st.integers(max(1, xmax - 100_000), xmax - 1), max_size=8))
    incarnation = draw(st.integers(0, 2**40))
    return Position(draw(st.integers(1, 2**47)), xmax, tuple(sorted(in_flight)), incarnation)


class TestEcho:
    @given(positions(), st.none() | st.integers(0, 2**41), st.booleans())
    def test_comes_back_as_it_was_sent(
        self, position: Position, bound: int | None, with_cursor: bool
    ) -> None:
        created_after = None if bound is None else bound / 1000
        echo = Echo("0" * 12, "f" * 8, created_after, position)
        cursor = f"{echo.cursor}.abcd" if with_cursor else ""
        assert parse_echo(echo.handle, echo.offset, cursor) == echo

    @given(positions(), positions(), st.none() | positions(), st.text(min_size=1))
    def test_between_two_parts_too(
        self, position: Position, first: Position, since: Position | None, run_id: str
    ) -> None:
        paging = Paging(since, first, PageKey(CREATED_AT, run_id))
        echo = Echo("0" * 12, "f" * 8, None, position, paging)
        assert parse_echo(echo.handle, echo.offset, "") == echo

    @given(positions())
    def test_is_fit_for_headers_and_addresses(self, position: Position) -> None:
        echo = Echo("0" * 12, "f" * 8, 1.5, position)
        for text in (echo.handle, echo.cursor):
            assert set(text) <= set(
                "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_."
            )
        before, after = echo.offset.split("_")
        assert before.isdecimal()
        assert after.isdecimal()

    @given(st.sets(st.integers(1, 2**40), min_size=300, max_size=1000))
    def test_with_many_transactions_in_flight_it_stays_short_and_loses_nothing(
        self, in_flight: set[int]
    ) -> None:
        position = Position(1, 2**40 + 1, tuple(sorted(in_flight)))
        echo = Echo("0" * 12, "f" * 8, None, position)
        assert len(echo.offset) + len(echo.cursor) + len(echo.handle) < 2000
        again = parse_echo(echo.handle, echo.offset, f"{echo.cursor}.x")
        assert again is not None
        assert position.covers(again.position)

    def test_the_newer_of_offset_and_cursor_wins(self) -> None:
        old, new = Position(1, 10), Position(1, 20)
        before, after = (Echo("0" * 12, "f" * 8, None, each) for each in (old, new))
        newer = parse_echo(before.handle, before.offset, f"{after.cursor}.x")
        assert newer is not None
        assert newer.position == new
        # The cursor of a stream of events stays behind what the events say.
        older = parse_echo(after.handle, after.offset, f"{before.cursor}.x")
        assert older is not None
        assert older.position == new

    @pytest.mark.parametrize(
        "cursor", ["", "x", "1.2.3", Position(2, 20).cursor(), Position(1, 20, (), 5).cursor()]
    )
    def test_a_cursor_from_elsewhere_does_not_count(self, cursor: str) -> None:
        echo = Echo("0" * 12, "f" * 8, None, Position(1, 10))
        assert parse_echo(echo.handle, echo.offset, cursor) == echo

    @given(st.text(), st.text())
    def test_garbage_is_nothing(self, handle: str, offset: str) -> None:
        echo = Echo("0" * 12, "f" * 8, None, Position(1, 10))
        assert parse_echo(handle, echo.offset, "") is None
        if "_" not in offset:
            assert parse_echo(echo.handle, offset, "") is None

    @pytest.mark.parametrize(
        ("handle", "offset"),
        [
            ("1.2..000000000000.ffffffff", "-1"),
            ("1.2..000000000000.ffffffff", "0_inf"),
            ("1.2..000000000000.ffffffff", "10_5"),
            ("1.2..000000000000.ffffffff", "10_" + "9" * 5000),
            ("1.2..000000000000.ffffffff-next", "10_0"),
            ("9999999999999999999.2..000000000000.ffffffff", "10_0"),
            ("1.2..000000000000.ffffffff..x.1.eA", "10_0"),
            ("1.2..000000000000.ffffffff." + "A" * 9000, "10_0"),
        ],
    )
    def test_what_looks_like_one_is_looked_at_closely(self, handle: str, offset: str) -> None:
        assert parse_echo(handle, offset, "") is None

    @given(st.integers(1, 10**40))
    def test_any_number_behind_the_underscore(self, number: int) -> None:
        echo = parse_echo("1.2..000000000000.ffffffff", f"1000_{number}", "")
        assert echo is None or all(0 <= xid < 1000 for xid in echo.position.in_flight)

    def test_one_number_stands_for_a_position(self) -> None:
        assert whole_offset(Position(1, 20, (12, 15))) == "12"
        assert whole_offset(Position(1, 20)) == "20"


def test_a_shape_is_told_from_others_by_all_but_its_bound() -> None:
    plain = Selector("env_1", tags=("a", "b"))
    name = shape_name(plain, frozenset({"read:runs"}))
    assert name == shape_name(
        Selector("env_1", tags=("b", "a"), created_after=5.0), frozenset({"read:runs"})
    )
    others = [
        shape_name(plain, frozenset({"read:tags"})),
        shape_name(Selector("env_2", tags=("a", "b")), frozenset({"read:runs"})),
        shape_name(Selector("env_1", tags=("a",)), frozenset({"read:runs"})),
        shape_name(Selector("env_1", run_id="a"), frozenset({"read:runs"})),
        shape_name(Selector("env_1", task="a"), frozenset({"read:runs"})),
        shape_name(Selector("env_1", batch_id="a"), frozenset({"read:runs"})),
    ]
    assert len({name, *others}) == 7


def test_times_before_the_epoch_and_after_all_others() -> None:
    for moment in (datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC)):
        assert row(make_run(created_at=moment))["createdAt"] == moment.strftime(
            f"{moment.year:04d}-%m-%dT00:00:00.000"
        )
