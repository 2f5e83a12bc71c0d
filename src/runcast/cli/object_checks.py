"""What `runcast doctor` asks of the bucket that is to keep objects."""

import secrets
from collections.abc import AsyncIterator

import httpx

from runcast.cli.finding import Finding, bad, fine, note
from runcast.errors import GatewayError
from runcast.ports import ObjectStore
from runcast.settings import Settings

_ENVIRONMENT = "doctor"
_HELP = 'docs/operations.md "Objects" says what the settings mean and what the bucket must allow.'


async def check_objects(settings: Settings, now: float) -> AsyncIterator[Finding]:
    """Store, read, fetch and delete a small object, if there is a bucket."""
    if settings.s3_bucket is None:
        return
    name, content = secrets.token_hex(8), secrets.token_bytes(32)
    try:
        from runcast.app import object_store  # loads a whole gateway, which few commands need

        store = object_store(settings)
        await store.write(_ENVIRONMENT, name, "text/plain", _pieces(content))
        try:
            if await _read(store, name) != content:
                yield bad("objects", "what was stored is not what is read", _HELP)
                return
            address = await store.address("GET", _ENVIRONMENT, name, now=now)
            if address is not None:
                yield await _check_address(address, content)
        finally:
            await store.delete(_ENVIRONMENT, name)
    except GatewayError as error:
        yield bad("objects", error.message, _HELP)
        return
    yield fine("objects", f"the bucket {settings.s3_bucket} can be written, read and cleaned")


async def _read(store: ObjectStore, name: str) -> bytes | None:
    async with store.open(_ENVIRONMENT, name) as found:
        return None if found is None else b"".join([piece async for piece in found.pieces])


async def _check_address(address: str, content: bytes) -> Finding:
    host = httpx.URL(address).netloc.decode()
    try:
        async with httpx.AsyncClient() as client:
            answer = await client.get(address)
    except httpx.HTTPError:
        return note("addresses", f"{host} cannot be reached from here", "Clients must reach it.")
    if answer.status_code != 200 or answer.content != content:
        text = f"{host} refuses a signed address ({answer.status_code})"
        return bad("addresses", text, "It must pass on the host name that the client asked for.")
    return fine("addresses", f"{host} accepts signed addresses")


async def _pieces(content: bytes) -> AsyncIterator[bytes]:
    yield content
