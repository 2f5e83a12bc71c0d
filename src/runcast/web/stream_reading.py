"""Reading a stream as Server-Sent Events; docs/protocol.md "Streams"."""

import re

from pydantic import BaseModel, Field
from starlette.types import ASGIApp

from runcast.auth.grant import Grant
from runcast.core.chunk import StreamName
from runcast.core.client_version import reads_batches
from runcast.core.selector import Selector
from runcast.core.sse import SseFormat
from runcast.core.stream_format import StreamSseFormat
from runcast.core.stream_subscription import StreamSubscription
from runcast.core.view import View
from runcast.errors import InvalidCursor, InvalidParameter
from runcast.hub.connection import Connection
from runcast.hub.form import AudienceKey
from runcast.hub.stream_reader import StreamReader
from runcast.web.event_stream import EventStream
from runcast.web.feeds import refuse_key_in_query
from runcast.web.operation import Access, Answer, Call, Operation
from runcast.web.run_access import readable_run

# An id as parts carry it, or a bare offset.
_CURSOR = re.compile(r"(?:([0-9]{1,19})-)?([0-9]{1,18})")
_MAX_TIMEOUT_SECONDS = 600
# Official clients that do not say how long they wait expect the end after a minute of silence.
_OFFICIAL_TIMEOUT_SECONDS = 60.0
# What a reader of a stream needs to hear of the run: not its large fields.
_RUN_FORM = SseFormat(frozenset({"payload", "output", "metadata"}), False)


class StreamQuery(BaseModel):
    """What reading a stream can be told by query."""

    model_config = {"populate_by_name": True}

    cursor: str | None = Field(None, description="Go on behind this; `Last-Event-ID` wins.")
    begin: str = Field(
        "start", alias="from", description="`start`, `latest`, or an offset to begin at."
    )
    token: str | None = Field(None, description="A public access token, for plain EventSource.")


async def read_stream(call: Call) -> ASGIApp:
    """Read a stream from where the reader stands, and follow it."""
    return await follow_stream(call, StreamName(call.path["run"], call.path["key"]))


async def follow_stream(call: Call, name: StreamName) -> ASGIApp:
    """Send a stream to whoever may read its run, in the framing that the client reads."""
    refuse_key_in_query(call)
    headers = call.request.headers
    only_parts = "trigger-version" in headers
    batches = reads_batches(headers.get("trigger-version"))
    timeout = _timeout_seconds(headers.get("timeout-seconds"))
    if timeout is None and only_parts:
        timeout = _OFFICIAL_TIMEOUT_SECONDS
    begin = headers.get("x-trigger-stream-start") or call.query.begin
    cursor = headers.get("last-event-id") or call.query.cursor
    machine = subscription_from(cursor, begin)
    run = await readable_run(call.services, call.grant, name.run_id)
    call.services.hub.admit()
    grant, hub = call.grant, call.services.hub

    def carry(connection: Connection, form: SseFormat) -> StreamReader:
        machine.run_over = run.finished
        return StreamReader(
            connection,
            "",
            hub.tail_of(name),
            machine,
            StreamSseFormat(form.chunked, only_parts, batches),
            run_key(grant, run.id),
            timeout_seconds=timeout,
        )

    return EventStream(
        hub,
        carry,
        form=lambda chunked: SseFormat(frozenset(), chunked),
        grant=grant,
        allow_handover=call.services.allow_handover,
        renewable=not only_parts,
        only_parts=only_parts,
        headers={"x-stream-version": "v2" if batches else "v1", "cache-control": "no-cache"}
        if only_parts
        else None,
    )


def run_key(grant: Grant, run_id: str) -> AudienceKey:
    """The audience in which a reader of a stream watches its run."""
    return AudienceKey(
        View(Selector(grant.environment_id, run_id=run_id), grant.permissions), _RUN_FORM, False
    )


def subscription_from(cursor: str | None, begin: str | int) -> StreamSubscription:
    """
    Let a reader begin behind the part that it got last, or else where it wants to.

    Raises:
        InvalidCursor: The cursor is neither the id of a part nor an offset.
        InvalidParameter: ``begin`` is nothing of what it may be.
    """
    if cursor:
        found = _CURSOR.fullmatch(cursor)
        if found is None:
            raise InvalidCursor("A stream is resumed from the id of a part, or from an offset.")
        seen = found[1]
        return StreamSubscription(
            offset=int(found[2]) + 1, last_seen=None if seen is None else int(seen)
        )
    if begin == "latest":
        return StreamSubscription(offset=None)
    if begin == "start":
        return StreamSubscription(offset=0)
    if isinstance(begin, str) and not re.fullmatch(r"[0-9]{1,18}", begin):
        raise InvalidParameter('A stream is read from "start", "latest" or an offset.')
    return StreamSubscription(offset=int(begin))


def _timeout_seconds(text: str | None) -> float | None:
    if text is None:
        return None
    if not re.fullmatch(r"[0-9]{1,3}", text) or not 1 <= int(text) <= _MAX_TIMEOUT_SECONDS:
        raise InvalidParameter(f"Timeout-Seconds is a number from 1 to {_MAX_TIMEOUT_SECONDS}.")
    return float(text)


READING_HEADERS = {
    "Last-Event-ID": "The id of the last part that was seen, or its offset.",
    "Timeout-Seconds": "End when no part came for so long, 1 to 600.",
    "X-Trigger-Stream-Start": "`latest` skips what exists.",
    "trigger-version": "Version of an official client; from 4.1 on parts come in batches.",
}
PARTS = Answer(
    "Parts, and named events.",
    None,
    "text/event-stream",
    headers={"x-stream-version": "For official clients: v1, or v2 where parts come in batches."},
)

OPERATIONS = (
    Operation(
        method="GET",
        path="/realtime/v1/streams/{run}/{key}",
        name="readStream",
        summary="Read a stream",
        description="From the start or from where the reader left off, and then as it grows.",
        handler=read_stream,
        access=Access.ANY_TOKEN,
        tag="Streams",
        path_parameters={"run": "Id of the run.", "key": "Key of the stream."},
        query=StreamQuery,
        headers=READING_HEADERS,
        answers={200: PARTS},
        token_in_query=True,
        errors=(403, 404),
    ),
)
