"""
Every benchmark runs through, with very little, as `./dev bench --smoke` does.

Of the figures only the shape is looked at: no test passes or fails by the clock.
"""

import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from benchmarks.harness.targets import TARGETS
from benchmarks.registry import all_benchmarks
from tests.support.needs import missing

ROOT = Path(__file__).parents[2]

# Together, because they share servers; apart, so that none takes too long.
GROUPS = {
    "fan-out": ["sse-fan-out", "idle", "websocket", "long-poll"],
    "curves": ["sse-subscribers", "sse-message-size", "sse-selectors", "sse-runs", "burst"],
    "database": ["writers", "commit-latency", "unwatched", "reconnect-storm", "list-runs"],
    "streams": ["appends", "append-latency", "soak", "relay"],
}

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(sys.platform != "linux", reason="the benchmarks read Linux' /proc"),
]


@pytest.fixture
def compiler() -> str:
    return shutil.which("gcc") or missing("C compiler", "install gcc and libc6-dev")


@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize("names", GROUPS.values(), ids=GROUPS)
def test_a_smoke_run_leaves_records_in_which_everybody_has_figures(
    names: list[str], tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *names, "--smoke", "--no-pictures", "--out", tmp_path],
        cwd=ROOT,
        env=untraced(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for name in names:
        check_record(json.loads((tmp_path / f"{name}-smoke.json").read_text()), name)


def check_record(record: dict[str, Any], name: str) -> None:
    assert record["benchmark"] == name
    assert "Measured region:" in record["measures"]
    assert {"cpu", "cores", "kernel", "versions", "commit"} <= record["machine"].keys()
    assert record["options"]["smoke"] is True
    contestants = {sample["contestant"] for sample in record["samples"]}
    assert contestants
    assert contestants.isdisjoint(record["skipped"])
    assert all(record["skipped"].values()), "whoever is left out is left out for a reason"
    for sample in record["samples"]:
        assert sample.keys() == {"contestant", "metric", "value", "x", "number"}
        assert sample["number"] == 0
    for ratio in record["ratios"]:
        assert ratio["target"] in TARGETS
        assert ratio["verdict"] in {"stretch", "target", "missed"}


def test_every_benchmark_has_its_smoke_run() -> None:
    assert sorted(name for names in GROUPS.values() for name in names) == sorted(all_benchmarks())


def test_every_target_is_judged_by_a_benchmark() -> None:
    cases = "".join(file.read_text() for file in (ROOT / "benchmarks/cases").glob("*.py"))
    for target in TARGETS:
        name = target if not target.startswith("writers-") else "writers-{writers}"
        assert f'"{name}"' in cases, f"no benchmark looks at the target {target}"


@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_everything_that_was_started(number: signal.Signals, tmp_path: Path) -> None:
    # An environment of its own is how its children are known.
    name, value = "BENCHMARK_TEST", secrets.token_hex(8)
    running = subprocess.Popen(
        [sys.executable, "-m", "benchmarks", "soak", "--smoke", "--out", tmp_path],
        cwd=ROOT,
        env={**untraced(), name: value},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wait_until(lambda: any("loadgen" in line for line in started_with(name, value)))
    running.send_signal(number)
    assert running.wait(60) == 130
    wait_until(lambda: not started_with(name, value))


def untraced() -> dict[str, str]:
    """The environment without coverage's: what a benchmark starts is killed, and leaves no data."""
    return {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}


def wait_until(holds: Callable[[], bool]) -> None:
    """Wait for something that other processes bring about, on a machine that may be busy."""
    pause = threading.Event()
    for _ in range(1200):
        if holds():
            return
        pause.wait(0.05)
    raise AssertionError("did not come true within a minute")


def started_with(name: str, value: str) -> list[str]:
    """Command lines of processes that have this in their environment."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get(name) == value:
                found.append(" ".join(process.cmdline()))
    return found


def test_an_unknown_name_is_told_with_those_that_there_are() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "nothing"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "There is no benchmark nothing; there are: append-latency" in done.stdout
