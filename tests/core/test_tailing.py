"""The tailer's machine: every state and event, and a world that tries to make it oversleep."""

from collections.abc import Callable

import pytest
from hypothesis import given, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from runcast.core.position import Position
from runcast.core.tailing import Pace, State, Step, Tailing

PACE = Pace()
NOWHERE = float("inf")
WHICH = st.integers(0, 1)


def at(xmax: int, *in_flight: int) -> Position:
    return Position(1, xmax, in_flight)


def lost() -> Tailing:
    return Tailing()


def relieved() -> Tailing:
    machine = reading()
    machine.receive_relieved()
    return machine


def reading() -> Tailing:
    machine = lost()
    machine.receive_connected(0.0)
    return machine


def arming() -> Tailing:
    machine = reading()
    for _ in range(PACE.empty_reads):
        machine.receive_window(0, at(10), 0.0)
    return machine


def watching() -> Tailing:
    """Has armed the bell, and waits for what the next read will see in flight."""
    machine = arming()
    machine.receive_armed(lapsed=True, now=0.0)
    return machine


def sleeping() -> Tailing:
    machine = watching()
    machine.receive_window(0, at(10), 0.0)
    return machine


def find_wanted(machine: Tailing) -> None:
    machine.receive_wanted()
    machine.receive_window(3, at(11), 0.1)


STATES: dict[State, Callable[[], Tailing]] = {
    State.LOST: lost,
    State.RELIEVED: relieved,
    State.READING: reading,
    State.ARMING: arming,
    State.WATCHING: watching,
    State.SLEEPING: sleeping,
}
EVENTS: dict[str, Callable[[Tailing], None]] = {
    "connected": lambda machine: machine.receive_connected(0.1),
    "lost": lambda machine: machine.receive_lost(),
    "relieved": lambda machine: machine.receive_relieved(),
    "bell": lambda machine: machine.receive_bell(0.1),
    "found": lambda machine: machine.receive_window(3, at(11), 0.1),
    "found, and wanted": find_wanted,
    "empty, one still in flight": lambda machine: machine.receive_window(0, at(11, 8), 0.1),
    "empty, all ended": lambda machine: machine.receive_window(0, at(11), 0.1),
    "armed": lambda machine: machine.receive_armed(lapsed=False, now=0.1),
    "armed, had lapsed": lambda machine: machine.receive_armed(lapsed=True, now=0.1),
}
SOON = 0.1 + PACE.quick
# Of every state and event: the next state, and when it is looked at again.
TABLE: dict[str, dict[State, tuple[State, float]]] = {
    "connected": dict.fromkeys(State, (State.READING, 0.1)),
    "lost": dict.fromkeys(State, (State.LOST, NOWHERE)),
    "relieved": dict.fromkeys(State, (State.RELIEVED, NOWHERE)),
    "bell": {
        State.LOST: (State.LOST, NOWHERE),
        State.RELIEVED: (State.RELIEVED, NOWHERE),
        State.READING: (State.READING, 0.0),
        State.ARMING: (State.ARMING, PACE.quick * 2**PACE.empty_reads),
        State.WATCHING: (State.WATCHING, 0.1),
        State.SLEEPING: (State.SLEEPING, 0.1),
    },
    "found": {
        State.LOST: (State.LOST, NOWHERE),
        State.RELIEVED: (State.RELIEVED, NOWHERE),
        State.READING: (State.READING, 0.1 + PACE.quick * 2),
        State.ARMING: (State.READING, SOON),
        State.WATCHING: (State.READING, SOON),
        State.SLEEPING: (State.READING, SOON),
    },
    "found, and wanted": {
        State.LOST: (State.LOST, NOWHERE),
        State.RELIEVED: (State.RELIEVED, NOWHERE),
        State.READING: (State.READING, SOON),
        State.ARMING: (State.READING, SOON),
        State.WATCHING: (State.READING, SOON),
        State.SLEEPING: (State.READING, SOON),
    },
    "empty, one still in flight": {
        State.LOST: (State.LOST, NOWHERE),
        State.RELIEVED: (State.RELIEVED, NOWHERE),
        State.READING: (State.READING, 0.1 + PACE.quick * 2),
        State.ARMING: (State.ARMING, PACE.quick * 2**PACE.empty_reads),
        State.WATCHING: (State.WATCHING, 0.1 + PACE.watch * 1.5),
        State.SLEEPING: (State.SLEEPING, PACE.recheck),
    },
    "empty, all ended": {
        State.LOST: (State.LOST, NOWHERE),
        State.RELIEVED: (State.RELIEVED, NOWHERE),
        State.READING: (State.READING, 0.1 + PACE.quick * 2),
        State.ARMING: (State.ARMING, PACE.quick * 2**PACE.empty_reads),
        State.WATCHING: (State.SLEEPING, PACE.recheck),
        State.SLEEPING: (State.SLEEPING, PACE.recheck),
    },
    "armed": {
        State.LOST: (State.LOST, NOWHERE),
        State.RELIEVED: (State.RELIEVED, NOWHERE),
        State.READING: (State.WATCHING, 0.1),
        State.ARMING: (State.WATCHING, 0.1),
        State.WATCHING: (State.WATCHING, 0.0),
        State.SLEEPING: (State.SLEEPING, PACE.recheck),
    },
    "armed, had lapsed": {
        State.LOST: (State.LOST, NOWHERE),
        State.RELIEVED: (State.RELIEVED, NOWHERE),
        State.READING: (State.WATCHING, 0.1),
        State.ARMING: (State.WATCHING, 0.1),
        State.WATCHING: (State.WATCHING, 0.1),
        State.SLEEPING: (State.WATCHING, 0.1),
    },
}


