"""Writing a stream: register, ingest, probe, append, close; docs/protocol.md "Streams"."""

import asyncio
import contextlib
import re
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import orjson
from pydantic import BaseModel
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp

from runcast.core.chunk import NewChunks, StreamName, check_writer
from runcast.core.line_splitter import LineSplitter
from runcast.core.packet import checked_text
from runcast.core.run import Run
from runcast.errors import (
    BackendError,
    Draining,
    InvalidParameter,
    NotFound,
    PayloadTooLarge,
    StreamClosed,
)
from runcast.web.ingest import Ingest
from runcast.web.operation import Access, Answer, Call, Operation
from runcast.web.request_body import read_bytes
from runcast.web.request_key import REQUEST_KEY, REQUEST_KEY_HEADER
from runcast.web.responses import json_response

_TARGETS = ("self", "parent", "root")
_INDEX = re.compile(r"[0-9]{1,15}")
_APPEND_BYTES = 512 * 1024
_IDLE_SECONDS = 900.0  # a writer that sends nothing for longer is taken for gone
_IDLE_STEP_SECONDS = 60.0  # that is not looked at more often
_HOLDS_A_LEASE = 3


class Registered(BaseModel):
    """Which protocol the stream is written with."""

    version: str


class Done(BaseModel):
    """It is durable."""

    ok: bool


async def register_stream(call: Call) -> Response:
    """Make a stream known."""
    name = await _writable_stream(call)
    await call.services.chunks.register(name)
    return json_response({"version": "v1"}, 202)


async def probe_stream(call: Call) -> ASGIApp:
    """Tell a writer how far it has come."""
    name, _ = await _stream(call)
    writer = check_writer(call.request.headers.get("x-client-id", ""))
    last = await call.services.chunks.last_index(name, writer)
    return Response(headers={"x-last-chunk-index": str(last)})


async def ingest_stream(call: Call) -> Response:
    """Store lines as they arrive; answer when all are durable."""
    name = await _writable_stream(call)
    headers = call.request.headers
    writer = headers.get("x-client-id")
    if writer is not None:
        check_writer(writer)
    resume_from = headers.get("x-resume-from-chunk", "0")
    if not _INDEX.fullmatch(resume_from):
        raise InvalidParameter("X-Resume-From-Chunk is the index of the first line, from 0 on.")
    chunks = call.services.chunks
    await chunks.register(name)
    presence = f"connection:{uuid.uuid4().hex}"
    await chunks.hold_open(name, presence, connected=True)
    holding = asyncio.create_task(_hold_open(call, name, presence))
    try:
        # Again: readers of a run that was finished just now may not have seen that we are here.
        await _writable_stream(call)
        await _ingest(call, name, writer, int(resume_from))
    finally:
        holding.cancel()
        with contextlib.suppress(BackendError, NotFound):
            await asyncio.shield(chunks.hold_open(name, presence, connected=False))
    return Response()


async def append_chunk(call: Call) -> Response:
    """Store a body as one chunk: a JSON string."""
    name = await _writable_stream(call)
    body = await read_bytes(
        call.request,
        max_bytes=_APPEND_BYTES,
        timeout_seconds=call.services.limits.request_timeout_seconds,
    )
    try:
        text = checked_text("The body", body.decode())
    except UnicodeDecodeError:
        raise InvalidParameter("The body is UTF-8 text.") from None
    await append_text(call, name, text)
    return json_response({"ok": True})


async def append_text(call: Call, name: StreamName, text: str) -> None:
    """Append a text as a JSON string; once, if the part or the request has an id."""
    line = orjson.dumps(text)
    if len(line) > call.services.limits.max_chunk_bytes:
        raise PayloadTooLarge(
            f"A chunk has at most {call.services.limits.max_chunk_bytes} bytes; send it in pieces."
        )
    # Official clients name only their requests.
    headers = call.request.headers
    part_id = headers.get("x-part-id", headers.get(REQUEST_KEY))
    writer = None
    if part_id is not None:
        writer = check_writer(f"part:{check_writer(part_id)}")
    await call.services.chunks.append(name, NewChunks(line.decode(), writer))


async def close_stream(call: Call) -> Response:
    """Let no more chunks come."""
    name, _ = await _stream(call)
    await call.services.chunks.register(name)
    await call.services.chunks.close(name)
    return json_response({"ok": True})


async def _stream(call: Call) -> tuple[StreamName, Run]:
    target = call.path["target"]
    if target not in _TARGETS:
        raise InvalidParameter("The target is self, parent or root.")
    runs = call.services.runs
    run = await runs.read_run(call.environment_id, call.path["run"])
    if run is not None and target != "self":
        relative = run.parent_id if target == "parent" else run.root_id
        run = await runs.read_run(call.environment_id, relative) if relative else None
    if run is None:
        raise NotFound(f"There is no such run here, or it has no {target}.")
    return StreamName(run.id, call.path["key"]), run


async def _writable_stream(call: Call) -> StreamName:
    name, run = await _stream(call)
    refuse_finished(run)
    return name


def refuse_finished(run: Run) -> None:
    """
    Go on only if streams of the run may still be written to.

    Raises:
        StreamClosed: The run is finished.
    """
    if run.finished:
        raise StreamClosed("The run is finished; write before it is, or trigger a new one.")


