"""Settings of a gateway: environment variables and flags, checked once at start."""

import difflib
import functools
import ipaddress
import math
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin
from urllib.parse import urlsplit

from annotated_types import Ge, Le
from pydantic import AliasChoices, BeforeValidator, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from runcast.core.limits import Limits
from runcast.core.rate import Rate
from runcast.core.run import UNSKIPPABLE_COLUMNS
from runcast.errors import ConfigurationError

PREFIX = "RUNCAST_"

# Read elsewhere: by the command line, by the embedded Postgres, by the container files.
OTHER_VARIABLES: Mapping[str, str] = {
    "RUNCAST_SECRET_KEY": "secret key that `runcast token` and `runcast tail` use",
    "RUNCAST_TOKEN": "public access token that `runcast tail` uses",
    "RUNCAST_URL": "gateway that `runcast tail` and `runcast token` talk to",
    "RUNCAST_CLIENT_TRANSPORT": "how clients made in Python follow: `auto`, `websocket` or `sse`",
    "RUNCAST_PG_BIN": "folder with the `postgres` and `initdb` that `runcast dev` shall run",
    "RUNCAST_UID": "user id of the gateways in docker-compose.yml, who may read the password",
}

_SCHEMA = re.compile(r"(?!pg_)[a-z_][a-z0-9_]{0,62}")
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")
_KEY_PREFIX = re.compile(r"([A-Za-z0-9_-]+/){0,8}")
_SENTINELS = re.compile(r"rediss?\+sentinel:")
# Several hosts, and the name of what they watch.
_HOST = r"(\[[0-9a-fA-F:.]+\]|[^@/:,\[\]]+)(:\d{1,5})?"
_SENTINEL_URL = re.compile(
    rf"rediss?\+sentinel://([^@/]*@)?{_HOST}(,{_HOST})*/[^/?]+(/\d+)?(\?.*)?"
)
_REDIS_PREFIX = re.compile(r"[A-Za-z0-9_:.-]{0,64}")
_COLUMN = re.compile(r"[A-Za-z]{1,64}")
_DEFAULTS = Limits()
_KIB = 1024
_MIB = 1024 * 1024
_DAY = 86400.0
_RATE = "requests/seconds, such as 600/60, or 250/10 burst 750; 0 or off for no limit"


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


def _postgres_url(value: object) -> object:
    return _url(value, ("postgres", "postgresql"))


def _redis_url(value: object) -> object:
    if isinstance(value, str) and _SENTINELS.match(value.strip()):
        if not _SENTINEL_URL.fullmatch(value.strip()):
            raise _wrong()
        return value.strip()
    return _url(value, ("redis", "rediss", "unix", "redis+cluster", "rediss+cluster"))


def _endpoint(value: object) -> object:
    url = _url(value, ("http", "https"))
    parts = urlsplit(str(url))
    if not parts.hostname or parts.username is not None or parts.query or parts.fragment:
        raise _wrong()
    return str(url).rstrip("/")


def _url(value: object, schemes: tuple[str, ...]) -> object:
    # Splitting says of a bad port what it is, and a wrongly quoted password may look like one.
    try:
        parts = urlsplit(value.strip() if isinstance(value, str) else "")
        fine = parts.scheme in schemes and (parts.port is None or parts.port > 0)
    except ValueError:
        fine = False
    if not fine:
        raise _wrong()
    return str(value).strip()


def _bucket(value: object) -> object:
    if not isinstance(value, str) or not _BUCKET.fullmatch(value):
        raise _wrong()
    return value


def _key_prefix(value: object) -> object:
    if not isinstance(value, str) or not _KEY_PREFIX.fullmatch(value):
        raise _wrong()
    return value


def _redis_prefix(value: object) -> object:
    if not isinstance(value, str) or not _REDIS_PREFIX.fullmatch(value):
        raise _wrong()
    return value


def _schema(value: object) -> object:
    if not isinstance(value, str) or not _SCHEMA.fullmatch(value):
        raise _wrong()
    return value


def _columns(value: object) -> object:
    names = _listed(value)
    if not all(map(_COLUMN.fullmatch, names)) or UNSKIPPABLE_COLUMNS & set(names):
        raise _wrong()
    return frozenset(names)


def _addresses(value: object) -> object:
    names = _listed(value)
    try:
        for name in names:
            if name != "*":
                ipaddress.ip_network(name, strict=False)
    except ValueError:
        raise _wrong() from None
    return ",".join(names)


