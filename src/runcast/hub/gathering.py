"""Questions of one kind that wait at one time: read together, and each given its answer."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Mapping
from contextvars import Context
from typing import Generic, TypeVar

from runcast.errors import Draining
from runcast.hub.unheard import retrieved

Question = TypeVar("Question", bound=Hashable)
Answer = TypeVar("Answer")

# Who ask for one read make a crowd if they are so many, and come so fast. Between the beginnings of
# two of its reads is a pause, which grows for as long as they come.
_CROWD = 3
_CROWD_A_SECOND = 75
_SHORTEST_PAUSE = 0.02
_MOST = 10_000
# After a read of several failed they are read one by one: one of them may be to blame.
_APART_SECONDS = 1.0


class Gathering(Generic[Question, Answer]):
    """
    Reads what waits as soon as there is a slot; who comes later waits for the next read.

    So nobody is given an answer that was read before the question came, and of equal questions
    one is read at a time. While many ask, the next read waits a little for more of them.

    Args:
        read: Answers these questions, or some of them: the others are read again.
        slots: Bounds how many reads there are at once.
        over: Called when nobody has asked for a while.
        longest_pause: So many seconds at most a read waits for more of a crowd.
        most: So much is read together, by the weight of each question.
        weigh: What a question weighs.
    """

    def __init__(
        self,
        read: Callable[[list[Question]], Awaitable[Mapping[Question, Answer]]],
        slots: asyncio.Semaphore,
        over: Callable[[], None],
        *,
        longest_pause: float,
        most: int = _MOST,
        weigh: Callable[[Question], int] = lambda question: 1,
    ) -> None:
        self._read = read
        self._slots = slots
        self._over = over
        self._longest_pause = longest_pause
        self._most = most
        self._weigh = weigh
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[Question, list[asyncio.Future[Answer]]] = {}
        self._reading: dict[Question, list[asyncio.Future[Answer]]] = {}
        self._askers = 0
        self._pause = 0.0
        self._next_at = 0.0
        self._apart_until = 0.0
        self._next: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._resting: asyncio.TimerHandle | None = None

    async def ask(self, question: Question) -> Answer:
        """
        Wait for the answer of a read that has not begun yet.

        Raises:
            Draining: It was closed meanwhile.
            Exception: What the read raised.
        """
        future: asyncio.Future[Answer] = self._loop.create_future()
        future.add_done_callback(retrieved)
        self._waiting.setdefault(question, []).append(future)
        self._askers += 1
        self._begin()
        return await future

    async def close(self) -> None:
        """Give up what is being read; whoever waits for it hears that the gateway goes away."""
        error = Draining("This gateway is going away; reconnect to reach another one.")
        for futures in (*self._waiting.values(), *self._reading.values()):
            _fail(futures, error)
        self._waiting.clear()
        self._reading.clear()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _begin(self) -> None:
        """See to it that there is a next read."""
        if self._next is None:
            # In a context of its own: it is not of the request that asks first.
            self._next = self._loop.create_task(self._read_next(), context=Context())
            self._tasks.add(self._next)
            self._next.add_done_callback(self._ended)

    async def _read_next(self) -> None:
        pause = self._next_at - self._loop.time()
        if pause > 0:
            await asyncio.sleep(pause)
        if not self._anything_to_read:
            self._next = None
            return
        async with self._slots:
            questions = self._take()
            self._next = None
            if self._waiting or self._pause:
                self._begin()
            await self._read_on(questions)

    @property
    def _anything_to_read(self) -> bool:
        return not self._waiting.keys() <= self._reading.keys()

    def _take(self) -> list[Question]:
        """Take what the next read is about, and say when the one after it may begin."""
        now = self._loop.time()
        most = 1 if now < self._apart_until else self._most
        taken: list[Question] = []
        for question in self._waiting:
            if question not in self._reading:
                most -= self._weigh(question)
                if taken and most < 0:
                    break
                taken.append(question)
        for question in taken:
            self._reading[question] = self._waiting.pop(question)
        self._next_at = now
        if not self._waiting:
            self._pause = self._pause_after(self._askers)
            self._next_at += self._pause
            self._askers = 0
        return taken

    def _pause_after(self, askers: int) -> float:
        if askers < max(_CROWD, _CROWD_A_SECOND * self._pause):
            return 0.0
        return min(max(self._pause * 2, _SHORTEST_PAUSE), self._longest_pause)

    async def _read_on(self, questions: list[Question]) -> None:
        try:
            answers = await self._read(questions)
        except Exception as error:
            if len(questions) > 1:
                self._apart_until = self._loop.time() + _APART_SECONDS
            for question in questions:
                _fail(self._reading.pop(question), error)
            return
        for question in questions:
            futures = self._reading.pop(question)
            if question not in answers:
                self._waiting.setdefault(question, []).extend(futures)
                continue
            for future in futures:
                if not future.done():  # who asked may have left
                    future.set_result(answers[question])

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if self._next is task:  # it was cancelled
            self._next = None
        if self._anything_to_read:
            self._begin()
        self._rest()

    def _rest(self) -> None:
        """Be forgotten, unless there is something to do or to remember."""
        if self._resting is not None:
            self._resting.cancel()
        if self._tasks:
            return
        if self._loop.time() < self._apart_until:
            self._resting = self._loop.call_at(self._apart_until, self._rest)
        else:
            self._over()


def _fail(futures: list["asyncio.Future[Answer]"], error: Exception) -> None:
    for future in futures:
        if not future.done():
            future.set_exception(error)
