"""The proxies' files in deploy/, each tried with the real proxy before two real gateways."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.support.event_feed import following
from tests.support.gateway_app import GatewayApp, running_app, until
from tests.support.machine import find_program
from tests.support.needs import free_port, missing
from tests.support.socket_client import connected
from tests.support.stream_writer import writing

DEPLOY = Path(__file__).parents[2] / "deploy"
FILES = {"nginx": "nginx.conf", "haproxy": "haproxy.cfg", "caddy": "Caddyfile"}
ALL = "/realtime/v1/runs"

pytestmark = pytest.mark.parametrize("proxy", FILES)


@dataclass
class Site:
    """A proxy's address, and the gateways behind it."""

    url: str
    gateways: list[GatewayApp]

    @property
    def taken(self) -> GatewayApp:
        """The gateway that has a connection."""
        [one] = [each for each in self.gateways if each.gateway.hub.connections]
        return one


@asynccontextmanager
async def site(proxy: str, database_url: str, folder: Path) -> AsyncIterator[Site]:
    """Two gateways behind a proxy with the file that we ship, but for names and ports."""
    program = find_program(proxy) or missing(proxy, f"install the package '{proxy}'")
    async with AsyncExitStack() as stack:
        gateways = [await stack.enter_async_context(running_app(database_url)) for _ in range(2)]
        port = free_port()
        file = folder / FILES[proxy]
        file.write_text(placed((DEPLOY / file.name).read_text(), port, gateways, folder))
        log = stack.enter_context((folder / "log.txt").open("ab"))
        process = await asyncio.create_subprocess_exec(
            program,
            *command(proxy, file),
            cwd=folder,
            env={"HOME": str(folder), "PATH": "/usr/bin:/bin"},
            stdout=log,
            stderr=log,
        )
        try:
            url = f"http://127.0.0.1:{port}"
            await answering(url, process)
            yield Site(url, gateways)
        finally:
            if process.returncode is None:
                process.terminate()
            await process.wait()
            print(file.with_name("log.txt").read_text())  # noqa: T201 - shown if the test fails


def placed(text: str, port: int, gateways: list[GatewayApp], folder: Path) -> str:
    """The file, but for this machine."""
    for number, gateway in enumerate(gateways, start=1):
        text = text.replace(f"gateway-{number}:8080", f"127.0.0.1:{gateway.port}")
    text = re.sub(r"(?m)^.*gateway-\d+:8080.*$", "", text)  # more than are here
    text = re.sub(r"(?m)^(\s*(?:listen |bind )?:?)8080\b", rf"\g<1>{port}", text)
    # nginx: Docker's name server is not here, and older ones know no `resolve`.
    text = re.sub(r"(?m)^\s*resolver .*$", "", text).replace(" resolve;", ";")
    text = text.replace("/tmp/nginx.pid", f"{folder}/nginx.pid").replace("/dev/stdout", "log.txt")
    bodies = "".join(
        f"    {kind}_temp_path {folder}/{kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    return text.replace("http {\n", f"http {{\n{bodies}")


def command(proxy: str, file: Path) -> list[str]:
    match proxy:
        case "nginx":
            options = ["-p", str(file.parent), "-e", "stderr", "-g", "daemon off;"]
            return [*options, "-c", str(file)]
        case "haproxy":
            return ["-db", "-f", str(file)]
        case _:
            return ["run", "--adapter", "caddyfile", "--config", str(file)]


async def answering(url: str, process: asyncio.subprocess.Process) -> None:
    async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
        for _ in range(1500):
            assert process.returncode is None, "the proxy ended"
            try:
                if (await client.get("/readyz")).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.02)
    raise AssertionError("the proxy does not answer")


async def test_everything_passes_as_it_comes(proxy: str, database_url: str, tmp_path: Path) -> None:
    async with site(proxy, database_url, tmp_path) as here:
        app = here.gateways[0]
        run_id = await app.insert()
        async with (
            following(here.url, ALL, app.bearer) as feed,
            following(here.url, f"/realtime/v1/streams/{run_id}/llm", app.bearer) as stream,
            connected(here.url, app.bearer) as socket,
            httpx.AsyncClient(base_url=here.url, headers=app.bearer, trust_env=False) as client,
            httpx.AsyncClient(base_url=here.url, trust_env=False) as anybody,
        ):
            # Events, while the response goes on.
            await feed.expect("run", "up-to-date")
            await app.update(run_id, metadata={"x": 1})
            await feed.expect("run")
            # A WebSocket, in both directions.
            await socket.expect("authenticated")
            await socket.send("ping")
            await socket.expect("pong")
            # A poll that waits for what comes.
            answer = await client.get(f"{ALL}?offset=-1")
            asked = {name: answer.headers[f"electric-{name}"] for name in ("handle", "offset")}
            asked["live"] = "true"
            poll = asyncio.create_task(client.get(ALL, params=asked))
            await until(lambda: any(polls(each) for each in here.gateways))
            await app.update(run_id, metadata={"x": 2})
            assert '"operation":"update"' in (await poll).text
            # An upload, while it goes on.
            async with writing(here.url, app.bearer, run_id) as writer:
                for number in range(2):
                    await writer.send_lines([f'"line {number}"'])
                    assert (await stream.until("message")).data == f"line {number}"
                assert (await writer.finish()).status == 200
            # The longest token, in a query and in a header.
            token = "x" * 8192
            for refused in (
                await anybody.get(f"{ALL}?token={token}"),
                await anybody.get(ALL, headers={"authorization": f"Bearer {token}"}),
            ):
                assert (refused.status_code, refused.json()["code"]) == (401, "invalid_token")
        # Who leaves the proxy leaves the gateway.
        for each in here.gateways:
            await until(lambda each=each: not each.gateway.hub.connections)  # type: ignore[misc]
    assert "x" * 100 not in (tmp_path / "log.txt").read_text(), "tokens"


async def test_a_gateway_that_goes_takes_nobody_along(
    proxy: str, database_url: str, tmp_path: Path
) -> None:
    async with site(proxy, database_url, tmp_path) as here:
        run_id = await here.gateways[0].insert()
        bearer = here.gateways[0].bearer
        async with following(here.url, ALL, bearer) as feed:
            cursor = (await feed.expect("run", "up-to-date")).id
            leaving = here.taken
            stopping = asyncio.create_task(leaving.stop())
            await feed.expect("reconnect")
            await feed.ended()
        assert cursor is not None
        async with (
            following(here.url, ALL, bearer | {"last-event-id": cursor}) as feed,
            httpx.AsyncClient(base_url=here.url, trust_env=False) as client,
        ):
            await feed.expect("up-to-date")
            assert here.taken is not leaving
            await here.taken.update(run_id, metadata={"x": 1})
            await feed.expect("run")
            for _ in range(10):
                assert (await client.get("/healthz")).status_code == 200
            await stopping
            for _ in range(10):
                assert (await client.get("/healthz")).status_code == 200


def polls(app: GatewayApp) -> bool:
    return any(connection.kind == "poll" for connection in app.gateway.hub.connections)