def _rate(value: object) -> object:
    if value is None or isinstance(value, Rate):
        return value
    text = str(value).strip().lower()
    if text in ("0", "off"):
        return None
    try:
        return Rate.parse(text)
    except ValueError:
        raise _wrong() from None


def _listed(value: object) -> list[str]:
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, Iterable):
        raise _wrong()
    return [text for part in parts if (text := str(part).strip())]


def _wrong() -> PydanticCustomError:
    return PydanticCustomError("not_allowed", "not allowed")


def _count(default: int, meaning: str, low: int, high: int) -> Any:
    return Field(default, description=meaning, ge=low, le=high)


def _seconds(default: float, meaning: str, low: float, high: float) -> Any:
    return Field(default, description=meaning, ge=low, le=high, allow_inf_nan=False)


def _text(default: Any, meaning: str, allowed: str, **more: Any) -> Any:
    return Field(default, description=meaning, json_schema_extra={"allowed": allowed}, **more)


class Settings(BaseSettings):
    """
    Everything that can be chosen about a gateway; made by `load_settings`.

    Sizes are in bytes, times in seconds; docs/settings.md is made of this class.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        populate_by_name=True,
        hide_input_in_errors=True,
    )

    database_url: Annotated[str, BeforeValidator(_postgres_url)] | None = _text(
        None,
        "Postgres 14 or newer that holds the runs",
        "postgresql://user:password@host:5432/database",
        validation_alias=AliasChoices("DATABASE_URL", "RUNCAST_DATABASE_URL"),
        repr=False,
    )
    redis_url: Annotated[str, BeforeValidator(_redis_url)] | None = _text(
        None,
        "Redis 7 or Valkey that keeps the chunks of streams; if it is not set, Postgres does",
        "redis://user:password@host:6379/0, rediss://…, unix://…, redis+cluster://host:6379, or "
        "redis+sentinel://:password@host:26379,host:26379/service/0",
        validation_alias=AliasChoices("REDIS_URL", "RUNCAST_REDIS_URL"),
        repr=False,
    )
    redis_prefix: Annotated[str, BeforeValidator(_redis_prefix)] = _text(
        "runcast:",
        "what keys in Redis begin with; deployments that share one have different ones",
        "up to 64 of A-Z, a-z, 0-9, _, :, . and -",
    )
    relay: Annotated[Literal["off", "on"], BeforeValidator(_lower)] = Field(
        "off",
        description="`on` lets one gateway read the changes of the database for all of them, and "
        "tell the others through Redis",
    )
    # Not `schema`: pydantic has a method of that name.
    schema_name: Annotated[str, BeforeValidator(_schema)] = _text(
        "runcast",
        "Postgres schema that holds everything of ours",
        "1 to 63 of a-z, 0-9 and _, not beginning with a digit or pg_",
        validation_alias=AliasChoices("RUNCAST_SCHEMA"),
    )
    objects_dir: Path | None = _text(
        None,
        "directory for payloads and outputs that are too large for the database; gateways of one "
        "database share it. If it is not set: objects, where the system or the user keeps data",
        "a directory",
    )
    s3_bucket: Annotated[str, BeforeValidator(_bucket)] | None = _text(
        None,
        "bucket of an S3-compatible store that keeps the objects instead of a directory; "
        "needs `pip install 'runcast[s3]'`",
        "the name of a bucket that exists",
    )
    s3_endpoint: Annotated[str, BeforeValidator(_endpoint)] | None = _text(
        None,
        "where the store is; if it is not set: AWS_ENDPOINT_URL, or Amazon's in the region",
        "https://host, without the bucket",
    )
    s3_public_endpoint: Annotated[str, BeforeValidator(_endpoint)] | None = _text(
        None,
        "where clients reach the store, if that is somewhere else",
        "https://host, without the bucket",
    )
    s3_region: str | None = _text(
        None,
        "region of the bucket; if it is not set: AWS_REGION, or us-east-1",
        "a name",
        min_length=1,
        max_length=64,
    )
    s3_style: Annotated[Literal["auto", "path", "virtual"], BeforeValidator(_lower)] = Field(
        "auto",
        description="`path` names the bucket in the path of addresses, `virtual` in the host; "
        "`auto` is `path` with an endpoint and `virtual` without",
    )
    s3_prefix: Annotated[str, BeforeValidator(_key_prefix)] = _text(
        "", "what the keys of objects begin with", "parts of A-Z, a-z, 0-9, _ and -, each with a /"
    )
    s3_access_key_id: str | None = _text(
        None,
        "key of the store, with its secret; if it is not set: AWS_ACCESS_KEY_ID and so on, or the "
        "role of the machine",
        "both or none",
        min_length=1,
        repr=False,
    )
    s3_secret_access_key: str | None = _text(
        None, "secret of that key", "both or none", min_length=1, repr=False
    )
    s3_addresses: Annotated[Literal["direct", "gateway"], BeforeValidator(_lower)] = Field(
        "direct",
        description="`direct` gives clients addresses of the store, `gateway` lets all objects go "
        "through the gateway, which bounds their size",
    )
    pool_max_connections: int = _count(
        10, "database connections of each worker at most, beside three that wait for news", 1, 1000
    )
    statement_timeout_seconds: float = _seconds(
        30.0, "longest time for one database statement", 0.1, 3600
    )

    host: str = _text("127.0.0.1", "address to listen on", "a name or an address", min_length=1)
    port: int = _count(8080, "port to listen on; 0 picks a free one", 0, 65535)
    workers: int = _count(
        1, "processes of `runcast serve` on that port, each with connections of its own", 1, 128
    )
    transport: Annotated[Literal["auto", "portable"], BeforeValidator(_lower)] = Field(
        "auto",
        description="`auto` writes event streams and WebSockets to their connections directly, "
        "`portable` serves them through ASGI alone",
    )
    forwarded_allow_ips: Annotated[str, BeforeValidator(_addresses)] = _text(
        "127.0.0.1",
        "proxies whose X-Forwarded-For and X-Forwarded-Proto are believed",
        "addresses and networks joined with commas, or *",
    )

    log_level: Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(_lower)] = (
        Field("info", description="the least severe messages that are logged")
    )
    log_format: Annotated[Literal["auto", "text", "json"], BeforeValidator(_lower)] = Field(
        "auto",
        description="lines for people, or one JSON object a line; `auto` is text on a terminal",
    )

    max_body_bytes: int = _count(_DEFAULTS.max_body_bytes, "largest request body", _KIB, 256 * _MIB)
    max_metadata_bytes: int = _count(
        _DEFAULTS.max_metadata_bytes, "largest metadata of a run", _KIB, 4 * _MIB
    )
    max_batch_items: int = _count(_DEFAULTS.max_batch_items, "most runs in a batch", 1, 100_000)
    max_header_bytes: int = _count(
        _DEFAULTS.max_header_bytes, "largest head of a request", 16 * _KIB, _MIB
    )
    request_timeout_seconds: float = _seconds(
        _DEFAULTS.request_timeout_seconds, "longest time for a request to arrive", 0.1, 3600
    )
    public_token_rate: Annotated[Rate | None, NoDecode, BeforeValidator(_rate)] = _text(
        _DEFAULTS.public_token_rate,
        "requests to /api that each public token may make; off in `runcast dev` unless set",
        _RATE,
    )
    secret_key_rate: Annotated[Rate | None, NoDecode, BeforeValidator(_rate)] = _text(
        _DEFAULTS.secret_key_rate,
        "requests to /api that each secret key may make; off in `runcast dev` unless set",
        _RATE,
    )
    max_connections: int = _count(
        _DEFAULTS.max_connections, "most connections at once, of each worker", 1, 10_000_000
    )
    max_environment_connections: int = _count(
        _DEFAULTS.max_environment_connections,
        "most connections of an environment at once, at all gateways together; 0 is no limit",
        0,
        10_000_000,
    )
    max_subscriptions_per_connection: int = _count(
        _DEFAULTS.max_subscriptions_per_connection, "most subscriptions of one WebSocket", 1, 65536
    )
    max_command_bytes: int = _count(
        _DEFAULTS.max_command_bytes, "largest WebSocket message from a client", 16 * _KIB, 16 * _MIB
    )
    authenticate_timeout_seconds: float = _seconds(
        _DEFAULTS.authenticate_timeout_seconds,
        "longest time until a WebSocket shows its token",
        0.1,
        300,
    )
    snapshot_page_runs: int = _count(
        _DEFAULTS.snapshot_page_runs, "runs read from the database at once", 1, 10_000
    )
    max_backlog_runs: int = _count(
        _DEFAULTS.max_backlog_runs, "runs that wait in memory for a slow reader", 1, 100_000
    )
    max_backlog_bytes: int = _count(
        _DEFAULTS.max_backlog_bytes, "bytes of runs that wait there", 64 * _KIB, 1024 * _MIB
    )
    max_concurrent_catch_ups: int = _count(
        _DEFAULTS.max_concurrent_catch_ups, "snapshots and resumes read at once", 1, 1000
    )
    write_buffer_bytes: int = _count(
        _DEFAULTS.write_buffer_bytes, "bytes that wait in a connection", 4 * _KIB, 16 * _MIB
    )
    heartbeat_seconds: float = _seconds(
        _DEFAULTS.heartbeat_seconds, "quiet time before a heartbeat", 0.05, 300
    )
    stall_timeout_seconds: float = _seconds(
        _DEFAULTS.stall_timeout_seconds,
        "time after which a reader that takes nothing is disconnected",
        0.1,
        3600,
    )
    drain_seconds: float = _seconds(
        _DEFAULTS.drain_seconds, "time to send connections elsewhere before exit", 0, 600
    )
    poll_hold_seconds: float = _seconds(
        _DEFAULTS.poll_hold_seconds, "how long a poll of an official client waits for news", 0.1, 50
    )
    poll_answer_bytes: int = _count(
        _DEFAULTS.poll_answer_bytes,
        "size from which the answer to a poll is sent in parts",
        4 * _KIB,
        256 * _MIB,
    )
    shape_window_seconds: float = _seconds(
        _DEFAULTS.shape_window_seconds,
        "age of the oldest runs in tag feeds of official clients that do not say; 0 is no limit",
        0,
        3650 * _DAY,
    )
    max_chunk_bytes: int = _count(
        _DEFAULTS.max_chunk_bytes, "largest chunk of a stream", _KIB, 16 * _MIB
    )
    max_stream_bytes: int = _count(
        _DEFAULTS.max_stream_bytes, "largest stream", 64 * _KIB, 1024 * 1024 * _MIB
    )
    default_ttl_seconds: int = _count(
        _DEFAULTS.default_ttl_seconds,
        "how long a triggered run may wait for its start, unless it says so itself (0: for ever; "
        "`runcast dev`: 600)",
        0,
        365 * 86400,
    )
    max_streams_per_run: int = _count(
        _DEFAULTS.max_streams_per_run, "most streams of a run", 1, 100_000
    )
    stream_retention_seconds: float = _seconds(
        _DEFAULTS.stream_retention_seconds, "how long chunks are kept", 1, 3650 * _DAY
    )
    stream_lease_seconds: float = _seconds(
        _DEFAULTS.stream_lease_seconds,
        "how long a writer counts as connected after its gateway was last heard of",
        0.5,
        3600,
    )
    stream_tail_bytes: int = _count(
        _DEFAULTS.stream_tail_bytes,
        "newest part of a followed stream that is kept in memory",
        4 * _KIB,
        64 * _MIB,
    )
    stream_page_bytes: int = _count(
        _DEFAULTS.stream_page_bytes,
        "part of a stream read from the database at once",
        4 * _KIB,
        64 * _MIB,
    )
    max_object_bytes: int = _count(
        _DEFAULTS.max_object_bytes,
        "largest payload or output that is kept as an object",
        _KIB,
        16 * 1024 * _MIB,
    )
    unused_object_seconds: float = _seconds(
        _DEFAULTS.unused_object_seconds,
        "how long an object is kept that no run refers to",
        3600,
        3650 * _DAY,
    )
    default_token_seconds: float = _seconds(
        _DEFAULTS.default_token_seconds, "life of a token that does not say", 1, 3650 * _DAY
    )
    max_token_seconds: float = _seconds(
        _DEFAULTS.max_token_seconds, "longest life of any public token", 1, 3650 * _DAY
    )
    key_cache_seconds: float = _seconds(
        _DEFAULTS.key_cache_seconds, "time until a changed key is noticed", 0, 3600
    )
    max_revocations: int = _count(
        _DEFAULTS.max_revocations, "revocations of tokens an environment may have", 1, 1_000_000
    )
    withheld_columns: Annotated[frozenset[str], NoDecode, BeforeValidator(_columns)] = _text(
        _DEFAULTS.withheld_columns,
        "fields of runs that public tokens never see",
        "names joined with commas, such as payload,output",
    )

    @model_validator(mode="after")
    def _agree(self) -> "Settings":
        if self.default_token_seconds > self.max_token_seconds:
            raise PydanticCustomError(
                "disagree",
                "RUNCAST_DEFAULT_TOKEN_SECONDS must not be more than RUNCAST_MAX_TOKEN_SECONDS.",
            )
        if (self.s3_access_key_id is None) != (self.s3_secret_access_key is None):
            raise PydanticCustomError(
                "disagree",
                "RUNCAST_S3_ACCESS_KEY_ID and RUNCAST_S3_SECRET_ACCESS_KEY go together: "
                "set both or none.",
            )
        if self.relay == "on" and self.redis_url is None:
            raise PydanticCustomError(
                "disagree",
                "RUNCAST_RELAY is on, but REDIS_URL is not set: gateways tell each other of "
                "changes through Redis. Set REDIS_URL, or take RUNCAST_RELAY away.",
            )
        if self.s3_bucket is None and (self.s3_endpoint or self.s3_access_key_id):
            raise PydanticCustomError(
                "disagree", "RUNCAST_S3_BUCKET is not set, but other settings of S3 are."
            )
        return self

    @property
    def limits(self) -> Limits:
        """The bounds that the parts of the gateway are given."""
        return Limits(**{field.name: getattr(self, field.name) for field in fields(Limits)})

    def without_rates(self) -> "Settings":
        """Take away the rate limits that nobody has set."""
        rates = {"public_token_rate", "secret_key_rate"} - self.model_fields_set
        return self.model_copy(update=dict.fromkeys(rates))

    @property
    def s3_virtual_host(self) -> bool:
        """Whether addresses name the bucket in their host."""
        if self.s3_style != "auto":
            return self.s3_style == "virtual"
        return self.s3_endpoint is None and self.s3_public_endpoint is None

    def require_database_url(self) -> str:
        """
        Return ``database_url``.

        Raises:
            ConfigurationError: It is not set.
        """
        if self.database_url is None:
            raise ConfigurationError(
                "DATABASE_URL is not set: give the URL of a Postgres database "
                "(postgresql://user:password@host:5432/database), or try `runcast dev`, "
                "which brings its own."
            )
        return self.database_url


def load_settings(**given: object) -> Settings:
    """
    Read the settings from the environment; what is given by name, such as a flag, wins.

    Raises:
        ConfigurationError: One line for each problem, naming the variable and what is allowed,
            never the value: it may be a secret.
    """
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]
    except ValidationError as error:
        problems = [_explain(each["loc"], each["msg"]) for each in error.errors()]
        # One value may break several rules; dict keeps the order and drops the doubles.
        raise ConfigurationError("\n".join(dict.fromkeys(problems))) from None


def unknown_variables(environ: Mapping[str, str]) -> dict[str, str | None]:
    """Return the ``RUNCAST_`` variables that nobody reads, each with the nearest known name."""
    known = {*OTHER_VARIABLES, *(name for names in _variables().values() for name in names)}
    unknown = sorted(
        name for name in environ if name.startswith(PREFIX) and name.upper() not in known
    )
    return {name: _nearest(name, known) for name in unknown}


def variables_of(field: str) -> tuple[str, ...]:
    """Return the environment variables of a field, the one that wins first."""
    return _variables()[field]


def allowed_values(name: str) -> str:
    """Say in words what a field may hold."""
    field = Settings.model_fields[name]
    if isinstance(field.json_schema_extra, dict):
        return str(field.json_schema_extra["allowed"])
    if get_origin(field.annotation) is Literal:
        return " or ".join(map(str, get_args(field.annotation)))
    low = next(rule.ge for rule in field.metadata if isinstance(rule, Ge))
    high = next(rule.le for rule in field.metadata if isinstance(rule, Le))
    kind = "a whole number" if field.annotation is int else "a number"
    return f"{kind} from {number_text(low)} to {number_text(high)}"


def number_text(value: object) -> str:
    """Write a number without a fraction that says nothing."""
    assert isinstance(value, int | float)
    return str(int(value)) if math.floor(value) == value else str(value)


def _explain(location: tuple[int | str, ...], message: str) -> str:
    if not location:
        return message
    name = str(location[0])
    field = next((each for each, names in _variables().items() if name in (each, *names)), None)
    assert field is not None, location
    variables = variables_of(field)
    # The one that was read: of several names the first that is set wins.
    variable = next((each for each in variables if os.environ.get(each)), variables[0])
    return f"{variable} is wrong; allowed: {allowed_values(field)}."


def _nearest(name: str, known: set[str]) -> str | None:
    # Without the prefix, which would make all names look alike.
    endings = {full.removeprefix(PREFIX): full for full in sorted(known)}
    found = difflib.get_close_matches(name.upper().removeprefix(PREFIX), endings, n=1)
    return endings[found[0]] if found else None


@functools.cache
def _variables() -> Mapping[str, tuple[str, ...]]:
    def named(name: str, field: FieldInfo) -> tuple[str, ...]:
        alias = field.validation_alias
        if isinstance(alias, AliasChoices):
            return tuple(str(choice) for choice in alias.choices)
        return (PREFIX + name.upper(),)

    return {name: named(name, field) for name, field in Settings.model_fields.items()}
