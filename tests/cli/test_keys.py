"""`runcast keys`."""

import re
from pathlib import Path

from tests.cli.command_line import CommandLine, complaint


def test_a_key_is_printed_when_made_and_shortened_afterwards(
    command_line: CommandLine, database_url: str
) -> None:
    runcast = command_line.having(DATABASE_URL=database_url)
    made = runcast.run("keys", "create", "shop", "--name", "The shop")
    key = made.stdout.strip()
    assert made.returncode == 0
    assert key.startswith("tr_shop_")
    assert key not in made.stderr

    listed = runcast.run("keys", "list")
    assert key not in listed.stdout
    assert f"tr_shop_…{key[-4:]}  active" in listed.stdout
    assert "The shop" in listed.stdout
    assert key in runcast.run("keys", "list", "--show").stdout


def test_a_rotated_key_works_until_the_grace_ends(
    command_line: CommandLine, database_url: str
) -> None:
    runcast = command_line.having(DATABASE_URL=database_url)
    old = runcast.run("keys", "create", "shop").stdout.strip()
    new = runcast.run("keys", "rotate", "shop", "--grace", "1h").stdout.strip()
    assert new != old
    listed = runcast.run("keys", "list", "--show").stdout
    assert f"{new}  active" in listed
    assert f"{old}  retired, works until " in listed
    for key in (old, new):
        minted = runcast.having(RUNCAST_SECRET_KEY=key).run("token", "--read-all")
        assert minted.returncode == 0

    newest = runcast.run("keys", "rotate", "shop", "--grace", "0s").stdout.strip()
    listed = runcast.run("keys", "list", "--show").stdout
    assert newest in listed
    assert new not in listed
    refused = runcast.having(RUNCAST_SECRET_KEY=new).run("token", "--read-all")
    assert "no such secret key" in complaint(refused)


def test_mistakes_are_explained(command_line: CommandLine, database_url: str) -> None:
    runcast = command_line.having(DATABASE_URL=database_url)
    assert "no environment 'shop'" in complaint(runcast.run("keys", "rotate", "shop"))
    assert "slug" in complaint(runcast.run("keys", "create", "The Shop"))
    assert runcast.run("keys", "create", "shop").returncode == 0
    assert "exists already" in complaint(runcast.run("keys", "create", "shop"))
    wrong_span = runcast.run("keys", "rotate", "shop", "--grace", "soon")
    assert "time span" in complaint(wrong_span)


def test_the_runbook_rotates_a_key_as_it_says(command_line: CommandLine, database_url: str) -> None:
    text = (Path(__file__).parents[2] / "docs/runbook.md").read_text()
    [chapter] = re.findall(r"(?s)## Rotate a secret key\n(.*?)(?=\n## |\Z)", text)
    [softly, at_once] = re.findall(r"(?s)```sh\n(.*?)```", chapter)
    runcast = command_line.having(DATABASE_URL=database_url)
    old = runcast.run("keys", "create", "prod").stdout.strip()

    def follow(block: str) -> str:
        """Do each line; gives what the last one printed."""
        printed = ""
        for line in block.splitlines():
            assert line.startswith("runcast "), line
            done = runcast.run(*line.split()[1:])
            assert done.returncode == 0, done.stderr
            printed = done.stdout.strip()
        return printed

    new = follow(softly)
    listed = runcast.run("keys", "list", "--show").stdout
    assert f"{old}  retired" in listed
    assert f"{new}  active" in listed
    newest = follow(at_once)
    listed = runcast.run("keys", "list", "--show").stdout
    assert f"{newest}  active" in listed
    assert new not in listed
    assert f"{old}  retired" in listed, "it keeps the end that it got"
