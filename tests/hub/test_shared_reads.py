"""Shared reads: one read for all who ask the same, and never one that began before they asked."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from runcast.core.page import ChangePage, PageKey
from runcast.core.position import Position
from runcast.core.run import Run
from runcast.core.selector import Selector
from runcast.errors import BackendError, Draining, PositionLost
from runcast.hub import shared_reads
from runcast.hub.shared_reads import SharedReads
from runcast.testing import MemoryRunReader
from tests.support.run_hub import EVERYTHING, RunHub, ScriptedRuns
from tests.support.runs import make_run
from tests.support.stream_hub import calm


@pytest.fixture
def runs() -> ScriptedRuns:
    return ScriptedRuns()


@pytest.fixture
def reads(runs: ScriptedRuns) -> SharedReads:
    return SharedReads(runs, asyncio.Semaphore(2), longest_pause=0)


def ask(reads: SharedReads, selector: Selector = EVERYTHING) -> "asyncio.Task[list[str]]":
    """Read the ids of a snapshot."""

    async def read() -> list[str]:
        page = await reads.read_snapshot(selector, after=None, limit=10)
        return [change.facets.id for change in page.changes]

    return asyncio.create_task(read())


async def test_who_asks_at_one_time_shares_a_read(runs: ScriptedRuns, reads: SharedReads) -> None:
    runs.write(make_run(id="run_1"))
    asked = [ask(reads) for _ in range(100)]
    assert await asyncio.gather(*asked) == [["run_1"]] * 100
    assert (runs.reads, reads.read, reads.asked) == (1, 1, 100)


async def test_nobody_gets_what_was_read_before_they_asked(
    runs: ScriptedRuns, reads: SharedReads
) -> None:
    hold = runs.hold_next_read()
    early = ask(reads)
    await hold.reached.wait()  # its snapshot is taken
    runs.write(make_run(id="run_1"))
    late = [ask(reads) for _ in range(10)]
    await calm()
    assert runs.reads == 1
    hold.release()
    assert await early == []
    assert await asyncio.gather(*late) == [["run_1"]] * 10
    assert runs.reads == 2


async def test_other_questions_are_read_apart(runs: ScriptedRuns, reads: SharedReads) -> None:
    runs.write(make_run(id="run_1"), make_run(id="run_2"))
    here = runs.position
    for number, question in enumerate(
        [
            reads.read_snapshot(EVERYTHING, after=None, limit=1),
            reads.read_snapshot(EVERYTHING, after=None, limit=2),
            reads.read_snapshot(Selector("env_2"), after=None, limit=1),
            reads.read_changes(EVERYTHING, since=here, after=None, limit=1),
            reads.read_changes(EVERYTHING, since=Position(1, 1), after=None, limit=1),
        ],
        start=1,
    ):
        await question
        assert runs.reads == number


def changes(
    reads: SharedReads, since: Position, after: PageKey | None = None, limit: int = 10
) -> "asyncio.Task[ChangePage]":
    return asyncio.create_task(
        reads.read_changes(EVERYTHING, since=since, after=after, limit=limit)
    )


async def test_those_who_stand_elsewhere_share_a_read_and_get_their_part(
    runs: ScriptedRuns, reads: SharedReads
) -> None:
    """A regression: with constant writes all have cursors of their own when a gateway restarts."""
    runs.write(make_run(id="run_0"))
    first = runs.position
    runs.write(make_run(id="run_1"))
    runs.delete("run_0")
    second = runs.position
    runs.write(make_run(id="run_2"))
    asked = [changes(reads, since) for since in (second, first, runs.position, second)]
    pages = await asyncio.gather(*asked)
    found = [
        {change.facets.id: change.run is not None for change in page.changes} for page in pages
    ]
    late, early = {"run_2": True}, {"run_2": True, "run_1": True, "run_0": False}
    assert found == [late, early, {}, late]
    assert runs.reads == 1
    assert pages[0].frames[0] in pages[1].frames  # encoded once


async def test_they_share_the_pages_that_follow_as_well(
    runs: ScriptedRuns, reads: SharedReads
) -> None:
    positions = []
    for number in range(6):
        positions.append(runs.position)
        runs.write(make_run(id=f"run_{number}"))
    standing = [positions[0], positions[3]]
    first = await asyncio.gather(*(changes(reads, since, limit=2) for since in standing))
    found = await asyncio.gather(
        *(changes(reads, since, page.next) for since, page in zip(standing, first, strict=True))
    )
    assert [len(page.changes) for page in found] == [4, 1]
    assert runs.reads == 2


class TestManyQuestions:
    """What changed is read once for all of an environment where many of its feeds wait."""

    def write(self, runs: ScriptedRuns) -> Position:
        """Change what can change about runs of twelve tags; returns the position before that."""
        for number in range(36):
            tags = (f"tag_{number % 12}", f"third_{number % 3}")
            runs.write(make_run(id=f"run_{number}", tags=tags))
        since = runs.position
        for number in range(12):
            runs.write(make_run(id=f"run_{number}", tags=(f"tag_{number}", "new")))
        for number in range(12, 18):
            runs.write(make_run(id=f"run_{number}", tags=()))
            runs.delete(f"run_{number}")
        runs.write(make_run(id="run_other", environment_id="env_2", tags=("tag_1",)))
        return since

    async def ask(self, reads: SharedReads, since: Position) -> dict[Selector, ChangePage]:
        selectors = [Selector("env_1", tags=(f"tag_{number}",)) for number in range(12)]
        selectors += [Selector("env_1", tags=(f"third_{number}",)) for number in range(3)]
        selectors += [Selector("env_1", run_id=f"run_{number}") for number in range(36)]
        pages = await asyncio.gather(
            *(reads.read_changes(each, since=since, after=None, limit=10) for each in selectors)
        )
        return dict(zip(selectors, pages, strict=True))

    async def test_each_gets_the_part_that_it_asked_for(
        self, runs: ScriptedRuns, reads: SharedReads
    ) -> None:
        since = self.write(runs)
        pages = await self.ask(reads, since)
        assert runs.reads == 8 + 1  # until there were many, each was read for itself
        for selector, page in pages.items():
            alone = await runs.read_changes(selector, since=since, after=None, limit=10)
            assert {change.facets.id: change for change in page.changes} == {
                change.facets.id: change for change in alone.changes
            }
            assert page.position == alone.position

    async def test_this_goes_on_for_as_long_as_they_come(
        self, runs: ScriptedRuns, reads: SharedReads
    ) -> None:
        since = self.write(runs)
        holds = [runs.hold_next_read() for _ in range(9)]
        for hold in holds[:8]:
            hold.release()
        many = asyncio.create_task(self.ask(reads, since))
        await holds[8].reached.wait()
        few = [Selector("env_1", tags=(f"tag_{number}",)) for number in range(3)]

        def ask_few() -> "asyncio.Future[list[ChangePage]]":
            return asyncio.gather(
                *(reads.read_changes(each, since=since, after=None, limit=10) for each in few)
            )

        later = ask_few()
        await calm()
        holds[8].release()
        await asyncio.gather(many, later)
        assert runs.limits == [*[10] * 8, 500, 500]
        await calm()
        await ask_few()
        assert runs.limits[10:] == [10] * 3

    async def test_those_of_other_environments_do_not_make_them_many(
        self, runs: ScriptedRuns, reads: SharedReads
    ) -> None:
        runs.write(make_run(id="run_1"))
        here = runs.position
        pages = await asyncio.gather(
            *(
                reads.read_changes(
                    Selector(f"env_{number}", task="task"), since=here, after=None, limit=10
                )
                for number in range(20)
            )
        )
        assert runs.limits == [10] * len(pages)

    async def test_much_is_read_apart_and_not_tried_together_again(
        self, runs: ScriptedRuns, reads: SharedReads, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(shared_reads, "_TOGETHER", 5)
        monkeypatch.setattr(shared_reads, "_APART_SECONDS", 3600)
        since = self.write(runs)
        for attempts in (1, 0):
            before = runs.reads
            pages = await self.ask(reads, since)
            assert runs.reads - before == len(pages) + attempts
            assert [len(pages[Selector("env_1", tags=(f"tag_{each}",))].changes) for each in (0, 6)]

    async def test_a_position_may_be_lost_for_all_and_not_for_each(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Forgetful(ScriptedRuns):
            async def read_changes(self, selector: Selector, **others: Any) -> ChangePage:
                page = await super().read_changes(selector, **others)
                if selector == EVERYTHING:
                    raise PositionLost("too_many_departures", "Of all together.")
                return page

        monkeypatch.setattr(shared_reads, "_APART_SECONDS", 3600)
        runs = Forgetful()
        pages = await self.ask(
            SharedReads(runs, asyncio.Semaphore(2), longest_pause=0), self.write(runs)
        )
        assert runs.reads == len(pages) + 1


async def test_whose_position_is_lost_takes_it_from_nobody_else(
    runs: ScriptedRuns, reads: SharedReads
) -> None:
    old = runs.position
    runs.write(make_run(id="run_1"))
    here = runs.position
    ahead = replace(here, xmax=here.xmax + 100)
    lost, found = await asyncio.gather(
        changes(reads, ahead), changes(reads, old), return_exceptions=True
    )
    assert isinstance(lost, PositionLost)
    assert isinstance(found, ChangePage)
    assert len(found.changes) == 1
    runs.failures = [PositionLost("too_old", "Of the older one.")]
    lost, found = await asyncio.gather(
        changes(reads, old), changes(reads, here), return_exceptions=True
    )
    assert isinstance(lost, PositionLost)
    assert isinstance(found, ChangePage)
    assert found.changes == ()


async def test_waiting_for_a_slot_lets_others_join(runs: ScriptedRuns, reads: SharedReads) -> None:
    holds = [runs.hold_next_read() for _ in range(2)]
    busy = [ask(reads, Selector(f"env_{number}")) for number in (2, 3)]
    await calm()
    asked = [ask(reads)]
    await calm()
    runs.write(make_run(id="run_1"))
    asked.append(ask(reads))
    await calm()
    assert runs.reads == 2
    for hold in holds:
        hold.release()
    await asyncio.gather(*busy)
    assert await asyncio.gather(*asked) == [["run_1"]] * 2
    assert runs.reads == 3


async def test_a_failure_is_told_to_all_and_the_next_read_is_a_new_one(
    runs: ScriptedRuns, reads: SharedReads
) -> None:
    runs.failures = [BackendError("Away.")]
    results = await asyncio.gather(ask(reads), ask(reads), return_exceptions=True)
    assert [type(result) for result in results] == [BackendError] * 2
    assert await ask(reads) == []


async def test_who_leaves_takes_nothing_from_the_others(
    runs: ScriptedRuns, reads: SharedReads
) -> None:
    runs.write(make_run(id="run_1"))
    hold = runs.hold_next_read()
    first, second = ask(reads), ask(reads)
    await hold.reached.wait()
    first.cancel()
    hold.release()
    assert await second == ["run_1"]


async def test_a_failure_that_nobody_waits_for_is_silent(
    runs: ScriptedRuns, reads: SharedReads
) -> None:
    runs.failures = [BackendError("Away.")]
    asked = ask(reads)
    await asyncio.sleep(0)
    asked.cancel()
    await calm()  # warnings are errors here, and one would come from the garbage
    assert await ask(reads) == []


async def test_closing_gives_up_what_is_read(runs: ScriptedRuns, reads: SharedReads) -> None:
    hold = runs.hold_next_read()
    reading = ask(reads)
    await hold.reached.wait()
    waiting = ask(reads)
    await calm()
    await reads.close()
    for task in (reading, waiting):
        with pytest.raises(Draining):
            await task
    assert await ask(reads) == []


class Looking(MemoryRunReader):
    """Runs whose look-ups are recorded."""

    def __init__(self) -> None:
        super().__init__()
        self.looked: list[list[str]] = []

    async def look_up_runs(
        self, environment_id: str, run_ids: Sequence[str]
    ) -> Mapping[str, Run | None]:
        self.looked.append(list(run_ids))
        return await super().look_up_runs(environment_id, run_ids)


async def test_runs_that_are_asked_for_at_one_time_are_looked_up_together() -> None:
    runs = Looking()
    runs.write(make_run(id="run_1"), make_run(id="run_2"))
    reads = SharedReads(runs, asyncio.Semaphore(1))
    ids = ["run_1", "run_2", "run_1", "run_3", "run\0", "r\ud800"]
    found = await asyncio.gather(*(reads.read_run("env_1", run_id) for run_id in ids))
    assert [run and run.id for run in found] == ["run_1", "run_2", "run_1", *[None] * 3]
    assert runs.looked == [["run_1", "run_2", "run_3"]]  # the others could not even be asked for
    assert await reads.read_run("env_2", "run_1") is None


async def test_snapshots_that_wait_at_one_time_are_read_together(
    runs: ScriptedRuns, reads: SharedReads
) -> None:
    runs.write(*(make_run(id=f"run_{number}", tags=(f"tag_{number}",)) for number in range(40)))
    selectors = [Selector("env_1", tags=(f"tag_{number}",)) for number in range(40)]
    asked = [ask(reads, selector) for selector in selectors]
    assert await asyncio.gather(*asked) == [[f"run_{number}"] for number in range(40)]
    assert runs.reads == 1
    await calm()
    assert not reads._gatherings  # nothing is kept of them


async def test_a_thousand_subscribers_that_come_at_once_are_brought_up_to_date_by_few_reads() -> (
    None
):
    world = RunHub()
    world.write("run_1", "run_2")
    clients = [world.connect() for _ in range(1000)]
    await calm()
    assert {tuple(client.names) for client in clients} == {
        ("run run_2", "run run_1", "up-to-date"),
    }
    assert world.runs.reads <= 2
