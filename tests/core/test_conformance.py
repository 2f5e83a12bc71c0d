"""The cases of `conformance/` on the gateway's side: what it sends, byte for byte."""

from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml

from runcast.core.chunk import Chunk, StreamState
from runcast.core.frame import (
    End,
    Frame,
    GoneFrame,
    KeepAlive,
    Problem,
    Reset,
    RunFrame,
    StateFrame,
    UpToDate,
)
from runcast.core.page import PageKey
from runcast.core.position import Position
from runcast.core.socket_format import SocketFormat
from runcast.core.sse import SseFormat
from runcast.core.stream_format import StreamSocketFormat, StreamSseFormat
from runcast.core.stream_subscription import PartsFrame, StreamFrame, StreamSubscription
from runcast.core.subscription import Subscription
from runcast.errors import GatewayError
from tests.support.runs import CREATED_AT, make_run

_CASES = Path(__file__).parents[2] / "conformance" / "cases"
_NOTHING: frozenset[str] = frozenset()
_APPENDED_AT = 1000

Case = dict[str, Any]


def cases(name: str) -> pytest.MarkDecorator:
    found = yaml.safe_load((_CASES / f"{name}.yaml").read_text())
    return pytest.mark.parametrize(
        "case", found, ids=lambda case: case.get("name", case.get("code"))
    )


def chunks(offset: int, texts: list[str]) -> list[Chunk]:
    return [Chunk(index, text, _APPENDED_AT) for index, text in enumerate(texts, offset)]


@cases("frames")
def test_a_frame_is_sent_as_it_says(case: Case) -> None:
    [(kind, fields)] = case["frame"].items()
    cursor = case.get("cursor")
    if kind == "parts" or case.get("stream"):
        part = stream_frame(kind, fields)
        event = StreamSseFormat(chunked=False, only_parts=False).encode(part)
        message = StreamSocketFormat("s").encode(part)
    else:
        frame = run_frame(kind, fields)
        event = SseFormat(_NOTHING, chunked=False).encode(frame, cursor)
        message = SocketFormat("s", _NOTHING).encode(frame, cursor)
    assert event.decode() == case["sse"]
    assert orjson.loads(message) == case["socket"]


def stream_frame(kind: str, fields: Case) -> StreamFrame:
    if kind == "parts":
        return PartsFrame(chunks(fields["offset"], fields["chunks"]))
    return UpToDate(**fields)


def run_frame(kind: str, fields: Case) -> Frame:
    match kind:
        case "gone":
            return GoneFrame(fields["id"], fields["reason"], 1, 1)
        case "up-to-date":
            return UpToDate()
        case "keep-alive":
            return KeepAlive()
        case "reset":
            return Reset(**fields)
        case "end":
            return End(**fields)
    assert kind == "problem"
    return Problem(**fields)


def position(transaction: int) -> Position:
    return Position(1, transaction, ())


def states(fields: Case) -> list[StateFrame]:
    changed_in = fields.get("changed_in", 1)
    made: list[StateFrame] = []
    for kind in ("runs", "finished", "gone"):
        for written in fields.get(kind, ()):
            run_id, version = written.split(" v")
            status = "COMPLETED_SUCCESSFULLY" if kind == "finished" else "EXECUTING"
            made.append(
                GoneFrame(run_id, "unmatched", int(version), changed_in)
                if kind == "gone"
                else RunFrame(
                    make_run(id=run_id, version=int(version), changed_in=changed_in, status=status)
                )
            )
    return made


def apply(machine: Subscription, kind: str, fields: Case) -> int:
    """Give one input to a subscription; tell how far the changefeed is then."""
    match kind:
        case "page":
            following = PageKey(CREATED_AT, "run_9") if fields.get("more") else None
            machine.receive_page(states(fields), position(fields["at"]), following)
        case "window":
            before, after = position(fields["before"]), position(fields["after"])
            machine.receive_window(states(fields), before, after)
            return int(fields["after"])
        case "lost":
            machine.receive_lost(**fields)
        case "problem":
            machine.close(Problem(**fields))
    return 0


@cases("feeds")
def test_a_feed_sends_what_it_should(case: Case) -> None:
    since = position(case["since"]) if "since" in case else None
    machine = Subscription(since=since, ends_with_run=case.get("ends_with_run", False))
    sent, feed = [], 0
    for step in case["inputs"]:
        [(kind, fields)] = step.items()
        feed = max(feed, apply(machine, kind, fields))
        sent += machine.frames_to_send(position(feed))
    messages = []
    for frame, cursor in sent:
        text = None if cursor is None else f"@{cursor.xmax}"
        message = orjson.loads(SocketFormat("s", _NOTHING).encode(frame, text))
        del message["id"]
        if run := message.get("run"):
            message["run"] = f"{run['id']} v{run['revision']}"
        messages.append(message)
    assert messages == case["messages"]


@cases("streams")
def test_a_stream_sends_what_it_should(case: Case) -> None:
    machine = StreamSubscription(offset=None if case["from"] == "latest" else case["from"])
    sent: list[StreamFrame] = []
    for step in case["inputs"]:
        [(kind, fields)] = step.items()
        texts = [f'"{part}"' for part in fields["parts"]]
        if kind == "page":
            state = StreamState(fields.get("first", 0), fields["next"], fields.get("closed", False))
            machine.receive_page(chunks(fields["offset"], texts), state)
        else:
            machine.receive_live(chunks(fields["offset"], texts))
        sent += machine.frames_to_send()
    messages = []
    for frame in sent:
        message = orjson.loads(StreamSocketFormat("s").encode(frame))
        del message["id"]
        for of_the_clock in ("cursor", "times"):
            message.pop(of_the_clock, None)
        if reset := message.get("reset"):
            message["reset"] = reset["reason"]
        messages.append(message)
    assert messages == case["messages"]


@cases("errors")
def test_an_error_has_its_status_and_close_code(case: Case) -> None:
    error = _errors()[case["code"]]
    assert (error.http_status, error.close_code) == (case["status"], case["close"])


def _errors() -> dict[str, type[GatewayError]]:
    found: dict[str, type[GatewayError]] = {}
    waiting: list[type[GatewayError]] = [GatewayError]
    while waiting:
        error = waiting.pop()
        found.setdefault(error.code, error)
        waiting += error.__subclasses__()
    return found
