"""Waiting within a run: for a wait token, for a time, for input; docs/protocol.md "Waiting"."""

from typing import Annotated

from pydantic import BaseModel, Field, StrictInt
from starlette.responses import Response

from runcast.core.chunk import MAX_KEY_BYTES, StreamName
from runcast.core.run_json import iso_time
from runcast.core.tags import parse_tags
from runcast.core.waitpoint import (
    AwaitedInput,
    NewWaitpoint,
    Waitpoint,
    WaitpointKind,
    input_packet,
)
from runcast.errors import NotFound
from runcast.web.operation import Access, Answer, Call, Operation
from runcast.web.request_key import REQUEST_KEY_HEADER, request_digest
from runcast.web.responses import json_response
from runcast.web.run_access import NO_RUN
from runcast.web.run_models import Time
from runcast.web.text_field import Tag, Text
from runcast.web.trigger_options import idempotency_seconds, time_of
from runcast.web.waitpoints import Success, timeout_at

_CREATE_BYTES = 10 * 1024
_MAX_OFFSET = 2**53

InputKey = Annotated[str, Field(strict=True, min_length=1, max_length=MAX_KEY_BYTES - 32)]


class WaitForTime(BaseModel):
    """Until when a run waits."""

    date: Text = Field(min_length=1, description="An ISO 8601 time, or a duration from now.")
    idempotencyKey: Text | None = Field(None, description="One key makes one waitpoint.")
    idempotencyKeyTTL: Text | None = None


class WaitForInput(BaseModel):
    """Which input a run waits for."""

    streamId: InputKey
    timeout: Text | None = None
    idempotencyKey: Text | None = Field(None, description="One key makes one waitpoint of the run.")
    idempotencyKeyTTL: Text | None = None
    tags: Tag | list[Tag] | None = None
    lastSeqNum: Annotated[StrictInt, Field(ge=-1, lt=_MAX_OFFSET)] | None = Field(
        None, description="Offset of the last part that the run has seen; what is newer counts."
    )


class WaitpointId(BaseModel):
    """A waitpoint."""

    id: str


class WaitingUntil(BaseModel):
    """When a run goes on."""

    waitUntil: str = Time
    waitpoint: WaitpointId


class InputWaitpoint(BaseModel):
    """The waitpoint that the next input completes."""

    waitpointId: str
    isCached: bool = Field(description="Whether it was there before.")


async def wait_for_token(call: Call) -> Response:
    """Let a run wait for a waitpoint that is there."""
    await _let_wait(call, call.path["token"])
    return json_response({"success": True})


async def wait_for_time(call: Call) -> Response:
    """Let a run wait until a time."""
    body: WaitForTime = call.body
    await _check_run(call)
    waitpoint, _ = await _create(call, body, "time", body.date)
    await _let_wait(call, waitpoint.id)
    assert waitpoint.timeout_at is not None, "a time waits until then"
    return json_response(
        {"waitUntil": iso_time(waitpoint.timeout_at), "waitpoint": {"id": waitpoint.id}}
    )


async def await_input(call: Call) -> Response:
    """Create a waitpoint that the next input of a run completes."""
    body: WaitForInput = call.body
    run_id = call.path["run"]
    await _check_run(call)
    after = -1 if body.lastSeqNum is None else body.lastSeqNum
    StreamName.of_input(run_id, body.streamId)  # refuses a bad key before anything is created
    awaited = AwaitedInput(run_id, body.streamId, after + 1)
    waitpoint, cached = await _create(
        call, body, "input", body.timeout, tags=parse_tags(body.tags or []), awaited=awaited
    )
    # What was sent before is there; what is sent from now on finds the waitpoint.
    await _deliver(call, waitpoint)
    return json_response({"waitpointId": waitpoint.id, "isCached": cached})


async def deliver_input(call: Call, run_id: str, key: str) -> None:
    """Complete the waitpoints that wait for what was sent to a run under a key."""
    waiting = await call.services.waitpoints.read_awaiting(run_id, key, now=call.time)
    for waitpoint in waiting:
        await _deliver(call, waitpoint)


async def _deliver(call: Call, waitpoint: Waitpoint) -> None:
    awaited = waitpoint.awaited
    assert awaited is not None, "an input is awaited"
    page = await call.services.chunks.read(
        awaited.stream, awaited.offset, max_chunks=1, max_bytes=1
    )
    if page.chunks:
        text, kind = input_packet(page.chunks[0])
        await call.services.waitpoints.complete(waitpoint.id, text, kind, now=call.time)


async def _create(
    call: Call,
    body: WaitForTime | WaitForInput,
    kind: WaitpointKind,
    until: str | None,
    *,
    tags: tuple[str, ...] = (),
    awaited: AwaitedInput | None = None,
) -> tuple[Waitpoint, bool]:
    key = body.idempotencyKey or None
    holds = idempotency_seconds(body.idempotencyKeyTTL)
    new = NewWaitpoint(
        environment_id=call.environment_id,
        kind=kind,
        timeout_at=timeout_at(call, until),
        tags=tags,
        idempotency_key=key,
        idempotency_key_expires_at=time_of(call.now + holds) if key else None,
        awaited=awaited,
        request=request_digest(call.request.headers, f"wait {kind} {call.path['run']}"),
    )
    return await call.services.waitpoints.create(new, now=call.time)


async def _check_run(call: Call) -> None:
    if await call.services.runs.read_run(call.environment_id, call.path["run"]) is None:
        raise NotFound(NO_RUN)


async def _let_wait(call: Call, waitpoint_id: str) -> None:
    await call.services.waitpoints.let_wait(
        call.environment_id, call.path["run"], waitpoint_id, now=call.time
    )


_RUN = {"run": "The id of the run."}

OPERATIONS = (
    Operation(
        method="POST",
        path="/engine/v1/runs/{run}/waitpoints/tokens/{token}/wait",
        name="waitForToken",
        summary="Let a run wait for a wait token or an awaited input",
        handler=wait_for_token,
        access=Access.SECRET_KEY,
        tag="Wait tokens",
        path_parameters=_RUN | {"token": "The id of the waitpoint."},
        answers={200: Answer("The run waits, unless the waitpoint is over.", Success)},
        errors=(404, 422),
    ),
    Operation(
        method="POST",
        path="/engine/v1/runs/{run}/wait/duration",
        name="waitForTime",
        summary="Let a run wait until a time",
        handler=wait_for_time,
        access=Access.SECRET_KEY,
        tag="Wait tokens",
        path_parameters=_RUN,
        headers=REQUEST_KEY_HEADER,
        body=WaitForTime,
        body_bytes=lambda limits: _CREATE_BYTES,
        answers={200: Answer("The run waits, unless the time is over.", WaitingUntil)},
        errors=(404, 422),
    ),
    Operation(
        method="POST",
        path="/api/v1/runs/{run}/input-streams/wait",
        name="awaitInput",
        summary="Create a waitpoint for the next input of a run",
        description="Completed by the first input behind lastSeqNum, also by one that is there.",
        handler=await_input,
        access=Access.SECRET_KEY,
        tag="Wait tokens",
        path_parameters=_RUN,
        headers=REQUEST_KEY_HEADER,
        body=WaitForInput,
        body_bytes=lambda limits: _CREATE_BYTES,
        answers={200: Answer("The waitpoint.", InputWaitpoint)},
        errors=(404, 422),
    ),
)
