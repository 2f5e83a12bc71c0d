"""The bucket: addresses that the store checks, whose keys are used, what is said of problems."""

import os
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from runcast.app import object_store
from runcast.errors import BackendError, ConfigurationError
from runcast.objects.local import LocalObjectStore
from runcast.objects.s3 import Bucket, S3ObjectStore
from runcast.settings import Settings
from tests.support.s3 import S3Server

NOW = 1_800_000_000.0


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(trust_env=False) as client:
        yield client


async def address(store: S3ObjectStore, use: str = "GET", name: str = "x", now: float = NOW) -> str:
    given = await store.address(use, "env_a", name, now=now)  # type: ignore[arg-type]
    assert given is not None
    return given


async def pieces(content: bytes) -> AsyncIterator[bytes]:
    yield content


async def write(store: S3ObjectStore, content: bytes = b"1", name: str = "x") -> None:
    await store.write("env_a", name, "text/plain", pieces(content))


async def test_an_address_is_good_for_one_use_of_one_object(
    bucket: Bucket, client: httpx.AsyncClient
) -> None:
    store = S3ObjectStore(bucket)
    put, get = await address(store, "PUT"), await address(store)
    stored = await client.put(put, content=b"ab", headers={"content-type": "application/json"})
    assert stored.status_code == 200
    found = await client.get(get)
    assert (found.content, found.headers["content-type"]) == (b"ab", "application/json")
    other = urlsplit(await address(store, name="y"))
    for method, url in (
        ("PUT", get),
        ("GET", put),
        ("DELETE", put),
        ("GET", urlsplit(get)._replace(path=other.path).geturl()),
        ("GET", urlsplit(get)._replace(query="").geturl()),
        ("GET", get.replace("X-Amz-Expires=1200", "X-Amz-Expires=9999")),
    ):
        assert (await client.request(method, url)).status_code == 403, (method, url)


async def test_an_address_stays_the_same_for_a_while(bucket: Bucket) -> None:
    store = S3ObjectStore(bucket)
    given = await address(store)
    assert parse_qs(urlsplit(given).query)["X-Amz-Expires"] == ["1200"]
    assert await address(store, now=NOW + 299) is given
    assert await address(store, now=NOW + 300) is not given
    assert await address(store, "PUT") != await address(store)


async def test_clients_may_reach_the_store_under_another_name(
    bucket: Bucket, client: httpx.AsyncClient
) -> None:
    assert bucket.endpoint
    public = bucket.endpoint.replace("127.0.0.1", "localhost")
    store = S3ObjectStore(replace(bucket, public_endpoint=public))
    await write(store, b"ab")
    given = await address(store)
    assert given.startswith(public)
    assert (await client.get(given)).content == b"ab"
    assert (await client.get(given.replace("localhost", "127.0.0.1"))).status_code == 403


@pytest.mark.parametrize(
    ("bucket", "start"),
    [
        (Bucket(name="b.c"), "https://s3.us-east-1.amazonaws.com/b.c/"),
        (Bucket(name="b", region="eu-west-1"), "https://s3.eu-west-1.amazonaws.com/b/"),
        (Bucket(name="b", virtual_host=True), "https://b.s3.us-east-1.amazonaws.com/"),
        (Bucket(name="b", endpoint="https://s3.example:9/"), "https://s3.example:9/b/"),
        (Bucket(name="b", endpoint="https://x.example/storage/v1/s3"),
         "https://x.example/storage/v1/s3/b/"),
        (Bucket(name="b", endpoint="https://s3.example:9", virtual_host=True),
         "https://b.s3.example:9/"),
        (Bucket(name="b", public_endpoint="https://files.example", prefix="a/b/"),
         "https://files.example/b/a/b/"),
    ],
)  # fmt: skip
async def test_the_bucket_is_named_by_the_path_or_by_the_host(bucket: Bucket, start: str) -> None:
    keys = replace(bucket, access_key_id="key", secret_access_key="secret")
    given = await address(S3ObjectStore(keys))
    path = given.removeprefix(start).partition("?")[0]
    assert len(path) == 64, given
    assert "secret" not in given


async def test_a_prefix_keeps_objects_apart(bucket: Bucket, s3_server: S3Server) -> None:
    store = S3ObjectStore(replace(bucket, prefix="runcast/"))
    await write(store)
    assert (s3_server.folder / bucket.name / "runcast").is_dir()
    async with S3ObjectStore(bucket).open("env_a", "x") as found:
        assert found is None


async def test_keys_and_place_come_from_the_environment(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, client: httpx.AsyncClient
) -> None:
    assert bucket.access_key_id
    assert bucket.secret_access_key
    assert bucket.endpoint
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", bucket.access_key_id)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", bucket.secret_access_key)
    monkeypatch.setenv("AWS_ENDPOINT_URL", bucket.endpoint)
    store = S3ObjectStore(Bucket(name=bucket.name))
    await write(store, b"ab")
    assert (await client.get(await address(store))).content == b"ab"


async def test_settings_win_over_the_environment(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "other")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "other")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "other")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_REGION", "other-1")
    store = S3ObjectStore(bucket)
    await write(store)
    assert "Security-Token" not in await address(store)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"secret_access_key": "wr0ng"}, "S3 credentials"),
        ({"access_key_id": "wr0ng"}, "S3 credentials"),
        ({"name": "no-such-bucket"}, "RUNCAST_S3_BUCKET"),
    ],
)
async def test_what_is_wrong_is_said_without_secrets(
    bucket: Bucket, change: dict[str, str], named: str
) -> None:
    wrong = replace(bucket, **change)  # type: ignore[arg-type]
    store = S3ObjectStore(wrong)
    for act in (write(store), store.open("env_a", "x").__aenter__(), store.delete("env_a", "x")):
        with pytest.raises(BackendError, match=named) as caught:
            await act
        assert "wr0ng" not in caught.value.message
        assert str(wrong.secret_access_key) not in repr(wrong) + str(caught.value.__cause__)


def settings(**given: object) -> Settings:
    return Settings(database_url="postgresql://x", **given)  # type: ignore[arg-type]


def test_settings_choose_the_store() -> None:
    assert isinstance(object_store(settings()), LocalObjectStore)
    assert isinstance(object_store(settings(s3_bucket="bucket")), S3ObjectStore)


async def test_addresses_of_the_gateway_can_be_chosen(bucket: Bucket) -> None:
    store = S3ObjectStore(replace(bucket, direct=False))
    assert await store.address("GET", "env_a", "x", now=NOW) is None


def test_what_needs_an_extra_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)
    monkeypatch.delitem(sys.modules, "runcast.objects.s3")
    with pytest.raises(ConfigurationError, match=r"runcast\[s3\]"):
        object_store(settings(s3_bucket="bucket"))
