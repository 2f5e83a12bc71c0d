"""Places against a plain model: gateways that die, and answers that take their time."""

from dataclasses import dataclass, field

import pytest
from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from runcast.core.places import Held, PlacePace, Places, Wish, hold

PACE = PlacePace()
ENV = "env_1"


@dataclass
class Store:
    """What a store keeps of one environment: places and the end of the lease, by gateway."""

    limit: int
    held: dict[int, tuple[int, float]] = field(default_factory=dict)

    def hold(self, gateway: int, wish: Wish, now: float) -> Held:
        live = {each: places for each, (places, until) in self.held.items() if until > now}
        own = live.pop(gateway, 0)
        answer, kept = hold(wish, others=sum(live.values()), own=own, limit=self.limit)
        self.held[gateway] = (kept, now + PACE.lease)
        return answer


class Gateways(RuleBasedStateMachine):
    """Several gateways; a question reaches the store at once, and its answer comes later."""

    numbers = st.integers(0, 2)

    @initialize(limit=st.sampled_from([1, 2, 7, 20, 50]))
    def begin(self, limit: int) -> None:
        self.now = 0.0
        self.store = Store(limit)
        self.gateways = [Places(limit, PACE) for _ in range(3)]
        self.open = [0] * 3
        self.waiting = [0] * 3
        self.answers: list[tuple[Wish, Held] | None] = [None] * 3

    @rule(here=numbers, times=st.integers(1, 8))
    def come(self, here: int, times: int) -> None:
        for _ in range(times):
            allowed = self.gateways[here].take(ENV, self.now)
            if allowed is None:
                self.waiting[here] += 1
                self.gateways[here].wait(ENV, 1)
                self._ask(here)
            self.open[here] += allowed is True

    @rule(here=numbers, times=st.integers(1, 8))
    def leave(self, here: int, times: int) -> None:
        for _ in range(min(times, self.open[here])):
            self.gateways[here].leave(ENV)
            self.open[here] -= 1

    @rule(here=numbers)
    def renew(self, here: int) -> None:
        for wish in self.gateways[here].wishes(self.now).values():
            self._tell(here, wish)

    @rule(here=numbers)
    def hear(self, here: int) -> None:
        """An answer is here: those who wait try again, and ask again if there are more of them."""
        answer, self.answers[here] = self.answers[here], None
        if answer is None:
            return
        self.gateways[here].receive({ENV: answer}, self.now)
        for _ in range(self.waiting[here]):
            allowed = self.gateways[here].take(ENV, self.now)
            self.open[here] += allowed is True
            if allowed is not None:
                self.waiting[here] -= 1
                self.gateways[here].wait(ENV, -1)
        if self.waiting[here]:
            self._ask(here)

    @rule(here=numbers)
    def die(self, here: int) -> None:
        """Another gateway comes in its place; what it held stays until its lease ends."""
        self.gateways[here] = Places(self.store.limit, PACE)
        self.open[here] = self.waiting[here] = 0
        self.answers[here] = None
        held = self.store.held.pop(here, None)
        if held is not None:
            self.store.held[100 + len(self.store.held)] = held

    @rule(seconds=st.sampled_from([0.1, 1.0, 5.0, 40.0]))
    def pass_time(self, seconds: float) -> None:
        """Leases that ought to be renewed meanwhile are; an answer may still be on its way."""
        while seconds > 0:
            step = min(seconds, PACE.renew)
            self.now += step
            seconds -= step
            for here in range(3):
                self.hear(here)
                self.renew(here)

    @invariant()
    def there_are_never_more_than_the_limit(self) -> None:
        assert sum(self.open) <= self.store.limit
        for here, places in enumerate(self.gateways):
            assert places.used == self.open[here]
            assert self.open[here] <= self.store.held.get(here, (0, 0.0))[0]

    def teardown(self) -> None:
        """Once all is quiet, everybody gets in who may, but for what others hold in advance."""
        for _ in range(5):
            self.pass_time(PACE.renew)
        for here in range(3):
            self.hear(here)
        others = sum(self.open[1:]) + sum(each.held - each.used for each in self.gateways[1:])
        for _ in range(self.store.limit):
            self.come(0, 1)
            self.hear(0)
        assert self.open[0] == self.store.limit - others
        assert others - sum(self.open[1:]) <= 2 * (self.store.limit // 8)

    def _ask(self, here: int) -> None:
        if self.answers[here] is None:
            self._tell(here, self.gateways[here].wish(ENV, self.now))

    def _tell(self, here: int, wish: Wish) -> None:
        self.answers[here] = (wish, self.store.hold(here, wish, self.now))


TestGateways = Gateways.TestCase
TestGateways.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)


