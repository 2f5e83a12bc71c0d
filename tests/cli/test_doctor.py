"""`runcast doctor`: finds what is wrong, and says what to do about it."""

import asyncio
import itertools
import re
import secrets
import socket
from urllib.parse import urlsplit

import pytest
from redis.asyncio import Redis

from runcast.app import object_store  # noqa: F401 - blocks, so loaded before there is a loop
from runcast.cli.clock import now
from runcast.cli.database_checks import check_database
from runcast.cli.finding import Level
from runcast.cli.object_checks import check_objects
from runcast.cli.redis_checks import check_redis
from runcast.cli.settings_page import settings_page
from runcast.objects.s3 import Bucket
from runcast.settings import load_settings
from tests.cli.command_line import CommandLine, Ready
from tests.cli.pooler import transaction_pooler
from tests.support.postgres import execute
from tests.support.redis import RestartableRedis
from tests.support.s3 import S3Server


@pytest.fixture
def runcast(command_line: CommandLine) -> CommandLine:
    return command_line.having(RUNCAST_PORT="0")


def test_all_is_well_with_a_migrated_database(runcast: CommandLine, database_url: str) -> None:
    examined = runcast.having(DATABASE_URL=database_url).run("doctor")
    assert examined.returncode == 0
    assert examined.stdout.splitlines()[-1] == "nothing is wrong"
    for topic in ("versions", "settings", "port", "database", "writing", "clock", "LISTEN"):
        assert f"ok  {topic}: " in examined.stdout
    assert "ok  schema: runcast is up to date" in examined.stdout
    assert "ok  permissions: " in examined.stdout


def test_it_works_without_a_database(runcast: CommandLine) -> None:
    examined = runcast.run("doctor")
    assert examined.returncode == 0
    assert "DATABASE_URL is not set" in examined.stdout
    assert "runcast dev" in examined.stdout


def test_no_database_and_no_binaries_is_a_problem(runcast: CommandLine) -> None:
    examined = runcast.having(RUNCAST_PG_BIN="/nowhere").run("doctor")
    assert examined.returncode == 1
    assert "set it to the bin folder of a Postgres server" in examined.stdout


def test_an_unreachable_database_is_a_problem(runcast: CommandLine) -> None:
    url = "postgresql://somebody:hidden@127.0.0.1:1/db"
    examined = runcast.having(DATABASE_URL=url).run("doctor")
    assert examined.returncode == 1
    assert "BAD  database: The database of DATABASE_URL cannot be reached" in examined.stdout
    assert "Start the server or correct DATABASE_URL" in examined.stdout
    assert examined.stdout.splitlines()[-1] == "1 problem"
    assert "hidden" not in examined.stdout + examined.stderr


def test_wrong_and_unknown_settings_are_named(runcast: CommandLine) -> None:
    examined = runcast.having(RUNCAST_PROT="1", RUNCAST_LOG_LEVEL="loud").run("doctor")
    assert examined.returncode == 1
    assert "note  settings: nothing reads RUNCAST_PROT" in examined.stdout
    assert "→ Did you mean RUNCAST_PORT?" in examined.stdout
    assert "BAD  settings: RUNCAST_LOG_LEVEL is wrong" in examined.stdout


def test_an_unmigrated_database_is_a_problem(runcast: CommandLine, empty_database_url: str) -> None:
    examined = runcast.having(DATABASE_URL=empty_database_url).run("doctor")
    assert examined.returncode == 1
    assert "BAD  schema: runcast is not there yet" in examined.stdout
    assert "→ Run `runcast migrate`." in examined.stdout


def test_a_database_of_a_newer_version_is_a_problem(
    runcast: CommandLine, database_url: str
) -> None:
    execute(
        database_url,
        "INSERT INTO runcast.migrations (number, name, checksum) VALUES (9999, 'later', '')",
    )
    examined = runcast.having(DATABASE_URL=database_url).run("doctor")
    assert examined.returncode == 1
    assert "upgrade runcast" in examined.stdout


