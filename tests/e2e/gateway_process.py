"""A gateway as its users run it: a `runcast dev` process on an embedded Postgres."""

import asyncio
import json
import os
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest


@dataclass
class Gateway:
    """A `runcast dev` process that can be killed and started again on the same port and data."""

    data_dir: Path
    port: int = 0
    url: str = ""
    key: str = ""
    database_url: str = ""
    process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        words = ["dev", "--json", "--no-demo", "--data-dir", str(self.data_dir)]
        environ = {name: value for name, value in os.environ.items() if name != "DATABASE_URL"}
        with (self.data_dir.parent / "gateway.log").open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "runcast"),
                *words,
                "--port",
                str(self.port),
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                env=environ,
            )
        assert self.process.stdout is not None
        line = await self.process.stdout.readline()
        if not line:
            await self.process.wait()
            pytest.fail((self.data_dir.parent / "gateway.log").read_text())
        ready = json.loads(line)
        self.url, self.key = ready["url"], ready["secretKey"]
        self.database_url = ready["databaseUrl"]
        self.port = int(self.url.rpartition(":")[2])

    async def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        await self.process.wait()

    async def stop(self) -> None:
        assert self.process is not None
        with suppress(ProcessLookupError):
            self.process.terminate()
        await self.process.wait()

    async def ask(self, method: str, path: str, body: object = None) -> Any:
        """Call the REST interface with the secret key and return the JSON answer."""
        headers = {"Authorization": f"Bearer {self.key}"}
        async with httpx.AsyncClient(base_url=self.url, headers=headers, timeout=30) as client:
            answer = await client.request(method, path, json=body)
        assert answer.is_success, answer.text
        return answer.json()

    async def trigger(self, task: str = "report", **options: object) -> str:
        body = {"payload": {"pages": 3}, "options": options}
        return str((await self.ask("POST", f"/api/v1/tasks/{task}/trigger", body))["id"])

    async def change(self, run: str, **fields: object) -> None:
        await self.ask("PATCH", f"/api/v1/runs/{run}", fields)

    async def set_metadata(self, run: str, **metadata: object) -> None:
        await self.ask("PUT", f"/api/v1/runs/{run}/metadata", {"metadata": metadata})

    async def delete(self, run: str) -> None:
        """Delete a run as any program with the database might: there is no route for it."""
        connection = await asyncpg.connect(self.database_url)
        await connection.execute("DELETE FROM runcast.runs WHERE id = $1", run)
        await connection.close()

    async def token(self, *scopes: str, lasts: str = "15m") -> str:
        body = {"scopes": scopes, "expirationTime": lasts}
        return str((await self.ask("POST", "/api/v1/auth/public-tokens", body))["token"])