def filled(places: Places, count: int) -> None:
    """Let so many in, each asking alone if it has to."""
    for _ in range(count):
        allowed = places.take(ENV, 0.0)
        if allowed is None:
            places.wait(ENV, 1)
            wish = places.wish(ENV, 0.0)
            answer, _ = hold(wish, others=0, own=0, limit=places.limit)
            places.receive({ENV: (wish, answer)}, 0.0)
            allowed = places.take(ENV, 0.0)
            places.wait(ENV, -1)
        assert allowed


class TestAsking:
    def test_most_connections_need_not_ask(self) -> None:
        places = Places(10_000, PACE)
        filled(places, 1)
        for _ in range(100):
            assert places.take(ENV, 0.0)
        assert places.take(ENV, 0.0) is None
        assert (places.used, places.held) == (101, 101)

    def test_those_who_wait_are_asked_for_together(self) -> None:
        places = Places(10, PACE)
        for _ in range(3):
            assert places.take(ENV, 0.0) is None
            places.wait(ENV, 1)
        assert places.wish(ENV, 0.0) == Wish(used=0, wanted=3 + 1)  # one in advance

    def test_who_finds_it_full_asks_for_nothing_for_a_while(self) -> None:
        places = Places(2, PACE)
        assert places.take(ENV, 0.0) is None
        places.wait(ENV, 1)
        wish = places.wish(ENV, 0.0)
        places.receive({ENV: (wish, Held(0, 0))}, 0.0)
        assert places.take(ENV, 0.9) is False
        assert places.take(ENV, 1.1) is None

    def test_a_place_that_was_given_back_is_asked_for_again_at_once(self) -> None:
        places = Places(1, PACE)
        filled(places, 1)
        places.wait(ENV, 1)
        wish = places.wish(ENV, 0.0)
        places.receive({ENV: (wish, Held(1, 0))}, 0.0)
        assert places.take(ENV, 0.1) is False
        places.wait(ENV, -1)
        assert places.leave(ENV)
        assert places.wishes(0.1) == {ENV: Wish(0, 0)}
        assert places.take(ENV, 0.1) is None

    def test_a_lease_that_was_not_renewed_is_not_relied_on(self) -> None:
        places = Places(100, PACE)
        filled(places, 1)
        assert places.take(ENV, 29.9)
        assert places.take(ENV, 30.1) is None

    def test_leases_are_renewed_in_time_and_what_is_not_needed_is_given_back(self) -> None:
        places = Places(100, PACE)
        filled(places, 1)
        assert places.wishes(9.9) == {}
        assert places.wishes(10.0) == {ENV: Wish(1, 1 + 10)}
        places.receive({ENV: (Wish(1, 11), Held(11, 0))}, 10.0)
        # Nobody holds any more: what is free is wanted elsewhere.
        assert places.leave(ENV)
        assert places.wishes(10.1) == {ENV: Wish(0, 0)}
        places.receive({ENV: (Wish(0, 0), Held(0, 100))}, 10.1)
        assert places.wishes(1000.0) == {}
        assert not places._shares

    def test_what_is_offered_back_is_not_filled_meanwhile(self) -> None:
        places = Places(100, PACE)
        filled(places, 12)
        for _ in range(10):
            places.leave(ENV)
        assert places.wishes(10.0) == {ENV: Wish(2, 2 + 10)}
        assert sum(places.take(ENV, 10.0) is True for _ in range(20)) == 10


class TestAlone:
    def test_a_gateway_without_answers_lets_in_as_many_as_the_limit_says(self) -> None:
        places = Places(3, PACE)
        assert places.take(ENV, 0.0) is None
        places.wish(ENV, 0.0)
        places.receive_failure([ENV])
        assert [places.take(ENV, 0.0) for _ in range(4)] == [True, True, True, False]

    def test_with_answers_again_those_who_are_in_stay(self) -> None:
        places = Places(3, PACE)
        places.receive_failure([])
        assert all(places.take(ENV, 0.0) for _ in range(3))
        wishes = places.wishes(1.0)
        assert wishes == {ENV: Wish(3, 3)}
        answer, kept = hold(wishes[ENV], others=2, own=0, limit=3)
        assert (answer, kept) == (Held(1, -2), 3)
        places.receive({ENV: (wishes[ENV], answer)}, 1.0)
        places.alone = False
        assert places.take(ENV, 1.1) is False
        for _ in range(3):
            places.leave(ENV)
        assert places.take(ENV, 1.1)


@pytest.mark.parametrize(
    ("wish", "others", "own", "held", "kept"),
    [
        (Wish(0, 5), 0, 0, Held(5, 5), 5),
        (Wish(0, 5), 8, 0, Held(2, 0), 2),
        (Wish(0, 0), 8, 4, Held(0, 2), 0),
        (Wish(3, 5), 12, 4, Held(0, -6), 4),  # it may have taken its fourth since it asked
        (Wish(9, 9), 12, 0, Held(0, -11), 9),
    ],
)
def test_what_a_store_answers(wish: Wish, others: int, own: int, held: Held, kept: int) -> None:
    assert hold(wish, others=others, own=own, limit=10) == (held, kept)