async def test_the_connections_of_all_workers_are_counted(database_url: str) -> None:
    said = {}
    for workers in (1, 100):
        settings = load_settings(database_url=database_url, workers=workers)
        async for finding in check_database(settings, now):
            if finding.topic == "connections":
                said[workers] = finding
    assert said[1].level is Level.FINE
    assert said[1].text.endswith("a gateway takes up to 13")
    assert said[100].level is Level.NOTE
    assert "100 workers" in said[100].text
    assert said[100].remedy.startswith("That is 1313. Lower RUNCAST_WORKERS, or")


def test_missing_permissions_are_named(runcast: CommandLine, database_url: str) -> None:
    role = f"guest_{secrets.token_hex(4)}"
    execute(database_url, f"CREATE ROLE {role} LOGIN")
    try:
        execute(database_url, f"GRANT USAGE ON SCHEMA runcast TO {role}")
        execute(database_url, f"GRANT SELECT ON ALL TABLES IN SCHEMA runcast TO {role}")
        parts = urlsplit(database_url)
        url = parts._replace(netloc=f"{role}@").geturl()
        examined = runcast.having(DATABASE_URL=url).run("doctor")
        assert examined.returncode == 1
        assert f"BAD  permissions: {role} lacks INSERT on runs, UPDATE on runs" in examined.stdout
        assert "UPDATE on sequence bell" in examined.stdout
        assert f'GRANT ALL ON ALL TABLES IN SCHEMA "runcast" TO "{role}"' in examined.stdout
    finally:
        execute(database_url, f"DROP OWNED BY {role}")
        execute(database_url, f"DROP ROLE {role}")


async def test_a_pooler_in_transaction_mode_is_recognized(
    runcast: CommandLine, database_url: str
) -> None:
    async with transaction_pooler(database_url) as url:
        pooled = runcast.having(DATABASE_URL=url)
        examined = await asyncio.to_thread(pooled.run, "doctor")
    assert examined.returncode == 1
    assert "a pooler stands in between, and a notification did not arrive" in examined.stdout
    assert "transaction mode" in examined.stdout


