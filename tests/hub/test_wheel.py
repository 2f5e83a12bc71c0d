"""The wheel: who is looked at when, whatever the clock does."""

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import given, strategies as st

from runcast.hub import wheel as wheel_module
from runcast.hub.wheel import TICK_SECONDS, Wheel
from runcast.testing import ManualClock

START = 1_800_000_000.1


class Looked:
    """Notes when it is looked at, and may want to be again."""

    def __init__(self, again: Callable[[float], float | None] = lambda now: None) -> None:
        self.at: list[float] = []
        self._again = again

    def tick(self, now: float) -> float | None:
        self.at.append(now)
        return self._again(now)


class Broken(Looked):
    def tick(self, now: float) -> float | None:
        super().tick(now)
        raise ValueError("broken")


def refuse(error: Exception) -> None:
    raise error


def steps(clock: ManualClock, wheel: Wheel, seconds: float, step: float = TICK_SECONDS) -> None:
    for _ in range(int(seconds / step)):
        clock.advance(step)
        wheel.turn(refuse)


def test_comes_when_due_or_up_to_one_tick_before() -> None:
    clock = ManualClock(START)
    wheel = Wheel(clock)
    looked = Looked()
    wheel.add(looked, START + 3.0)
    steps(clock, wheel, 5.0)
    assert len(looked.at) == 1
    assert -TICK_SECONDS < looked.at[0] - (START + 3.0) <= TICK_SECONDS
    assert len(wheel) == 0


@given(
    st.lists(st.floats(-5.0, 60.0), max_size=20),
    st.lists(st.floats(0.0, 20.0), max_size=20),
)
def test_never_early_and_late_only_by_how_late_it_turns(
    dues: list[float], passing: list[float]
) -> None:
    clock = ManualClock(START)
    wheel = Wheel(clock)
    entries = [(START + due, Looked()) for due in dues]
    for due, looked in entries:
        wheel.add(looked, due)
    for seconds in passing:
        waiting = [(due, looked) for due, looked in entries if not looked.at]
        clock.advance(seconds)
        wheel.turn(refuse)
        now = clock.now()
        for due, looked in waiting:
            if now >= max(due, START) + TICK_SECONDS:
                assert looked.at == [now], "late"
            elif looked.at:
                assert now > due - TICK_SECONDS, "early"
    assert all(len(looked.at) <= 1 for _, looked in entries)
    assert len(wheel) == sum(not looked.at for _, looked in entries)


def test_who_wants_it_is_looked_at_again() -> None:
    clock = ManualClock(START)
    wheel = Wheel(clock)
    looked = Looked(lambda now: now + 1.0 if now < START + 3.5 else None)
    wheel.add(looked, START + 1.0)
    steps(clock, wheel, 10.0)
    assert [round(at - START) for at in looked.at] == [1, 2, 3, 4]
    assert len(wheel) == 0


def test_what_is_due_already_comes_with_the_next_tick_and_not_in_this_one() -> None:
    clock = ManualClock(START)
    wheel = Wheel(clock)
    looked = Looked(lambda now: now - 60)
    wheel.add(looked, START - 60)
    wheel.turn(refuse)
    assert looked.at == []
    steps(clock, wheel, 1.0)
    assert len(looked.at) == 4


def test_one_that_fails_does_not_stop_the_others() -> None:
    clock = ManualClock(START)
    wheel = Wheel(clock)
    first, second = Looked(), Looked()
    broken = Broken()
    for timed in (first, broken, second):
        wheel.add(timed, START + 1.0)
    errors: list[Exception] = []
    clock.advance(2.0)
    wheel.turn(errors.append)
    assert [str(error) for error in errors] == ["broken"]
    assert len(first.at) == len(second.at) == 1
    wheel.turn(refuse)
    assert len(broken.at) == 1


@pytest.mark.parametrize("leap", [60.0, 86_400.0, 10 * 365 * 86_400.0])
def test_when_the_clock_leaps_forward_all_that_is_due_comes_once(leap: float) -> None:
    clock = ManualClock(START)
    wheel = Wheel(clock)
    due, later = [Looked(), Looked()], Looked()
    wheel.add(due[0], START + leap - 1)
    wheel.add(due[1], START + 2.0)
    wheel.add(later, START + leap + 5.0)
    clock.advance(leap)
    wheel.turn(refuse)
    assert [looked.at for looked in due] == [[clock.now()]] * 2
    assert later.at == []
    steps(clock, wheel, 6.0)
    assert len(later.at) == 1


def test_when_the_clock_is_set_back_new_entries_come_at_their_time() -> None:
    clock = ManualClock(START)
    wheel = Wheel(clock)
    old = Looked()
    wheel.add(old, START + 10.0)
    clock.advance(-3600.0)
    wheel.turn(refuse)
    new = Looked()
    wheel.add(new, clock.now() + 2.0)
    steps(clock, wheel, 3.0)
    assert len(new.at) == 1
    assert old.at == []
    steps(clock, wheel, 3600.0 + 10.0, 1.0)
    assert len(old.at) == 1
    assert len(new.at) == 1


async def test_turns_by_itself_until_it_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wheel_module, "TICK_SECONDS", 0.001)
    clock = ManualClock(START)
    wheel = Wheel(clock)
    turned = asyncio.Event()

    def again(now: float) -> float:
        turned.set()
        return now

    looked = Looked(again)
    wheel.add(looked, START)
    wheel.stop()
    wheel.start(refuse)
    clock.advance(1.0)
    await turned.wait()
    wheel.stop()
    clock.advance(1.0)
    turned.clear()
    loop = asyncio.get_running_loop()
    passed: asyncio.Future[None] = loop.create_future()
    loop.call_later(0.02, passed.set_result, None)
    await passed
    assert not turned.is_set()
