"""
A real S3 server for tests, as fixtures: `s3_server`, and `bucket` in it; it checks signatures.

One server serves the whole session; every test gets a bucket of its own.
"""

import collections
import os
import secrets
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

import pytest

from runcast.objects.s3 import Bucket
from tests.support.needs import free_port, missing
from tests.support.postgres import temporary_folder

REGION = "eu-test-1"
_KEY_ID = "test-key"
_READY = "Uvicorn running on"
_PORT_ATTEMPTS = 5


@dataclass(frozen=True)
class S3Server:
    """A running server; its buckets are folders."""

    endpoint: str
    folder: Path
    access_key_id: str
    secret_access_key: str

    def create_bucket(self) -> Bucket:
        """Make a bucket."""
        name = f"bucket-{secrets.token_hex(6)}"
        (self.folder / name).mkdir()
        return Bucket(
            name=name,
            endpoint=self.endpoint,
            region=REGION,
            access_key_id=self.access_key_id,
            secret_access_key=self.secret_access_key,
        )

    def unreachable_bucket(self) -> Bucket:
        """A bucket where nothing answers."""
        return replace(self.create_bucket(), endpoint=f"http://127.0.0.1:{free_port()}")

    def files(self, bucket: Bucket) -> list[Path]:
        """What is stored: a file for each object, and what is left of uploads in parts."""
        uploads = self.folder / ".nanio"
        objects = (self.folder / bucket.name).rglob("*")
        found = [each for each in objects if each.is_file() and ".nanio-meta" not in each.parts]
        return found + [each for each in uploads.rglob("parts/*") if each.is_file()]


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """A server of this session."""
    if find_spec("nanio") is None:
        missing("an S3 server", "install nanio, which the extra dev has")
    with temporary_folder() as folder, _running(folder) as server:
        yield server


@pytest.fixture
def bucket(s3_server: S3Server) -> Bucket:
    """A bucket of this test alone, and how to reach it."""
    return s3_server.create_bucket()


@contextmanager
def _running(folder: Path) -> Iterator[S3Server]:
    secret = secrets.token_urlsafe(30)
    process, port = _start(folder, secret)
    # Somebody must read what it says, or a full pipe stops it.
    reader = threading.Thread(target=collections.deque, args=(process.stdout, 0), daemon=True)
    reader.start()
    try:
        yield S3Server(f"http://127.0.0.1:{port}", folder, _KEY_ID, secret)
    finally:
        process.terminate()
        reader.join()
        process.communicate()


def _start(folder: Path, secret: str) -> tuple["subprocess.Popen[str]", int]:
    """Start a server; again on another port if its own was taken."""
    said = ""
    for _ in range(_PORT_ATTEMPTS):
        port = free_port()
        options = ("--host", "127.0.0.1", "--port", str(port), "--region", REGION)
        process = subprocess.Popen(
            [sys.executable, "-m", "nanio", "serve", "--data-dir", folder, *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | {"NANIO_ACCESS_KEY": _KEY_ID, "NANIO_SECRET_KEY": secret},
        )
        assert process.stdout is not None
        for line in process.stdout:
            said += line
            if _READY in line:
                return process, port
        process.communicate()
    raise RuntimeError(f"the S3 server did not start:\n{said}")
