"""Presigned addresses of objects; docs/protocol.md "Large payloads and outputs"."""

from urllib.parse import quote

from runcast.auth.presigned import sign_address
from runcast.core.object_name import check_object_name
from runcast.core.packet import in_object_store
from runcast.core.run import Run
from runcast.errors import InvalidParameter
from runcast.ports import Use
from runcast.web.operation import Call

OBJECTS_PATH = "/api/v1/objects"
# An address is good for at least so long. It stays the same for a step, so that what holds it
# can be told to be unchanged.
_GOOD_SECONDS = 900
_STEP_SECONDS = 300


def origin(call: Call) -> str:
    """Where the caller reaches this gateway."""
    return str(call.request.base_url).rstrip("/")


async def presigned_url(call: Call, use: Use, name: str) -> str:
    """
    Give an address that lets whoever has it read (``GET``) or store (``PUT``) one object.

    Raises:
        InvalidParameter: The name can name no object, or the environment has no usable key.
        BackendError: The store cannot give one.
    """
    check_object_name(name)
    address = await call.services.objects.address(use, call.environment_id, name, now=call.now)
    return address or await _address_here(call, use, name)


async def packet_urls(call: Call, run: Run) -> tuple[str | None, str | None]:
    """Give the addresses of a run's payload and output, where they are in the object store."""
    return (
        await packet_url(call, run.payload, run.payload_type),
        await packet_url(call, run.output, run.output_type),
    )


async def packet_url(call: Call, text: str | None, kind: str) -> str | None:
    """Give the address of a packet, if it is in the object store; its text is its name there."""
    if text is None or not in_object_store(kind):
        return None
    try:
        return await presigned_url(call, "GET", text)
    except InvalidParameter:
        return None  # written by somebody else, and no name


async def _address_here(call: Call, use: Use, name: str) -> str:
    """Sign an address of this gateway."""
    path = f"{OBJECTS_PATH}/{call.environment_id}/{quote(name, safe='')}"
    expires_at = int(call.now) // _STEP_SECONDS * _STEP_SECONDS + _STEP_SECONDS + _GOOD_SECONDS
    ring = await call.services.keys.key_ring(call.environment_id)
    signature = sign_address(ring.signing_key(call.now), use, path, expires_at)
    return f"{origin(call)}{path}?expires={expires_at}&signature={signature}"
