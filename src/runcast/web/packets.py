"""Packets in the object store: where to put them, and where to get them."""

from typing import Literal

from pydantic import BaseModel
from starlette.responses import Response

from runcast.core.packet import in_object_store
from runcast.errors import InsufficientScope, InvalidParameter, NotFound
from runcast.web.operation import Access, Answer, Call, Operation
from runcast.web.presigning import packet_urls, presigned_url
from runcast.web.responses import json_response
from runcast.web.run_access import readable_run


class PresignedUrl(BaseModel):
    """An address for one request; no token goes with it."""

    presignedUrl: str


class UploadUrl(PresignedUrl):
    """Where to put a packet, and what to send in its place, with the type application/store."""

    storagePath: str


async def upload_packet(call: Call) -> Response:
    """Say where a packet can be put."""
    name = call.path["name"]
    address = await presigned_url(call, "PUT", name)
    # Known before anything can be there.
    await call.services.object_ledger.expect(call.environment_id, name)
    return json_response({"presignedUrl": address, "storagePath": name})


async def download_packet(call: Call) -> Response:
    """Say where a packet can be got: a public token gets those of the runs that it opens."""
    if not call.grant.is_secret_key and not await _is_shown(call, call.path["name"]):
        raise InsufficientScope("The token opens no run that has this packet.")
    return json_response({"presignedUrl": await presigned_url(call, "GET", call.path["name"])})


async def download_run_packet(call: Call) -> Response:
    """Say where the payload or the output of a run can be got."""
    which: Literal["payload", "output"]
    match call.path["packet"]:
        case "payload":
            which = "payload"
        case "output":
            which = "output"
        case _:
            raise InvalidParameter("A run has a payload and an output.")
    run = await readable_run(call.services, call.grant, call.path["run"])
    if which in call.withheld:
        raise InsufficientScope(f"The token does not show the {which} of runs.")
    payload_url, output_url = await packet_urls(call, run)
    url = payload_url if which == "payload" else output_url
    if url is None:
        raise NotFound(f"The {which} of this run is not in the object store; retrieve the run.")
    return json_response({"presignedUrl": url})


async def _is_shown(call: Call, name: str) -> bool:
    """Tell whether the caller may read a run that keeps its payload or output under this name."""
    runs = await call.services.runs.read_runs_with_object(call.environment_id, name)
    shows_payload, shows_output = "payload" not in call.withheld, "output" not in call.withheld
    return any(
        call.grant.permissions.may_read(run)
        and (
            (run.payload == name and in_object_store(run.payload_type) and shows_payload)
            or (run.output == name and in_object_store(run.output_type) and shows_output)
        )
        for run in runs
    )


_NAME = {"name": "The name of the packet, slashes as they are or as %2F."}
_UPLOAD = {200: Answer("Where to PUT it, with its type as content type.", UploadUrl)}
_DOWNLOAD = {200: Answer("Where to GET it.", PresignedUrl)}

OPERATIONS = (
    Operation(
        method="PUT",
        path="/api/v1/packets/{name}",
        name="uploadPacketV1",
        summary="Ask where to put a packet",
        handler=upload_packet,
        access=Access.SECRET_KEY,
        tag="Packets",
        path_parameters=_NAME,
        takes_rest=True,
        counted=False,
        answers=_UPLOAD,
    ),
    Operation(
        method="PUT",
        path="/api/v2/packets/{name}",
        name="uploadPacket",
        summary="Ask where to put a packet",
        handler=upload_packet,
        access=Access.SECRET_KEY,
        tag="Packets",
        path_parameters=_NAME,
        takes_rest=True,
        counted=False,
        answers=_UPLOAD,
    ),
    Operation(
        method="GET",
        path="/api/v1/packets/{name}",
        name="downloadPacket",
        summary="Ask where to get a packet",
        handler=download_packet,
        access=Access.ANY_TOKEN,
        tag="Packets",
        path_parameters=_NAME,
        takes_rest=True,
        counted=False,
        answers=_DOWNLOAD,
        errors=(403,),
    ),
    Operation(
        method="GET",
        path="/api/v1/runs/{run}/packets/{packet}",
        name="downloadRunPacket",
        summary="Ask where to get the payload or output of a run",
        handler=download_run_packet,
        access=Access.ANY_TOKEN,
        tag="Packets",
        path_parameters={"run": "The id of the run.", "packet": "`payload` or `output`."},
        counted=False,
        answers=_DOWNLOAD,
        errors=(403, 404),
    ),
)
