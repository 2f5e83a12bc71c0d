"""Servers that a document tells people to start, each a process of its own."""

import asyncio
import os
import re
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

_ADDRESS = re.compile(rb"http://(?:127\.0\.0\.1|localhost):\d+")
_KEYS_OF_MODELS = ("OPENAI_API_KEY", "ANTHROPIC_API_KEY")


@asynccontextmanager
async def serving(
    *command: str | Path, cwd: Path, env: Mapping[str, str], without: str = "Traceback"
) -> AsyncIterator[str]:
    """Run a server and give the address that it says; what it says must be ``without`` a word."""
    environ = {name: value for name, value in os.environ.items() if name not in _KEYS_OF_MODELS}
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=cwd,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**environ, "NO_COLOR": "1", "PYTHONUNBUFFERED": "1", **env},
        start_new_session=True,
    )
    assert process.stdout is not None
    log = b""
    while not (found := _ADDRESS.search(log)):
        line = await process.stdout.readline()
        assert line, log.decode()
        log += line
    reading = asyncio.create_task(process.stdout.read())  # a full pipe would stop it
    try:
        yield found[0].decode()
    finally:
        os.killpg(process.pid, signal.SIGTERM)  # it and what it started
        rest = (await reading).decode()
        await process.wait()
    assert without not in rest, rest
