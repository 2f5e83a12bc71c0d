"""
The official Trigger.dev clients, unmodified, against a real gateway; see README.md beside this.

Every check is a process of its own, with a gateway and a database of its own.
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from tests.support.gateway_app import GatewayApp, running_app, until
from tests.support.postgres import RestartablePostgres
from tests.support.s3 import S3Server

pytestmark = [pytest.mark.official, pytest.mark.slow, pytest.mark.timeout(180, func_only=True)]

HERE = Path(__file__).parent
_CHECK = re.compile(r'^check(?:\.(v[34]))?\(\s*"([^"]+)"', re.MULTILINE)
_LIMIT = re.compile(r"allow each key (\S+) requests")
_FINISH = re.compile(r"finish (run_\w+) while the gateway is away")
_ADD_KEY = re.compile(r"add the key (\S+)")
# Short, so that a check sees several polls.
_HOLD_SECONDS = 2.0


def all_checks() -> Iterator[Any]:
    for file in sorted((HERE / "checks").glob("*.mjs")):
        for only, name in _CHECK.findall(file.read_text()):
            for generation in [only] if only else ["v3", "v4"]:
                yield pytest.param(generation, name, id=f"{generation}-{name}")


class Theatre:
    """A gateway that a check may ask to have restarted, on the same port and database."""

    def __init__(
        self, database_url: str, postgres: RestartablePostgres | None = None, **settings: Any
    ) -> None:
        self._database_url = database_url
        self._postgres = postgres
        self._settings = settings
        self._secret_key_rate = "off"
        self._stack = AsyncExitStack()
        self._copies = AsyncExitStack()
        self.app: GatewayApp
        self._port = 0

    async def start(self) -> None:
        self._stack = AsyncExitStack()
        self.app = await self._stack.enter_async_context(
            running_app(
                self._database_url,
                port=self._port,
                poll_hold_seconds=_HOLD_SECONDS,
                key_cache_seconds=60,  # so that most polls are answered past ASGI
                secret_key_rate=self._secret_key_rate,
                **self._settings,
            )
        )
        self._port = self.app.port

    async def stop(self) -> None:
        await self._stack.aclose()

    async def close(self) -> None:
        await self.stop()
        await self._copies.aclose()

    def nobody_is_connected(self) -> bool:
        """Connections that Node.js keeps for later requests do not count."""
        return not any(count for what, count in self.app.held.items() if what != "sockets")

    async def serve(self, wish: str) -> None:
        """Do what a check asks for."""
        if wish == "restart the gateway":
            await self.stop()
            await self.start()
        elif limit := _LIMIT.fullmatch(wish):
            self._secret_key_rate = limit[1]
            await self.stop()
            await self.start()
        elif finish := _FINISH.fullmatch(wish):
            await self.stop()
            sql = await asyncpg.connect(self._database_url)
            await sql.execute(
                "UPDATE runcast.runs SET status = 'COMPLETED_SUCCESSFULLY' WHERE id = $1", finish[1]
            )
            await sql.close()
            await self.start()
        elif added := _ADD_KEY.fullmatch(wish):
            await self.app.sql.execute(
                "INSERT INTO environment_keys (key, environment_id) VALUES ($1, $2)",
                *(added[1], self.app.environment_id),
            )
        elif wish == "rotate the key":
            await self.app.keys.rotate_key(self.app.environment_id, 3600)
        elif wish == "end the grace":
            await self.app.sql.execute(
                "UPDATE environment_keys SET expires_at = now() WHERE expires_at IS NOT NULL"
            )
            # What is remembered of a key counts until the gateway hears of that.
            bearer = self.app.gateway.services.bearer
            await until(lambda: bearer.recall(self.app.key) is None)
        elif wish == "move to a copy of the database":
            await self.stop()
            self._database_url = await self._copies.enter_async_context(
                copied_database(self._database_url)
            )
            await self.start()
        elif wish == "kill Postgres":
            assert self._postgres, "the name of such a check speaks of Postgres"
            await self._postgres.kill()
        elif wish == "wait until nobody is connected":
            await until(self.nobody_is_connected, lambda: self.app.held)
        else:
            raise AssertionError(f"a check asks for {wish!r}")


@asynccontextmanager
async def copied_database(database_url: str) -> AsyncIterator[str]:
    """A copy, which is another database to those who stood at a position in the old one."""
    parts = urlsplit(database_url)
    name = parts.path[1:]
    server = await asyncpg.connect(urlunsplit(parts._replace(path="/postgres")))
    await server.execute(f'CREATE DATABASE "{name}_copy" TEMPLATE "{name}"')
    try:
        yield urlunsplit(parts._replace(path=f"/{name}_copy"))
    finally:
        await server.execute(f'DROP DATABASE "{name}_copy" WITH (FORCE)')
        await server.close()


@pytest.fixture
def postgres(request: pytest.FixtureRequest, name: str) -> RestartablePostgres | None:
    """A server of its own for a check whose name speaks of Postgres: it will be killed."""
    if "Postgres" not in name:
        return None
    server: RestartablePostgres = request.getfixturevalue("restartable_postgres")
    return server


@pytest.fixture
def database(request: pytest.FixtureRequest, postgres: RestartablePostgres | None) -> str:
    url: str = postgres.url if postgres else request.getfixturevalue("database_url")
    return url


@pytest.fixture
async def theatre(
    database: str, postgres: RestartablePostgres | None, tmp_path: Path
) -> AsyncIterator[Theatre]:
    theatre = Theatre(database, postgres, objects_dir=tmp_path / "objects")
    await theatre.start()
    yield theatre
    await theatre.close()


@pytest.mark.parametrize(("generation", "name"), list(all_checks()))
async def test_clients(clients: Path, theatre: Theatre, generation: str, name: str) -> None:
    verdict = await play(clients, theatre, generation, name)
    assert verdict["ok"], verdict["failure"]


@pytest.mark.parametrize(
    ("generation", "name"),
    [
        ("v4", "a large payload is put into the object store and comes back"),
        ("v3", "a large output is read from the object store"),
    ],
)
async def test_clients_reach_a_bucket_by_themselves(
    clients: Path, database_url: str, s3_server: S3Server, generation: str, name: str
) -> None:
    bucket = s3_server.create_bucket()
    theatre = Theatre(
        database_url,
        s3_bucket=bucket.name,
        s3_endpoint=bucket.endpoint,
        s3_region=bucket.region,
        s3_access_key_id=bucket.access_key_id,
        s3_secret_access_key=bucket.secret_access_key,
    )
    await theatre.start()
    try:
        verdict = await play(clients, theatre, generation, name)
    finally:
        await theatre.close()
    assert verdict["ok"], verdict["failure"]
    assert len(s3_server.files(bucket)) == 1


async def play(node: Path, theatre: Theatre, generation: str, name: str) -> dict[str, Any]:
    """Run one check, do what it asks for on the way, and give its verdict."""
    process = await asyncio.create_subprocess_exec(
        *(node, "run.mjs", generation, name),
        cwd=HERE,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={
            "PATH": str(node.parent),
            "RUNCAST_URL": theatre.app.url,
            "RUNCAST_SECRET_KEY": theatre.app.key,
        },
    )
    assert process.stdin
    assert process.stdout
    assert process.stderr
    said = asyncio.create_task(process.stderr.read())
    verdict: dict[str, Any] | None = None
    try:
        while line := await process.stdout.readline():
            verdict = _verdict(line)
            if verdict is not None and "ask" in verdict:
                await theatre.serve(verdict["ask"])
                process.stdin.write(b"done\n")
                await process.stdin.drain()
        await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        errors = (await said).decode(errors="replace")
    if verdict is None or "ok" not in verdict:
        return {"ok": False, "failure": f"no verdict; the process said: {errors}"}
    return verdict | ({} if verdict["ok"] else {"failure": f"{verdict['failure']}\n{errors}"})


def _verdict(line: bytes) -> dict[str, Any] | None:
    """A line for us; clients may print others."""
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) and value.keys() & {"ask", "ok"} else None
