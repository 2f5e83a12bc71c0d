"""What a line of the log looks like, for people and for programs."""

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from runcast.cli.logs import log_handler
from runcast.hub.log_context import request_id

logger = logging.getLogger("tests.logs")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def request_of_the_test() -> Iterator[None]:
    before = request_id.set("req-1")
    yield
    request_id.reset(before)


def logged(log_format: str, stream: io.StringIO, message: str, **options: Any) -> str:
    handler = log_handler(log_format, stream)
    record = logger.makeRecord(
        logger.name, logging.WARNING, __file__, 1, message, (), None, extra=options or None
    )
    handler.handle(record)
    return stream.getvalue()


def test_json_has_each_field_under_its_name() -> None:
    entry = json.loads(logged("json", io.StringIO(), 'two\nlines "ü"', seconds=1.5, writes=3))
    assert entry.pop("time").endswith("+00:00")
    assert entry == {
        "level": "WARNING",
        "logger": "tests.logs",
        "message": 'two\nlines "ü"',
        "request": "req-1",
        "seconds": 1.5,
        "writes": 3,
    }


def test_text_has_the_fields_behind_the_message() -> None:
    line = logged("text", io.StringIO(), "hello", seconds=1.5)
    assert line.endswith(" WARNING tests.logs: hello seconds=1.5 request=req-1\n")


def test_what_a_line_says_of_its_request_wins() -> None:
    assert json.loads(logged("json", io.StringIO(), "x", request="req-2"))["request"] == "req-2"


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_a_trace_is_part_of_it(log_format: str) -> None:
    stream = io.StringIO()
    handler = log_handler(log_format, stream)
    logger.addHandler(handler)
    try:
        raise ValueError("planted")
    except ValueError:
        logger.exception("it failed")
    finally:
        logger.removeHandler(handler)
    told = stream.getvalue()
    if log_format == "json":
        told = json.loads(told)["exception"]
    assert "Traceback" in told
    assert "ValueError: planted" in told


def test_text_is_for_terminals_and_json_for_the_rest() -> None:
    assert logged("auto", Terminal(), "x").endswith("request=req-1\n")
    assert json.loads(logged("auto", io.StringIO(), "x"))
    assert logged("text", io.StringIO(), "x").endswith("request=req-1\n")
    assert json.loads(logged("json", Terminal(), "x"))
