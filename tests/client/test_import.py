"""Importing the package: light for the gateway's parts, whole for people."""

import subprocess
import sys

import pytest

import runcast

_LIGHT = """
import sys, runcast
assert {'httpx', 'asyncio', 'runcast.client', 'jwt'}.isdisjoint(sys.modules), sys.modules.keys()
assert 'AsyncClient' in dir(runcast)
from runcast import AsyncClient, Client, create_public_token
from runcast.client.errors import RuncastError
assert runcast.RuncastError is RuncastError
server = ('starlette', 'uvicorn', 'asyncpg', 'redis', 'pydantic', 'typer')
assert not [name for name in server if name in sys.modules]
"""


def test_importing_runcast_loads_nothing_until_it_is_asked_for() -> None:
    subprocess.run([sys.executable, "-c", _LIGHT], check=True, timeout=20)


def test_there_is_no_other_name() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Clients'"):
        runcast.Clients  # type: ignore[attr-defined] # noqa: B018
