"""Batches: creating many runs in one call, and seeing how they fare together."""

from collections.abc import AsyncIterator, Iterator
from typing import Any, Literal

import orjson
from pydantic import BaseModel, Field, StrictBool
from starlette.responses import Response, StreamingResponse

from runcast.core.batch import Batch, NewBatch
from runcast.core.new_run import NewRun
from runcast.core.packet import MISSING
from runcast.core.run_json import iso_time
from runcast.core.run_result import result_object
from runcast.core.scope import Resource
from runcast.core.status import ApiVersion
from runcast.errors import GatewayError, InvalidBody, NotFound
from runcast.web.bearer import require, require_every
from runcast.web.handed_tokens import TOKEN_HEADERS, HandedToken, hand_out_token
from runcast.web.operation import Access, Answer, Call, Operation
from runcast.web.request_key import request_digest
from runcast.web.responses import json_response
from runcast.web.run_models import RunResult
from runcast.web.tasks import IDEMPOTENCY_HEADERS, check_parent
from runcast.web.text_field import ShortText
from runcast.web.trigger_options import (
    TriggerOptions,
    idempotency_seconds,
    new_run,
    time_of,
)

_RESULTS_AT_ONCE = 20

BatchStatus = Literal["PENDING", "PROCESSING", "COMPLETED", "PARTIAL_FAILED", "ABORTED"]


class BatchItem(BaseModel):
    """One run of a batch."""

    task: ShortText
    payload: Any = None
    context: Any = Field(default=None, description="Of older clients; ignored.")
    options: TriggerOptions | None = None


class BatchResults(BaseModel):
    """How the runs of a batch ended, as far as they did."""

    id: str
    items: list[RunResult]


class NewBatchBody(BaseModel):
    """Runs to be created together."""

    items: list[BatchItem] = Field(min_length=1)
    parentRunId: ShortText | None = None
    resumeParentOnCompletion: StrictBool | None = None


class BatchHandle(BaseModel):
    """A batch that was created, or found by its idempotency key."""

    id: str
    runCount: int
    isCached: bool
    idempotencyKey: str | None = None
    publicAccessToken: str = Field(description="Reads the batch and its runs, for an hour.")


class BatchRunHandle(BaseModel):
    """One run of a batch that was created."""

    id: str
    taskIdentifier: str
    isCached: bool
    idempotencyKey: str | None = None


class BatchHandleWithRuns(BatchHandle):
    """A batch with its runs, in the order of the items."""

    runs: list[BatchRunHandle]


class RetrievedBatch(BaseModel):
    """A batch as it is now."""

    id: str
    status: BatchStatus
    idempotencyKey: str | None = None
    createdAt: str
    updatedAt: str
    runCount: int
    runs: list[str] = Field(description="Ids, in the order of the items.")


class Processing(BaseModel):
    """What went wrong with items."""

    completedAt: str | None = None
    errors: list[dict[str, Any]]


class RetrievedBatchV2(RetrievedBatch):
    """A batch as it is now, for newer clients."""

    processing: Processing


async def create_batch_v1(call: Call) -> Response:
    """Create a batch and tell of each run."""
    batch, handed = await _create(call)
    answer = batch_handle(batch, handed) | {"runs": await _run_handles(call, batch)}
    return json_response(answer, 202, handed.headers)


async def create_batch_v2(call: Call) -> Response:
    """Create a batch."""
    batch, handed = await _create(call)
    return json_response(batch_handle(batch, handed), 202, handed.headers)


async def read_batch_v1(call: Call) -> Response:
    """Give a batch to clients that know two statuses only."""
    batch = await _read(call)
    answer = _retrieved(batch)
    if call.api is ApiVersion.UNVERSIONED:
        finished = batch.status in ("COMPLETED", "PARTIAL_FAILED", "ABORTED")
        answer["status"] = "COMPLETED" if finished else "PENDING"
    return json_response(answer)


async def read_batch_v2(call: Call) -> Response:
    """Give a batch."""
    return json_response(_retrieved(await _read(call)) | {"processing": {"errors": []}})


async def read_results(call: Call) -> Response:
    """Tell how the finished runs of a batch ended, in the order of the items."""
    batch = await _read(call)
    return StreamingResponse(_results(call, batch), media_type="application/json")


async def _results(call: Call, batch: Batch) -> AsyncIterator[bytes]:
    """The answer in pieces: outputs can be large, and there may be a thousand."""
    yield b'{"id":' + orjson.dumps(batch.id) + b',"items":['
    comma = b""
    for start in range(0, len(batch.run_ids), _RESULTS_AT_ONCE):
        run_ids = batch.run_ids[start : start + _RESULTS_AT_ONCE]
        for run in await call.services.runs.read_runs(call.environment_id, run_ids):
            if run.finished:
                yield comma + orjson.dumps(result_object(run))
                comma = b","
    yield b"]}"


async def _create(call: Call) -> tuple[Batch, HandedToken]:
    body: NewBatchBody = call.body
    max_items = call.services.limits.max_batch_items
    if len(body.items) > max_items:
        raise InvalidBody(f"A batch has at most {max_items} items; split it.")
    tasks = dict.fromkeys(item.task for item in body.items)
    require_every(call.grant, "batchTrigger", (Resource("tasks", task) for task in tasks))
    parents = {body.parentRunId, *(item.options.parentRunId for item in body.items if item.options)}
    for parent_id in sorted(filter(None, parents)):
        await check_parent(call, parent_id)
    key = call.request.headers.get("idempotency-key") or None
    ttl = idempotency_seconds(call.request.headers.get("idempotency-key-ttl"))
    new_batch = NewBatch(
        environment_id=call.environment_id,
        idempotency_key=key,
        idempotency_key_expires_at=time_of(call.now + ttl) if key else None,
        one_time_token=call.grant.token_hash if call.grant.one_time else None,
        request=request_digest(call.request.headers, "batch"),
    )
    batch = await call.services.runs.create_batch(new_batch, list(_new_runs(call, body)))
    return batch, await hand_out_token(call, [f"read:batch:{batch.id}"])


