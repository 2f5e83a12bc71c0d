"""Random writers of runs: over REST as a backend does, by SQL as any other program does."""

import asyncio
import random
from abc import ABC, abstractmethod
from typing import Any

import asyncpg
import httpx

from chaos.database import CUT_OFF, connect
from chaos.pool import Pool
from chaos.scene import Scene
from chaos.wish import TAGS, TASKS

_STATUSES = ("DEQUEUED", "EXECUTING", "WAITING_TO_RESUME", "PENDING")
_LOST_SECONDS = 0.3
_ATTEMPTS = 200
_COUNT = """metadata = jsonb_set(metadata, '{count}',
    to_jsonb(coalesce((metadata->>'count')::integer, 0) + 1))"""


class Writer(ABC):
    """
    Changes runs of the pool at random until it is cancelled, or stopped between two changes.

    Args:
        name: Its choices follow from it and the seed.
        rest_seconds: Between two changes, on average.
    """

    def __init__(self, scene: Scene, pool: Pool, name: str, rest_seconds: float) -> None:
        self.scene = scene
        self.pool = pool
        self.name = name
        self.tail: list[tuple[float, str]] = []
        self.dice = random.Random(f"{scene.oracle.seed} {name}")
        self._rest = rest_seconds

    async def run(self) -> None:
        """Write until the ending."""
        while not await self.scene.until_ending(self.dice.expovariate(1 / self._rest)):
            await self.write()

    @abstractmethod
    async def write(self) -> None:
        """Change something, or try to."""

    def tags(self) -> list[str]:
        """Some tags, rarely many."""
        return [tag for tag in TAGS if self.dice.random() < 0.4]


class RestWriter(Writer):
    """Triggers, patches, counts, tags and cancels over HTTP."""

    def __init__(self, scene: Scene, pool: Pool, name: str, rest_seconds: float) -> None:
        super().__init__(scene, pool, name, rest_seconds)
        self._requests = 0
        self.http = httpx.AsyncClient(
            base_url=scene.url,
            headers={"authorization": f"Bearer {scene.signer.key}"},
            timeout=8.0,
            trust_env=False,
        )

    async def run(self) -> None:
        async with self.http:
            await super().run()

    async def write(self) -> None:
        kind = self.dice.choices(
            ("trigger", "count", "status", "tags", "replace tags", "cancel"),
            (10, 40, 25, 10, 10, 2),
        )[0]
        if kind == "trigger" and not self.pool.full:
            await self.trigger(self.dice.choice(TASKS), self.tags())
            return
        run_id = self.pool.choose(self.dice)
        path = f"/api/v1/runs/{run_id}"
        match kind:
            case "count":
                await self._count(path, run_id)
            case "status":
                final = self.dice.random() < 0.03
                status = "COMPLETED" if final else self.dice.choice(_STATUSES)
                await self.ask("PATCH", path, {"status": status})
            case "tags":
                await self.ask("POST", f"{path}/tags", {"tags": self.tags()[:2] or ["x"]})
            case "cancel":
                await self.ask("POST", f"/api/v2/runs/{run_id}/cancel", {})
            case _:
                await self.ask("PATCH", path, {"tags": self.tags()})

    async def trigger(self, task: str, tags: list[str], **payload: Any) -> str | None:
        """A new run of the pool; None if it could not be had."""
        body = {"payload": payload or {"by": self.name}, "options": {"tags": tags}}
        answer = await self.ask_until_told("POST", f"/api/v1/tasks/{task}/trigger", body)
        if answer is None:
            return None
        run_id: str = answer.json()["id"]
        self.pool.add(run_id)
        return run_id

    async def ask(self, method: str, path: str, body: Any, **headers: str) -> httpx.Response | None:
        """Ask once; None where no answer came, or one that says to ask again."""
        counts = self.scene.oracle.counts
        try:
            answer = await self.http.request(method, path, json=body, headers=headers)
        except (httpx.TransportError, OSError):
            counts["requests without an answer"] += 1
            return None
        counts[f"REST {answer.status_code}"] += 1
        if answer.status_code == 500 or answer.status_code in (400, 401, 403):
            self.scene.oracle.object(self, "refused", f"{method} {path}: {answer.text[:200]}")
        return None if answer.status_code in (429, 500, 502, 503, 504) else answer

    async def ask_until_told(self, method: str, path: str, body: Any) -> httpx.Response | None:
        """Ask, under a name, again and again until somebody says what became of it."""
        self._requests += 1
        name = f"{self.scene.oracle.seed}-{self.name}-{self._requests}"
        for _ in range(_ATTEMPTS):
            named = {"x-trigger-request-idempotency-key": name}
            answer = await self.ask(method, path, body, **named)
            if answer is not None:
                return answer
            await asyncio.sleep(_LOST_SECONDS)
        return None

    async def _count(self, path: str, run_id: str) -> None:
        operation = {"type": "increment", "key": "count", "value": 1}
        body = {"operations": [operation]}
        answer = await self.ask_until_told("PUT", f"{path}/metadata", body)
        if answer is None:
            self.pool.perhaps[run_id] += 1
        elif answer.is_success:
            self.pool.sure[run_id] += 1


