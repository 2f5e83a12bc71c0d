"""One reader's way along a stream, against a model: a plain list of what was appended."""

from collections.abc import Sequence

import pytest
from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from runcast.core.chunk import Chunk, StreamState
from runcast.core.frame import End, Problem, Reset, UpToDate
from runcast.core.stream_subscription import PartsFrame, Phase, StreamFrame, StreamSubscription


def chunks(first: int, end: int) -> list[Chunk]:
    return [Chunk(index, f"text {index}", index) for index in range(first, end)]


def sent(machine: StreamSubscription) -> list[StreamFrame | list[int]]:
    """What comes out, parts as their offsets."""
    return [
        [chunk.index for chunk in frame.chunks] if isinstance(frame, PartsFrame) else frame
        for frame in machine.frames_to_send()
    ]


def live(offset: int, *, run_over: bool = False) -> StreamSubscription:
    machine = StreamSubscription(offset=offset)
    machine.run_over = run_over
    machine.receive_page((), StreamState(next_index=offset, has_open_writers=True))
    assert sent(machine) == [UpToDate(offset)]
    return machine


class TestReading:
    def test_pages_are_sent_until_there_is_no_more(self) -> None:
        machine = StreamSubscription(offset=1)
        machine.receive_page(chunks(1, 3), StreamState(next_index=4))
        assert (machine.phase, machine.offset) == (Phase.READING, 3)
        machine.receive_page(chunks(3, 4), StreamState(next_index=4))
        assert (machine.phase, machine.offset) == (Phase.LIVE, 4)
        assert sent(machine) == [[1, 2], [3], UpToDate(4)]

    def test_live_chunks_are_not_taken_while_reading(self) -> None:
        machine = StreamSubscription(offset=0)
        machine.receive_live(chunks(0, 1))
        assert sent(machine) == []
        assert machine.offset == 0

    def test_from_latest_skips_what_exists_and_nothing_after(self) -> None:
        machine = StreamSubscription(offset=None)
        machine.receive_page((), StreamState(next_index=5))
        machine.receive_live(chunks(5, 6))
        assert sent(machine) == [UpToDate(5), [5]]

    def test_what_is_not_kept_any_more_is_said(self) -> None:
        machine = StreamSubscription(offset=1)
        machine.receive_page(chunks(4, 6), StreamState(first_index=4, next_index=6))
        reset, *rest = sent(machine)
        assert isinstance(reset, Reset)
        assert reset.reason == "too_old"
        assert rest == [[4, 5], UpToDate(6)]

    @pytest.mark.parametrize("live", [False, True])
    def test_another_stream_of_the_same_length_is_told_apart(self, live: bool) -> None:
        machine = StreamSubscription(offset=0)
        length = 3 if live else 4
        machine.receive_page(chunks(0, 3), StreamState(next_index=length, generation=1))
        if live:
            machine.receive_state(StreamState(next_index=3, generation=2))
        assert machine.phase is Phase.READING
        machine.receive_page((), StreamState(next_index=length, generation=2))
        assert machine.offset == 0
        machine.receive_page(chunks(0, length), StreamState(next_index=length, generation=2))
        frames = sent(machine)
        assert [frame.reason for frame in frames if isinstance(frame, Reset)] == ["begun_anew"]
        assert frames[-2 if not live else -1] == list(range(length))

    @pytest.mark.parametrize("page", [(1, 4), (1, 2)])
    def test_who_comes_back_to_the_same_stream_goes_on(self, page: tuple[int, int]) -> None:
        machine = StreamSubscription(offset=2, last_seen=1)
        assert machine.offset == 1  # is read once more
        machine.receive_page(chunks(*page), StreamState(next_index=4))
        machine.receive_page(chunks(page[1], 4), StreamState(next_index=4))
        parts = [offset for frame in sent(machine) if isinstance(frame, list) for offset in frame]
        assert parts == [2, 3]

    def test_who_comes_back_to_another_stream_is_told(self) -> None:
        machine = StreamSubscription(offset=2, last_seen=999)
        machine.receive_page(chunks(1, 4), StreamState(next_index=4))
        assert machine.offset == 0
        machine.receive_page(chunks(0, 4), StreamState(next_index=4))
        reset, *rest = sent(machine)
        assert isinstance(reset, Reset)
        assert reset.reason == "begun_anew"
        assert rest == [[0, 1, 2, 3], UpToDate(4)]

    @pytest.mark.parametrize(
        ("state", "there", "reasons", "offset"),
        [
            (StreamState(next_index=1), [], ["ahead"], 0),
            (StreamState(next_index=0), [], ["ahead"], 0),
            (StreamState(first_index=2, next_index=3), chunks(2, 3), [], 3),
            (StreamState(first_index=3, next_index=4), chunks(3, 4), ["too_old"], 4),
        ],
    )
    def test_where_the_chunk_that_was_seen_last_is_not_there_any_more(
        self, state: StreamState, there: list[Chunk], reasons: list[str], offset: int
    ) -> None:
        machine = StreamSubscription(offset=2, last_seen=1)
        machine.receive_page(there, state)
        assert [each.reason for each in sent(machine) if isinstance(each, Reset)] == reasons
        assert machine.offset == offset

    def test_a_stream_that_begins_is_no_other_one(self) -> None:
        machine = StreamSubscription(offset=0)
        machine.receive_page((), StreamState())
        machine.receive_live(chunks(0, 2))
        machine.receive_state(StreamState(next_index=2, generation=7))
        assert sent(machine) == [UpToDate(0), [0, 1]]
        assert machine.phase is Phase.LIVE
        machine.receive_state(StreamState(next_index=2, generation=8))
        assert not machine.direct

    def test_an_offset_that_the_stream_does_not_reach_reads_it_from_its_start(self) -> None:
        machine = StreamSubscription(offset=9)
        machine.receive_page((), StreamState(next_index=2))
        assert machine.offset == 0
        machine.receive_page(chunks(0, 2), StreamState(next_index=2))
        reset, *rest = sent(machine)
        assert isinstance(reset, Reset)
        assert reset.reason == "ahead"
        assert rest == [[0, 1], UpToDate(2)]

    def test_up_to_date_is_said_once(self) -> None:
        machine = live(0)
        machine.receive_live(chunks(3, 4))
        machine.receive_page(chunks(0, 4), StreamState(next_index=4))
        assert sent(machine) == [[0, 1, 2, 3]]


