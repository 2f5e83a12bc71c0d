"""Settings: what the environment may say, and how a wrong word is refused."""

import dataclasses
import os
from pathlib import Path

import pytest
from hypothesis import given, strategies as st
from pydantic import ValidationError

from runcast.cli.settings_page import settings_page
from runcast.core.limits import Limits
from runcast.core.rate import Rate
from runcast.errors import ConfigurationError
from runcast.settings import Settings, load_settings, unknown_variables, variables_of

SETTINGS_PAGE = Path(__file__).parents[1] / "docs/settings.md"


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("RUNCAST_") or name in ("DATABASE_URL", "REDIS_URL"):
            monkeypatch.delenv(name)


def refusal(**given: object) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load_settings(**given)
    return caught.value.message


def test_an_empty_environment_gives_the_defaults_of_the_limits() -> None:
    settings = load_settings()
    assert settings.limits == Limits()
    assert (settings.host, settings.port, settings.transport) == ("127.0.0.1", 8080, "auto")
    assert settings.schema_name == "runcast"
    assert settings.database_url is None


def test_every_limit_is_a_setting_of_the_same_name() -> None:
    fields = {field.name: field for field in dataclasses.fields(Limits)}
    assert fields.keys() <= Settings.model_fields.keys()
    for name, field in fields.items():
        assert Settings.model_fields[name].default == field.default
        assert variables_of(name) == (f"RUNCAST_{name.upper()}",)


