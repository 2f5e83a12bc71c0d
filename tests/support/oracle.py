"""
An oracle for run feeds: random writers, and for each wish the runs that its follower must hold.

What a wish shows is said twice, in SQL and in Python, and independently of the code under test.
"""

import asyncio
import random
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import asyncpg

from tests.support.followers import Feed, RunObject
from tests.support.gateway_app import GatewayApp

TASKS = ("t1", "t2")
TAGS = ("x", "y", "z")
BATCHES = ("batch_1", "batch_2")
RUNS = tuple(f"run_{number}" for number in range(40))
STATUSES = ("PENDING", "DEQUEUED", "EXECUTING", "CANCELED", "COMPLETED_SUCCESSFULLY")


@dataclass(frozen=True)
class Wish:
    """Which runs are asked for, and with which scopes; no scopes: with the secret key."""

    run: str | None = None
    tags: tuple[str, ...] = ()
    task: str | None = None
    batch: str | None = None
    scopes: tuple[str, ...] = ()

    def feed(self, app: GatewayApp) -> Feed:
        """What a follower with this wish follows."""
        token = app.token(*self.scopes) if self.scopes else app.key
        if self.run:
            return Feed(
                f"/realtime/v1/runs/{self.run}", {"run": self.run}, token, self.shows, stay=True
            )
        if self.batch:
            return Feed(
                f"/realtime/v1/batches/{self.batch}", {"batch": self.batch}, token, self.shows
            )
        asked: dict[str, Any] = {}
        query = []
        if self.tags:
            asked["tags"] = list(self.tags)
            query.append(f"tags={','.join(self.tags)}")
        if self.task:
            asked["task"] = self.task
            query.append(f"task={self.task}")
        path = "/realtime/v1/runs" + (f"?{'&'.join(query)}" if query else "")
        return Feed(path, asked, token, self.shows)

    def shows(self, run: RunObject) -> bool:
        """Tell whether this wish's follower may be sent this run object."""
        batch = run.get("batchId")
        if self.run and run["id"] != self.run:
            return False
        if self.task and run["taskIdentifier"] != self.task:
            return False
        if self.batch and batch != self.batch:
            return False
        if not set(self.tags) <= set(run["tags"]):
            return False
        if not self.scopes:
            return True
        facts = {"runs": [run["id"]], "tasks": [run["taskIdentifier"]], "tags": run["tags"]}
        facts["batch"] = [batch] if batch else []
        return any(
            bool(facts[kind]) if not name else name in facts[kind] for kind, name in self._allowed()
        )

    async def expected(self, sql: asyncpg.Connection, environment_id: str) -> dict[str, int]:
        """Revisions by run, as the database has them."""
        arguments: list[object] = [environment_id]

        def argument(value: object) -> str:
            arguments.append(value)
            return f"${len(arguments)}"

        asked = ["environment_id = $1"]
        for column, value in (("id", self.run), ("task", self.task), ("batch_id", self.batch)):
            if value:
                asked.append(f"{column} = {argument(value)}")
        asked.extend(f"{argument(tag)} = ANY(tags)" for tag in self.tags)
        allowed = []
        for kind, name in self._allowed():
            match kind, name:
                case "tags", "":
                    allowed.append("cardinality(tags) > 0")
                case "tags", _:
                    allowed.append(f"{argument(name)} = ANY(tags)")
                case _, "":
                    allowed.append("batch_id IS NOT NULL" if kind == "batch" else "true")
                case _:
                    column = {"runs": "id", "tasks": "task", "batch": "batch_id"}[kind]
                    allowed.append(f"{column} = {argument(name)}")
        if allowed:
            asked.append(f"({' OR '.join(allowed)})")
        rows = await sql.fetch(
            f"SELECT id, version FROM runs WHERE {' AND '.join(asked)}", *arguments
        )
        return {row["id"]: row["version"] for row in rows}

    def _allowed(self) -> Iterator[tuple[str, str]]:
        for scope in self.scopes:
            _, kind, name = f"{scope}:".split(":")[:3]
            yield kind, name


