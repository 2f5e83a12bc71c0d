"""Migrations on a real Postgres: once each, in order, all or nothing, and never behind our back."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import asyncpg
import pytest

from runcast.postgres.migrate import (
    InvalidSchemaName,
    MigrationFailed,
    SchemaChanged,
    SchemaError,
    SchemaMissing,
    SchemaTooNew,
    load_migrations,
    migrate,
    status,
    verify_schema,
)

NOTES = "CREATE TABLE notes (id bigint GENERATED ALWAYS AS IDENTITY, text text);"
COUNT = """
CREATE FUNCTION count_notes() RETURNS bigint LANGUAGE sql STABLE
SET search_path = @schema@, pg_catalog AS $$ SELECT count(*) FROM notes $$;
INSERT INTO notes (text) VALUES ('from the migration');
"""

Write = Callable[..., Path]


@pytest.fixture
async def connection(empty_database_url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(empty_database_url)
    yield connection
    await connection.close()


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a directory of migrations from keyword arguments such as ``_0001_notes="…"``."""

    def write(**files: str) -> Path:
        for name, sql in files.items():
            (tmp_path / f"{name.removeprefix('_')}.sql").write_text(sql)
        return tmp_path

    return write


async def test_applies_all_in_order_once(connection: asyncpg.Connection, write: Write) -> None:
    directory = write(_0001_notes=NOTES, _0002_count=COUNT)
    applied = await migrate(connection, directory=directory)
    assert [migration.file_name for migration in applied] == ["0001_notes.sql", "0002_count.sql"]
    assert await connection.fetchval("SELECT runcast.count_notes()") == 1
    assert await migrate(connection, directory=directory) == []
    assert await connection.fetchval("SELECT runcast.count_notes()") == 1


async def test_applies_only_what_is_new(connection: asyncpg.Connection, write: Write) -> None:
    await migrate(connection, directory=write(_0001_notes=NOTES))
    applied = await migrate(connection, directory=write(_0002_count=COUNT))
    assert [migration.number for migration in applied] == [2]


async def test_eight_gateways_at_once_apply_each_migration_once(
    empty_database_url: str, write: Write
) -> None:
    directory = write(
        _0001_notes=NOTES, _0002_count=COUNT, _0003_more=COUNT.replace("FUN", "OR REPLACE FUN")
    )
    async with AsyncExitStack() as stack:
        connections = [await asyncpg.connect(empty_database_url) for _ in range(8)]
        for each in connections:
            stack.push_async_callback(each.close)
        results = await asyncio.gather(
            *(migrate(each, directory=directory) for each in connections)
        )
        assert sorted(one.number for result in results for one in result) == [1, 2, 3]
        assert await connections[0].fetchval("SELECT runcast.count_notes()") == 2


async def test_what_others_applied_is_seen_whatever_the_default_isolation(
    empty_database_url: str, write: Write
) -> None:
    directory = write(_0001_notes=NOTES, _0002_count=COUNT)
    async with AsyncExitStack() as stack:
        connections = [await asyncpg.connect(empty_database_url) for _ in range(4)]
        for each in connections:
            stack.push_async_callback(each.close)
            await each.execute("SET default_transaction_isolation = 'repeatable read'")
        results = await asyncio.gather(
            *(migrate(each, directory=directory) for each in connections)
        )
        assert sorted(one.number for result in results for one in result) == [1, 2]


async def test_waits_for_another_gateway_however_impatient_the_server_is(
    empty_database_url: str, write: Write
) -> None:
    directory = write(_0001_notes=NOTES + "SELECT pg_sleep(0.3);")
    impatient = {"statement_timeout": "100ms", "lock_timeout": "100ms"}
    async with AsyncExitStack() as stack:
        connections = [
            await asyncpg.connect(empty_database_url, server_settings=impatient) for _ in range(2)
        ]
        for each in connections:
            stack.push_async_callback(each.close)
        results = await asyncio.gather(
            *(migrate(each, directory=directory) for each in connections)
        )
        assert [one.number for result in results for one in result] == [1]


