"""`./dev`: what it makes of its words, and that a failed check fails the run."""

import importlib.machinery
import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


def load_dev() -> ModuleType:
    loader = importlib.machinery.SourceFileLoader("runcast_dev_script", str(ROOT / "dev"))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


dev = load_dev()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], ("dev", [])),
        (["--port", "0"], ("dev", ["--port", "0"])),
        (["--help"], ("dev", ["--help"])),
        (["test"], ("test", [])),
        (["test", "tests/core", "-x"], ("test", ["tests/core", "-x"])),
        (["check"], ("check", [])),
        (["build"], ("build", [])),
        (["bench", "burst", "--smoke"], ("bench", ["burst", "--smoke"])),
        (["chaos", "--minutes", "1"], ("chaos", ["--minutes", "1"])),
        (["--port", "test"], ("dev", ["--port", "test"])),
    ],
)
def test_only_a_first_word_of_ours_is_ours(
    words: list[str], expected: tuple[str, list[str]]
) -> None:
    assert dev.plan(words) == expected


def test_the_digest_changes_with_either_file(tmp_path: Path) -> None:
    project, lock = tmp_path / "pyproject.toml", tmp_path / "uv.lock"
    digests = [dev.setup_digest([project, lock])]
    for file, text in ((project, "a"), (project, "b"), (lock, "a")):
        file.write_text(text)
        digests.append(dev.setup_digest([project, lock]))
    assert len(set(digests)) == 4
    assert dev.setup_digest([project, lock]) == digests[-1]


@pytest.mark.parametrize(
    ("done", "extra", "expected"),
    [
        (["now", "embedded"], "embedded", True),
        (["now", "dev"], "embedded", True),
        (["now", "bench"], "dev", True),
        (["now", "dev"], "bench", False),
        (["now", "dev"], "dev", True),
        (["now", "embedded"], "dev", False),
        (["before", "dev"], "dev", False),
        (["now"], "dev", False),
        ([], "embedded", False),
    ],
)
def test_a_set_up_counts_while_nothing_changed_and_holds_what_is_wanted(
    monkeypatch: pytest.MonkeyPatch, done: list[str], extra: str, expected: bool
) -> None:
    monkeypatch.setattr(dev, "PYTHON", Path(sys.executable))
    assert dev.is_set_up(done, "now", extra) is expected


def test_a_set_up_without_its_python_does_not_count(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(dev, "PYTHON", tmp_path / "python")
    assert not dev.is_set_up(["now", "dev"], "now", "dev")


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("nodejs:\n  Installed: (none)\n  Candidate: 18.20.4+dfsg-1\n", 18),
        ("nodejs:\n  Installed: (none)\n  Candidate: 2:20.19.2-1\n", 20),
        ("nodejs:\n  Installed: 22.1\n  Candidate: (none)\n", 0),
        ("", 0),
    ],
)
def test_the_candidate_of_apt_is_read(policy: str, expected: int) -> None:
    assert dev.candidate_major(policy) == expected


# The script itself, in a checkout whose .venv holds small programs in place of the real tools.


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for part in ("dev", "pyproject.toml", "tests/__init__.py"):
        copy(ROOT / part, tmp_path / part)
    for part in ("__init__.py", "machine.py"):
        copy(ROOT / "tests/support" / part, tmp_path / "tests/support" / part)
    for tool in ("ruff", "mypy", "lint-imports"):
        stand_in(tmp_path, tool, f'echo "{tool} $*"')
    stand_in(tmp_path, "python", '[ "$1" = -c ] || echo "python $*"; echo "1 passed in 0.01s"')
    stand_in(tmp_path, "runcast", 'echo "runcast $*"')
    digest = dev.setup_digest([tmp_path / "pyproject.toml", tmp_path / "uv.lock"])
    (tmp_path / ".venv/.runcast-setup").write_text(f"{digest} dev\n")
    return tmp_path


def copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, target)