# Every kind of selector, with the key and with tokens that are as wide, narrower, or change sides
# with the tags of a run.
WISHES = (
    Wish(),
    Wish(scopes=("read:runs",)),
    Wish(scopes=("read:runs", "read:tags:x")),
    Wish(tags=("x",)),
    Wish(tags=("x",), scopes=("read:tags:x",)),
    Wish(tags=("x",), scopes=("read:tags",)),
    Wish(tags=("x", "y")),
    Wish(tags=("x", "y"), scopes=("read:tags:y",)),
    Wish(tags=("y",), scopes=("read:tags:y", "read:tasks:t1")),
    Wish(tags=("z",), scopes=("read:tags:z", "read:runs:run_1")),
    Wish(task="t1"),
    Wish(task="t1", scopes=("read:tasks:t1",)),
    Wish(task="t2", scopes=("read:tasks:t2", "read:tags:x")),
    Wish(task="t1", tags=("x",)),
    Wish(task="t1", tags=("x",), scopes=("read:tags:x",)),
    Wish(task="t2", tags=("y", "z"), scopes=("read:tasks:t2",)),
    Wish(batch="batch_1"),
    Wish(batch="batch_1", scopes=("read:batch:batch_1",)),
    Wish(batch="batch_2", scopes=("read:batch", "read:tags:x")),
    Wish(batch="batch_2", scopes=("read:batch:batch_2", "read:batch:batch_1")),
    Wish(run="run_0"),
    Wish(run="run_1"),
    Wish(run="run_1", scopes=("read:runs:run_1",)),
    Wish(run="run_2", scopes=("read:tags:x",)),
    Wish(run="run_3", scopes=("read:tags:y", "read:tags:z")),
    Wish(run="run_4", scopes=("read:tags",)),
    Wish(run="run_5", scopes=("read:tasks:t1",)),
    Wish(run="run_6", scopes=("read:batch:batch_1",)),
    Wish(run="run_7", scopes=("read:batch",)),
    Wish(run="run_8", scopes=("read:runs:run_7", "read:tags:x", "read:batch:batch_2")),
)


class Writers:
    """
    Change runs at random until told to stop: alone, together, under savepoints, for long, in vain.

    Made for other writers' locks: who has to wait gives up its transaction.
    """

    def __init__(self, url: str, environment_id: str, seed: object) -> None:
        self._url = url
        self._environment_id = environment_id
        self._seed = seed
        self._progress = asyncio.Event()
        self.operations = 0
        self._over = asyncio.Event()

    def stop(self) -> None:
        """Let everyone end what they are doing."""
        self._over.set()
        self._progress.set()

    def are_over(self) -> bool:
        """Tell whether they were told to stop."""
        return self._over.is_set()

    async def moved(self, count: int) -> None:
        """Wait until so many more operations were done, or it is over."""
        goal = self.operations + count
        while self.operations < goal and not self.are_over():
            self._progress.clear()
            await self._progress.wait()

    async def run(self, number: int, *, patient: bool) -> None:
        """Be one writer; a patient one holds its transactions open while the others go on."""
        dice = random.Random(f"{self._seed} writer {number}")
        sql = await asyncpg.connect(
            self._url, server_settings={"search_path": "runcast", "lock_timeout": "25ms"}
        )
        try:
            while not self.are_over():
                with suppress(asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError):
                    await self._transaction(sql, dice, patient=patient)
        finally:
            await sql.close()

    async def _transaction(
        self, sql: asyncpg.Connection, dice: random.Random, *, patient: bool
    ) -> None:
        if not patient and dice.random() < 0.6:
            await self._operation(sql, dice)
            return
        transaction = sql.transaction()
        await transaction.start()
        try:
            for _ in range(dice.randrange(1, 5)):
                inner = sql.transaction()
                await inner.start()
                try:
                    await self._operation(sql, dice)
                except BaseException:
                    await inner.rollback()
                    raise
                await (inner.rollback() if dice.random() < 0.2 else inner.commit())
            if patient:
                await self.moved(dice.randrange(20, 300))
        except BaseException:
            await transaction.rollback()
            raise
        await (transaction.rollback() if dice.random() < 0.2 else transaction.commit())

    async def _operation(self, sql: asyncpg.Connection, dice: random.Random) -> None:
        run_id = dice.choice(RUNS)
        tags = [tag for tag in TAGS if dice.random() < 0.5]
        match dice.randrange(12):
            case 0 | 1 | 2 | 3:
                await sql.execute(
                    "INSERT INTO runs (id, environment_id, task, tags, batch_id)"
                    " VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING",
                    run_id,
                    self._environment_id,
                    dice.choice(TASKS),
                    tags,
                    dice.choice((*BATCHES, None)),
                )
            case 4 | 5:
                await sql.execute("UPDATE runs SET tags = $2 WHERE id = $1", run_id, tags)
            case 6:
                await sql.execute("DELETE FROM runs WHERE id = $1", run_id)
            case 7:
                await sql.execute(
                    "UPDATE runs SET attempt_count = attempt_count + 1 WHERE task = $1",
                    dice.choice(TASKS),
                )
            case 8 | 9:
                await sql.execute(
                    "UPDATE runs SET status = $2 WHERE id = $1", run_id, dice.choice(STATUSES)
                )
            case _:
                await sql.execute(
                    "UPDATE runs SET metadata = jsonb_build_object('pad', $2::text) WHERE id = $1",
                    run_id,
                    "x" * dice.randrange(3000),
                )
        self.operations += 1
        self._progress.set()
