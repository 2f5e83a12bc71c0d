"""Batches in two phases: first how many runs they have, then the items, as a stream of lines."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from typing import Annotated, Any

import orjson
from pydantic import BaseModel, Field, StrictBool, StrictInt, ValidationError
from starlette.responses import Response

from runcast.core.batch import Batch, NewBatch, failed_item
from runcast.core.item_splitter import ItemSplitter, OversizedItem
from runcast.core.new_run import NewRun
from runcast.core.packet import MISSING, repaired_json
from runcast.core.scope import Resource
from runcast.errors import (
    InvalidBody,
    NotFound,
    RequestError,
    RequestTimeout,
    Unprocessable,
    UnsupportedMediaType,
)
from runcast.web.batches import BatchHandle, BatchItem, batch_handle
from runcast.web.bearer import require, require_every
from runcast.web.handed_tokens import TOKEN_HEADERS, hand_out_token
from runcast.web.operation import Access, Answer, Call, Operation
from runcast.web.request_key import REQUEST_KEY, request_digest
from runcast.web.responses import json_response, problems_in_words
from runcast.web.tasks import IDEMPOTENCY_HEADERS, check_parent
from runcast.web.text_field import ShortText, Text
from runcast.web.trigger_options import (
    IdempotencyKeyOptions,
    TriggerOptions,
    new_run,
)

_MAX_RUNS = 1000
_MAX_BYTES = 128 * 1024
_GROUP_ITEMS = 100
_GROUP_BYTES = 4 * 1024 * 1024
_MAX_INDEX = 10**9
_ND_JSON = ("application/x-ndjson", "application/ndjson")


class StreamedBatch(BaseModel):
    """A batch whose items will follow."""

    runCount: Annotated[StrictInt, Field(ge=1, le=_MAX_RUNS)]
    taskIdentifiers: list[ShortText] | None = Field(
        default=None, description="The tasks of its items."
    )
    parentRunId: ShortText | None = None
    resumeParentOnCompletion: StrictBool | None = None
    idempotencyKey: Text | None = Field(
        default=None, description="Two batches of the same tasks with one key are one, for a day."
    )
    idempotencyKeyOptions: IdempotencyKeyOptions | None = None


class StreamedItem(BatchItem):
    """One line: one run of a batch."""

    index: Annotated[StrictInt, Field(ge=0, le=_MAX_INDEX)]


class ItemsTaken(BaseModel):
    """How far the batch is now."""

    id: str
    itemsAccepted: int = Field(description="Items that were new.")
    itemsDeduplicated: int = Field(description="Items that were there before.")
    sealed: bool = Field(description="Whether all items are there; else send them all again.")
    runCount: int
    enqueuedCount: int | None = Field(default=None, description="Items that are there.")
    expectedCount: int | None = None


async def open_batch(call: Call) -> Response:
    """Create a batch without runs."""
    body: StreamedBatch = call.body
    everything = (Resource("batch"), Resource("tasks"))
    tasks = sorted(set(body.taskIdentifiers or ()))
    if not call.grant.permissions.allows("batchTrigger", everything):
        require_every(call.grant, "batchTrigger", (Resource("tasks", task) for task in tasks))
        if not tasks:
            require(call.grant, "batchTrigger", *everything)
    await check_parent(call, body.parentRunId)
    if body.parentRunId is not None:
        parent = await call.services.runs.read_run(call.environment_id, body.parentRunId)
        if parent is None:  # said now, not by each run
            raise NotFound("The parent run does not exist; name a run of this environment.")
    scope = hashlib.sha256(orjson.dumps(tasks)).hexdigest() if tasks else ""
    options = body.model_dump(include={"parentRunId", "resumeParentOnCompletion"})
    new_batch = NewBatch(
        environment_id=call.environment_id,
        idempotency_key=body.idempotencyKey or None,
        idempotency_scope=scope,
        one_time_token=call.grant.token_hash if call.grant.one_time else None,
        request=request_digest(call.request.headers, "batch"),
        options=orjson.dumps(options).decode(),
    )
    batch = await call.services.runs.open_batch(new_batch, body.runCount)
    scopes = [f"read:batch:{batch.id}"]
    in_browser = call.request.headers.get("x-trigger-client") == "browser"
    if in_browser and call.grant.permissions.allows("batchTrigger", everything):
        scopes.append(f"write:batch:{batch.id}")
    handed = await hand_out_token(call, scopes)
    return json_response(
        batch_handle(batch, handed), 200 if batch.cached else 202, headers=handed.headers
    )


async def stream_items(call: Call) -> Response:
    """Take items as they arrive; once all are there, create the runs."""
    content_type = call.request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type and content_type not in _ND_JSON:
        raise UnsupportedMediaType('Send one JSON object per line as "application/x-ndjson".')
    runs, batch_id = call.services.runs, call.path["batch"]
    whole = Resource("batch", batch_id)
    may_write = call.grant.permissions.allows("write", (whole,))
    batch = await runs.read_batch(call.environment_id, batch_id)
    if batch is None or batch.status == "ABORTED":
        # Who may write to no batch of this name does not learn whether it exists.
        if not may_write and not call.grant.permissions.allows(
            "batchTrigger", (Resource("tasks"),)
        ):
            require(call.grant, "write", whole)
        raise _not_open()
    collector = _Collector(call, batch, may_write=may_write)
    async for line in _lines(call):
        await collector.take(line)
    await collector.flush()
    if not collector.lines and not may_write:
        require(call.grant, "write", whole)  # nothing in the body has shown that the caller may
    far = await runs.seal_batch(call.environment_id, batch_id)
    if far.missing:
        raise _not_open()
    if far.sealed:
        while await runs.create_next_runs(batch_id):
            pass
    answer = {
        "id": batch_id,
        "itemsAccepted": collector.accepted,
        "itemsDeduplicated": collector.repeated,
        "sealed": far.sealed,
        "runCount": far.run_count,
    }
    if not far.sealed:
        answer |= {"enqueuedCount": far.stored, "expectedCount": far.run_count}
    return json_response(answer)


class _Collector:
    """Checks lines and stores them, group by group."""

    def __init__(self, call: Call, batch: Batch, *, may_write: bool) -> None:
        self.lines = 0
        self.accepted = 0
        self.repeated = 0
        self._call = call
        self._batch = batch
        self._may_write = may_write
        self._open = batch.status == "PENDING"
        self._options: dict[str, Any] = orjson.loads(batch.options)
        self._items: list[NewRun] = []
        self._bytes = 0

    async def take(self, line: bytes | OversizedItem) -> None:
        self.lines += 1
        if isinstance(line, OversizedItem):
            item, size = self._oversized(line), len(line.head)
        else:
            item, size = self._item(line), len(line)
        if item is None:
            return
        self._items.append(item)
        self._bytes += size
        if len(self._items) >= _GROUP_ITEMS or self._bytes >= _GROUP_BYTES:
            await self.flush()

    async def flush(self) -> None:
        items, self._items, self._bytes = self._items, [], 0
        if not items:
            return
        batch = self._batch
        new = await self._call.services.runs.add_items(batch.environment_id, batch.id, items)
        if new is None:  # another request has sealed it
            self._open = False
            return
        self.accepted += new
        self.repeated += len(items) - new

    def _item(self, line: bytes) -> NewRun | None:
        value = _parse(line)
        if not self._open and self._may_write:
            return None
        try:
            item = StreamedItem.model_validate(value)
        except ValidationError as error:
            raise Unprocessable(f"line {self.lines}: {problems_in_words(error)}") from None
        self._check(item.index, item.task)
        if not self._open:
            return None
        options = item.options or TriggerOptions()
        options.parentRunId = None
        options.resumeParentOnCompletion = self._options.get("resumeParentOnCompletion")
        try:
            return new_run(
                environment_id=self._batch.environment_id,
                task=item.task,
                payload=item.payload if "payload" in item.model_fields_set else MISSING,
                options=options,
                limits=self._call.services.limits,
                now=self._call.now,
                parent_id=self._options.get("parentRunId"),
                batch_index=item.index,
                trigger_function="batchTrigger",
            )
        except RequestError as error:
            raise Unprocessable(f"item {item.index}: {error.message}") from None

    def _oversized(self, line: OversizedItem) -> NewRun | None:
        """An item that is too large becomes a run that says so."""
        most = self._call.services.limits.max_body_bytes
        known = line.index_and_task()
        if known is None:
            raise Unprocessable(
                f"line {self.lines}: an item has at most {most} bytes, and begins with its index "
                "and task."
            )
        index, task = known
        try:
            item = StreamedItem(index=index, task=task)
        except ValidationError as error:
            raise Unprocessable(f"line {self.lines}: {problems_in_words(error)}") from None
        self._check(item.index, item.task)
        if not self._open:
            return None
        new = NewRun(
            environment_id=self._batch.environment_id,
            task=item.task,
            batch_index=item.index,
            trigger_function="batchTrigger",
        )
        return failed_item(new, f"An item has at most {most} bytes.", "PAYLOAD_TOO_LARGE")

    def _check(self, index: int, task: str) -> None:
        if not self._may_write:
            require(self._call.grant, "batchTrigger", Resource("tasks", task))
        if self._open and index >= self._batch.run_count:
            raise Unprocessable(
                f"line {self.lines}: the index is below {self._batch.run_count}, the runCount of "
                "the batch."
            )


async def _lines(call: Call) -> AsyncIterator[bytes | OversizedItem]:
    splitter = ItemSplitter(call.services.limits.max_body_bytes)
    stream = call.request.stream()
    while True:
        try:
            async with asyncio.timeout(call.services.limits.request_timeout_seconds):
                data = await anext(stream, None)
        except TimeoutError:
            raise RequestTimeout("The items stopped to arrive; send them again.") from None
        for line in splitter.finish() if data is None else splitter.receive(data):
            yield line
        if data is None:
            return


def _parse(line: bytes) -> Any:
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError as error:
        repaired = repaired_json(line.decode(errors="replace"))
        if repaired is None:
            raise InvalidBody(f"A line is not JSON: {error}.") from None
        return orjson.loads(repaired)


def _not_open() -> Unprocessable:
    return Unprocessable("There is no such batch that takes items; create one first.")


OPERATIONS = (
    Operation(
        method="POST",
        path="/api/v3/batches",
        name="openBatch",
        summary="Create a batch whose items will follow",
        description="Public tokens need batchTrigger:tasks:{task} for every task that is named, "
        "or batchTrigger:tasks or batchTrigger:batch.",
        handler=open_batch,
        access=Access.ANY_TOKEN,
        tag="Batches",
        headers={
            REQUEST_KEY: IDEMPOTENCY_HEADERS[REQUEST_KEY],
            "x-trigger-client": "With `browser`, the token for the batch may send its items.",
        },
        body=StreamedBatch,
        body_bytes=lambda limits: _MAX_BYTES,
        answers={
            200: Answer("The batch was there before.", BatchHandle, headers=TOKEN_HEADERS),
            202: Answer("The batch.", BatchHandle, headers=TOKEN_HEADERS),
        },
        errors=(404, 422),
    ),
    Operation(
        method="POST",
        path="/api/v3/batches/{batch}/items",
        name="streamBatchItems",
        summary="Send the items of a batch, one per line",
        description='Newline-delimited JSON: {"index", "task", "payload"?, "options"?}. An item '
        "that is sent again is kept once. When all are there the batch is sealed, and each "
        "becomes a run. Public tokens need write:batch:{batch}, or batchTrigger:tasks:{task} for "
        "each item.",
        handler=stream_items,
        access=Access.ANY_TOKEN,
        tag="Batches",
        path_parameters={"batch": "The id of the batch."},
        answers={200: Answer("How far the batch is.", ItemsTaken)},
        errors=(408, 413, 415, 422),
    ),
)