def stand_in(checkout: Path, tool: str, script: str) -> None:
    path = checkout / ".venv/bin" / tool
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def run_dev(checkout: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    """Run the script with an empty PATH: it finds no apt-get, so it installs nothing."""
    return subprocess.run(
        [sys.executable, checkout / "dev", *words],
        env={"PATH": str(checkout / "nowhere")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


posix = pytest.mark.skipif(sys.platform == "win32", reason="the stand-in tools are shell scripts")


@posix
def test_other_words_start_the_main_job(checkout: Path) -> None:
    done = run_dev(checkout, "--port", "0")
    assert (done.stdout, done.returncode) == ("runcast dev --port 0\n", 0)


@posix
def test_a_full_test_runs_every_check_and_ends_with_the_closing_line(checkout: Path) -> None:
    done = run_dev(checkout, "test")
    assert done.returncode == 0, done.stdout
    for line in ("ruff check .", "ruff format --check .", "mypy ", "lint-imports "):
        assert line in done.stdout.splitlines()
    assert f"python -m pytest {' '.join(dev.WHOLE_RUN)}\n" in done.stdout
    assert "MISSING Node.js" in done.stdout
    assert "MISSING Chromium" in done.stdout
    assert done.stdout.splitlines()[-1] == "1 passed in 0.01s"


@posix
def test_a_failed_check_fails_the_run_but_not_before_pytest_ran(checkout: Path) -> None:
    stand_in(checkout, "mypy", "exit 1")
    done = run_dev(checkout, "test")
    assert done.returncode == 1
    assert "FAILED: mypy\n" in done.stdout
    assert "lint-imports" in done.stdout
    assert done.stdout.splitlines()[-1] == "1 passed in 0.01s"


@posix
def test_failed_tests_fail_the_run(checkout: Path) -> None:
    stand_in(checkout, "python", "echo '1 failed in 0.01s'; exit 3")
    done = run_dev(checkout, "test", "tests/core")
    assert done.returncode == 3
    assert done.stdout.splitlines()[-1] == "1 failed in 0.01s"


@posix
def test_words_after_test_restrict_to_pytest(checkout: Path) -> None:
    done = run_dev(checkout, "test", "tests/core", "-x")
    assert done.returncode == 0
    assert "python -m pytest tests/core -x\n" in done.stdout
    assert "lint-imports" not in done.stdout
    assert "-n" not in done.stdout.split()


@posix
def test_check_runs_no_tests_and_fails_with_any_check(checkout: Path) -> None:
    assert run_dev(checkout, "check").returncode == 0
    stand_in(checkout, "lint-imports", "exit 1")
    done = run_dev(checkout, "check")
    assert done.returncode == 1
    assert "== pytest" not in done.stdout


@pytest.fixture
def page_checkout(checkout: Path) -> Path:
    copy(ROOT / "clients/page/build.py", checkout / "clients/page/build.py")
    for part in ("build.mjs", "package-lock.json"):
        (checkout / "clients/page" / part).touch()
    return checkout


@posix
@pytest.mark.parametrize("words", [["build"], ["--port", "0"], ["test"]])
def test_without_node_all_but_the_page_goes_on(page_checkout: Path, words: list[str]) -> None:
    done = run_dev(page_checkout, *words)
    assert "the page was not built: that needs Node.js 20" in done.stdout
    assert "MISSING npm: " in done.stdout
    assert done.returncode == (3 if words == ["build"] else 0)


@posix
def test_the_page_is_built_again_when_its_sources_changed(page_checkout: Path) -> None:
    built = page_checkout / "src/runcast/web/built"
    for tool, script in (
        ("node", f'[ "$1" = --version ] && echo v20.1.0 || /bin/mkdir -p {built}'),
        ("npm", "/bin/mkdir -p node_modules"),
    ):
        stand_in(page_checkout, tool, script)
        target = page_checkout / "nowhere" / tool
        target.parent.mkdir(exist_ok=True)
        (page_checkout / ".venv/bin" / tool).rename(target)
    told = "building the page\n"
    assert run_dev(page_checkout, "--port", "0").stdout == f"{told}runcast dev --port 0\n"
    assert run_dev(page_checkout, "build").stdout == ""
    (page_checkout / "clients/js/src").mkdir(parents=True)
    (page_checkout / "clients/js/src/new.ts").touch()
    assert run_dev(page_checkout, "build").stdout == told
    shutil.rmtree(built)
    assert run_dev(page_checkout, "build").stdout == told
    (page_checkout / "nowhere/npm").unlink()
    assert run_dev(page_checkout, "build").stdout == ""


@posix
def test_bench_looks_for_its_needs_and_hands_its_words_on(checkout: Path) -> None:
    digest = dev.setup_digest([checkout / "pyproject.toml", checkout / "uv.lock"])
    (checkout / ".venv/.runcast-setup").write_text(f"{digest} bench\n")
    done = run_dev(checkout, "bench", "burst", "--smoke")
    assert done.returncode == 0, done.stdout
    assert "MISSING C compiler" in done.stdout
    assert "python -m benchmarks burst --smoke\n" in done.stdout
    assert "MISSING" not in run_dev(checkout, "bench", "--list").stdout


@posix
def test_chaos_looks_for_its_needs_and_hands_its_words_on(checkout: Path) -> None:
    done = run_dev(checkout, "chaos", "--minutes", "1")
    assert done.returncode == 0, done.stdout
    assert "nginx: " in done.stdout
    assert "python -m chaos --minutes 1\n" in done.stdout
    assert "nginx: " not in run_dev(checkout, "chaos", "--help").stdout


@posix
def test_ci_runs_the_same_command_and_insists_on_every_need(tmp_path: Path) -> None:
    copy(ROOT / ".ci/run", tmp_path / ".ci/run")
    (tmp_path / "dev").write_text('#!/bin/sh\necho "CI=$CI dev $*"\nexit 7\n')
    (tmp_path / "dev").chmod(0o755)
    done = subprocess.run([tmp_path / ".ci/run"], capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("CI=true dev test\n", 7)