async def test_a_failing_migration_leaves_nothing_and_keeps_the_earlier(
    connection: asyncpg.Connection, write: Write
) -> None:
    bad = "CREATE TABLE half (id int);\n\nSELECT wrong FROM half;\n"
    directory = write(_0001_notes=NOTES, _0002_bad=bad, _0003_count=COUNT)
    with pytest.raises(MigrationFailed, match=r"0002_bad\.sql .* line 3: .*wrong") as failed:
        await migrate(connection, directory=directory)
    assert failed.value.code == "migration_failed"
    assert isinstance(failed.value.__cause__, asyncpg.UndefinedColumnError)
    assert await connection.fetchval("SELECT to_regclass('runcast.half')") is None
    found = await status(connection, directory=directory)
    assert [one.number for one in found.applied] == [1]
    assert [one.number for one in found.pending] == [2, 3]
    await migrate(connection, directory=write(_0002_bad="CREATE TABLE half (id int);"))
    assert await connection.fetchval("SELECT runcast.count_notes()") == 1


async def test_a_first_migration_that_fails_leaves_no_schema(
    connection: asyncpg.Connection, write: Write
) -> None:
    with pytest.raises(MigrationFailed, match="0001_bad"):
        await migrate(connection, directory=write(_0001_bad="SELECT 1/0;"))
    assert await connection.fetchval("SELECT to_regnamespace('runcast')") is None


async def test_what_would_only_fail_at_commit_names_its_file_too(
    connection: asyncpg.Connection, write: Write
) -> None:
    deferred = """
    CREATE TABLE parent (id int PRIMARY KEY);
    CREATE TABLE child (id int REFERENCES parent DEFERRABLE INITIALLY DEFERRED);
    INSERT INTO child VALUES (1);
    """
    with pytest.raises(MigrationFailed, match="0001_deferred"):
        await migrate(connection, directory=write(_0001_deferred=deferred))


async def test_a_lost_connection_is_an_error_of_ours(
    connection: asyncpg.Connection, write: Write
) -> None:
    directory = write(_0001_end="SELECT pg_terminate_backend(pg_backend_pid());")
    with pytest.raises(MigrationFailed) as lost:
        await migrate(connection, directory=directory)
    assert lost.value.__cause__ is not None
    with pytest.raises(MigrationFailed):
        await status(connection, directory=directory)


async def test_a_database_newer_than_the_code_is_refused(
    connection: asyncpg.Connection, write: Write
) -> None:
    directory = write(_0001_notes=NOTES, _0002_count=COUNT)
    await migrate(connection, directory=directory)
    (directory / "0002_count.sql").unlink()
    for call in (migrate, status, verify_schema):
        with pytest.raises(SchemaTooNew, match=r"0002_count.*upgrade runcast") as refused:
            await call(connection, directory=directory)
        assert refused.value.code == "schema_too_new"


async def test_a_changed_migration_is_refused(connection: asyncpg.Connection, write: Write) -> None:
    await migrate(connection, directory=write(_0001_notes=NOTES))
    changed = write(_0001_notes=NOTES + "\n-- edited", _0002_count=COUNT)
    with pytest.raises(SchemaChanged, match=r"0001_notes\.sql.*restore the file") as refused:
        await migrate(connection, directory=changed)
    assert refused.value.code == "schema_changed"
    assert await connection.fetchval("SELECT to_regproc('runcast.count_notes')") is None


async def test_line_ends_are_no_change(connection: asyncpg.Connection, write: Write) -> None:
    directory = write(_0001_notes="SELECT 1;\nSELECT 2;\n")
    await migrate(connection, directory=directory)
    (directory / "0001_notes.sql").write_bytes(b"SELECT 1;\r\nSELECT 2;\r\n")
    await verify_schema(connection, directory=directory)


