"""The relay's machine: every role and event, and a world that loses, doubles and delays."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from runcast.core.position import Position
from runcast.core.relaying import Relaying, RelayPace, RelayStep, Role
from runcast.core.run import RunFacets
from runcast.core.window import Window, parse_window
from runcast.testing import MemoryRunReader, MemoryTransaction
from tests.support.runs import make_run

PACE = RelayPace()
NEVER = float("inf")


def at(xmax: int, *in_flight: int, database: int = 1) -> Position:
    return Position(database, xmax, in_flight)


def run(name: str = "run_1") -> RunFacets:
    return RunFacets("env_a", name, "task", (), None, 0.0)


def told(before: int, after: int) -> Window:
    return Window(at(before), at(after), (run(),))


def lost() -> Relaying:
    return Relaying()


def alone() -> Relaying:
    machine = lost()
    machine.receive_place(at(10), 0.0)
    return machine


def following() -> Relaying:
    machine = alone()
    machine.receive_window(Window.at(at(10)), 0.0)
    return machine


def doubtful() -> Relaying:
    machine = following()
    machine.receive_window(told(15, 20), 0.0)
    return machine


def leading() -> Relaying:
    machine = alone()
    machine.next_message(1.0)
    machine.receive_answer(True)
    return machine


def be_silent(machine: Relaying) -> None:
    machine.next_step(PACE.silence)


ROLES: dict[Role, Callable[[], Relaying]] = {
    Role.ALONE: alone,
    Role.FOLLOWING: following,
    Role.DOUBTFUL: doubtful,
    Role.LEADING: leading,
}
EVENTS: dict[str, Callable[[Relaying], None]] = {
    "place": lambda machine: machine.receive_place(at(30), 0.5),
    "lost": lambda machine: machine.receive_lost(),
    "a window that joins": lambda machine: machine.receive_window(told(10, 12), 0.5),
    "a window that is known": lambda machine: machine.receive_window(told(5, 9), 0.5),
    "a gap": lambda machine: machine.receive_window(told(11, 12), 0.5),
    "too large": lambda machine: machine.receive_window(Window(at(10), at(12), whole=False), 0.5),
    "of another database": lambda machine: machine.receive_window(
        Window.at(at(10, database=2)), 0.5
    ),
    "of another incarnation": lambda machine: machine.receive_window(
        Window.at(replace(at(10), incarnation=7)), 0.5
    ),
    "unreadable": lambda machine: machine.receive_stranger(),
    "farewell": lambda machine: machine.receive_farewell(),
    "deaf": lambda machine: machine.receive_deaf(),
    "read up to the doubt": lambda machine: machine.receive_read(told(10, 16), 0.5),
    "read less": lambda machine: machine.receive_read(told(10, 14), 0.5),
    "passed on": lambda machine: machine.receive_answer(True),
    "refused": lambda machine: machine.receive_answer(False),
    "not answered": lambda machine: machine.receive_answer(None),
    "silence": be_silent,
}
A, F, D, L = Role.ALONE, Role.FOLLOWING, Role.DOUBTFUL, Role.LEADING
# Of every event, what becomes of who is alone, following, doubtful, leading; and why the relay was
# left, where it was.
TABLE: dict[str, tuple[Role, Role, Role, Role, str]] = {
    "place": (A, A, A, A, ""),
    "lost": (A, A, A, A, "database"),
    "a window that joins": (F, F, D, L, ""),
    "a window that is known": (F, F, D, L, ""),
    "a gap": (D, D, D, L, "gap"),
    "too large": (D, D, D, L, "too_large"),
    "of another database": (A, A, A, L, "stranger"),
    "of another incarnation": (A, A, A, L, "stranger"),
    "unreadable": (A, A, A, L, "stranger"),
    "farewell": (A, A, A, L, "farewell"),
    "deaf": (A, A, A, L, "redis"),
    "read up to the doubt": (A, F, F, L, ""),
    "read less": (A, F, D, L, ""),
    "passed on": (L, L, L, L, ""),
    "refused": (A, F, D, A, "deposed"),
    "not answered": (A, F, D, A, "redis"),
    "silence": (A, A, A, L, "silence"),
}


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("event", list(EVENTS))
def test_every_event_in_every_role(role: Role, event: str) -> None:
    machine = ROLES[role]()
    assert machine.role is role
    machine.fallbacks.clear()
    EVENTS[event](machine)
    *expected, reason = TABLE[event]
    assert machine.role is dict(zip((A, F, D, L), expected, strict=True))[role]
    left = machine.role in (A, D) and machine.role is not role and role is not A
    assert dict(machine.fallbacks) == ({reason: 1} if left and reason else {})


@pytest.mark.parametrize("event", [event for event in EVENTS if "read " not in event])
def test_without_a_database_nothing_helps_but_a_place(event: str) -> None:
    machine = lost()
    EVENTS[event](machine)
    assert machine.role is Role.ALONE
    assert (machine.next_message(100.0) is not None) == (event == "place")


@pytest.mark.parametrize(
    ("role", "now", "step"),
    [
        (Role.ALONE, 100.0, RelayStep.TAIL),
        (Role.LEADING, 100.0, RelayStep.TAIL),
        (Role.DOUBTFUL, 0.5, RelayStep.READ),
        (Role.DOUBTFUL, PACE.silence, RelayStep.TAIL),
        (Role.FOLLOWING, 0.5, RelayStep.WAIT),
        (Role.FOLLOWING, PACE.silence, RelayStep.TAIL),
    ],
)
def test_the_next_step(role: Role, now: float, step: RelayStep) -> None:
    assert ROLES[role]().next_step(now) is step


class TestFollowing:
    def test_what_comes_is_taken_as_one(self) -> None:
        machine = following()
        machine.receive_window(told(10, 12), 0.1)
        machine.receive_window(told(12, 14), 0.2)
        assert machine.next_step(0.2) is RelayStep.TAKE
        window = machine.take()
        assert (window.before, window.after, window.size) == (at(10), at(14), 2)
        machine.receive_window(told(14, 15), 0.3)
        machine.receive_taken(window)
        assert machine.next_step(0.3) is RelayStep.TAKE
        assert machine.take() == told(14, 15)
        assert machine.taken == 1

    def test_a_beat_that_is_ahead_is_a_gap(self) -> None:
        machine = following()
        machine.receive_window(Window.at(at(11)), 0.1)
        assert machine.role is Role.DOUBTFUL

    def test_it_reads_once_now_and_then(self) -> None:
        machine = following()
        for tick in range(1, 100):
            now = tick * 0.25
            machine.receive_window(Window.at(at(10)), now)
            expected = RelayStep.READ if tick % 40 == 0 else RelayStep.WAIT
            assert machine.next_step(now) is expected
            if expected is RelayStep.READ:
                machine.receive_read(Window(at(10), at(10)), now)
            else:
                assert machine.wake_at <= now + PACE.silence

    def test_what_it_read_meanwhile_is_not_taken_again(self) -> None:
        machine = following()
        machine.receive_window(told(10, 12), 0.1)
        machine.receive_read(told(10, 12), 0.1)
        assert machine.next_step(0.1) is RelayStep.WAIT

    def test_a_doubt_ends_where_a_read_meets_what_was_heard(self) -> None:
        machine = doubtful()
        machine.receive_window(told(20, 22), 0.1)
        machine.receive_read(told(10, 16), 0.2)
        assert machine.next_step(0.2) is RelayStep.TAKE
        assert machine.take() == Window(at(16), at(22), (run(), run()))

    def test_a_doubt_ends_behind_a_window_that_is_too_large(self) -> None:
        machine = following()
        machine.receive_window(Window(at(10), at(20), whole=False), 0.1)
        machine.receive_read(told(10, 19), 0.1)
        assert machine.role is Role.DOUBTFUL
        machine.receive_read(told(19, 20), 0.1)
        assert machine.next_step(0.1) is RelayStep.WAIT


class TestLeading:
    def test_nobody_asks_to_lead_while_a_leader_is_heard(self) -> None:
        machine = alone()
        machine.receive_window(told(5, 12), 5.0)
        machine.receive_deaf()
        assert machine.role is Role.ALONE
        assert machine.speak_at == 5.0 + PACE.silence
        assert machine.next_message(5.9) is None
        assert machine.next_message(6.0) == Window.at(at(10))
        assert machine.next_message(6.1) is None  # once each beat

    def test_after_a_farewell_it_is_asked_at_once(self) -> None:
        machine = following()
        machine.receive_farewell()
        assert machine.next_message(0.0) is not None

    def test_changes_are_told_at_once_and_positions_with_the_beat(self) -> None:
        machine = leading()
        machine.receive_read(Window(at(10), at(11)), 1.1)
        assert machine.next_message(1.1) is None
        machine.receive_read(told(11, 12), 1.2)
        assert machine.next_message(1.2) == Window(at(10), at(12), (run(),))
        machine.receive_read(Window(at(12), at(13)), 1.3)
        assert machine.next_message(1.3) is None
        assert machine.next_message(1.2 + PACE.beat) == Window(at(12), at(13))
        assert machine.next_message(1.2 + 2 * PACE.beat) == Window.at(at(13))
        assert machine.sent == 1

    def test_who_has_not_read_for_long_says_nothing(self) -> None:
        machine = leading()
        machine.receive_read(Window(at(10), at(11)), 1.1)
        assert machine.next_message(1.1 + PACE.stale) is not None
        assert machine.next_message(1.2 + PACE.stale + PACE.beat) is None
        assert machine.speak_at < NEVER
        machine.receive_read(told(11, 12), 9.0)
        assert machine.next_message(9.0) is not None

    def test_what_it_takes_while_it_becomes_the_leader_is_no_gap(self) -> None:
        machine = following()
        machine.receive_window(told(10, 12), 0.1)
        window = machine.take()
        machine.receive_answer(True)
        machine.receive_taken(window)
        machine.receive_read(told(12, 14), 0.2)
        assert machine.next_message(0.2) == told(12, 14)


@dataclass
class Gateway:
    """A tailer that does what its machine says, and its hub, which keeps revisions of runs."""

    machine: Relaying
    position: Position
    runs: dict[str, int]
    reading: Window | None = None
    inbox: list[bytes] = field(default_factory=list)
    newest: dict[str, int] = field(default_factory=dict)
    missed: dict[str, int] = field(default_factory=dict)


class Rumours(RuleBasedStateMachine):
    """
    Three gateways over one database, and messages that are lost, doubled, late and out of order.

    Each holds at any time what the database held at its position, or newer states; nothing it was
    told goes back; and when all has become quiet it holds what the database holds.
    """

    NAMES = ("run_1", "run_2", "run_3")

    @initialize()
    def begin(self) -> None:
        self.now = 100.0
        self.reader = MemoryRunReader()
        self.open: list[MemoryTransaction] = []
        self.leader: int | None = None
        self.gateways = [Gateway(Relaying(), self.reader.position, {}) for _ in range(3)]
        for gateway in self.gateways:
            gateway.machine.receive_place(gateway.position, self.now)

    # -- writers

    @rule()
    def begin_transaction(self) -> None:
        if len(self.open) < 3:
            self.open.append(self.reader.begin())

    @rule(name=st.sampled_from(NAMES), tagged=st.booleans(), deletes=st.booleans())
    def write(self, name: str, tagged: bool, deletes: bool) -> None:
        transaction = self.open[-1] if self.open else self.reader.begin()
        if not self.reader.is_locked(name, against=transaction):
            if deletes:
                transaction.delete(name)
            else:
                transaction.write(make_run(id=name, tags=("x",) if tagged else ()))
        if not self.open:
            transaction.commit()

    @precondition(lambda self: self.open)
    @rule(dice=st.randoms(use_true_random=False), commits=st.booleans())
    def end_transaction(self, dice: object, commits: bool) -> None:
        transaction = self.open.pop(dice.randrange(len(self.open)))  # type: ignore[attr-defined]
        transaction.commit() if commits else transaction.abort()

    # -- tailers

    @rule(number=st.integers(0, 2))
    def step(self, number: int) -> None:
        """A read takes two: messages come while the database is answering."""
        gateway = self.gateways[number]
        if gateway.reading is not None:
            window, gateway.reading = gateway.reading, None
            gateway.machine.receive_read(window, self.now)
            self.hand_over(gateway, window)
            return
        match gateway.machine.next_step(self.now):
            case RelayStep.TAIL | RelayStep.READ:
                gateway.reading = self.window(gateway.position)
            case RelayStep.TAKE:
                window = gateway.machine.take()
                self.hand_over(gateway, window)
                gateway.machine.receive_taken(window)

    @rule(number=st.integers(0, 2))
    def lose_the_database(self, number: int) -> None:
        gateway = self.gateways[number]
        gateway.reading = None
        gateway.machine.receive_lost()
        gateway.machine.receive_place(gateway.position, self.now)

    def window(self, before: Position) -> Window:
        changes = self.reader.changes(before, self.reader.position)
        return Window(
            before,
            self.reader.position,
            tuple(change.run.facets for change in changes if change.run),
            tuple(departure for change in changes for departure in change.departures),
        )

    def hand_over(self, gateway: Gateway, window: Window) -> None:
        assert window.whole
        assert window.before == gateway.position
        departures = {each.facets.id: each.version for each in window.departures}
        for name in {each.id for each in window.runs} | departures.keys():
            row = self.reader.run_at(self.reader.position, name)
            revision = row.version if row else departures.get(name)
            if row is None:  # perhaps deleted since the window: then a later one tells of it
                gateway.missed[name] = self.last_departure(self.reader.position, name)
            if revision is None:
                continue
            assert gateway.newest.get(name, 0) <= revision
            gateway.newest[name] = revision
            if row:
                gateway.runs[name] = revision
            else:
                gateway.runs.pop(name, None)
        gateway.position = window.after

    # -- messages

    @rule(number=st.integers(0, 2), answered=st.booleans())
    def speak(self, number: int, answered: bool) -> None:
        machine = self.gateways[number].machine
        message = machine.next_message(self.now)
        if message is None:
            return
        passed = self.leader in (None, number)
        if passed:
            self.leader = number
            for gateway in self.gateways:
                if gateway.machine is not machine:
                    gateway.inbox.append(message.to_bytes())
        machine.receive_answer(passed if answered else None)

    @rule(number=st.integers(0, 2), doubled=st.booleans(), dice=st.randoms(use_true_random=False))
    def deliver(self, number: int, doubled: bool, dice: object) -> None:
        gateway = self.gateways[number]
        if gateway.inbox:
            place = min(dice.randrange(3), len(gateway.inbox) - 1)  # type: ignore[attr-defined]
            data = gateway.inbox[place] if doubled else gateway.inbox.pop(place)
            gateway.machine.receive_window(parse_window(data), self.now)

    @rule(number=st.integers(0, 2))
    def deliver_all(self, number: int) -> None:
        gateway = self.gateways[number]
        while gateway.inbox:
            gateway.machine.receive_window(parse_window(gateway.inbox.pop(0)), self.now)

    @rule(number=st.integers(0, 2))
    def lose_messages(self, number: int) -> None:
        self.gateways[number].inbox.clear()

    @rule(number=st.integers(0, 2))
    def hear_nothing_more(self, number: int) -> None:
        self.gateways[number].machine.receive_deaf()

    @rule(number=st.integers(0, 2), farewell=st.booleans())
    def hear_something_odd(self, number: int, farewell: bool) -> None:
        machine = self.gateways[number].machine
        if farewell:
            machine.receive_farewell()
        else:
            machine.receive_window(Window.at(replace(self.reader.position, database=2)), self.now)

    @rule()
    def forget_the_leader(self) -> None:
        self.leader = None

    @rule(seconds=st.sampled_from([0.01, 0.3, 1.5, 11.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    # -- what must hold

    @invariant()
    def nothing_is_skipped(self) -> None:
        for gateway in getattr(self, "gateways", ()):
            for name in self.NAMES:
                row = self.reader.run_at(gateway.position, name)
                held = gateway.newest.get(name, 0)
                if row is not None:
                    assert max(held, gateway.missed.get(name, 0)) >= row.version
                elif name in gateway.runs:
                    assert held > self.last_departure(gateway.position, name)

    def last_departure(self, position: Position, name: str) -> int:
        beginning = Position(position.database, 0)
        changes = self.reader.changes(beginning, position)
        return max(
            (
                departure.version
                for change in changes
                for departure in change.departures
                if departure.facets.id == name
            ),
            default=0,
        )

    def teardown(self) -> None:
        if not hasattr(self, "gateways"):
            return
        while self.open:
            self.open.pop().commit()
        expected = {each.id: each.version for each in self.reader.runs_at(self.reader.position)}
        for _ in range(8):
            self.now += PACE.beat
            for number in range(3):
                self.speak(number, answered=True)
            for number in range(3):
                self.deliver_all(number)
                for _ in range(4):
                    self.step(number)
        for gateway in self.gateways:
            assert gateway.runs == expected


TestRumours = Rumours.TestCase
TestRumours.settings = settings(max_examples=60, stateful_step_count=60)