def _new_runs(call: Call, body: NewBatchBody) -> Iterator[NewRun]:
    for index, item in enumerate(body.items):
        options = item.options or TriggerOptions()
        if options.resumeParentOnCompletion is None:
            options.resumeParentOnCompletion = body.resumeParentOnCompletion
        try:
            yield new_run(
                environment_id=call.environment_id,
                task=item.task,
                payload=item.payload if "payload" in item.model_fields_set else MISSING,
                options=options,
                limits=call.services.limits,
                now=call.now,
                parent_id=body.parentRunId,
                batch_index=index,
                trigger_function="batchTrigger",
            )
        except GatewayError as error:
            raise type(error)(f"items.{index}: {error.message}") from None


async def _read(call: Call) -> Batch:
    batch_id = call.path["batch"]
    # Before it is looked for: who may not read a batch does not learn whether it exists.
    require(call.grant, "read", Resource("batch", batch_id), Resource("runs"))
    batch = await call.services.runs.read_batch(call.environment_id, batch_id)
    if batch is None:
        raise NotFound("There is no batch with this id in this environment.")
    return batch


async def _run_handles(call: Call, batch: Batch) -> list[dict[str, Any]]:
    runs = await call.services.runs.read_runs(
        call.environment_id, list(dict.fromkeys(batch.run_ids))
    )
    by_id = {run.id: run for run in runs}
    handles = []
    told: set[str] = set()
    for run_id in batch.run_ids:
        # A run that an idempotency key led to is of another batch, or was told of before.
        run = by_id[run_id]
        cached = batch.cached or run.batch_id != batch.id or run_id in told
        told.add(run_id)
        handle = {"id": run_id, "taskIdentifier": run.task, "isCached": cached}
        if run.idempotency_key is not None:
            handle["idempotencyKey"] = run.idempotency_key
        handles.append(handle)
    return handles


def batch_handle(batch: Batch, handed: HandedToken) -> dict[str, Any]:
    """What creating a batch is answered with."""
    handle: dict[str, Any] = {
        "id": batch.id,
        "runCount": batch.run_count,
        "isCached": batch.cached,
        "publicAccessToken": handed.token,
    }
    if batch.idempotency_key is not None:
        handle["idempotencyKey"] = batch.idempotency_key
    return handle


def _retrieved(batch: Batch) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "id": batch.id,
        "status": batch.status,
        "createdAt": iso_time(batch.created_at),
        "updatedAt": iso_time(batch.updated_at),
        "runCount": batch.run_count,
        "runs": list(batch.run_ids),
    }
    if batch.idempotency_key is not None:
        answer["idempotencyKey"] = batch.idempotency_key
    return answer


_BATCH = {"batch": "The id of the batch."}

OPERATIONS = (
    Operation(
        method="POST",
        path="/api/v1/tasks/batch",
        name="createBatchV1",
        summary="Create many runs, and learn each of them",
        description="Public tokens need batchTrigger:tasks:{task} for every task.",
        handler=create_batch_v1,
        access=Access.ANY_TOKEN,
        tag="Batches",
        headers=IDEMPOTENCY_HEADERS,
        body=NewBatchBody,
        answers={202: Answer("The batch.", BatchHandleWithRuns, headers=TOKEN_HEADERS)},
        errors=(404, 422),
    ),
    Operation(
        method="POST",
        path="/api/v2/tasks/batch",
        name="createBatch",
        summary="Create many runs",
        description="Public tokens need batchTrigger:tasks:{task} for every task.",
        handler=create_batch_v2,
        access=Access.ANY_TOKEN,
        tag="Batches",
        headers=IDEMPOTENCY_HEADERS,
        body=NewBatchBody,
        answers={202: Answer("The batch.", BatchHandle, headers=TOKEN_HEADERS)},
        errors=(404, 422),
    ),
    Operation(
        method="GET",
        path="/api/v1/batches/{batch}",
        name="readBatchV1",
        summary="Retrieve a batch, for older clients",
        handler=read_batch_v1,
        access=Access.ANY_TOKEN,
        tag="Batches",
        path_parameters=_BATCH,
        answers={200: Answer("The batch.", RetrievedBatch)},
        errors=(404,),
    ),
    Operation(
        method="GET",
        path="/api/v1/batches/{batch}/results",
        name="readBatchResults",
        summary="Read how the runs of a batch ended",
        description="Runs that are not finished are left out.",
        handler=read_results,
        access=Access.SECRET_KEY,
        tag="Batches",
        path_parameters=_BATCH,
        answers={200: Answer("In the order of the items.", BatchResults)},
        errors=(404,),
    ),
    Operation(
        method="GET",
        path="/api/v2/batches/{batch}",
        name="readBatch",
        summary="Retrieve a batch",
        handler=read_batch_v2,
        access=Access.ANY_TOKEN,
        tag="Batches",
        path_parameters=_BATCH,
        answers={200: Answer("The batch.", RetrievedBatchV2)},
        errors=(404,),
    ),
)