class TestLive:
    def test_what_is_known_already_is_not_sent_again(self) -> None:
        machine = live(3)
        machine.receive_live(chunks(1, 3))
        machine.receive_live(chunks(2, 5))
        assert sent(machine) == [[3, 4]]

    def test_a_gap_is_read_from_the_log(self) -> None:
        machine = live(3)
        machine.receive_live(chunks(4, 5))
        assert machine.phase is Phase.READING
        assert (sent(machine), machine.offset) == ([], 3)

    def test_a_reader_that_is_behind_takes_no_more_from_memory(self) -> None:
        machine = live(3)
        machine.writable = False
        machine.receive_live(chunks(3, 4))
        assert machine.phase is Phase.READING
        assert not machine.direct

    def test_a_stream_that_has_more_is_read(self) -> None:
        machine = live(3)
        machine.receive_state(StreamState(next_index=4, closed=True))
        assert machine.phase is Phase.READING

    def test_a_stream_that_began_anew_is_read_from_its_start(self) -> None:
        machine = live(3)
        machine.receive_state(StreamState(next_index=1))
        machine.receive_page((), StreamState(next_index=1))
        machine.receive_page(chunks(0, 1), StreamState(next_index=1))
        reset, *rest = sent(machine)
        assert isinstance(reset, Reset)
        assert rest == [[0]]


class TestEnd:
    def test_a_closed_stream_ends_behind_its_last_chunk(self) -> None:
        machine = StreamSubscription(offset=0)
        machine.receive_page(chunks(0, 1), StreamState(next_index=2, closed=True))
        assert machine.phase is Phase.READING
        machine.receive_page(chunks(1, 2), StreamState(next_index=2, closed=True))
        assert sent(machine) == [[0], [1], UpToDate(2), End("closed")]
        assert machine.over

    def test_a_finished_run_ends_its_streams_when_the_writers_are_gone(self) -> None:
        machine = live(2, run_over=True)
        machine.receive_state(StreamState(next_index=2, has_open_writers=True))
        assert machine.phase is Phase.LIVE
        machine.receive_state(StreamState(next_index=2))
        assert sent(machine) == [End("finished")]

    def test_writers_that_are_gone_end_nothing_while_the_run_goes_on(self) -> None:
        machine = live(2)
        machine.receive_state(StreamState(next_index=2))
        assert machine.phase is Phase.LIVE

    def test_what_could_not_be_written_yet_is_not_over(self) -> None:
        machine = live(2)
        machine.writable = False
        machine.receive_state(StreamState(next_index=2, closed=True))
        assert sent(machine) == []
        assert not machine.over
        machine.writable = True
        assert sent(machine) == [End("closed")]
        assert machine.over

    def test_nothing_comes_after_the_last_frame(self) -> None:
        machine = live(0)
        machine.close(Problem("not_found", "m"))
        machine.close(End("closed"))
        machine.receive_live(chunks(0, 1))
        machine.receive_state(StreamState(closed=True))
        machine.receive_page(chunks(0, 1), StreamState(next_index=1))
        assert sent(machine) == [Problem("not_found", "m")]


