"""Deleting what is old: all of it, also where more came than one step deletes."""

from typing import TYPE_CHECKING

import pytest

from runcast.postgres.database import Database
from tests.support.gateway import janitor

if TYPE_CHECKING:
    import asyncpg

MANY = 5_001


@pytest.mark.parametrize(
    ("table", "old"),
    [
        (
            "spent_tokens",
            "(environment_id, token, spent_at) SELECT 'env_a', n, now() - interval '40 days'",
        ),
        (
            "answered_requests",
            "(environment_id, request, answer_id, good_until)"
            " SELECT 'env_a', n, n, now() - interval '40 days'",
        ),
        (
            "revocations",
            "(environment_id, kind, value, kept_until)"
            " SELECT 'env_a', 'token', n, now() - interval '1 day'",
        ),
        ("waitpoints", "(environment_id, completed_at) SELECT 'env_a', now() - interval '40 days'"),
        (
            "rate_limits",
            "(bucket, full_at, missing, drawn) SELECT n::bytea, now() - interval '40 days', 1, 1",
        ),
    ],
    ids=["tokens", "answers", "revocations", "waitpoints", "rate limits"],
)
async def test_no_kind_grows_faster_than_it_is_deleted(
    sql: "asyncpg.Connection[asyncpg.Record]", database: Database, table: str, old: str
) -> None:
    numbers = f"FROM (SELECT n::text FROM generate_series(1, {MANY}) AS n) AS numbers"
    await sql.execute(f"INSERT INTO {table} {old} {numbers}")
    await janitor(database).clean()
    assert await sql.fetchval(f"SELECT count(*) FROM {table}") == 0


async def test_nor_do_departures_and_streams(
    sql: "asyncpg.Connection[asyncpg.Record]", database: Database
) -> None:
    await sql.execute(
        f"""INSERT INTO runs (id, environment_id, task)
        SELECT 'run_' || n, 'env_a', 't' FROM generate_series(1, {MANY}) AS n"""
    )
    await sql.execute("INSERT INTO streams (run_id, key) SELECT id, 'k' FROM runs LIMIT 101")
    await sql.execute("ALTER TABLE streams DISABLE TRIGGER USER")  # it says when they changed
    await sql.execute("UPDATE streams SET updated_at = now() - interval '1 day'")
    await janitor(database).clean()
    assert await sql.fetchval("SELECT count(*) FROM streams") == 0
    await sql.execute("DELETE FROM runs")
    await sql.execute("UPDATE departures SET departed_at = now() - interval '8 days'")
    await sql.execute("INSERT INTO following (system_identifier, database_oid) VALUES (1, 1)")
    newest = await sql.fetchval("SELECT changed_in FROM departures ORDER BY 1 DESC LIMIT 1")
    await janitor(database).clean()
    assert await sql.fetchval("SELECT count(*) FROM departures") == 0
    assert await sql.fetchval("SELECT horizon FROM following") == newest
