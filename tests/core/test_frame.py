"""Frames: a run is encoded once for each set of columns."""

import orjson

from runcast.core.frame import RunFrame
from tests.support.runs import make_run

NOTHING: frozenset[str] = frozenset()


def test_a_run_is_encoded_once_for_each_set_of_columns() -> None:
    frame = RunFrame(make_run(payload='{"a":1}'))
    whole, without = frame.json(NOTHING), frame.json(frozenset({"payload"}))
    assert frame.json(frozenset()) is whole
    assert frame.json(frozenset({"payload"})) is without
    assert "payload" in orjson.loads(whole)
    assert "payload" not in orjson.loads(without)


def test_frames_of_equal_runs_are_equal_whether_encoded_or_not() -> None:
    one, other = RunFrame(make_run()), RunFrame(make_run())
    one.json(NOTHING)
    assert one == other


def test_knows_its_run_and_the_change_that_made_it() -> None:
    frame = RunFrame(make_run(id="run_9", version=7, changed_in=42))
    assert (frame.run_id, frame.revision, frame.changed_in) == ("run_9", 7, 42)
