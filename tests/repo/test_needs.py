"""The needs of tests: a missing one is a loud skip at home and a failure in CI."""

import asyncio
import time
from pathlib import Path

import pytest
from blockbuster import BlockingError
from redis.asyncio import Redis

import runcast
from tests.support.machine import find_chromium, is_ci, node_major
from tests.support.needs import missing


def test_a_missing_need_skips_with_a_reason_that_names_the_remedy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="MISSING Chromium: set CHROMIUM_PATH"):
        missing("Chromium", "set CHROMIUM_PATH")


def test_a_missing_need_fails_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="MISSING Chromium: set CHROMIUM_PATH"):
        missing("Chromium", "set CHROMIUM_PATH")


@pytest.mark.parametrize(
    ("value", "expected"), [("true", True), ("1", True), ("false", False), ("", False)]
)
def test_ci_is_what_the_variable_says(
    monkeypatch: pytest.MonkeyPatch, value: str, expected: bool
) -> None:
    monkeypatch.setenv("CI", value)
    assert is_ci() is expected


def test_a_given_browser_must_be_executable(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    browser = tmp_path / "browser"
    browser.write_text("#!/bin/sh\n")
    browser.chmod(0o644)
    monkeypatch.setenv("CHROMIUM_PATH", str(browser))
    assert find_chromium() is None
    browser.chmod(0o755)
    assert find_chromium() == browser


@pytest.mark.parametrize(
    ("answer", "expected"), [("v20.11.0", 20), ("v8.1.0", 8), ("what?", 0), ("", 0)]
)
def test_the_version_of_node_is_what_it_answers(tmp_path: Path, answer: str, expected: int) -> None:
    node = tmp_path / "node"
    node.write_text(f"#!/bin/sh\necho '{answer}'\n")
    node.chmod(0o755)
    assert node_major(node) == expected


def test_a_node_that_is_not_there_has_no_version(tmp_path: Path) -> None:
    assert node_major(tmp_path / "node") == 0


async def test_the_redis_of_the_session_answers(redis_url: str) -> None:
    client = Redis.from_url(redis_url)
    async with client:
        await client.set("runcast-test-needs", "here", ex=60)
        assert await client.get("runcast-test-needs") == b"here"


def code_of_runcast(source: str) -> dict[str, object]:
    """Run source text as if it stood in a file of the runcast package."""
    names: dict[str, object] = {}
    exec(compile(source, f"{runcast.__path__[0]}/planted.py", "exec"), names)
    return names


async def test_code_of_runcast_that_blocks_the_loop_is_caught() -> None:
    nap = code_of_runcast("import time\ndef nap(): time.sleep(0)")["nap"]
    assert callable(nap)
    with pytest.raises(BlockingError, match=r"time\.sleep"):
        nap()
    await asyncio.to_thread(nap)
    time.sleep(0)  # noqa: ASYNC251 (a test may block: only our own code is watched)