@pytest.mark.parametrize("state", list(State))
@pytest.mark.parametrize("event", list(EVENTS))
def test_every_event_in_every_state(state: State, event: str) -> None:
    machine = STATES[state]()
    assert machine.state is state
    EVENTS[event](machine)
    expected, wake_at = TABLE[event][state]
    assert machine.state is expected
    assert machine.wake_at == pytest.approx(wake_at)


@pytest.mark.parametrize(
    ("state", "now", "step"),
    [
        (State.LOST, 1e9, Step.WAIT),
        (State.RELIEVED, 1e9, Step.WAIT),
        (State.READING, -0.1, Step.WAIT),
        (State.READING, 0.0, Step.READ),
        (State.ARMING, 0.0, Step.ARM),
        (State.WATCHING, 0.0, Step.READ),
        (State.WATCHING, -0.1, Step.WAIT),
        (State.WATCHING, PACE.recheck, Step.ARM),
        (State.SLEEPING, 0.9, Step.WAIT),
        (State.SLEEPING, PACE.recheck, Step.ARM),
    ],
)
def test_the_next_step(state: State, now: float, step: Step) -> None:
    assert STATES[state]().next_step(now) is step


class TestPace:
    def test_busy_reads_follow_each_other_closely(self) -> None:
        machine = reading()
        for now, found in ((1.0, 50), (2.0, PACE.few + 1), (3.0, 1000)):
            machine.receive_wanted()
            machine.receive_window(found, at(10), now)
            assert machine.wake_at == pytest.approx(now + PACE.busy)

    def test_the_less_there_is_the_sooner_it_is_read(self) -> None:
        machine = reading()
        for now, found in ((1.0, 1), (2.0, PACE.few)):
            machine.receive_wanted()
            machine.receive_window(found, at(10), now)
            assert machine.wake_at == pytest.approx(now + PACE.quick)

    def test_what_nobody_waits_for_is_read_less_often(self) -> None:
        machine = reading()
        waits = []
        for _ in range(7):
            machine.receive_window(1, at(10), 0.0)
            waits.append(machine.wake_at)
        assert waits[:4] == pytest.approx([PACE.quick * 2**count for count in (1, 2, 3, 4)])
        assert waits[4:] == [PACE.unwatched] * 3
        machine.receive_wanted()
        machine.receive_window(1, at(10), 0.0)
        assert machine.wake_at == PACE.quick

    def test_after_much_an_empty_read_is_no_reason_to_hurry(self) -> None:
        machine = reading()
        machine.receive_wanted()
        machine.receive_window(50, at(10), 0.0)
        machine.receive_window(0, at(10), 0.0)
        assert machine.wake_at == pytest.approx(PACE.busy * 2)

    def test_empty_reads_come_less_often_and_then_the_bell_is_armed(self) -> None:
        machine = reading()
        waits = []
        while machine.state is State.READING:
            machine.receive_window(0, at(10), 0.0)
            waits.append(machine.wake_at)
        assert waits == pytest.approx([PACE.quick * 2**count for count in (1, 2, 3, 4)])
        assert machine.state is State.ARMING

    def test_something_found_begins_the_count_anew(self) -> None:
        machine = reading()
        machine.receive_window(0, at(10), 0.0)
        machine.receive_window(0, at(10), 0.0)
        machine.receive_wanted()
        machine.receive_window(1, at(10), 0.0)
        machine.receive_window(0, at(10), 0.0)
        assert machine.state is State.READING
        assert machine.wake_at == pytest.approx(PACE.quick * 2)

    def test_a_transaction_held_open_is_watched_ever_more_slowly(self) -> None:
        machine = watching()
        waits = []
        for _ in range(12):
            machine.receive_window(0, at(20, 8), 0.0)
            waits.append(machine.wake_at)
        assert waits == sorted(waits)
        assert waits[-1] == pytest.approx(PACE.watch_longest)

    @pytest.mark.parametrize("position", [at(10), at(10, 8)], ids=["the last", "not the last"])
    def test_who_is_rung_while_it_reads_reads_again_at_once(self, position: Position) -> None:
        machine = watching()
        assert machine.next_step(0.0) is Step.READ
        machine.receive_bell(0.1)  # for what this read was too early to see
        machine.receive_window(0, position, 0.1)
        assert machine.next_step(0.1) is Step.READ

    def test_other_transactions_are_not_waited_for(self) -> None:
        machine = watching()
        machine.receive_window(0, at(10, 8), 0.0)
        machine.receive_window(0, at(11, 8, 10), 0.0)
        machine.receive_window(0, at(20, 10, 15), 0.0)
        assert machine.state is State.SLEEPING

    def test_who_arms_again_waits_for_what_is_in_flight_then(self) -> None:
        machine = watching()
        machine.receive_window(0, at(10, 8), 0.0)
        machine.receive_armed(lapsed=True, now=0.5)
        machine.receive_window(0, at(20, 12), 0.5)
        assert machine.state is State.WATCHING


