"""`runcast migrate`."""

from tests.cli.command_line import CommandLine


def test_migrating_again_changes_nothing(
    command_line: CommandLine, empty_database_url: str
) -> None:
    runcast = command_line.having(DATABASE_URL=empty_database_url)
    pending = runcast.run("migrate", "--check")
    assert (pending.returncode, pending.stdout.split()[0]) == (1, "0001_runs.sql")
    first = runcast.run("migrate")
    assert first.returncode == 0
    assert "applied 0001_runs.sql" in first.stderr
    again = runcast.run("migrate")
    assert (again.returncode, again.stderr) == (0, "the database is up to date\n")
    assert runcast.run("migrate", "--check").returncode == 0


def test_the_schema_can_be_chosen(command_line: CommandLine, empty_database_url: str) -> None:
    runcast = command_line.having(DATABASE_URL=empty_database_url)
    assert runcast.having(RUNCAST_SCHEMA="other").run("migrate").returncode == 0
    assert runcast.run("migrate", "--check").returncode == 1
