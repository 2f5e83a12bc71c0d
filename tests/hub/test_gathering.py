"""Gathering: what waits is read together, and who asks too late for a read is in the next one."""

import asyncio
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any

import pytest

from runcast.errors import BackendError
from runcast.hub import gathering as gathering_module
from runcast.hub.gathering import Gathering
from tests.support.stream_hub import Hold, calm


class Asked:
    """Answers every question with its upper case, except when it is told otherwise."""

    def __init__(self, slots: int = 1, longest_pause: float = 0, **how: Any) -> None:
        self.reads: list[str] = []
        self.begun: list[float] = []
        self.holds: list[Hold] = []
        self.failure: BackendError | None = None
        self.left_out: set[str] = set()
        self.slots = asyncio.Semaphore(slots)
        self.over = 0
        self.gathering = Gathering(
            self._read, self.slots, self._end, longest_pause=longest_pause, **how
        )

    def ask(self, questions: Iterable[str]) -> "asyncio.Future[list[str]]":
        return asyncio.gather(*map(self.gathering.ask, questions))

    async def _read(self, questions: list[str]) -> Mapping[str, str]:
        self.reads.append("".join(questions))
        self.begun.append(asyncio.get_running_loop().time())
        if self.holds:
            await self.holds.pop(0).wait()
        if self.failure:
            raise self.failure
        answers = {each: each.upper() for each in questions if each not in self.left_out}
        self.left_out.clear()
        return answers

    def _end(self) -> None:
        self.over += 1

    def hold(self) -> Hold:
        self.holds.append(Hold())
        return self.holds[-1]


async def test_what_waits_for_a_slot_is_read_together() -> None:
    asked = Asked()
    hold = asked.hold()
    first = asked.ask("a")
    await hold.reached.wait()
    later = asked.ask("bcb")
    await calm()
    assert asked.reads == ["a"]
    hold.release()
    assert await first == ["A"]
    assert await later == ["B", "C", "B"]
    assert asked.reads == ["a", "bc"]
    await calm()
    assert asked.over == 1


async def test_others_are_read_beside_it_but_not_the_same_again() -> None:
    asked = Asked(slots=3)
    hold = asked.hold()
    first = asked.ask("a")
    await hold.reached.wait()
    same, other = asked.ask("a"), asked.ask("b")
    assert await other == ["B"]
    hold.release()
    assert await first == await same == ["A"]
    assert asked.reads == ["a", "b", "a"]


async def test_no_more_than_so_much_is_read_at_once() -> None:
    asked = Asked(most=4, weigh=lambda question: 9 if question == "x" else 2)
    assert await asked.ask("abcxde") == list("ABCXDE")
    assert asked.reads == ["ab", "c", "x", "de"]


async def test_what_is_left_out_is_read_again() -> None:
    asked = Asked()
    asked.left_out = {"b"}
    assert await asked.ask("abb") == ["A", "B", "B"]
    assert asked.reads == ["ab", "b"]


@pytest.mark.parametrize(("seconds", "reads"), [(3600.0, ["a", "b", "c"]), (-1.0, ["abc"])])
async def test_after_a_failure_they_are_read_one_by_one_for_a_while(
    monkeypatch: pytest.MonkeyPatch, seconds: float, reads: list[str]
) -> None:
    """One of them may be what takes the database too long."""
    monkeypatch.setattr(gathering_module, "_APART_SECONDS", seconds)
    asked = Asked()
    asked.failure = BackendError("Too slow.")
    failed = await asyncio.gather(*map(asked.gathering.ask, "ab"), return_exceptions=True)
    assert failed == [asked.failure] * 2
    asked.failure = None
    assert await asked.ask("abc") == ["A", "B", "C"]
    assert asked.reads == ["ab", *reads]
    await calm()
    assert bool(asked.over) is (seconds < 0)  # to be remembered for so long


async def test_it_is_not_forgotten_while_something_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathering_module, "_APART_SECONDS", 0.05)
    asked = Asked()
    asked.failure = BackendError("Too slow.")
    await asyncio.gather(*map(asked.gathering.ask, "ab"), return_exceptions=True)
    asked.failure = None
    await calm()
    hold = asked.hold()
    reading = asked.ask("c")
    await hold.reached.wait()
    resting = asked.gathering._resting
    assert resting is not None
    await asyncio.sleep(resting.when() + 0.01 - asyncio.get_running_loop().time())
    assert asked.over == 0
    hold.release()
    assert await reading == ["C"]
    await calm()
    assert asked.over == 1


async def test_the_next_read_waits_the_longer_for_as_long_as_they_come_so_fast() -> None:
    asked = Asked(longest_pause=0.05)
    pauses = []
    for askers in (2, 3, 3, 3, 4, 3, 3):
        await asked.ask("a" * askers)
        pauses.append(asked.gathering._pause)
    assert pauses == [0, 0.02, 0.04, 0.05, 0.05, 0, 0.02]
    distances = [after - before for before, after in pairwise(asked.begun)]
    # At least, that is: whether a machine is slower does not matter.
    assert all(each > pause - 0.005 for each, pause in zip(distances, pauses, strict=False))
