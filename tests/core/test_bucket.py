"""Rate limits against a plain model: one gateway, and several that share a bucket."""

import math
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from hypothesis import given, strategies as st

from runcast.core.bucket import Allowance, Bucket, Share
from runcast.core.rate import Rate

START = 1_800_000_000.0
# Powers of two keep all sums exact.
RATES = st.builds(
    Rate,
    refill=st.sampled_from([1, 2, 8, 64, 512]),
    seconds=st.sampled_from([0.5, 1.0, 4.0, 16.0]),
    burst=st.sampled_from([1, 2, 3, 64, 128, 200, 512]),
)
PAUSES = st.one_of(st.just(0.0), st.integers(0, 64).map(lambda ticks: ticks / 64))


@dataclass
class World:
    """A bucket, and gateways that draw from it."""

    rate: Rate
    gateways: int = 1
    now: float = START
    bucket: Bucket = field(default_factory=Bucket)
    draws: int = 0

    def __post_init__(self) -> None:
        self.shares = [Share(self.rate) for _ in range(self.gateways)]

    def request(self, gateway: int = 0) -> Allowance:
        share = self.shares[gateway]
        allowance = share.take(self.now)
        if allowance is None:
            draw = self.bucket.draw(self.rate.share, self.rate, self.now)
            self.bucket = Bucket(draw.missing, self.now)
            self.draws += 1
            allowance = share.receive(draw, self.now)
        return allowance


@dataclass
class Plain:
    """What a rate means: a number that grows with time, up to the burst."""

    rate: Rate
    left: float = field(init=False)
    at: float = START

    def __post_init__(self) -> None:
        self.left = float(self.rate.burst)

    def request(self, now: float) -> bool:
        grown = (now - self.at) * self.rate.refill / self.rate.seconds
        self.left, self.at = min(self.rate.burst, self.left + grown), now
        if self.left < 1:
            return False
        self.left -= 1
        return True


@given(RATES, st.data())
def test_the_first_requests_are_counted_one_by_one_until_none_is_left(
    rate: Rate, data: st.DataObject
) -> None:
    world = World(rate)
    for spent in range(1, rate.burst + 1):
        allowance = world.request()
        assert (allowance.allowed, allowance.limit) == (True, rate.burst)
        assert allowance.remaining == rate.burst - spent
    refused = world.request()
    assert (refused.allowed, refused.remaining) == (False, 0)
    assert refused.reset_at == START + 1 / rate.per_second
    world.now = START + data.draw(st.floats(0, 0.99)) / rate.per_second
    assert not world.request().allowed
    world.now = refused.reset_at
    assert world.request().allowed
    assert not world.request().allowed


@given(RATES, st.integers(1, 4), st.data())
def test_gateways_that_share_a_bucket_keep_to_the_rate_but_for_what_they_hold(
    rate: Rate, gateways: int, data: st.DataObject
) -> None:
    world, plain = World(rate, gateways), Plain(rate)
    held = gateways * (rate.share + 1)
    passed = [START]
    steps = st.tuples(PAUSES, st.integers(0, gateways - 1), st.integers(1, 2 * rate.burst))
    for pause, gateway, requests in data.draw(st.lists(steps, max_size=12)):
        world.now += pause
        for _ in range(min(requests, 300)):
            allowed = world.request(gateway).allowed
            before = Plain(rate, plain.at)
            before.left = plain.left
            if allowed:
                plain.request(world.now)
                passed.append(world.now)
            else:
                # Refused early by no more than what the others hold.
                grown = (world.now - before.at) * rate.per_second
                assert min(rate.burst, before.left + grown) < 1 + held
                break
    del passed[0]
    # From the beginning, never more than the rate; in any span, than that and what was held.
    for index, time in enumerate(passed):
        assert index + 1 <= rate.burst + (time - START) * rate.per_second
    times = sorted({START, *passed})
    for begin, end in [*pairwise(times), (times[len(times) // 2], times[-1])]:
        count = sum(begin <= time <= end for time in passed)
        assert count <= rate.burst + (end - begin) * rate.per_second + held


@given(RATES, st.lists(st.tuples(PAUSES, st.integers(1, 40)), max_size=12))
def test_a_gateway_that_is_alone_keeps_to_the_rate_but_for_its_share(
    rate: Rate, steps: list[tuple[float, int]]
) -> None:
    world, plain = World(rate), Plain(rate)
    passed = passed_plainly = 0
    for pause, requests in steps:
        world.now += pause
        for _ in range(requests):
            allowance = world.request()
            passed += allowance.allowed
            passed_plainly += plain.request(world.now)
            assert abs(passed - passed_plainly) <= rate.share
            assert 0 <= allowance.remaining < rate.burst
            assert allowance.reset_at >= world.now


@given(RATES)
def test_who_waits_as_long_as_told_is_let_through(rate: Rate) -> None:
    world = World(rate)
    while world.request().allowed:
        pass
    for _ in range(5):
        world.now = world.request().reset_at
        assert world.request().allowed


def test_most_requests_need_no_draw_and_a_refused_caller_none() -> None:
    world = World(Rate(64, 64.0, 512))
    for _ in range(512):
        assert world.request().allowed
    assert world.draws == math.ceil(512 / 10)
    for _ in range(100):
        assert not world.request().allowed
    assert world.draws == math.ceil(512 / 10)


@pytest.mark.parametrize("back", [0.5, 3600.0])
def test_a_gateway_whose_clock_is_set_back_neither_refills_nor_blocks(back: float) -> None:
    rate = Rate(2, 1.0, 2)
    share = Share(rate)
    assert share.receive(Bucket(1.0, START).draw(1, rate, START), START).allowed
    now = START - back
    refused = share.take(now)
    assert refused is not None
    assert (refused.allowed, refused.reset_at) == (False, now + 0.5)
    assert share.take(now + 0.5) is None  # it asks


def test_a_bucket_that_lacks_more_than_a_lowered_limit_gives_nothing() -> None:
    rate = Rate(1, 1.0, 2)
    draw = Bucket(10.0, START).draw(1, rate, START)
    assert (draw.permits, draw.missing) == (0.0, 10.0)
    refused = Share(rate).receive(draw, START)
    assert (refused.allowed, refused.remaining, refused.reset_at) == (False, 0, START + 9.0)


def test_alone_a_share_goes_on_from_what_was_last_seen() -> None:
    rate = Rate(1, 1.0, 2)
    share = Share(rate)
    assert share.receive(Bucket().draw(1, rate, START), START).allowed
    assert share.draw_alone(START).allowed
    assert not share.draw_alone(START).allowed
