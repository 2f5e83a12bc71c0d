"""Environments and keys on a real Postgres: who a key is, and what rotation leaves of it."""

import re

import asyncpg
import pytest

from runcast.errors import InvalidParameter, NotFound, Unprocessable
from runcast.postgres.database import Database
from runcast.postgres.key_store import PostgresKeyStore

ADDITIONAL_KEY = "tr_dev_sk_" + "a" * 24


@pytest.fixture
def keys(database: Database) -> PostgresKeyStore:
    return PostgresKeyStore(database)


async def test_a_new_environment_has_one_key_that_signs_and_authenticates(
    keys: PostgresKeyStore,
) -> None:
    environment_id, key = await keys.create_environment("prod", "Production")
    assert re.fullmatch(r"tr_prod_[0-9A-Za-z]{32,}", key)
    assert not re.fullmatch(r"tr_(dev|stg|prod|preview)_sk_[0-9a-zA-Z]{24}", key)
    assert await keys.read_environment_id(key) == environment_id
    ring = await keys.read_key_ring(environment_id)
    assert ring is not None
    assert ring.environment_id == environment_id
    assert ring.signing_key(0).secret == key
    (environment,) = await keys.list_environments()
    assert (environment.id, environment.slug, environment.name) == (
        environment_id, "prod", "Production",
    )  # fmt: skip


async def test_a_given_key_is_used(keys: PostgresKeyStore) -> None:
    environment_id, key = await keys.create_environment("dev", "Dev", "tr_dev_0123456789abcdefgh")
    assert key == "tr_dev_0123456789abcdefgh"
    assert await keys.read_environment_id(key) == environment_id


async def test_rotation_with_grace(keys: PostgresKeyStore, database: Database) -> None:
    environment_id, first = await keys.create_environment("dev", "Dev")
    second = await keys.rotate_key(environment_id, 3600)
    assert first != second
    assert await keys.read_environment_id(first) == environment_id
    assert await keys.read_environment_id(second) == environment_id
    ring = await keys.read_key_ring(environment_id)
    assert ring is not None
    assert [key.secret for key in ring.keys] == [second, first]
    end = ring.keys[1].expires_at
    assert end is not None
    (row,) = await database.fetch("SELECT extract(epoch FROM now())::float AS now")
    assert 3500 < end - row["now"] <= 3600
    assert [key.secret for key in ring.usable_keys(end)] == [second]
    # A later rotation does not prolong what was retired before, and no grace ends at once.
    third = await keys.rotate_key(environment_id, 0)
    assert await keys.read_environment_id(second) is None
    ring = await keys.read_key_ring(environment_id)
    assert ring is not None
    assert {key.secret: key.expires_at for key in ring.keys}[first] == end
    assert ring.signing_key(end - 1000).secret == third


async def test_an_additional_key_authenticates_but_never_signs(
    keys: PostgresKeyStore, database: Database
) -> None:
    environment_id, root = await keys.create_environment("dev", "Dev")
    await database.fetch(
        "INSERT INTO @schema@.environment_keys (key, environment_id) VALUES ($1, $2)",
        ADDITIONAL_KEY,
        environment_id,
    )
    assert await keys.read_environment_id(ADDITIONAL_KEY) == environment_id
    ring = await keys.read_key_ring(environment_id)
    assert ring is not None
    assert [key.secret for key in ring.keys] == [root]
    await keys.rotate_key(environment_id, 0)
    assert await keys.read_environment_id(ADDITIONAL_KEY) == environment_id


async def test_nobody(keys: PostgresKeyStore) -> None:
    assert await keys.read_key_ring("env_nobody") is None
    for key in ("tr_dev_unknown_0123456789", "", "a\0b" * 10, "\ud800" * 20, "x" * 10_000):
        assert await keys.read_environment_id(key) is None
    with pytest.raises(NotFound):
        await keys.rotate_key("env_nobody", 0)


async def test_an_environment_without_keys_has_an_empty_ring(
    keys: PostgresKeyStore, sql: asyncpg.Connection
) -> None:
    ring = await keys.read_key_ring("env_a")
    assert ring is not None
    assert ring.keys == ()


async def test_slugs_and_keys_are_taken_once(keys: PostgresKeyStore) -> None:
    _, key = await keys.create_environment("dev", "Dev")
    with pytest.raises(Unprocessable, match="slug"):
        await keys.create_environment("dev", "Again")
    with pytest.raises(Unprocessable, match="key") as caught:
        await keys.create_environment("other", "Other", key)
    assert key not in caught.value.message
    assert [each.slug for each in await keys.list_environments()] == ["dev"]


@pytest.mark.parametrize(
    ("slug", "name", "key"),
    [
        ("", "n", None), ("Dev", "n", None), ("-dev", "n", None), ("d" * 64, "n", None),
        ("d_v", "n", None), ("dev\n", "n", None), ("dev", "", None), ("dev", "n" * 201, None),
        ("dev", "n", "short"), ("dev", "n", "with spaces in it, many"),
        ("dev", "n", ADDITIONAL_KEY),
    ],
)  # fmt: skip
async def test_bad_values_are_refused(
    keys: PostgresKeyStore, slug: str, name: str, key: str | None
) -> None:
    with pytest.raises(InvalidParameter):
        await keys.create_environment(slug, name, key)
    assert await keys.list_environments() == []


@pytest.mark.parametrize("grace", [-1, 10**9, float("nan"), float("inf")])
async def test_bad_graces_are_refused(keys: PostgresKeyStore, grace: float) -> None:
    environment_id, key = await keys.create_environment("dev", "Dev")
    with pytest.raises(InvalidParameter):
        await keys.rotate_key(environment_id, grace)
    assert await keys.read_environment_id(key) == environment_id


async def test_a_key_that_plain_sql_stored_is_checked(sql: asyncpg.Connection) -> None:
    """One malformed key would break the ring of its environment."""
    for key in ("short", "ümläut" * 5, "with spaces in it, many", "x" * 257):
        with pytest.raises(asyncpg.CheckViolationError):
            await sql.execute("INSERT INTO environment_keys VALUES ($1, 'env_a')", key)
