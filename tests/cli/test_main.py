"""The command line as a whole: help, versions, and errors as one line."""

import pytest

from tests.cli.command_line import CommandLine, complaint


def test_help_names_every_command(command_line: CommandLine) -> None:
    shown = command_line.run("--help")
    assert shown.returncode == 0
    for name in ("dev", "serve", "migrate", "token", "tail", "doctor", "keys"):
        assert f" {name} " in shown.stdout


@pytest.mark.parametrize("name", ["dev", "serve", "migrate", "token", "tail", "doctor", "keys"])
def test_every_command_explains_itself(name: str, command_line: CommandLine) -> None:
    shown = command_line.run(name, "-h")
    assert shown.returncode == 0
    assert f"runcast {name}" in shown.stdout


def test_version(command_line: CommandLine) -> None:
    shown = command_line.run("--version")
    assert (shown.returncode, shown.stdout.split()[0]) == (0, "runcast")


def test_wrong_usage_has_status_2(command_line: CommandLine) -> None:
    assert command_line.run("serve", "--port", "70000").returncode == 2
    assert command_line.run("nonsense").returncode == 2


def test_a_wrong_setting_is_one_line(command_line: CommandLine) -> None:
    failed = command_line.having(RUNCAST_PORT="eighty").run("serve")
    assert failed.returncode == 2
    assert complaint(failed) == (
        "runcast: RUNCAST_PORT is wrong; allowed: a whole number from 0 to 65535."
    )


def test_an_unknown_setting_is_a_warning(command_line: CommandLine) -> None:
    failed = command_line.having(RUNCAST_PROT="80").run("migrate")
    assert "warning: nothing reads RUNCAST_PROT; did you mean RUNCAST_PORT?" in failed.stderr
    assert "DATABASE_URL is not set" in complaint(failed)


def test_an_unreachable_database_is_one_line_without_its_password(
    command_line: CommandLine,
) -> None:
    url = "postgresql://somebody:hidden@127.0.0.1:1/db"
    for words in (("migrate",), ("serve",), ("keys", "list"), ("dev",)):
        failed = command_line.having(DATABASE_URL=url).run(*words)
        assert failed.returncode == 1
        assert "database" in complaint(failed).lower()
        assert "hidden" not in failed.stderr
