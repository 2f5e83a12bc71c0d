"""What is done follows from the seed."""

from itertools import islice

import pytest

from chaos.schedule import schedule

FAULTS = ["one", "two", "three"]


def steps(seed: str, count: int) -> list[tuple[float, str, float]]:
    found = islice(schedule(seed, FAULTS, pace=1.0), count)
    return [(step.pause, step.fault, step.dice.seconds(0, 1)) for step in found]


def test_the_same_seed_gives_the_same_steps_and_another_one_others() -> None:
    assert steps("1", 30) == steps("1", 30)
    assert steps("1", 30) != steps("2", 30)


def test_every_fault_has_its_turn_before_any_has_another_one() -> None:
    names = [fault for _, fault, _ in steps("1", 9)]
    for first in (0, 3, 6):
        assert sorted(names[first : first + 3]) == sorted(FAULTS)


def test_a_faster_pace_makes_everything_shorter() -> None:
    slow, fast = (next(schedule("1", FAULTS, pace)) for pace in (1.0, 4.0))
    assert fast.pause == pytest.approx(slow.pause / 4)
    assert fast.dice.seconds(1, 2) == pytest.approx(slow.dice.seconds(1, 2) / 4)


def test_without_faults_nothing_is_done() -> None:
    assert list(schedule("1", [], 1.0)) == []