class SqlWriter(Writer):
    """
    Inserts, changes and deletes runs, alone and in transactions, some of them in vain.

    Made for other writers' locks: whoever has to wait gives up.
    """

    def __init__(
        self, scene: Scene, pool: Pool, name: str, rest_seconds: float, *, url: str, schema: str
    ) -> None:
        super().__init__(scene, pool, name, rest_seconds)
        self._url = url
        self._schema = schema
        self._sql: asyncpg.Connection | None = None
        # Runs with ids of its own come and go.
        self._own = [f"run_{scene.oracle.seed}_{name}_{number}" for number in range(12)]
        for run_id in self._own:
            pool.add(run_id)
            pool.untold.add(run_id)

    async def run(self) -> None:
        while not self.scene.ending.is_set():
            try:
                async with connect(self._url, search_path=self._schema, lock_timeout="200") as sql:
                    self._sql = sql
                    await super().run()
            except CUT_OFF:
                self.scene.oracle.counts["SQL lost"] += 1
                await asyncio.sleep(_LOST_SECONDS)

    async def write(self) -> None:
        assert self._sql is not None
        try:
            if self.dice.random() < 0.7:
                await self._change(self._sql)
            else:
                await self._transaction(self._sql)
        except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError):
            self.scene.oracle.counts["SQL gave way"] += 1

    async def _transaction(self, sql: asyncpg.Connection) -> None:
        transaction = sql.transaction()
        await transaction.start()
        try:
            for _ in range(self.dice.randrange(1, 5)):
                async with sql.transaction():
                    await self._change(sql, untold=True)
            if self.dice.random() < 0.2:
                await asyncio.sleep(self.dice.uniform(0, 2))
        except BaseException:
            if not sql.is_closed():
                await transaction.rollback()
            raise
        await (transaction.rollback() if self.dice.random() < 0.3 else transaction.commit())

    async def _change(self, sql: asyncpg.Connection, *, untold: bool = False) -> None:
        counts = self.scene.oracle.counts
        kind = self.dice.choices(
            ("insert", "delete", "tags", "status", "count", "many"), (15, 5, 20, 15, 35, 3)
        )[0]
        run_id = self.pool.choose(self.dice)
        match kind:
            case "insert":
                await sql.execute(
                    """INSERT INTO runs (id, environment_id, task, tags, batch_id, metadata)
                    VALUES ($1, $2, $3, $4, $5, '{"count": 0}') ON CONFLICT DO NOTHING""",
                    self.dice.choice(self._own),
                    self.scene.signer.environment_id,
                    self.dice.choice(TASKS),
                    self.tags(),
                    self.dice.choice([*self.pool.batches, None]),
                )
            case "delete":
                await sql.execute("DELETE FROM runs WHERE id = $1", self.dice.choice(self._own))
            case "tags":
                await sql.execute("UPDATE runs SET tags = $2 WHERE id = $1", run_id, self.tags())
            case "status":
                final = self.dice.random() < 0.03
                await sql.execute(
                    "UPDATE runs SET status = $2 WHERE id = $1 AND completed_at IS NULL",
                    run_id,
                    "COMPLETED_SUCCESSFULLY" if final else self.dice.choice(_STATUSES),
                )
            case "many":
                await sql.execute(
                    "UPDATE runs SET attempt_count = attempt_count + 1 WHERE task = $1",
                    self.dice.choice(TASKS),
                )
            case _:
                self.pool.perhaps[run_id] += 1
                done = await sql.execute(f"UPDATE runs SET {_COUNT} WHERE id = $1", run_id)
                if not untold:
                    self.pool.perhaps[run_id] -= 1
                    self.pool.sure[run_id] += done == "UPDATE 1"
        counts[f"SQL {kind}"] += 1