async def test_an_empty_database_is_told_what_to_run(
    connection: asyncpg.Connection, write: Write
) -> None:
    directory = write(_0001_notes=NOTES)
    with pytest.raises(SchemaMissing, match="runcast migrate") as refused:
        await verify_schema(connection, directory=directory)
    assert refused.value.code == "schema_missing"
    await migrate(connection, directory=directory)
    await verify_schema(connection, directory=directory)


async def test_two_schemas_live_in_one_database(
    connection: asyncpg.Connection, write: Write
) -> None:
    directory = write(_0001_notes=NOTES, _0002_count=COUNT)
    await migrate(connection, directory=directory)
    await migrate(connection, schema="other", directory=directory)
    await connection.execute("INSERT INTO other.notes (text) VALUES ('one more')")
    assert await connection.fetchval("SELECT runcast.count_notes()") == 1
    assert await connection.fetchval("SELECT other.count_notes()") == 2


async def test_a_role_that_may_only_read_can_verify_and_find_nothing_to_do(
    connection: asyncpg.Connection, write: Write
) -> None:
    directory = write(_0001_notes=NOTES)
    await migrate(connection, directory=directory)
    role = f"reader_{await connection.fetchval('SELECT current_database()')}"
    await connection.execute(f"CREATE ROLE {role}")
    try:
        await connection.execute(f"GRANT USAGE ON SCHEMA runcast TO {role}")
        await connection.execute(f"GRANT SELECT ON runcast.migrations TO {role}")
        await connection.execute(f"SET ROLE {role}")
        await verify_schema(connection, directory=directory)
        assert await migrate(connection, directory=directory) == []
        with pytest.raises(MigrationFailed, match="permission denied"):
            await migrate(connection, schema="forbidden", directory=directory)
    finally:
        await connection.execute(f"RESET ROLE; DROP OWNED BY {role}; DROP ROLE {role}")


async def test_the_schema_may_be_made_beforehand_for_a_role_that_may_not(
    connection: asyncpg.Connection, write: Write
) -> None:
    role = f"owner_{await connection.fetchval('SELECT current_database()')}"
    await connection.execute(f"CREATE ROLE {role}")
    try:
        await connection.execute(f"CREATE SCHEMA runcast AUTHORIZATION {role}; SET ROLE {role}")
        assert len(await migrate(connection, directory=write(_0001_notes=NOTES))) == 1
    finally:
        await connection.execute(f"RESET ROLE; DROP OWNED BY {role} CASCADE; DROP ROLE {role}")


@pytest.mark.parametrize(
    "name",
    ["", "pg_mine", "information_schema", "Upper", "1st", "a-b", 'a"b', "a" * 64, "ä", "a\n"],
)
async def test_schema_names_that_would_be_trouble_are_refused(
    connection: asyncpg.Connection, name: str
) -> None:
    with pytest.raises(InvalidSchemaName) as refused:
        await migrate(connection, schema=name)
    assert refused.value.code == "invalid_schema_name"


@pytest.mark.parametrize(
    "names", [["0001_a", "0003_c"], ["0001_a", "0001_b"], ["0002_b"], ["1_a"], ["0001-a"]]
)
def test_files_that_are_not_numbered_without_gaps_are_refused(
    names: list[str], write: Write
) -> None:
    with pytest.raises(SchemaError):
        load_migrations(write(**dict.fromkeys(names, "SELECT 1;")))


async def test_the_real_migrations_apply_and_verify(connection: asyncpg.Connection) -> None:
    files = await asyncio.to_thread(load_migrations)
    assert await migrate(connection) == list(files)
    await verify_schema(connection)
    await migrate(connection, schema="second")
    await verify_schema(connection, schema="second")


async def test_the_fixture_gives_a_migrated_database(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    await verify_schema(connection)
    await connection.close()