def test_a_port_in_use_is_a_problem(command_line: CommandLine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        # Says nothing that a gateway would say, and nothing at all.
        examined = command_line.having(RUNCAST_PORT=str(port)).run("doctor")
    assert examined.returncode == 1
    assert f"BAD  port: 127.0.0.1:{port} cannot be listened on" in examined.stdout


def test_a_running_gateway_may_have_the_port(command_line: CommandLine, gateway: Ready) -> None:
    port = gateway.url.rpartition(":")[2]
    examined = command_line.having(RUNCAST_PORT=port).run("doctor")
    assert examined.returncode == 0
    assert f"ok  port: a gateway runs on 127.0.0.1:{port} already" in examined.stdout


def test_the_settings_can_be_printed(runcast: CommandLine) -> None:
    assert runcast.run("doctor", "--settings").stdout == settings_page()


def test_a_bucket_is_tried(runcast: CommandLine, database_url: str, s3_server: S3Server) -> None:
    bucket = s3_server.create_bucket()
    examined = runcast.having(
        DATABASE_URL=database_url,
        **{f"RUNCAST_{name.upper()}": str(value) for name, value in of_bucket(bucket).items()},
    ).run("doctor")
    assert examined.returncode == 0, examined.stdout
    assert f"ok  objects: the bucket {bucket.name} can be" in examined.stdout
    assert "ok  addresses: 127.0.0.1:" in examined.stdout
    assert s3_server.files(bucket) == []


def test_redis_is_examined(
    runcast: CommandLine, database_url: str, restartable_redis: RestartableRedis
) -> None:
    examined = runcast.having(DATABASE_URL=database_url, REDIS_URL=restartable_redis.url)
    said = examined.run("doctor")
    assert said.returncode == 0, said.stdout
    assert re.search(r"ok  redis: (Redis|Valkey) \d+\.\d", said.stdout)
    assert "ok  redis memory: " in said.stdout
    assert "ok  redis disk: what was acknowledged survives a crash" in said.stdout


@pytest.mark.parametrize(
    ("setting", "level", "said"),
    [
        ({"appendfsync": "everysec"}, Level.NOTE, "a crash loses the last second"),
        ({"appendonly": "no"}, Level.NOTE, "a restart loses all streams"),
        ({"appendonly": "no", "save": "60 1"}, Level.NOTE, "after the last snapshot"),
        ({"maxmemory-policy": "allkeys-lru"}, Level.BAD, "it evicts keys (allkeys-lru)"),
    ],
)
async def test_what_redis_would_lose_is_said(
    restartable_redis: RestartableRedis, setting: dict[str, str], level: Level, said: str
) -> None:
    async with Redis.from_url(restartable_redis.url) as redis:
        await redis.config_set(*itertools.chain(*setting.items()))
    settings = load_settings(redis_url=restartable_redis.url)
    [finding] = [each async for each in check_redis(settings) if each.level is not Level.FINE]
    assert (finding.level, said in finding.text) == (level, True), finding
    assert finding.remedy


async def test_a_redis_that_tells_nothing_of_itself_is_fine(
    restartable_redis: RestartableRedis,
) -> None:
    async with Redis.from_url(restartable_redis.url) as redis:
        await redis.acl_setuser(
            "some", enabled=True, passwords=["+s3cret"], categories=["+@all"], commands=["-config"]
        )
    url = restartable_redis.url.replace("redis://", "redis://some:s3cret@")
    found = [each async for each in check_redis(load_settings(redis_url=url))]
    assert [each.level for each in found] == [Level.FINE, Level.FINE, Level.NOTE]
    assert "s3cret" not in str(found)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("redis://somebody:hidden@127.0.0.1:{port}", "Redis refuses the gateway"),
        ("redis://:hidden@127.0.0.1:1", "Redis does not answer"),
        ("redis+cluster://:hidden@127.0.0.1:1", "Redis does not answer"),
        ("redis+cluster://127.0.0.1:{port}/?password=hidden", "Redis does not answer"),
        ("redis+sentinel://hidden@127.0.0.1:1/service", "Redis does not answer"),
    ],
)
async def test_a_redis_that_cannot_be_used_is_found(
    restartable_redis: RestartableRedis, url: str, said: str
) -> None:
    settings = load_settings(redis_url=url.format(port=restartable_redis.port))
    [finding] = [each async for each in check_redis(settings)]
    assert finding.level is Level.BAD
    assert said in finding.text
    assert "hidden" not in str(finding)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"s3_bucket": "no-such-bucket"}, "no such bucket"),
        ({"s3_secret_access_key": "wr0ng"}, "refuses this gateway"),
        ({"s3_endpoint": "http://127.0.0.1:1"}, "does not answer"),
        ({"s3_public_endpoint": "http://127.0.0.1:1"}, "127.0.0.1:1 cannot be reached from here"),
    ],
)
async def test_a_bucket_that_cannot_be_used_is_found(
    bucket: Bucket, change: dict[str, str], said: str
) -> None:
    settings = load_settings(**(of_bucket(bucket) | change))
    findings = [finding async for finding in check_objects(settings, 1e9)]
    assert said in findings[0].text
    assert "wr0ng" not in str(findings)
    is_note = "s3_public_endpoint" in change
    assert findings[0].level is (Level.NOTE if is_note else Level.BAD)


def of_bucket(bucket: Bucket) -> dict[str, object]:
    """The settings of a gateway that uses it."""
    return {
        "s3_bucket": bucket.name,
        "s3_endpoint": bucket.endpoint,
        "s3_region": bucket.region,
        "s3_access_key_id": bucket.access_key_id,
        "s3_secret_access_key": bucket.secret_access_key,
    }