class TestLoneChanges:
    """A change after a long silence is read, and the tailer sleeps on: the bell is still armed."""

    def test_one(self) -> None:
        machine = sleeping()
        machine.receive_bell(0.5)
        assert machine.next_step(0.5) is Step.READ
        machine.receive_window(1, at(12), 0.5)
        assert (machine.state, machine.wake_at) == (State.SLEEPING, PACE.recheck)
        assert machine.next_step(0.5) is Step.WAIT

    def test_one_that_comes_while_another_is_read(self) -> None:
        machine = sleeping()
        machine.receive_bell(0.5)
        assert machine.next_step(0.5) is Step.READ
        machine.receive_bell(0.5)  # what it tells of may not be in the window that is being read
        machine.receive_window(1, at(12), 0.5)
        assert machine.next_step(0.5) is Step.READ
        machine.receive_window(0, at(12), 0.5)
        assert (machine.state, machine.wake_at) == (State.SLEEPING, PACE.recheck)

    def test_a_second_one_soon_after_wakes(self) -> None:
        machine = sleeping()
        for now, state in (
            (0.5, State.SLEEPING),
            (0.5 + 2 * PACE.lone, State.SLEEPING),
            (0.5 + 2.5 * PACE.lone, State.READING),
        ):
            machine.receive_bell(now)
            assert machine.next_step(now) is Step.READ
            machine.receive_window(1, at(12), now)
            assert machine.state is state
        assert machine.wake_at == pytest.approx(now + PACE.quick)

    def test_one_while_others_are_still_in_flight(self) -> None:
        machine = watching()
        machine.receive_window(0, at(10, 8), 0.0)
        states = []
        for now, position in ((0.05, at(12, 8)), (0.1, at(13))):
            machine.receive_bell(now)
            assert machine.next_step(now) is Step.READ
            machine.receive_window(1, position, now)
            states.append(machine.state)
        assert states == [State.WATCHING, State.SLEEPING]

    @pytest.mark.parametrize(
        ("silence", "last"), [(0.5, State.READING), (PACE.recheck, State.SLEEPING)]
    )
    def test_many_in_a_row_wake(self, silence: float, last: State) -> None:
        """The bell may be all that keeps them from coming faster."""
        machine = sleeping()
        states = []
        for number in range(PACE.lone_changes + 1):
            now = number * silence
            machine.receive_armed(lapsed=False, now=now)
            machine.receive_bell(now)
            assert machine.next_step(now) is Step.READ
            machine.receive_window(1, at(12), now)
            states.append(machine.state)
        assert states == [State.SLEEPING] * PACE.lone_changes + [last]

    def test_a_bell_for_nothing_is_slept_through(self) -> None:
        machine = sleeping()
        machine.receive_bell(0.5)
        assert machine.next_step(0.5) is Step.READ
        machine.receive_window(0, at(12), 0.5)
        assert (machine.state, machine.wake_at) == (State.SLEEPING, PACE.recheck)


