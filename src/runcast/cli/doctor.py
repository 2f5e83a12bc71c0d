"""`runcast doctor`: look for what would keep a gateway from working, and say what helps."""

import importlib.metadata
import os
import platform
import socket
from collections.abc import AsyncIterator, Iterator
from typing import Annotated

import httpx
import typer

from runcast.cli.clock import now
from runcast.cli.console import result
from runcast.cli.database_checks import check_database
from runcast.cli.finding import Finding, Level, bad, fine, note
from runcast.cli.loop import run
from runcast.cli.object_checks import check_objects
from runcast.cli.redis_checks import check_redis
from runcast.cli.settings_page import settings_page
from runcast.cli.version import own_version
from runcast.errors import ConfigurationError
from runcast.postgres.binaries import find_binaries
from runcast.postgres.embedded_error import EmbeddedPostgresError
from runcast.settings import Settings, load_settings, unknown_variables

_LIBRARIES = ("asyncpg", "httptools", "pydantic", "starlette", "uvicorn", "uvloop", "websockets")
_COLOURS = {Level.FINE: typer.colors.GREEN, Level.NOTE: typer.colors.YELLOW}
# Beside its clients a gateway keeps files, the database and a few sockets open.
_RESERVED_FILES = 128
_FEW_FILES = 4096


def doctor(
    settings: Annotated[
        bool, typer.Option("--settings", help="Only print the page of all settings.")
    ] = False,
) -> None:
    """
    Check the machine, the settings and the database, and say what to do.

    Status 1 when a gateway would not work; works without a database too.
    """
    if settings:
        typer.echo(settings_page(), nl=False)
        return
    if run(_examine()):
        raise typer.Exit(1)


async def _examine() -> bool:
    """Print findings as they come; tell whether something is wrong."""
    wrong = 0
    async for finding in _findings():
        mark = typer.style(f"{finding.level.value:>4}", fg=_COLOURS.get(finding.level, "red"))
        result(f"{mark}  {finding.topic}: {finding.text}")
        if finding.remedy:
            result(f"      → {finding.remedy}")
        wrong += finding.level is Level.BAD
    result(f"{wrong} problem{'s' * (wrong != 1)}" if wrong else "nothing is wrong")
    return wrong > 0


async def _findings() -> AsyncIterator[Finding]:
    yield _check_versions()
    for finding in _check_unknown_variables():
        yield finding
    try:
        settings = load_settings()
    except ConfigurationError as error:
        for line in error.message.splitlines():
            yield bad("settings", line, "docs/settings.md lists all settings.")
        return
    yield fine("settings", "all are valid")
    for finding in _check_open_files(settings):
        yield finding
    yield await _check_port(settings)
    async for finding in check_objects(settings, now()):
        yield finding
    async for finding in check_redis(settings):
        yield finding
    if settings.database_url is None:
        yield _check_embedded()
    else:
        async for finding in check_database(settings, now):
            yield finding


def _check_versions() -> Finding:
    libraries = ", ".join(f"{name} {_version(name)}" for name in _LIBRARIES)
    python = platform.python_version()
    return fine("versions", f"runcast {own_version()}, Python {python}, {libraries}")


def _version(library: str) -> str:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:  # uvloop, on Windows
        return "missing"


def _check_unknown_variables() -> Iterator[Finding]:
    for name, nearest in unknown_variables(os.environ).items():
        remedy = f"Did you mean {nearest}?" if nearest else "docs/settings.md lists all settings."
        yield note("settings", f"nothing reads {name}", remedy)


def _check_open_files(settings: Settings) -> Iterator[Finding]:
    try:
        import resource
    except ModuleNotFoundError:  # Windows knows no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = settings.max_connections + _RESERVED_FILES
    text = f"this process may open {soft}, so about {max(0, soft - _RESERVED_FILES)} connections"
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        yield fine("open files", f"enough for {settings.max_connections} connections")
    elif soft < _FEW_FILES:
        yield note("open files", text, f"Raise it with `ulimit -n {min(hard, wanted)}`.")
    else:
        yield fine("open files", text)


async def _check_port(settings: Settings) -> Finding:
    where = f"{settings.host}:{settings.port}"
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        if await _is_gateway(settings):
            return fine("port", f"a gateway runs on {where} already")
        return bad(
            "port",
            f"{where} cannot be listened on: {error.strerror}",
            "End the program that uses it, or choose with RUNCAST_HOST and RUNCAST_PORT "
            "(0 picks a free port).",
        )
    return fine("port", f"{where} is free")


async def _is_gateway(settings: Settings) -> bool:
    host = "127.0.0.1" if settings.host in ("0.0.0.0", "::") else settings.host
    host = f"[{host}]" if ":" in host else host
    try:
        async with httpx.AsyncClient(timeout=3.0, trust_env=False) as http:
            answer = await http.get(f"http://{host}:{settings.port}/openapi.json")
            return bool(answer.json()["info"]["title"].lower().startswith("runcast"))
    except (httpx.HTTPError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _check_embedded() -> Finding:
    try:
        binaries = find_binaries()
    except EmbeddedPostgresError as error:
        return bad("database", "DATABASE_URL is not set", error.message)
    return note(
        "database",
        "DATABASE_URL is not set",
        f"`runcast dev` will use an embedded Postgres {binaries.version} ({binaries.source}); "
        "`runcast serve` needs DATABASE_URL.",
    )
