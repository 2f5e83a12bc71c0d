"""`runcast token`: what is minted is what `verify_token` takes."""

from datetime import UTC, datetime

import pytest

from runcast.auth.grant import Grant
from runcast.auth.keys import KeyRing, SigningKey
from runcast.auth.token import verify_token
from tests.cli.command_line import CommandLine, Ready, complaint

KEY = "tr_dev_0123456789abcdefghij"
ENVIRONMENT = "env_1"


def grant_of(token: str, key: str = KEY, environment: str = ENVIRONMENT) -> Grant:
    ring = KeyRing(environment, (SigningKey(key),))
    return verify_token(token.strip(), keys=ring, now=seconds_now())


def seconds_now() -> float:
    return datetime.now(UTC).timestamp()


@pytest.fixture
def runcast(command_line: CommandLine) -> CommandLine:
    return command_line.having(RUNCAST_SECRET_KEY=KEY)


def test_options_become_scopes(runcast: CommandLine) -> None:
    minted = runcast.run(
        *("token", "--environment", ENVIRONMENT, "--expires", "1h"),
        *("--run", "run_1", "--run", "run_2", "--tag", "user:42", "--task", "t", "--batch", "b"),
        *("--write-run", "run_1", "--trigger", "t", "--scope", "read:sessions"),
        *("--skip-columns", "payload, output"),
    )
    assert (minted.returncode, minted.stderr) == (0, "")
    grant = grant_of(minted.stdout)
    assert grant.scopes == {
        "read:runs:run_1",
        "read:runs:run_2",
        "read:tags:user:42",
        "read:tasks:t",
        "read:batch:b",
        "write:runs:run_1",
        "trigger:tasks:t",
        "read:sessions",
    }
    assert grant.skip_columns == ("payload", "output")
    assert not grant.one_time
    assert grant.expires_at is not None
    assert grant.expires_at > seconds_now() + 3000


def test_two_one_time_tokens_are_two(runcast: CommandLine) -> None:
    words = ("token", "--environment", ENVIRONMENT, "--trigger", "t", "--one-time")
    first, second = (runcast.run(*words, "--expires", "32503680000").stdout for _ in range(2))
    assert grant_of(first).one_time
    assert first != second
    assert grant_of(first).token_id != grant_of(second).token_id


def test_the_database_knows_the_environment(command_line: CommandLine, database_url: str) -> None:
    runcast = command_line.having(DATABASE_URL=database_url)
    key = runcast.run("keys", "create", "shop").stdout.strip()
    listed = runcast.run("keys", "list").stdout
    minted = runcast.run("token", "--key", key, "--read-all")
    environment = listed.split()[1]
    assert grant_of(minted.stdout, key, environment).scopes == {"read:runs"}


def test_a_gateway_mints_too(command_line: CommandLine, gateway: Ready) -> None:
    runcast = command_line.having(RUNCAST_URL=gateway.url, RUNCAST_SECRET_KEY=gateway.key)
    minted = runcast.run("token", "--tag", "a", "--expires", "2h", "--skip-columns", "payload")
    listed = command_line.having(DATABASE_URL=gateway.database_url).run("keys", "list").stdout
    grant = grant_of(minted.stdout, gateway.key, listed.split()[1])
    assert grant.scopes == {"read:tags:a"}
    assert grant.skip_columns == ("payload",)

    refused = runcast.having(RUNCAST_SECRET_KEY=KEY).run("token", "--tag", "a")
    assert complaint(refused).startswith("runcast: the gateway answered 401: ")
    assert KEY not in refused.stderr
    late = runcast.run("token", "--tag", "a", "--expires", "31 days")
    assert "the gateway answered 400" in complaint(late)


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("--read-all",), "set DATABASE_URL"),
        (("--read-all", "--expires", "soon", "--environment", "e"), "time span"),
        (("--read-all", "--expires", "1h ago", "--environment", "e"), "at least a second ahead"),
        (("--read-all", "--key", "short", "--environment", "e"), "24 to 256"),
        (("--read-all", "--url", "http://127.0.0.1:1"), "cannot be reached"),
        (("--read-all", "--url", "nonsense"), "cannot be reached"),
    ],
)
def test_mistakes_are_explained(words: tuple[str, ...], problem: str, runcast: CommandLine) -> None:
    assert problem in complaint(runcast.run("token", *words))


def test_a_token_without_key_or_scope_is_refused(
    command_line: CommandLine, runcast: CommandLine
) -> None:
    assert "RUNCAST_SECRET_KEY" in complaint(command_line.run("token", "--read-all"))
    assert "allows nothing" in complaint(runcast.run("token", "--environment", "e"))


def test_tokens_are_revoked_listed_and_lifted(command_line: CommandLine, gateway: Ready) -> None:
    runcast = command_line.having(RUNCAST_URL=gateway.url, RUNCAST_SECRET_KEY=gateway.key)
    token = runcast.run("token", "--read-all", "--subject", "user_1").stdout.strip()
    revoked = runcast.run("token", "revoke", "--token", token)
    assert revoked.returncode == 0, revoked.stderr
    by_subject = runcast.run("token", "revoke", "--subject", "user_1", "--issued-before", "now")
    lines = runcast.run("token", "revocations").stdout.splitlines()
    assert lines == [by_subject.stdout.strip(), revoked.stdout.strip()]
    assert "subject user_1, issued before 20" in lines[0]
    for line in lines:
        lifted = runcast.run("token", "lift", line.split()[0])
        assert lifted.returncode == 0, lifted.stderr
    assert runcast.run("token", "revocations").stdout == ""


def test_revoking_says_what_is_missing(command_line: CommandLine, gateway: Ready) -> None:
    runcast = command_line.having(RUNCAST_URL=gateway.url)
    assert "--subject" in complaint(runcast.run("token", "revoke", "--key", gateway.key))
    assert "RUNCAST_SECRET_KEY" in complaint(runcast.run("token", "revoke", "--id", "a"))
    gone = runcast.run("token", "lift", "revocation_1", "--key", gateway.key)
    assert "no revocation" in complaint(gone)