class TestMisses:
    def test_a_recheck_that_finds_what_no_bell_told_is_counted(self) -> None:
        machine = sleeping()
        machine.receive_window(1, at(12), 1.0)
        machine.next_step(1.0 + PACE.recheck)
        assert machine.misses == 0
        machine.next_step(1.1 + PACE.recheck)
        machine.next_step(9.0)
        assert machine.misses == 1

    def test_a_bell_that_comes_a_little_later_is_none(self) -> None:
        machine = sleeping()
        machine.receive_window(1, at(12), 1.0)
        machine.receive_bell(1.2)
        machine.next_step(9.0)
        assert machine.misses == 0

    def test_a_bell_before_the_read_is_none(self) -> None:
        machine = sleeping()
        machine.receive_bell(0.5)
        assert machine.next_step(0.5) is Step.READ
        machine.receive_window(1, at(12), 0.6)
        machine.next_step(9.0)
        assert machine.misses == 0

    def test_a_bell_during_the_read_is_none(self) -> None:
        machine = sleeping()
        assert machine.next_step(PACE.recheck) is Step.ARM
        machine.receive_armed(lapsed=False, now=PACE.recheck)
        assert machine.next_step(PACE.recheck) is Step.READ
        machine.receive_bell(PACE.recheck)
        machine.receive_window(1, at(12), PACE.recheck)
        machine.next_step(9.0)
        assert machine.misses == 0

    def test_what_is_found_while_awake_is_none(self) -> None:
        machine = watching()
        machine.receive_window(1, at(12), 1.0)
        machine.next_step(9.0)
        assert machine.misses == 0

    def test_a_bell_that_was_lost_with_the_connection_is_none(self) -> None:
        machine = sleeping()
        machine.receive_window(1, at(12), 1.0)
        machine.receive_lost()
        machine.receive_connected(5.0)
        machine.next_step(9.0)
        assert machine.misses == 0


@given(
    st.sampled_from(list(State)),
    st.lists(st.sampled_from(list(EVENTS)), max_size=12),
)
def test_wherever_it_stands_it_reads_again_within_a_bounded_time(
    state: State, events: list[str]
) -> None:
    machine = STATES[state]()
    for event in events:
        EVENTS[event](machine)
    now = 0.2
    for _ in range(10):
        match machine.next_step(now):
            case Step.READ:
                break
            case Step.ARM:
                machine.receive_armed(lapsed=False, now=now)
            case Step.DISARM:
                machine.receive_disarmed()
            case Step.WAIT:
                if machine.state in (State.LOST, State.RELIEVED):
                    return
                assert machine.wake_at <= now + PACE.recheck
                now = machine.wake_at
    else:
        pytest.fail("it did not read")
    assert now <= 0.2 + PACE.recheck


class Sleeper:
    """A tailer that does what its machine says and takes its time for it."""

    def __init__(self, position: Position) -> None:
        self.machine = Tailing()
        self.position = position
        self.seen: Position | None = None  # by the read under way
        self.unheard: set[int] = set()  # committed and not read yet
        self.before_arming: set[int] = set()
        self.stalled = False


