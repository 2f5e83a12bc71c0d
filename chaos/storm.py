"""One seed: subscribers and writers at work, faults by schedule, then quiet, and the judgement."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from itertools import count

import httpx

from chaos.calm import Calm
from chaos.clock import now
from chaos.database import CUT_OFF
from chaos.deployment import Deployment
from chaos.failure import ChaosError
from chaos.fault import Fault
from chaos.feed import Feed
from chaos.ledger import kept
from chaos.oracle import Oracle
from chaos.pool import Pool
from chaos.report import Report
from chaos.scene import Scene
from chaos.schedule import Dice, Step, schedule
from chaos.shape_subscriber import ShapeSubscriber
from chaos.sight import Sight
from chaos.socket_subscriber import SocketSubscriber
from chaos.sse_subscriber import SseSubscriber
from chaos.stream_writer import StreamHost
from chaos.streams import ReaderOfMany, Streams
from chaos.truth import Truth, listed_runs
from chaos.wish import TASKS, Wish, choose_wish
from chaos.writer import RestWriter, SqlWriter, Writer

_FIRST_RUNS = 40
_MOST_RUNS = 300
_BATCHES = 2
_BATCH_RUNS = 6
_PER_SOCKET = 4
_REST_WRITERS = 6
_SQL_WRITERS = 4
_STREAMS = 6
_LOOK_SECONDS = 0.5
_LAG_SECONDS = 0.5
_CROWD_SECONDS = 0.01

Follower = SseSubscriber | ShapeSubscriber | SocketSubscriber


@dataclass(frozen=True)
class Plan:
    """
    How much there shall be.

    Attributes:
        seconds: Of faults; more if not each had its turn by then.
        patience: Seconds of quiet in which at least one more comes to hold what is there.
        most_patience: Seconds of quiet after which everybody does.
        grace: Seconds that anything may take when nothing is wrong.
        changes: Of runs, a second, by all writers together.
        pace: Faults come and go so many times as fast.
        lanes: So many faults at once, of different things.
    """

    subscribers: int
    seconds: float
    patience: float = 90.0
    most_patience: float = 300.0
    grace: float = 10.0
    changes: float = 40.0
    pace: float = 1.0
    lanes: int = 2


@dataclass
class Storm:
    """A seed on a deployment; `run` adds to the report."""

    deployment: Deployment
    seed: str
    plan: Plan
    report: Report
    say: Callable[[str], None]

    def __post_init__(self) -> None:
        deployment = self.deployment
        self.calm = Calm(self.plan.grace)
        self.oracle = Oracle(self.seed, self.calm)
        # Many at once wait longer for an answer, where one machine does everything.
        silence = deployment.silence + self.plan.subscribers * _CROWD_SECONDS
        self.scene = Scene(deployment.url, deployment.signer, self.oracle, silence)
        self.pool = Pool(_MOST_RUNS)
        self.streams = Streams()
        self.dice = random.Random(f"storm {self.seed}")
        self._begun = 0
        self._targets = {fault.target: asyncio.Lock() for fault in deployment.faults}

    async def run(self) -> None:
        """All of it."""
        async with AsyncExitStack() as stack:
            truth = await self._truth(stack)
            await self._begin()
            crowd = self._crowd()
            readers = self._readers()
            await stack.enter_async_context(
                running([self._watch(), *(each.run() for each in (*crowd, *readers))])
            )
            async with running([each.run() for each in self._writers()]) as writing:
                await self._strike()
                self.say(f"seed {self.seed}: quiet")
                self.scene.ending.set()
                await self._written(writing)
            feeds = [feed for each in crowd for feed in each.feeds]
            await self._settle(feeds, readers, truth)
        self.report.take(self.oracle)

    async def _truth(self, stack: AsyncExitStack) -> Truth:
        """Where to look what is there; with a database, also what ever was."""
        deployment = self.deployment
        environment_id = deployment.signer.environment_id
        if deployment.database_url:
            self.oracle.ledger = await stack.enter_async_context(
                kept(deployment.database_url, deployment.schema, environment_id)
            )
            return self.oracle.ledger.runs
        http = httpx.AsyncClient(
            base_url=deployment.url,
            headers={"authorization": f"Bearer {deployment.signer.key}"},
            trust_env=False,
        )
        return listed_runs(await stack.enter_async_context(http))

    async def _begin(self) -> None:
        """The first runs and batches, while nothing is wrong yet."""
        writer = RestWriter(self.scene, self.pool, "first", 1)
        async with writer.http:
            for _ in range(_BATCHES):
                items = [
                    {"task": self.dice.choice(TASKS), "options": {"tags": writer.tags()}}
                    for _ in range(_BATCH_RUNS)
                ]
                answer = await writer.ask_until_told(
                    "POST", "/api/v1/tasks/batch", {"items": items}
                )
                if answer is None or not answer.is_success:
                    raise ChaosError(f"The first batch was not taken: {answer and answer.text}")
                batch = answer.json()
                self.pool.batches.append(batch["id"])
                for run in batch["runs"]:
                    self.pool.add(run["id"])
            for _ in range(_FIRST_RUNS):
                await writer.trigger(self.dice.choice(TASKS), writer.tags())

    def _crowd(self) -> list[Follower]:
        """Followers of runs: about a third of the subscriptions on each transport."""
        crowd: list[Follower] = []
        left = self.plan.subscribers - self.plan.subscribers // 8
        for number in count():
            if left <= 0:
                break
            wish = choose_wish(self.dice, self.pool.ids, self.pool.batches)
            match number % 9:
                case 0 | 1 | 2 | 3:
                    crowd.append(SseSubscriber(self.scene, f"sse-{number}", wish))
                case 4 | 5 | 6 | 7:
                    crowd.append(ShapeSubscriber(self.scene, f"poll-{number}", wish))
                case _:
                    crowd.append(SocketSubscriber(self.scene, f"socket-{number}", self._with(wish)))
                    left -= _PER_SOCKET - 1
            left -= 1
        return crowd

    def _with(self, wish: Wish) -> list[Wish]:
        """A wish and some more, all with one token that has the scopes of all of them."""
        runs, batches = self.pool.ids, self.pool.batches
        wishes = [wish, *(choose_wish(self.dice, runs, batches) for _ in range(_PER_SOCKET - 1))]
        scopes = tuple(sorted({scope for each in wishes for scope in each.scopes}))
        if not all(each.scopes for each in wishes):
            scopes = ()
        withheld = wish.withheld if scopes else ()
        return [replace(each, scopes=scopes, withheld=withheld) for each in wishes]

    def _readers(self) -> list[ReaderOfMany]:
        readers = self.plan.subscribers // 8
        return [ReaderOfMany(self.scene, self.streams, f"reader-{n}") for n in range(readers)]

    def _writers(self) -> list[Writer]:
        database_url = self.deployment.database_url
        sql_writers = _SQL_WRITERS if database_url else 0
        rest = (_REST_WRITERS + sql_writers) / self.plan.changes
        writers: list[Writer] = [
            RestWriter(self.scene, self.pool, f"rest-{n}", rest) for n in range(_REST_WRITERS)
        ]
        if database_url:
            schema = self.deployment.schema
            writers += [
                SqlWriter(self.scene, self.pool, f"sql-{n}", rest, url=database_url, schema=schema)
                for n in range(sql_writers)
            ]
        writers += [
            StreamHost(self.scene, self.pool, self.streams, f"host-{n}") for n in range(_STREAMS)
        ]
        return writers

    # -- faults ------------------------------------------------------------------------------------

    async def _strike(self) -> None:
        """Do what the schedule says for the time of the plan, and each fault once at least."""
        faults = {fault.name: fault for fault in self.deployment.faults}
        steps = schedule(self.seed, list(faults), self.plan.pace)
        deadline = now() + self.plan.seconds
        async with running(
            [self._lane(steps, faults, deadline) for _ in range(self.plan.lanes)]
        ) as lanes:
            await asyncio.gather(*lanes)

    async def _lane(self, steps: Iterator[Step], faults: dict[str, Fault], deadline: float) -> None:
        """Do one thing after the other, beside the other lanes."""
        for step in steps:
            self._begun += 1
            if self._begun > len(faults) and now() > deadline:
                return
            await asyncio.sleep(step.pause)
            fault = faults[step.fault]
            async with self._targets[fault.target]:
                await self._do(fault, step.dice)

    async def _do(self, fault: Fault, dice: Dice) -> None:
        self.say(f"seed {self.seed}: {fault.name}")
        begun = now()
        async with AsyncExitStack() as stack:
            if fault.holds_back:
                stack.enter_context(self.calm.disturbed())
            if fault.loses_streams:
                stack.enter_context(self.streams.losing())
            await fault.act(dice)
        self.report.faults[fault.name] += 1
        self.report.log.append((round(begun, 3), round(now() - begun, 3), fault.name))

    async def _watch(self) -> None:
        """Let the oracle look again at what it has put off, and see when this process is late."""
        while True:
            due = now() + _LOOK_SECONDS
            await asyncio.sleep(_LOOK_SECONDS)
            if now() > due + _LAG_SECONDS:
                with self.calm.disturbed(due - _LOOK_SECONDS):
                    pass
            self.oracle.prove()

    # -- the end -----------------------------------------------------------------------------------

    async def _written(self, writing: list["asyncio.Task[None]"]) -> None:
        """Wait until all writers have ended what they were doing."""
        _, late = await asyncio.wait(writing, timeout=self.plan.patience)
        for task in writing:
            if task.done():
                task.result()
        if late:
            self._object("writers", f"{len(late)} were not done after {self.plan.patience} s")

    async def _settle(self, feeds: list[Feed], readers: list[ReaderOfMany], truth: Truth) -> None:
        """Wait until everybody holds what is there, for as long as some still get there."""
        runs: dict[str, Sight] = {}
        differing, unread = feeds, readers
        fewest = len(feeds) + len(readers)
        deadline = now() + self.plan.patience
        longest = now() + self.plan.most_patience
        while now() < min(deadline, longest):
            await asyncio.sleep(_LOOK_SECONDS)
            unread = [reader for reader in readers if not reader.idle]
            # All connections come through this process: it looks at all feeds when it seems over.
            suspects = differing or feeds
            with contextlib.suppress(*CUT_OFF, httpx.HTTPError):
                runs = await truth()
                differing = self._differing(suspects, runs)
                if suspects is feeds and not differing and not unread:
                    break
            if len(differing) + len(unread) < fewest:
                fewest = len(differing) + len(unread)
                deadline = now() + self.plan.patience
        differing = self._differing(feeds, runs)
        self.say(f"seed {self.seed}: {len(differing)} feeds and {len(unread)} streams differ")
        for feed in differing:
            self.oracle.judge_end(feed, runs)
        for reader in unread:
            if reader.reading is not None:
                self.oracle.object(reader.reading, "stream unread", "it does not end")
        for error in await asyncio.to_thread(self.deployment.errors):
            self._object("logged error", error)
        for wrong in self.pool.objections(runs):
            self._object("lost update", wrong)
        await asyncio.sleep(2 * _LOOK_SECONDS)  # for what the oracle has put off

    def _differing(self, feeds: list[Feed], runs: dict[str, Sight]) -> list[Feed]:
        return [feed for feed in feeds if self.oracle.differences(feed, runs)]

    def _object(self, kind: str, expected: str) -> None:
        self.oracle.object(Nobody(), kind, expected)


@dataclass(frozen=True)
class Nobody:
    """Stands where no subscriber in particular was wronged."""

    name: str = "the deployment"
    tail: tuple[tuple[float, str], ...] = ()


@asynccontextmanager
async def running(
    coroutines: Iterable[Coroutine[None, None, None]],
) -> AsyncIterator[list["asyncio.Task[None]"]]:
    """Let them run beside the block; they are cancelled at its end."""
    tasks = [asyncio.create_task(each) for each in coroutines]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
