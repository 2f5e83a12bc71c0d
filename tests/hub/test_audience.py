"""Audiences: one encoding for all who can take it at once, the machine for all others."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from runcast.core.frame import GoneFrame, RunFrame, StateFrame
from runcast.core.position import Position
from runcast.core.scope import compile_scopes
from runcast.core.selector import Selector
from runcast.core.sse import SseFormat
from runcast.core.view import View
from runcast.hub.audience import Audience
from runcast.hub.counts import Counts
from runcast.hub.form import AudienceKey
from tests.support.event_stream import parse_events
from tests.support.runs import make_run

BEFORE, AFTER = Position(1, 10), Position(1, 12)
FORM = SseFormat(frozenset(), chunked=False)


@dataclass(eq=False)
class FakeReceiver:
    """Receives as it is told to; the hub's tests use real ones."""

    key: AudienceKey
    connection: Any = field(default_factory=lambda: SimpleNamespace(kind="sse"))
    written: list[bytes] = field(default_factory=list)
    windows: list[tuple[Sequence[StateFrame], Position, Position]] = field(default_factory=list)

    def receive_window(
        self, frames: Sequence[StateFrame], before: Position, after: Position
    ) -> None:
        self.windows.append((frames, before, after))


def audience(*direct: bool, ends_with_run: bool = False) -> tuple[Audience, list[FakeReceiver]]:
    view = View(Selector("env_1"), compile_scopes(["read:runs"]))
    key = AudienceKey(view, FORM, ends_with_run)
    made = Audience(key)
    receivers = [FakeReceiver(key) for _ in direct]
    made.subscribers.update(dict.fromkeys(receivers))
    for receiver, has_nothing_to_add in zip(receivers, direct, strict=True):
        made.write_past(receiver, receiver.written.append if has_nothing_to_add else None)
    return made, receivers


def deliver(made: Audience, *frames: StateFrame) -> int:
    return made.deliver(frames, BEFORE, AFTER, AFTER.cursor(), Counts())


def test_all_who_can_take_it_get_the_same_bytes_object() -> None:
    made, (one, other) = audience(True, True)
    assert deliver(made, RunFrame(make_run(id="a")), RunFrame(make_run(id="b"))) == 2
    assert one.written[0] is other.written[0]
    first, second = parse_events(one.written[0])
    assert (first.id, second.id) == (None, AFTER.cursor())
    assert (first.json["id"], second.json["id"]) == ("a", "b")


def test_others_take_the_frames_through_their_machines() -> None:
    made, (slow, quick) = audience(False, True)
    frame = RunFrame(make_run())
    deliver(made, frame)
    assert slow.written == []
    assert slow.windows == [((frame,), BEFORE, AFTER)]
    assert quick.windows == []


def test_nothing_is_encoded_that_nobody_takes_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made, _ = audience(False, False)
    monkeypatch.setattr(SseFormat, "encode", None)
    assert deliver(made, RunFrame(make_run())) == 0


FINISHED = RunFrame(make_run(status="COMPLETED_SUCCESSFULLY"))
DELETED = GoneFrame("run_1", "deleted", 1, 2)


@pytest.mark.parametrize("frame", [FINISHED, DELETED])
def test_the_last_state_of_a_run_goes_through_the_machine_which_ends(frame: StateFrame) -> None:
    made, (receiver,) = audience(True, ends_with_run=True)
    deliver(made, frame)
    assert receiver.written == []
    assert receiver.windows == [((frame,), BEFORE, AFTER)]


@pytest.mark.parametrize("frame", [RunFrame(make_run()), GoneFrame("run_1", "unmatched", 1, 2)])
def test_any_other_state_is_written_at_once(frame: StateFrame) -> None:
    made, (receiver,) = audience(True, ends_with_run=True)
    deliver(made, frame)
    assert len(receiver.written) == 1


@pytest.mark.parametrize("frame", [FINISHED, DELETED])
def test_feeds_that_go_on_need_no_machine_for_it(frame: StateFrame) -> None:
    made, (receiver,) = audience(True)
    deliver(made, frame)
    assert len(receiver.written) == 1
