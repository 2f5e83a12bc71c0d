"""The one table of all operations: routes and /openapi.json are made from it."""

import importlib.metadata
from functools import cache

import orjson
from starlette.responses import Response

from runcast.web import (
    batches,
    feeds,
    health,
    idempotency_keys,
    input_streams,
    objects,
    packets,
    renewal,
    replay,
    revocations,
    run_list,
    run_metadata,
    runs,
    stream_reading,
    stream_writing,
    streamed_batches,
    tasks,
    tokens,
    waitpoints,
    waits,
)
from runcast.web.openapi import build_document
from runcast.web.operation import Access, Answer, Call, Operation


def _version() -> str:
    try:
        return importlib.metadata.version("runcast")
    except importlib.metadata.PackageNotFoundError:
        return "0"  # run from a source tree that is not installed


_VERSION = _version()  # reads files, which nobody may do once requests are served


async def read_openapi(call: Call) -> Response:
    """Give the OpenAPI document."""
    return Response(openapi_json(), media_type="application/json")


OPERATIONS: tuple[Operation, ...] = (
    # First what is asked for most: the router looks at one after the other.
    *feeds.OPERATIONS,
    *stream_reading.OPERATIONS,
    *input_streams.OPERATIONS,  # before writing, whose paths would fit as well
    *stream_writing.OPERATIONS,
    *tasks.OPERATIONS,
    *run_list.OPERATIONS,
    *runs.OPERATIONS,
    *replay.OPERATIONS,
    *run_metadata.OPERATIONS,
    *idempotency_keys.OPERATIONS,
    *batches.OPERATIONS,
    *streamed_batches.OPERATIONS,
    *packets.OPERATIONS,
    *objects.OPERATIONS,
    *waitpoints.OPERATIONS,
    *waits.OPERATIONS,
    *tokens.OPERATIONS,
    *revocations.OPERATIONS,
    *renewal.OPERATIONS,
    *health.OPERATIONS,
    Operation(
        method="GET",
        path="/openapi.json",
        name="readOpenapi",
        summary="This document",
        handler=read_openapi,
        access=Access.OPEN,
        tag="Operations",
        answers={200: Answer("OpenAPI 3.1.")},
    ),
)


@cache
def openapi_json() -> bytes:
    """Give the OpenAPI document of all operations."""
    return orjson.dumps(build_document(OPERATIONS, version=_VERSION))
