"""Sending to a run: input streams, and reading what was sent; docs/protocol.md "Streams"."""

from typing import Any

from pydantic import BaseModel, Field
from starlette.responses import Response
from starlette.types import ASGIApp

from runcast.core.chunk import StreamName
from runcast.core.packet import checked_text, json_text
from runcast.core.scope import Resource
from runcast.errors import NotFound
from runcast.web.bearer import require
from runcast.web.operation import Access, Answer, Call, Operation
from runcast.web.responses import json_response
from runcast.web.run_access import NO_RUN
from runcast.web.stream_reading import PARTS, READING_HEADERS, StreamQuery, follow_stream
from runcast.web.stream_writing import PART_HEADERS, Done, append_text, refuse_finished
from runcast.web.waits import deliver_input

_BODY_BYTES = 1024 * 1024


class Input(BaseModel):
    """What is sent to a run."""

    data: Any = Field(description="Any JSON value.")


async def send_input(call: Call) -> Response:
    """Append a value to what a run is sent."""
    run_id = call.path["run"]
    require(call.grant, "write", Resource("inputStreams", run_id))
    await _send(call, StreamName.of_input(run_id, call.path["key"]), call.body.data)
    return json_response({"ok": True})


async def read_input(call: Call) -> ASGIApp:
    """Follow what a run is sent."""
    return await follow_stream(call, StreamName.of_input(call.path["run"], call.path["key"]))


async def _send(call: Call, name: StreamName, data: object) -> None:
    run = await call.services.runs.read_run(call.environment_id, name.run_id)
    if run is None:
        raise NotFound(NO_RUN)
    refuse_finished(run)
    # A string that its reader parses: JSON in JSON.
    await append_text(call, name, checked_text("data", json_text("data", data)))
    await deliver_input(call, name.run_id, call.path["key"])


_PATH = "/realtime/v1/streams/{run}/input/{key}"
_PARAMETERS = {"run": "Id of the run.", "key": "Key of the input stream."}

OPERATIONS = (
    Operation(
        method="POST",
        path=_PATH,
        name="sendInput",
        summary="Send a value to a run",
        description="Public tokens need write:inputStreams:{run}.",
        handler=send_input,
        access=Access.ANY_TOKEN,
        tag="Streams",
        path_parameters=_PARAMETERS,
        headers=PART_HEADERS,
        body=Input,
        body_bytes=lambda limits: _BODY_BYTES,
        answers={200: Answer("It is durable.", Done)},
        refusal={"ok": False},
        errors=(404, 413, 422),
    ),
    Operation(
        method="GET",
        path=_PATH,
        name="readInput",
        summary="Read what a run is sent",
        description="A stream as others; each part is a string with the JSON of a value.",
        handler=read_input,
        access=Access.ANY_TOKEN,
        tag="Streams",
        path_parameters=_PARAMETERS,
        query=StreamQuery,
        headers=READING_HEADERS,
        answers={200: PARTS},
        token_in_query=True,
        errors=(403, 404),
    ),
)
