"""
Objects in a bucket of an S3-compatible store, which clients reach with addresses that it checks.

An object's key is a hash of its name, as in the local store. All of S3 is spoken by `obstore`.
"""

from collections.abc import AsyncIterable, AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError
from obstore.store import S3Store

from runcast.core.object_name import object_digest
from runcast.errors import BackendError
from runcast.ports import ObjectStore, StoredObject, Use

if TYPE_CHECKING:
    from obstore.store import S3Config, S3Credential

_DEFAULT_TYPE = "application/octet-stream"
_PIECE_BYTES = 256 * 1024
# What is larger goes in parts of this size, two at a time.
_PART_BYTES = 8 * 1024 * 1024
_PARTS_AT_ONCE = 2

# An address is good for at least the difference.
_GOOD: Final = timedelta(seconds=1200)
_STEP_SECONDS = 300
_MAX_ADDRESSES = 10_000

_CONNECT_TIMEOUT = "5s"
_READ_TIMEOUT = "15s"  # of each read
_TIMEOUT = "1h"  # of all of an object, as fast as a client takes it
_RETRIES = 2
_RETRY_TIMEOUT = timedelta(seconds=10)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """
    Where a bucket is and who may use it.

    Args:
        endpoint: URL of the store; None is Amazon's in the region, or what AWS_ENDPOINT_URL says.
        public_endpoint: URL under which clients reach the store, if it is another one.
        virtual_host: Whether the bucket is named by the host, not by the path.
        prefix: What all keys begin with.
        access_key_id: With its secret; None asks the AWS_ variables, then the machine's own role.
        direct: Whether clients get addresses of the store, or go through the gateway.
    """

    name: str
    endpoint: str | None = None
    public_endpoint: str | None = None
    region: str | None = None
    virtual_host: bool = False
    prefix: str = ""
    access_key_id: str | None = None
    secret_access_key: str | None = field(default=None, repr=False)
    direct: bool = True


class S3ObjectStore(ObjectStore):
    """The store makes writes atomic: whoever reads gets the older object or the new one, whole."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._store = _connect(bucket, bucket.endpoint)
        public = bucket.public_endpoint
        self._signer = self._store if public is None else _connect(bucket, public)
        self._addresses: dict[tuple[Use, str], str] = {}
        self._addresses_of: int | None = None

    async def write(
        self, environment_id: str, name: str, content_type: str, pieces: AsyncIterable[bytes]
    ) -> None:
        """
        Store an object, or put it in the place of an older one; all of it or nothing.

        Raises:
            BackendError: The store is away or refuses.
        """
        rest = aiter(pieces)
        head = bytearray()
        more = False
        async for piece in rest:
            head += piece
            if more := len(head) >= _PART_BYTES:
                break
        with _translated():
            await obstore.put_async(
                self._store,
                self._key(environment_id, name),
                _joined(bytes(head), rest) if more else bytes(head),
                attributes={"Content-Type": content_type},
                use_multipart=more,
                chunk_size=_PART_BYTES,
                max_concurrency=_PARTS_AT_ONCE,
            )

    @asynccontextmanager
    async def open(self, environment_id: str, name: str) -> AsyncIterator[StoredObject | None]:
        """
        Read an object while the context lasts; None where there is none of this name.

        Raises:
            BackendError: The store is away or refuses.
        """
        try:
            with _translated():
                found = await obstore.get_async(self._store, self._key(environment_id, name))
        except _NothingThere:
            yield None
            return
        kind = found.attributes.get("Content-Type", _DEFAULT_TYPE)
        yield StoredObject(kind, found.meta["size"], _pieces(found.stream(_PIECE_BYTES)))

    async def delete(self, environment_id: str, name: str) -> None:
        """
        Delete an object; that there is none is fine.

        Raises:
            BackendError: The store is away or refuses.
        """
        try:
            with _translated():
                await obstore.delete_async(self._store, self._key(environment_id, name))
        except _NothingThere:
            pass

    async def address(self, use: Use, environment_id: str, name: str, *, now: float) -> str | None:
        """
        Sign an address for a client; None where all go through the gateway.

        Raises:
            BackendError: There are no credentials to sign with.
        """
        if not self._bucket.direct:
            return None
        step = int(now) // _STEP_SECONDS
        if step != self._addresses_of or len(self._addresses) >= _MAX_ADDRESSES:
            self._addresses, self._addresses_of = {}, step
        key = self._key(environment_id, name)
        address = self._addresses.get((use, key))
        if address is None:
            with _translated():
                address = await obstore.sign_async(self._signer, use, key, _GOOD)
            self._addresses[use, key] = address
        return address

    def _key(self, environment_id: str, name: str) -> str:
        return self._bucket.prefix + object_digest(environment_id, name)


class _NothingThere(BackendError):
    """There is no object of this name in the bucket."""


@contextmanager
def _translated() -> Iterator[None]:
    # What the store says names hosts and keys: it stays in the cause.
    try:
        yield
    except FileNotFoundError as error:
        if "NoSuchBucket" in str(error):
            raise BackendError(
                "The object store has no such bucket: check RUNCAST_S3_BUCKET."
            ) from error
        raise _NothingThere("The object is gone from the object store; try again.") from error
    except (PermissionDeniedError, UnauthenticatedError) as error:
        raise BackendError(
            "The object store refuses this gateway: check its S3 credentials, "
            "RUNCAST_S3_REGION, and what the bucket lets them do."
        ) from error
    except BaseError as error:
        raise BackendError("The object store does not answer as it should; try again.") from error


def _connect(bucket: Bucket, endpoint: str | None) -> S3Store:
    """Nothing is sent before it is needed."""
    config: S3Config = {
        "virtual_hosted_style_request": bucket.virtual_host,
        "disable_bulk_delete": True,  # not every store knows how
    }
    if bucket.region is not None:
        config["region"] = bucket.region
    if endpoint is not None:
        # Under this name it wins over the environment.
        config["aws_endpoint_url_s3"] = _with_bucket(bucket, endpoint)
    key_id, secret = bucket.access_key_id, bucket.secret_access_key

    def credentials() -> "S3Credential":
        assert key_id is not None
        assert secret is not None
        return {"access_key_id": key_id, "secret_access_key": secret, "expires_at": None}

    return S3Store(
        bucket.name,
        config=config,
        client_options={
            "allow_http": True,
            "connect_timeout": _CONNECT_TIMEOUT,
            "read_timeout": _READ_TIMEOUT,
            "timeout": _TIMEOUT,
        },
        retry_config={"max_retries": _RETRIES, "retry_timeout": _RETRY_TIMEOUT},
        # As a function, lest a session token of the environment goes with keys of the settings.
        credential_provider=None if key_id is None else credentials,
    )


def _with_bucket(bucket: Bucket, endpoint: str) -> str:
    parts = urlsplit(endpoint)
    if bucket.virtual_host:
        parts = parts._replace(netloc=f"{bucket.name}.{parts.netloc}")
    return parts.geturl().rstrip("/")


async def _joined(head: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield head
    async for piece in rest:
        yield piece


async def _pieces(stream: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    with _translated():
        async for piece in stream:
            yield bytes(piece)