async def _ingest(call: Call, name: StreamName, writer: str | None, index: int) -> None:
    """Store what arrives, until the body ends; a broken connection ends it without a last line."""
    splitter = LineSplitter(call.services.limits.max_chunk_bytes)
    ingest = Ingest(call.services.chunks, name, writer, index)
    try:
        async with _listening(call) as listening:
            async for data in call.request.stream():
                listening.heard()
                for lines in splitter.receive(data):
                    await ingest.put(lines)
        for lines in splitter.finish():
            await ingest.put(lines)
    except ClientDisconnect:
        pass
    finally:
        # Also when the body ends badly: what was whole is stored, and the writer asks how far.
        await ingest.stored()


class _Listening:
    """How long a writer is listened to that says nothing. Looking at the clock is all it costs."""

    def __init__(self, patience: asyncio.Timeout) -> None:
        self._patience = patience
        self._clock = asyncio.get_running_loop().time
        self._lasts_until = 0.0

    def heard(self) -> None:
        """Something came."""
        now = self._clock()
        if now + _IDLE_SECONDS > self._lasts_until and not self._patience.expired():
            self._lasts_until = now + _IDLE_SECONDS + _IDLE_STEP_SECONDS
            self._patience.reschedule(self._lasts_until)

    def stop(self) -> None:
        """Listen no more."""
        if not self._patience.expired():
            self._patience.reschedule(self._clock())


@asynccontextmanager
async def _listening(call: Call) -> AsyncIterator[_Listening]:
    """
    Listen to a writer until it is silent for long, its key is revoked or the gateway goes away.

    Raises:
        InvalidParameter: It was silent.
        TokenRevoked: Its key has ended.
        Draining: Another gateway takes over.
    """
    hub = call.services.hub
    _refuse_the_ended(call)
    try:
        async with asyncio.timeout(None) as patience:
            listening = _Listening(patience)
            listening.heard()
            with hub.told_of_end(call.grant, listening.stop):
                yield listening
    except TimeoutError:
        _refuse_the_ended(call)
        raise InvalidParameter("Nothing arrived for 15 minutes; connect again.") from None


def _refuse_the_ended(call: Call) -> None:
    hub = call.services.hub
    hub.revocations.check(call.grant, call.services.clock.now())
    if hub.draining:
        raise Draining("This gateway is going away; ask another one how far you have come.")


async def _hold_open(call: Call, name: StreamName, presence: str) -> None:
    step = call.services.limits.stream_lease_seconds / _HOLDS_A_LEASE
    clock = asyncio.get_running_loop().time
    while True:
        await asyncio.sleep(step - clock() % step)  # all at one time, so that they go together
        with contextlib.suppress(BackendError, NotFound):
            await call.services.chunks.hold_open(name, presence, connected=True)


_PATH = "/realtime/v1/streams/{run}/{target}/{key}"
_PARAMETERS = {
    "run": "Id of the run.",
    "target": "`self`, or its `parent` or `root`.",
    "key": "Key of the stream.",
}
PART_HEADERS = {"X-Part-Id": "Makes a repetition harmless."} | REQUEST_KEY_HEADER
_DONE = {200: Answer("Done.", Done)}

OPERATIONS = (
    Operation(
        method="PUT",
        path=_PATH,
        name="registerStream",
        summary="Make a stream known",
        handler=register_stream,
        access=Access.SECRET_KEY,
        tag="Streams",
        path_parameters=_PARAMETERS,
        answers={202: Answer("Which protocol to write with.", Registered)},
        errors=(404, 422),
    ),
    Operation(
        method="POST",
        path=_PATH,
        name="ingestStream",
        summary="Append lines as they arrive",
        description="Newline-delimited JSON or text. Answered when all of it is durable.",
        handler=ingest_stream,
        access=Access.SECRET_KEY,
        tag="Streams",
        path_parameters=_PARAMETERS,
        headers={
            "X-Client-Id": "Names the writer; its lines are counted, and never stored twice.",
            "X-Resume-From-Chunk": "Index of the first line of this body.",
        },
        answers={200: Answer("All lines are durable.")},
        errors=(404, 413, 422),
    ),
    Operation(
        method="HEAD",
        path=_PATH,
        name="probeStream",
        summary="Ask how far a writer has come",
        handler=probe_stream,
        access=Access.SECRET_KEY,
        tag="Streams",
        path_parameters=_PARAMETERS,
        headers={"X-Client-Id": "Names the writer."},
        answers={200: Answer("In `X-Last-Chunk-Index`; -1 if nothing is stored.")},
        errors=(404,),
    ),
    Operation(
        method="POST",
        path=f"{_PATH}/append",
        name="appendChunk",
        summary="Append one chunk",
        handler=append_chunk,
        access=Access.SECRET_KEY,
        tag="Streams",
        path_parameters=_PARAMETERS,
        headers=PART_HEADERS,
        answers=_DONE,
        errors=(404, 413, 422),
    ),
    Operation(
        method="POST",
        path=f"{_PATH}/close",
        name="closeStream",
        summary="Let no more chunks come",
        handler=close_stream,
        access=Access.SECRET_KEY,
        tag="Streams",
        path_parameters=_PARAMETERS,
        answers=_DONE,
        errors=(404, 422),
    ),
)