def test_variables_reach_the_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNCAST_HEARTBEAT_SECONDS", "2.5")
    monkeypatch.setenv("RUNCAST_WITHHELD_COLUMNS", "payload, output")
    limits = load_settings().limits
    assert limits.heartbeat_seconds == 2.5
    assert limits.withheld_columns == {"payload", "output"}


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("60/60", Rate(60, 60.0, 60)),
        ("250/10 burst 750", Rate(250, 10.0, 750)),
        ("0", None),
        (" Off ", None),
    ],
)
def test_rates_are_written_or_off(
    text: str, rate: Rate | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNCAST_SECRET_KEY_RATE", text)
    assert load_settings().limits.secret_key_rate == rate


def test_rates_that_nobody_set_can_be_taken_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNCAST_SECRET_KEY_RATE", "1/1")
    limits = load_settings(host="example.test").without_rates().limits
    assert (limits.secret_key_rate, limits.public_token_rate) == (Rate(1, 1.0, 1), None)


def test_database_url_wins_over_its_longer_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNCAST_DATABASE_URL", "postgres://second/db")
    assert load_settings().require_database_url() == "postgres://second/db"
    monkeypatch.setenv("DATABASE_URL", "postgresql://first/db")
    assert load_settings().require_database_url() == "postgresql://first/db"


def test_what_is_given_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNCAST_PORT", "1")
    monkeypatch.setenv("RUNCAST_HOST", "example.test")
    settings = load_settings(port=2, host=None)
    assert (settings.port, settings.host) == (2, "example.test")


def test_an_empty_variable_counts_as_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNCAST_PORT", "")
    monkeypatch.setenv("DATABASE_URL", "")
    settings = load_settings()
    assert (settings.port, settings.database_url) == (8080, None)


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        load_settings().port = 1


@pytest.mark.parametrize(
    "url",
    [
        "redis://user:p%40ss@host:6379/3",
        "rediss://host",
        "unix:///run/redis.sock?db=1",
        "redis+cluster://host:7000",
        "redis+sentinel://u:p@one:26379,two,[::1]:26380/service/1?sentinel_password=x",
        "rediss+sentinel://one/service",
    ],
)
def test_redis_may_be_named_in_many_ways(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", f" {url}")
    assert load_settings().redis_url == url


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("DATABASE_URL", "mysql://u:hidden-word@host/db"),
        ("DATABASE_URL", "postgresql://u:hidden-word@host:70000/db"),
        ("DATABASE_URL", "postgresql://u:hidden/word@host:port/db"),
        ("RUNCAST_DATABASE_URL", "hidden-word"),
        ("REDIS_URL", "http://hidden-word"),
        ("REDIS_URL", "redis://u:hidden-word@host:70000"),
        ("REDIS_URL", "redis+sentinel://hidden-word@host:26379"),
        ("REDIS_URL", "redis+sentinel://hidden-word@host:port/service"),
        ("RUNCAST_REDIS_PREFIX", "{hidden-word}"),
        ("RUNCAST_SCHEMA", "Hidden-word"),
        ("RUNCAST_SCHEMA", "pg_hidden"),
        ("RUNCAST_PORT", "65536"),
        ("RUNCAST_PORT", "hidden-word"),
        ("RUNCAST_POOL_MAX_CONNECTIONS", "0"),
        ("RUNCAST_TRANSPORT", "hidden-word"),
        ("RUNCAST_LOG_LEVEL", "hidden-word"),
        ("RUNCAST_FORWARDED_ALLOW_IPS", "127.0.0.1,hidden-word"),
        ("RUNCAST_HEARTBEAT_SECONDS", "nan"),
        ("RUNCAST_HEARTBEAT_SECONDS", "inf"),
        ("RUNCAST_MAX_BODY_BYTES", "1.5"),
        ("RUNCAST_WITHHELD_COLUMNS", "status"),
        ("RUNCAST_WITHHELD_COLUMNS", "hidden word"),
        ("RUNCAST_PUBLIC_TOKEN_RATE", "600"),
        ("RUNCAST_SECRET_KEY_RATE", "1/hidden"),
    ],
)
def test_a_wrong_value_is_refused_by_name_and_never_shown(
    variable: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    message = refusal()
    assert message.startswith(f"{variable} is wrong; allowed: ")
    assert "\n" not in message
    assert "hidden" not in message.lower()


def test_each_problem_has_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNCAST_PORT", "x")
    monkeypatch.setenv("RUNCAST_LOG_FORMAT", "x")
    monkeypatch.setenv("RUNCAST_DRAIN_SECONDS", "-1")
    assert sorted(refusal().splitlines()) == [
        "RUNCAST_DRAIN_SECONDS is wrong; allowed: a number from 0 to 600.",
        "RUNCAST_LOG_FORMAT is wrong; allowed: auto or text or json.",
        "RUNCAST_PORT is wrong; allowed: a whole number from 0 to 65535.",
    ]


def test_settings_that_disagree_are_refused() -> None:
    message = refusal(default_token_seconds=100, max_token_seconds=99)
    assert message == (
        "RUNCAST_DEFAULT_TOKEN_SECONDS must not be more than RUNCAST_MAX_TOKEN_SECONDS."
    )


def test_a_missing_database_names_the_way_out() -> None:
    with pytest.raises(ConfigurationError, match=r"DATABASE_URL is not set.*runcast dev"):
        load_settings().require_database_url()


def test_the_database_url_is_not_in_the_repr() -> None:
    settings = load_settings(database_url="postgresql://u:hidden@host/db")
    assert "hidden" not in repr(settings)
    assert "hidden" not in str(settings)


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\0")))
def test_no_text_in_a_variable_ends_in_anything_but_our_error(text: str) -> None:
    for field in (
        "database_url",
        "schema_name",
        "withheld_columns",
        "forwarded_allow_ips",
        "port",
        "secret_key_rate",
    ):
        try:
            load_settings(**{field: text})
        except ConfigurationError as error:
            assert error.message.startswith(variables_of(field)[0])  # noqa: PT017 - or no error


def test_unknown_variables_come_with_the_nearest_name() -> None:
    environ = {
        "RUNCAST_HEARTBEAT_SECOND": "1",
        "RUNCAST_QQQQQQQ": "1",
        "RUNCAST_PORT": "1",
        "RUNCAST_PG_BIN": "/bin",
        "PORT": "1",
    }
    assert unknown_variables(environ) == {
        "RUNCAST_HEARTBEAT_SECOND": "RUNCAST_HEARTBEAT_SECONDS",
        "RUNCAST_QQQQQQQ": None,
    }


def test_the_page_of_settings_is_up_to_date() -> None:
    assert SETTINGS_PAGE.read_text() == settings_page(), (
        "docs/settings.md is old: run `runcast doctor --settings > docs/settings.md`"
    )


def test_the_page_names_every_variable() -> None:
    for name in Settings.model_fields:
        for variable in variables_of(name):
            assert f"`{variable}`" in settings_page()


def test_the_relay_needs_redis(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNCAST_RELAY", "On")
    assert "REDIS_URL is not set" in refusal()
    monkeypatch.setenv("REDIS_URL", "redis://localhost")
    assert load_settings().relay == "on"


def test_the_bucket_has_an_address_and_keys_that_go_together() -> None:
    keys = {"s3_access_key_id": "key", "s3_secret_access_key": "s3cret"}
    settings = load_settings(s3_bucket="b.c", s3_endpoint=" https://s3.example:9/ ", **keys)
    assert settings.s3_endpoint == "https://s3.example:9"
    assert "s3cret" not in repr(settings)
    assert "go together" in refusal(s3_bucket="bucket", s3_access_key_id="key")
    assert "go together" in refusal(s3_bucket="bucket", s3_secret_access_key="key")
    assert "RUNCAST_S3_BUCKET is not set" in refusal(s3_endpoint="https://s3.example")
    assert "RUNCAST_S3_BUCKET is not set" in refusal(**keys)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("s3_bucket", "a/b"),
        ("s3_bucket", "x"),
        ("s3_endpoint", "s3.example"),
        ("s3_endpoint", "https://user:s3cret@s3.example"),
        ("s3_endpoint", "https://s3.example?x"),
        ("s3_endpoint", "https://"),
        ("s3_public_endpoint", "ftp://s3.example"),
        ("s3_prefix", "/a/"),
        ("s3_prefix", "a"),
        ("s3_prefix", "../"),
        ("s3_style", "host"),
    ],
)
def test_what_cannot_be_of_a_bucket_is_refused(name: str, value: str) -> None:
    message = refusal(**{"s3_bucket": "bucket", name: value})
    assert f"RUNCAST_{name.upper()} is wrong" in message
    assert "s3cret" not in message


@pytest.mark.parametrize(
    ("given", "virtual"),
    [
        ({}, True),
        ({"s3_endpoint": "https://s3.example"}, False),
        ({"s3_public_endpoint": "https://s3.example"}, False),
        ({"s3_endpoint": "https://s3.example", "s3_style": "virtual"}, True),
        ({"s3_style": "PATH"}, False),
    ],
)
def test_the_bucket_is_named_by_the_host_where_nothing_else_is_said(
    given: dict[str, str], virtual: bool
) -> None:
    assert load_settings(s3_bucket="bucket", **given).s3_virtual_host is virtual
