"""Subscriptions: unit tests of single rules, and a model that tries to make one miss something."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from runcast.core.frame import (
    End,
    Expired,
    Frame,
    GoneFrame,
    Problem,
    Reset,
    RunFrame,
    StateFrame,
    UpToDate,
)
from runcast.core.limits import Limits
from runcast.core.page import ChangePage, PageKey, Paging
from runcast.core.position import Position, parse_cursor
from runcast.core.run import Run, RunChange
from runcast.core.scope import compile_scopes
from runcast.core.selector import Selector
from runcast.core.subscription import Outgoing, Phase, Read, Subscription
from runcast.core.view import View
from runcast.testing import MemoryRunReader, MemoryTransaction
from tests.support.runs import CREATED_AT, make_run
from tests.support.snapshots import read_snapshot

KEY = PageKey(CREATED_AT, "run_1")
DEFAULTS = Limits()


def at(xmax: int, *in_flight: int) -> Position:
    return Position(1, xmax, in_flight)


def run_frame(version: int, changed_in: int, run_id: str = "run_1", **changes: Any) -> RunFrame:
    return RunFrame(make_run(id=run_id, version=version, changed_in=changed_in, **changes))


def live(
    *, at_position: Position, ends_with_run: bool = False, limits: Limits = DEFAULTS
) -> Subscription:
    """A subscription that read an empty snapshot at this position and sent all it had."""
    machine = Subscription(since=None, ends_with_run=ends_with_run, limits=limits)
    machine.receive_page((), at_position, None)
    assert machine.frames_to_send(at_position) == [(UpToDate(), at_position)]
    return machine


class TestCatchingUp:
    def test_begins_with_the_first_page_of_a_snapshot(self) -> None:
        assert Subscription(since=None).next_read() == Read(None, None, 0)

    def test_resumes_with_the_changes_since_its_cursor(self) -> None:
        assert Subscription(since=at(10)).next_read() == Read(at(10), None, 0)

    def test_sends_pages_as_they_come_and_up_to_date_after_the_last(self) -> None:
        machine = Subscription(since=None)
        first, second = run_frame(1, 5), run_frame(2, 6, "run_2")
        machine.receive_page([first], at(10), KEY)
        assert machine.frames_to_send(at(8)) == [(first, None)]
        assert machine.next_read() == Read(None, KEY, 0)
        machine.receive_page([second], at(12), None)
        # Whoever resumes must not miss what the first page could not see.
        assert machine.frames_to_send(at(8)) == [(second, None), (UpToDate(), at(10))]
        assert machine.next_read() is None

    def test_holds_changes_and_lets_through_only_what_the_pages_did_not_see(self) -> None:
        machine = Subscription(since=None)
        seen, unseen = run_frame(1, 5), run_frame(2, 11, "run_2")
        machine.receive_window([seen, unseen], at(4), at(12))
        assert machine.frames_to_send(at(12)) == []
        machine.receive_page([seen], at(10), None)
        assert machine.frames_to_send(at(12)) == [
            (seen, None),
            (UpToDate(), at(10)),
            (unseen, at(12)),
        ]

    def test_a_late_page_is_newer_than_what_was_held(self) -> None:
        machine = Subscription(since=None)
        machine.receive_page([], at(10), KEY)
        machine.receive_window([run_frame(5, 11)], at(9), at(12))
        newest = run_frame(9, 13)
        machine.receive_page([newest], at(14), None)
        assert machine.frames_to_send(at(12)) == [(newest, None), (UpToDate(), at(10))]
        # The feed comes to it as well, and it is not sent again; what is newer is.
        machine.receive_window([run_frame(9, 13)], at(12), at(13, 12))
        assert machine.frames_to_send(at(13, 12)) == []
        newer = run_frame(10, 12)
        machine.receive_window([newer], at(13, 12), at(15))
        assert machine.frames_to_send(at(15)) == [(newer, at(15))]

    def test_a_flood_meanwhile_is_read_again_from_the_first_page_on(self) -> None:
        machine = Subscription(since=None, limits=Limits(max_backlog_runs=1))
        machine.receive_page([], at(10), KEY)
        flood = [run_frame(n, 11, f"run_{n}") for n in range(2)]
        machine.receive_window(flood, at(9), at(12))
        machine.receive_window(flood, at(12), at(13))
        machine.receive_page([], at(14), None)
        assert machine.frames_to_send(at(13)) == []
        assert machine.next_read() == Read(at(10), None, 1)

    def test_a_crash_between_two_pages_is_read_again_from_the_first(self) -> None:
        machine = Subscription(since=None)
        machine.receive_page([], at(10), KEY)
        machine.receive_page([], Position(1, 12, (), 2), None)
        assert machine.frames_to_send(at(10)) == []
        assert machine.next_read() == Read(at(10), None, 1)

    def test_another_subscription_can_go_on_between_two_pages(self) -> None:
        assert Subscription(since=at(3)).paging is None
        machine = Subscription(since=at(3))
        machine.receive_page([run_frame(1, 5)], at(10), KEY)
        paging = machine.paging
        assert paging == Paging(at(3), at(10), KEY)
        other = Subscription(since=None, paging=paging)
        assert other.next_read() == Read(at(3), KEY, 0)
        other.receive_page([run_frame(9, 11, "run_2")], at(12), None)
        # What the first page did not see is sent, what it saw was sent by the other one.
        newer = run_frame(7, 10)
        other.receive_window([run_frame(1, 5), newer], at(4), at(13))
        assert other.frames_to_send(at(13)) == [
            (run_frame(9, 11, "run_2"), None),
            (UpToDate(), at(10)),
            (newer, at(13)),
        ]
        assert other.paging is None

    def test_a_page_that_nobody_asked_for_changes_nothing(self) -> None:
        machine = live(at_position=at(10))
        machine.receive_page([run_frame(1, 5)], at(12), None)
        assert machine.frames_to_send(at(12)) == []


class TestLive:
    def test_is_direct_once_the_feed_has_reached_the_last_page(self) -> None:
        machine = Subscription(since=None)
        assert not machine.direct
        machine.receive_page((), at(10), None)
        machine.frames_to_send(at(9))
        assert not machine.direct
        machine.frames_to_send(at(10))
        assert machine.direct

    def test_is_direct_after_a_window_that_reaches_the_last_page(self) -> None:
        machine = Subscription(since=None)
        machine.receive_page((), at(10), None)
        machine.frames_to_send(at(9))
        machine.receive_window([run_frame(1, 9)], at(9), at(10))
        assert machine.frames_to_send(at(10)) == []
        assert machine.direct

    def test_a_quiet_feed_becomes_direct_when_the_changefeed_has_passed_the_last_page(self) -> None:
        machine = Subscription(since=None)
        machine.receive_page((), at(10), None)
        machine.frames_to_send(at(9))
        machine.receive_position(at(9))
        assert not machine.direct
        machine.receive_position(at(12, 10))
        assert machine.direct

    def test_windows_that_end_before_the_last_page_are_still_compared_with_it(self) -> None:
        machine = Subscription(since=None)
        machine.receive_page((), at(10), None)
        machine.frames_to_send(at(6))
        machine.receive_window([run_frame(1, 6)], at(6), at(7))
        machine.receive_window([run_frame(2, 7)], at(7), at(8))
        assert machine.frames_to_send(at(8)) == []
        assert not machine.direct

    def test_after_a_crash_of_the_server_nothing_is_taken_for_seen(self) -> None:
        machine = Subscription(since=None)
        machine.receive_page((), at(10), None)
        machine.frames_to_send(at(6))
        # Transaction 9 was seen without effect, then forgotten, and its number given again.
        again = run_frame(2, 9)
        machine.receive_window([again], Position(1, 5, (), 2), Position(1, 10, (), 2))
        assert machine.frames_to_send(Position(1, 10, (), 2)) == [(again, Position(1, 10, (), 2))]
        assert machine.direct

    def test_a_quiet_feed_notices_a_crash_as_well(self) -> None:
        machine = Subscription(since=None)
        machine.receive_page((), at(100_000), None)
        machine.receive_position(Position(1, 90_000, (), 2))
        machine.frames_to_send(Position(1, 90_000, (), 2))
        assert machine.direct

    def test_is_not_direct_while_its_reader_is_behind(self) -> None:
        machine = live(at_position=at(10))
        machine.writable = False
        assert not machine.direct

    def test_a_slow_reader_gets_the_newest_state_of_each_run_in_the_order_of_change(self) -> None:
        machine = live(at_position=at(10))
        machine.writable = False
        machine.receive_window([run_frame(1, 10), run_frame(2, 10, "run_2")], at(10), at(11))
        machine.receive_window([run_frame(3, 11)], at(11), at(12))
        assert machine.frames_to_send(at(12)) == []
        machine.writable = True
        assert machine.frames_to_send(at(12)) == [
            (run_frame(2, 10, "run_2"), None),
            (run_frame(3, 11), at(12)),
        ]

    def test_a_reader_that_is_too_slow_for_what_was_held_reads_from_the_first_page_on(self) -> None:
        machine = Subscription(since=None, limits=Limits(max_backlog_runs=1))
        machine.writable = False
        machine.receive_window([run_frame(1, 11)], at(9), at(12))
        machine.receive_page([], at(10), KEY)
        machine.receive_page([], at(14), None)
        machine.receive_window([run_frame(2, 12, "run_2")], at(12), at(13))
        assert machine.next_read() == Read(at(10), None, 1)

    def test_a_reader_that_is_too_slow_reads_again_from_where_it_stood(self) -> None:
        machine = live(at_position=at(10), limits=Limits(max_backlog_runs=2))
        machine.writable = False
        machine.receive_window([run_frame(1, 20)], at(20), at(21))
        machine.receive_window([run_frame(2, 21, "run_2")], at(21), at(22))
        machine.receive_window([run_frame(3, 22, "run_3")], at(22), at(23))
        assert machine.next_read() == Read(at(20), None, 1)
        assert machine.phase is Phase.CATCHING_UP

    def test_large_runs_wait_until_they_are_too_many_bytes(self) -> None:
        machine = live(at_position=at(10), limits=Limits(max_backlog_bytes=1000))
        machine.writable = False
        large = {"payload": "x" * 600}
        machine.receive_window([run_frame(1, 20, **large)], at(20), at(21))
        machine.receive_window([run_frame(2, 21, **large)], at(21), at(22))  # in its place
        assert machine.phase is Phase.LIVE
        machine.receive_window([run_frame(3, 22, "run_2", **large)], at(22), at(23))
        assert machine.next_read() == Read(at(20), None, 1)

    def test_one_run_waits_however_large(self) -> None:
        machine = live(at_position=at(10), limits=Limits(max_backlog_bytes=1000))
        machine.writable = False
        machine.receive_window([run_frame(1, 20, output="x" * 5000)], at(20), at(21))
        assert machine.phase is Phase.LIVE


class TestLost:
    def test_says_so_and_begins_with_a_snapshot(self) -> None:
        machine = live(at_position=at(10))
        machine.receive_lost("other_database", "It was restored.")
        assert machine.frames_to_send(at(3)) == [
            (Reset("other_database", "It was restored."), None)
        ]
        assert machine.next_read() == Read(None, None, 1)

    def test_forgets_what_waits_for_a_slow_reader(self) -> None:
        machine = Subscription(since=None)
        machine.writable = False
        machine.receive_page([run_frame(1, 5)], at(10), KEY)
        machine.receive_lost("ahead", "Once.")
        machine.receive_lost("ahead", "Twice.")
        machine.writable = True
        assert machine.frames_to_send(at(10)) == [(Reset("ahead", "Twice."), None)]

    def test_after_the_end_nothing_is_lost(self) -> None:
        machine = live(at_position=at(10))
        machine.close(Expired())
        machine.receive_lost("ahead", "Too late.")
        assert machine.frames_to_send(at(10)) == [(Expired(), None)]


FINISHED = {"status": "COMPLETED_SUCCESSFULLY"}


class TestEnds:
    def test_after_a_snapshot_of_a_finished_run(self) -> None:
        machine = Subscription(since=None, ends_with_run=True)
        last = run_frame(3, 5, **FINISHED)
        machine.receive_page([last], at(10), None)
        sent = machine.frames_to_send(at(10))
        assert sent == [(last, None), (UpToDate(), at(10)), (End("finished"), None)]
        assert machine.phase is Phase.CLOSED

    def test_after_the_change_that_finishes_the_run(self) -> None:
        machine = live(at_position=at(10), ends_with_run=True)
        last = run_frame(3, 10, **FINISHED)
        machine.receive_window([last], at(10), at(11))
        assert machine.frames_to_send(at(11)) == [(last, at(11)), (End("finished"), None)]

    def test_after_the_deletion_of_the_run(self) -> None:
        machine = live(at_position=at(10), ends_with_run=True)
        gone = GoneFrame("run_1", "deleted", 3, 10)
        machine.receive_window([gone], at(10), at(11))
        assert machine.frames_to_send(at(11)) == [(gone, at(11)), (End("deleted"), None)]

    def test_not_when_the_run_leaves_the_view(self) -> None:
        machine = live(at_position=at(10), ends_with_run=True)
        machine.receive_window([GoneFrame("run_1", "unmatched", 3, 10)], at(10), at(11))
        machine.frames_to_send(at(11))
        assert machine.phase is Phase.LIVE

    def test_not_without_being_asked_to(self) -> None:
        machine = live(at_position=at(10))
        machine.receive_window([run_frame(3, 10, **FINISHED)], at(10), at(11))
        machine.frames_to_send(at(11))
        assert machine.phase is Phase.LIVE

    def test_not_at_a_page_after_which_the_run_was_opened_again(self) -> None:
        machine = Subscription(since=None, ends_with_run=True)
        finished, opened = run_frame(3, 5, **FINISHED), run_frame(4, 10)
        machine.receive_window([opened], at(9), at(11))
        machine.receive_page([finished], at(10), None)
        assert machine.frames_to_send(at(11)) == [
            (finished, None),
            (UpToDate(), at(10)),
            (opened, at(11)),
        ]
        assert machine.phase is Phase.LIVE

    def test_not_for_a_state_of_a_database_that_is_another_one_now(self) -> None:
        machine = Subscription(since=None, ends_with_run=True)
        machine.writable = False
        machine.receive_window([run_frame(4, 10, **FINISHED)], at(9), at(11))
        machine.receive_page([run_frame(3, 5, **FINISHED)], at(10), None)
        machine.receive_lost("other_database", "It was restored.")
        running = run_frame(2, 4)
        machine.receive_page([running], at(6), None)
        machine.writable = True
        assert machine.frames_to_send(at(6)) == [
            (Reset("other_database", "It was restored."), None),
            (running, None),
            (UpToDate(), at(6)),
        ]
        assert machine.phase is Phase.LIVE

    def test_when_the_run_was_finished_before_the_cursor(self) -> None:
        machine = live(at_position=at(10), ends_with_run=True)
        machine.receive_finished()
        assert machine.frames_to_send(at(10)) == [(End("finished"), None)]
        assert machine.phase is Phase.CLOSED

    def test_but_not_before_everything_was_read(self) -> None:
        machine = Subscription(since=at(5), ends_with_run=True)
        machine.receive_finished()
        assert machine.phase is Phase.CATCHING_UP

    def test_nothing_follows_the_last_frame(self) -> None:
        machine = live(at_position=at(10), ends_with_run=True)
        machine.close(End("unsubscribed"))
        machine.close(Problem("internal_error", "no"))
        machine.receive_finished()
        machine.receive_window([run_frame(3, 10, **FINISHED)], at(10), at(11))
        machine.receive_page([run_frame(3, 10)], at(11), None)
        assert machine.frames_to_send(at(11)) == [(End("unsubscribed"), None)]
        assert machine.frames_to_send(at(11)) == []
        assert machine.next_read() is None
        assert not machine.direct


# -- a model ----------------------------------------------------------------------------------

RUN_IDS = ("run_1", "run_2", "run_3")
MAX_BACKLOG = 2
PAGE = 1

# A run's tags, one letter each, and whether it is finished; None deletes it. Mostly the same run,
# and mostly in view: things that happen to different runs seldom meet.
Write = tuple[str, tuple[str, bool] | None]
WRITES: st.SearchStrategy[Write] = st.tuples(
    st.sampled_from(["run_1", "run_1", "run_2", "run_3"]),
    st.sampled_from([("ab", False)] * 4 + [("ab", True), ("a", False), ("b", True), None]),
)

# What happens between two pages.
Event = tuple[str, list[Write]]
MEANWHILE: st.SearchStrategy[list[Event]] = st.lists(
    st.tuples(
        st.sampled_from(
            ["write", "write", "write", "follow", "follow", "begin to follow", "pause"]
        ),
        st.lists(WRITES, min_size=1, max_size=2),
    ),
    max_size=4,
)


@dataclass
class Client:
    """What somebody knows who got the frames, and where they may resume."""

    runs: dict[str, Run] = field(default_factory=dict)
    revisions: dict[str, int] = field(default_factory=dict)
    awaits_snapshot: bool = True
    ended: list[Frame] = field(default_factory=list)
    last_state: StateFrame | None = None
    checkpoints: list[tuple[str, dict[str, Run]]] = field(default_factory=list)

    def receive(self, frame: Frame, position: Position | None) -> None:
        assert not self.ended, "something came after the end"
        match frame:
            case RunFrame() | GoneFrame():
                self.last_state = frame
                known = self.revisions.get(frame.run_id, 0)
                if isinstance(frame, RunFrame):
                    assert frame.revision >= known, "went backwards"
                    self.runs[frame.run_id] = frame.run
                    self.revisions[frame.run_id] = frame.revision
                else:
                    # Clients are not told which change it was; what comes back must be newer.
                    self.runs.pop(frame.run_id, None)
                    self.revisions[frame.run_id] = max(frame.revision, known + 1)
            case UpToDate():
                self.awaits_snapshot = False
                assert position is not None
            case Reset():
                self.runs.clear()
                self.revisions.clear()
                self.awaits_snapshot = True
                self.last_state = None
            case _:
                self.ended.append(frame)
        if position is not None:
            # After a reset there is nothing to resume from before the snapshot was told.
            assert not self.awaits_snapshot
            self.checkpoints.append((position.cursor(), dict(self.runs)))


class ManyRuns(RuleBasedStateMachine):
    """
    A database, a changefeed and one subscriber, each at its own pace.

    Everything between them goes as in the hub: a window is delivered past the machine when that
    says `direct`, a page of an earlier attempt is thrown away, no page is read for a slow reader.
    """

    selector = Selector("env_1", tags=("a",))
    # Of the runs with tag a only those are seen that have tag b, or are of one task.
    permissions = compile_scopes(["read:tags:b", "read:tasks:open"])
    ends_with_run = False

    def __init__(self) -> None:
        super().__init__()
        self.database = MemoryRunReader()
        self.view = View(self.selector, self.permissions)
        self.transactions: list[MemoryTransaction] = []
        self.feed = self.database.position
        self.keys: tuple[list[RunChange], Position] | None = None  # read, their runs not yet
        self.window: tuple[list[RunChange], Position] | None = None  # read, not handed over yet
        self.page: tuple[Read, ChangePage] | None = None  # read, on its way
        self.writable = True
        self.client = Client()
        self.connect(None)

    # -- the database ---------------------------------------------------------------------------

    @initialize(writes=st.lists(WRITES, max_size=4))
    def begin_with(self, writes: list[Write]) -> None:
        self.write_at_once(writes)
        self.follow()

    @rule(writes=st.lists(WRITES, min_size=1, max_size=3))
    def write_at_once(self, writes: list[Write]) -> None:
        transaction = self.database.begin()
        self.write(transaction, writes)
        transaction.commit()

    @precondition(lambda self: len(self.transactions) < 3)
    @rule(writes=st.lists(WRITES, min_size=1, max_size=2))
    def write_and_stay_open(self, writes: list[Write]) -> None:
        transaction = self.database.begin()
        self.transactions.append(transaction)
        self.write(transaction, writes)

    @precondition(lambda self: self.transactions)
    @rule(data=st.data(), writes=st.lists(WRITES, max_size=2), commits=st.sampled_from([1, 1, 0]))
    def end(self, data: st.DataObject, writes: list[Write], commits: int) -> None:
        transaction = data.draw(st.sampled_from(self.transactions))
        self.write(transaction, writes)
        self.transactions.remove(transaction)
        if commits:
            transaction.commit()
        else:
            transaction.abort()

    def write(self, transaction: MemoryTransaction, writes: list[Write]) -> None:
        for run_id, state in writes:
            if self.database.is_locked(run_id, against=transaction):
                continue
            if state is None:
                transaction.delete(run_id)
            else:
                transaction.write(some_run(run_id, state))

    # -- the changefeed -------------------------------------------------------------------------

    @precondition(lambda self: self.keys is None and self.window is None)
    @rule()
    def read_keys(self) -> None:
        here = self.database.position
        self.keys = self.database.changes(self.feed, here), here

    @precondition(lambda self: self.keys is not None)
    @rule()
    def read_runs(self) -> None:
        """Read the runs, which may see them later than their keys were read."""
        assert self.keys is not None
        (found, after), self.keys = self.keys, None
        now = self.database.position
        changes = []
        for change in found:
            run = self.database.run_at(now, change.facets.id)
            if run is not None or change.departures:
                facets = run.facets if run else change.facets
                changes.append(RunChange(facets, run, change.departures))
        self.window = changes, after

    @precondition(lambda self: self.window is not None)
    @rule(pieces=st.integers(1, 3))
    def hand_over(self, pieces: int) -> None:
        assert self.window is not None
        (changes, after), self.window = self.window, None
        size = -(-len(changes) // pieces) or 1
        parts = [changes[start : start + size] for start in range(0, len(changes), size)] or [[]]
        for part in parts[:-1]:
            self.publish(part, self.feed)
        self.publish(parts[-1], after)

    @rule()
    def follow(self) -> None:
        """The window that was begun, or a whole one."""
        if self.window is None:
            if self.keys is None:
                self.read_keys()
            self.read_runs()
        self.hand_over(1)

    def publish(self, changes: Sequence[RunChange], after: Position) -> None:
        before, self.feed = self.feed, after
        frames = self.judged(changes)
        if not frames:
            return
        ending = self.ends_with_run and any(is_last(frame) for frame in frames)
        if self.machine.direct and not ending:
            for frame in frames[:-1]:
                self.client.receive(frame, None)
            self.client.receive(frames[-1], after)
        else:
            self.machine.receive_window(frames, before, after)
            self.flush()

    # -- the subscriber -------------------------------------------------------------------------

    def connect(self, cursor: str | None) -> None:
        since = parse_cursor(cursor) if cursor else None
        self.machine = Subscription(
            since=since,
            ends_with_run=self.ends_with_run,
            limits=Limits(max_backlog_runs=MAX_BACKLOG),
        )
        self.machine.writable = self.writable
        self.known_finished = self.was_finished(since)
        self.page = None
        if self.keys is not None:  # nobody wanted those runs when their keys were read
            self.keys = [], self.keys[1]

    def was_finished(self, since: Position | None) -> bool:
        run = self.database.run_at(self.database.position, RUN_IDS[0])
        return (
            self.ends_with_run
            and since is not None
            and run is not None
            and run.finished
            and since.sees(run.changed_in)
        )

    @precondition(lambda self: self.page is None and self.writable)
    @rule()
    def read_page(self) -> None:
        read = self.machine.next_read()
        if read is not None:
            self.page = read, self.read(read, self.selector)

    @precondition(lambda self: self.page is not None)
    @rule()
    def receive_page(self) -> None:
        assert self.page is not None
        (read, page), self.page = self.page, None
        if self.machine.next_read() == read:
            frames = self.judged(page.changes)
            self.machine.receive_page(frames, page.position, page.next)
            if self.known_finished and not frames:
                self.machine.receive_finished()
        self.flush()

    @rule(writable=st.booleans())
    def set_writable(self, writable: bool) -> None:
        self.writable = self.machine.writable = writable
        self.flush()

    @rule()
    def keep_alive(self) -> None:
        self.flush()
        if self.machine.direct:
            self.client.checkpoints.append((self.feed.cursor(), dict(self.client.runs)))

    @rule(
        begins=st.booleans(),
        turns=st.lists(st.tuples(MEANWHILE, MEANWHILE), max_size=4),
        ends=st.booleans(),
    )
    def catch_up(
        self, begins: bool, turns: list[tuple[list[Event], list[Event]]], ends: bool
    ) -> None:
        """Read pages while other things happen: before each, and while it is on its way."""
        if begins:
            self.client = Client(checkpoints=self.client.checkpoints)
            self.connect(None)
        for before, on_its_way in turns:
            self.happen(before)
            self.set_writable(True)
            if self.page is None:
                self.read_page()
            self.happen(on_its_way)
            if self.page is not None:
                self.receive_page()
        if ends:
            self.set_writable(True)
            self.finish_catching_up()

    def happen(self, events: list[Event]) -> None:
        for event, writes in events:
            match event:
                case "write":
                    self.write_at_once(writes)
                case "begin to follow" if self.window is None:
                    if self.keys is None:
                        self.read_keys()
                    self.read_runs()
                case "follow":
                    self.follow()
                case "pause":
                    self.set_writable(False)

    def finish_catching_up(self) -> None:
        for _ in range(100):
            if self.page is not None:
                self.receive_page()
            if self.machine.next_read() is None:
                break
            self.read_page()

    @rule(data=st.data(), how=st.sampled_from(["resume", "resume", "lose", "close", "begin"]))
    def interrupt(self, data: st.DataObject, how: str) -> None:
        known = self.client.checkpoints
        match how:
            case "resume" if known:
                # With any cursor that was ever given, knowing what was known then.
                cursor, runs = data.draw(st.sampled_from(known))
                self.client = Client(dict(runs), {}, False, [], None, known)
                self.connect(cursor)
            case "lose":
                self.machine.receive_lost("too_old", "Departures were forgotten.")
            case "close":
                self.machine.close(Expired())
            case _:
                self.client = Client(checkpoints=known)
                self.connect(None)
        self.flush()

    # -- what must hold -------------------------------------------------------------------------

    @invariant()
    def its_memory_is_bounded(self) -> None:
        assert len(self.machine._backlog or ()) <= MAX_BACKLOG
        # Two pages and the frames that tell of them; nothing is read for a slow reader.
        assert len(self.machine._outgoing) <= 2 * (PAGE + len(RUN_IDS) + 2)
        assert self.machine._backlog is None or self.machine.phase is not Phase.CLOSED

    @invariant()
    def the_end_is_said_once_and_after_the_final_state(self) -> None:
        if self.machine.phase is Phase.CLOSED:
            assert self.machine.next_read() is None
            assert not self.machine.direct
        if self.client.ended == [End("finished")] and self.client.last_state is not None:
            assert isinstance(self.client.last_state, RunFrame)
            assert self.client.last_state.run.finished
        if self.client.ended == [End("deleted")]:
            assert isinstance(self.client.last_state, GoneFrame)

    def teardown(self) -> None:
        """Let everything come to rest, then compare; then resume from cursors that were given."""
        for transaction in self.transactions:
            transaction.commit()
        self.follow()
        self.follow()
        self.set_writable(True)
        self.finish_catching_up()
        assert self.machine.phase is not Phase.CATCHING_UP
        self.check()
        seen: set[str] = set()
        for cursor, runs in reversed(self.client.checkpoints):
            if cursor not in seen and len(seen) < 6:
                seen.add(cursor)
                self.check_resuming(cursor, runs)

    def check(self) -> None:
        expected = self.expected()
        if self.machine.phase is Phase.LIVE:
            assert self.client.runs == expected
            assert not (self.ends_with_run and any(run.finished for run in expected.values()))

    def check_resuming(self, cursor: str, runs: dict[str, Run]) -> None:
        self.client = Client(dict(runs), {}, False)
        self.connect(cursor)
        self.finish_catching_up()
        assert self.client.ended in ([], [End("finished")], [End("deleted")])
        assert self.client.runs == self.expected()

    def expected(self) -> dict[str, Run]:
        runs = self.database.runs_at(self.database.position)
        return {run.id: run for run in runs if self.view.shows(run.facets)}

    # -- as the hub does it ---------------------------------------------------------------------

    def flush(self) -> None:
        sent: list[Outgoing] = self.machine.frames_to_send(self.feed)
        assert self.writable or not sent
        for frame, position in sent:
            self.client.receive(frame, position)

    def judged(self, changes: Sequence[RunChange]) -> list[StateFrame]:
        verdicts = (
            self.view.judge(change, RunFrame(change.run) if change.run else None)
            for change in changes
        )
        return [verdict for verdict in verdicts if verdict is not None]

    def read(self, read: Read, selector: Selector) -> ChangePage:
        """Run the reader's coroutine, which never waits."""
        reading = (
            read_snapshot(self.database, selector, after=read.after, limit=PAGE)
            if read.since is None
            else self.database.read_changes(
                selector, since=read.since, after=read.after, limit=PAGE
            )
        )
        with pytest.raises(StopIteration) as stopped:
            reading.send(None)
        page: ChangePage = stopped.value.value
        return page


class OneRun(ManyRuns):
    """The same with the feed of one run, which ends with it."""

    selector = Selector("env_1", run_id=RUN_IDS[0])
    permissions = compile_scopes(["read:tags:b"])
    ends_with_run = True


def some_run(run_id: str, state: tuple[str, bool]) -> Run:
    # What never changes in a run's life follows from its id.
    tags, finished = state
    number = RUN_IDS.index(run_id)
    return make_run(
        id=run_id,
        task="open" if number == 2 else "closed",
        created_at=CREATED_AT.replace(minute=number // 2),
        tags=tuple(tags),
        status="COMPLETED_SUCCESSFULLY" if finished else "EXECUTING",
    )


def is_last(frame: StateFrame) -> bool:
    if isinstance(frame, RunFrame):
        return frame.run.finished
    return frame.reason == "deleted"


_EFFORT = settings(
    max_examples=200, stateful_step_count=25, suppress_health_check=[HealthCheck.too_slow]
)
ManyRuns.TestCase.settings = _EFFORT
OneRun.TestCase.settings = _EFFORT
TestManyRuns = ManyRuns.TestCase
TestOneRun = OneRun.TestCase