class Oversleeping(RuleBasedStateMachine):
    """
    Writers, the bell, and two tailers.

    Writers look at the bell when they write and ring when they commit, as the trigger does. Going
    by Postgres, setting a sequence takes a transaction number, so that a snapshot after it lists
    every transaction that wrote before.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.next_number = 100
        self.completed = 99
        self.running: dict[int, bool] = {}  # transaction: whether it will ring
        self.committed: set[int] = set()
        self.armed_until = 0.0
        self.sleepers = [Sleeper(self.snapshot()) for _ in range(2)]

    @initialize()
    def connect(self) -> None:
        for sleeper in self.sleepers:
            sleeper.machine.receive_connected(self.now)

    def snapshot(self) -> Position:
        xmax = self.completed + 1
        return Position(1, xmax, tuple(sorted(n for n in self.running if n < xmax)))

    # -- writers --------------------------------------------------------------------------------

    @rule()
    def write(self) -> None:
        self.running[self.next_number] = self.now < self.armed_until
        self.next_number += 1

    @rule()
    def write_and_commit(self) -> None:
        self.write()
        self.finish(self.next_number - 1, commits=True)

    @precondition(lambda self: self.running)
    @rule(data=st.data(), commits=st.booleans())
    def end(self, data: st.DataObject, commits: bool) -> None:
        self.finish(data.draw(st.sampled_from(sorted(self.running))), commits)

    def finish(self, number: int, commits: bool) -> None:
        rings = self.running.pop(number)
        self.completed = max(self.completed, number)
        if commits:
            self.committed.add(number)
            for sleeper in self.sleepers:
                sleeper.unheard.add(number)
                if rings:
                    sleeper.machine.receive_bell(self.now)

    # -- the tailers ----------------------------------------------------------------------------

    @rule(one=WHICH, late=st.floats(0, 0.2))
    def follow(self, one: int, late: float) -> None:
        """Do the next step, a little late; a read is two."""
        sleeper = self.sleepers[one]
        machine = sleeper.machine
        if here := sleeper.seen:
            found = {n for n in self.committed if here.sees(n) and not sleeper.position.sees(n)}
            sleeper.position, sleeper.seen = here, None
            self.pass_time(late / 4)
            sleeper.unheard -= found
            machine.receive_window(len(found), here, self.now)
            return
        match machine.next_step(self.now):
            case Step.WAIT:
                self.pass_time(max(0.0, machine.wake_at - self.now) + late)
            case Step.ARM:
                lapsed = self.armed_until <= self.now
                self.armed_until = self.now + PACE.armed
                self.completed = self.next_number
                self.next_number += 1
                if machine.state is State.ARMING or lapsed:
                    sleeper.before_arming = set(self.running)
                machine.receive_armed(lapsed=lapsed, now=self.now)
                sleeper.stalled = False
            case Step.DISARM:
                machine.receive_disarmed()
                if not any(each.machine.is_armed for each in self.sleepers):
                    self.armed_until = 0.0
            case Step.READ:
                sleeper.seen = self.snapshot()

    @rule(
        one=WHICH,
        state=st.sampled_from((State.ARMING, State.WATCHING, State.SLEEPING)),
        more=st.sampled_from((0, 1, 4, 16)),
    )
    def go_on(self, one: int, state: State, more: int) -> None:
        """Nobody else does anything until the tailer is there, and for some steps after that."""
        machine = self.sleepers[one].machine
        for _ in range(60):
            if machine.state in (state, State.SLEEPING):
                break
            self.follow(one, 0.0)
        for _ in range(more):
            self.follow(one, 0.01)

    @rule(seconds=st.floats(0.001, 0.3))
    def wait(self, seconds: float) -> None:
        """Time passes for writers while the tailers wait for their own, or for a read."""
        waiting = [each.machine for each in self.sleepers if each.seen is None]
        if all(machine.state is not State.ARMING for machine in waiting):
            wake_at = min((machine.wake_at for machine in waiting), default=NOWHERE)
            self.pass_time(min(seconds, max(0.0, wake_at - self.now)))

    @rule(seconds=st.floats(PACE.armed, PACE.armed + 3))
    def stall(self, seconds: float) -> None:
        """Nobody does anything for so long that the bell lapses."""
        self.pass_time(seconds)

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        for sleeper in self.sleepers:
            sleeper.stalled |= self.now >= sleeper.machine._armed_at + PACE.armed

    # -- what must hold -------------------------------------------------------------------------

    @invariant()
    def it_never_sleeps_while_somebody_may_commit_without_ringing(self) -> None:
        for sleeper in self.sleepers:
            if sleeper.machine.state is State.SLEEPING and not sleeper.stalled:
                assert not sleeper.before_arming & set(self.running)
                assert all(self.running.values()), "a writer found the bell unarmed"

    @invariant()
    def nothing_waits_for_a_recheck(self) -> None:
        """What was committed is being read for, or a bell told of it."""
        for sleeper in self.sleepers:
            machine = sleeper.machine
            waits = machine.state is State.SLEEPING and machine.wake_at > self.now
            if waits and sleeper.seen is None and not sleeper.stalled:
                assert not sleeper.unheard

    @invariant()
    def nothing_is_missed(self) -> None:
        assert all(each.machine.misses == 0 for each in self.sleepers)


Oversleeping.TestCase.settings = settings(max_examples=150, stateful_step_count=50)
TestOversleeping = Oversleeping.TestCase