class ReaderMachine(RuleBasedStateMachine):
    """
    A log that grows and is closed, and a reader that is told of it early, late or never.

    The hub's promises hold: pages are what the log held when it was read, live chunks and states
    are true but may be old.
    """

    @initialize(
        begin=st.one_of(st.none(), st.integers(0, 5)), length=st.integers(0, 5), over=st.booleans()
    )
    def start(self, begin: int | None, length: int, over: bool) -> None:
        self.length = length
        self.begin = begin
        self.closed = False
        self.writers = 0 if over else 1
        self.got: list[int] = []
        self.ends: list[End] = []
        self.connect(begin)
        self.machine.run_over = over
        self.run_over = over

    def connect(self, offset: int | None) -> None:
        self.machine = StreamSubscription(offset=offset)
        self.machine.run_over = getattr(self, "run_over", False)
        self.first = offset

    def state(self, length: int | None = None) -> StreamState:
        length = self.length if length is None else length
        closed = self.closed and length == self.length
        # What is old cannot know that the writers are gone: they were there to write the rest.
        writers = self.writers > 0 or length < self.length
        return StreamState(next_index=length, closed=closed, has_open_writers=writers)

    @precondition(lambda self: not self.closed and self.writers)
    @rule(count=st.integers(1, 4))
    def append(self, count: int) -> None:
        self.length += count

    @rule()
    def close_stream(self) -> None:
        self.closed = True

    @rule()
    def finish_run(self) -> None:
        self.run_over = self.machine.run_over = True

    @rule()
    def writers_leave(self) -> None:
        self.writers = 0

    @rule(limit=st.integers(1, 3), chance=st.data())
    def page(self, limit: int, chance: st.DataObject) -> None:
        offset = self.machine.offset
        length = chance.draw(st.integers(min(offset or 0, self.length), self.length))
        state = self.state(length)
        found = [] if offset is None else chunks(offset, min(offset + limit, length))
        if offset is None:
            self.first = length if self.machine.phase is Phase.READING else self.first
        elif offset > length and self.machine.phase is Phase.READING:
            self.first = 0  # the reader is told that there is no such place
        self.machine.receive_page(found, state)

    @rule(chance=st.data())
    def live(self, chance: st.DataObject) -> None:
        first = chance.draw(st.integers(0, self.length))
        self.machine.receive_live(chunks(first, chance.draw(st.integers(first, self.length))))

    @precondition(lambda self: self.machine.direct)
    @rule(count=st.integers(1, 3))
    def live_past_the_machine(self, count: int) -> None:
        offset = self.machine.offset
        assert offset is not None
        if end := min(offset + count, self.length) - offset:
            self.receive([PartsFrame(chunks(offset, offset + end))])
            self.machine.skip_to(offset + end)

    @rule(chance=st.data())
    def told(self, chance: st.DataObject) -> None:
        self.machine.receive_state(self.state(chance.draw(st.integers(0, self.length))))

    @rule(writable=st.booleans())
    def flow(self, writable: bool) -> None:
        self.machine.writable = writable

    @rule()
    def write(self) -> None:
        self.receive(self.machine.frames_to_send())

    @rule()
    def disconnect(self) -> None:
        """The client comes back with what it got last; what was not written is lost."""
        if self.ends:
            return
        resumed = self.got[-1] + 1 if self.got else self.begin
        self.connect(resumed)

    def receive(self, frames: Sequence[StreamFrame]) -> None:
        for frame in frames:
            assert not self.ends, "nothing comes after the end"
            match frame:
                case PartsFrame():
                    for chunk in frame.chunks:
                        expected = self.got[-1] + 1 if self.got else self.first
                        assert chunk.index == expected
                        assert chunk.text == f"text {chunk.index}"
                        self.got.append(chunk.index)
                case End():
                    self.ends.append(frame)
                case Reset():
                    assert not self.got, "only a place that never was is reset"

    @invariant()
    def an_end_is_true(self) -> None:
        for end in getattr(self, "ends", ()):
            assert self.got[-1:] == ([self.length - 1] if self.got else [])
            assert self.closed if end.reason == "closed" else not self.writers

    def teardown(self) -> None:
        """Let it come to rest: all there is has come, and an end if the stream has one."""
        if not hasattr(self, "machine"):
            return
        self.closed = True
        while not self.machine.over:
            self.machine.writable = True
            self.machine.receive_state(self.state())
            self.page_whole()
            self.receive(self.machine.frames_to_send())
        assert len(self.ends) == 1
        assert self.got == list(range(self.got[0], self.length)) if self.got else True

    def page_whole(self) -> None:
        offset = self.machine.offset
        if self.machine.phase is not Phase.READING:
            return
        if offset is None:
            self.first = self.length
        elif offset > self.length:
            self.first = 0
        self.machine.receive_page(chunks(offset or 0, self.length), self.state())


ReaderMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=40)
TestReaderMachine = ReaderMachine.TestCase
