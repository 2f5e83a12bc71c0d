"""The runs in memory: what their snapshots see is what Postgres' would."""

import pytest

from runcast.core.position import Position
from runcast.core.selector import Selector
from runcast.errors import PositionLost
from runcast.testing import ManualClock, MemoryRunReader
from tests.support.runs import CREATED_AT, make_run
from tests.support.snapshots import read_snapshot

EVERYTHING = Selector("env_1")


async def seen(reader: MemoryRunReader, since: Position) -> list[str]:
    page = await reader.read_changes(EVERYTHING, since=since, after=None, limit=10)
    return sorted(change.facets.id for change in page.changes)


def test_a_clock_stands_until_it_is_moved() -> None:
    clock = ManualClock(10.0)
    clock.advance(2.5)
    assert clock.now() == clock.now() == 12.5
    clock.advance(-10.0)
    assert clock.now() == 2.5


async def test_commits_are_seen_in_their_order_not_in_that_of_their_beginnings() -> None:
    reader = MemoryRunReader()
    early, late = reader.begin(), reader.begin()
    early.write(make_run(id="early"))
    late.write(make_run(id="late"))
    start = reader.position
    late.commit()
    between = reader.position
    assert between.in_flight == (early.number,)
    assert await seen(reader, start) == ["late"]
    early.commit()
    assert await seen(reader, between) == ["early"]
    assert await seen(reader, start) == ["early", "late"]


async def test_the_newest_transaction_is_not_listed_as_in_flight() -> None:
    # As in Postgres: a snapshot ends right behind the last transaction that is over.
    reader = MemoryRunReader()
    running = reader.begin()
    assert reader.position == Position(1, running.number)


async def test_what_was_undone_was_never_there() -> None:
    reader = MemoryRunReader()
    reader.write(make_run(id="run_1", tags=("a",)))
    start = reader.position
    undone = reader.begin()
    undone.write(make_run(id="run_1", tags=()))
    undone.delete("run_1")
    undone.abort()
    assert await seen(reader, start) == []
    assert reader.changes(start, reader.position) == []


async def test_losing_a_tag_and_going_leave_departures() -> None:
    reader = MemoryRunReader()
    reader.write(make_run(id="run_1", tags=("a", "b")))
    start = reader.position
    reader.write(make_run(id="run_1", tags=("b", "c")))
    reader.delete("run_1")
    reader.delete("run_1")
    page = await reader.read_changes(
        Selector("env_1", tags=("a",)), since=start, after=None, limit=10
    )
    (change,) = page.changes
    assert change.run is None
    assert [departure.deleted for departure in change.departures] == [False]
    (change,) = reader.changes(start, reader.position)
    assert [departure.facets.tags for departure in change.departures] == [("a", "b"), ("b", "c")]
    versions = [departure.version for departure in change.departures]
    assert versions == sorted(versions)


async def test_old_snapshots_stay_readable() -> None:
    reader = MemoryRunReader()
    reader.write(make_run(id="run_1", attempt_count=1))
    old = reader.position
    reader.write(make_run(id="run_1", attempt_count=2))
    then, now = reader.run_at(old, "run_1"), reader.run_at(reader.position, "run_1")
    assert then is not None
    assert now is not None
    assert (then.attempt_count, now.attempt_count) == (1, 2)
    assert then.version < now.version


def test_a_run_that_another_transaction_wrote_cannot_be_written() -> None:
    reader = MemoryRunReader()
    first, second = reader.begin(), reader.begin()
    first.write(make_run())
    with pytest.raises(RuntimeError, match="locked"):
        second.write(make_run())
    first.commit()
    second.write(make_run())


async def test_pages_are_newest_first_and_neither_skip_nor_repeat() -> None:
    reader = MemoryRunReader()
    reader.write(*(make_run(id=f"run_{n}", created_at=CREATED_AT) for n in range(3)))
    reader.write(make_run(id="run_9", created_at=CREATED_AT.replace(year=2025)))
    ids, after = [], None
    while True:
        page = await read_snapshot(reader, EVERYTHING, after=after, limit=1)
        ids += [change.facets.id for change in page.changes]
        after = page.next
        if after is None:
            break
    assert ids == ["run_2", "run_1", "run_0", "run_9"]


async def test_a_run_belongs_to_its_environment() -> None:
    reader = MemoryRunReader()
    reader.write(make_run(id="run_1"))
    found = await reader.look_up_runs("env_1", ["run_1", "run_2"])
    assert [run_id for run_id, run in found.items() if run is not None] == ["run_1"]
    assert await reader.look_up_runs("env_2", ["run_1"]) == {"run_1": None}


@pytest.mark.parametrize(
    ("since", "reason"), [(Position(2, 1), "other_database"), (Position(1, 1 << 40), "ahead")]
)
async def test_a_position_of_elsewhere_is_lost(since: Position, reason: str) -> None:
    with pytest.raises(PositionLost) as caught:
        await seen(MemoryRunReader(), since)
    assert caught.value.reason == reason
