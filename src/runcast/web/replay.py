"""Replaying: a new run that begins as an older one did, with what the caller wants changed."""

from dataclasses import replace
from typing import Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.responses import Response

from runcast.core.new_run import NewRun
from runcast.core.packet import SUPER_JSON, packet_from_trigger
from runcast.core.run import Run
from runcast.errors import InvalidBody, NotFound
from runcast.web.handed_tokens import TOKEN_HEADERS, hand_out_token
from runcast.web.operation import Access, Answer, Call, Operation
from runcast.web.request_key import REQUEST_KEY
from runcast.web.responses import json_response, problems_in_words
from runcast.web.run_access import NO_RUN
from runcast.web.run_models import RunId
from runcast.web.tasks import IDEMPOTENCY_HEADERS
from runcast.web.text_field import ShortText, Tag, Text
from runcast.web.trigger_options import (
    Machine,
    Number,
    QueueChoice,
    TriggerOptions,
    Ttl,
    new_run,
)

# Of the options that no column holds: those which belong to the one run that they came with.
_ITS_OWN = ("debounce", "bulkActionId", "payloadSize")


class Replay(BaseModel):
    """What is to be different; whatever is left out is as it was in the older run."""

    model_config = ConfigDict(extra="forbid")

    payload: Any = None
    payloadType: Literal["application/json", "application/super+json"] | None = None
    metadata: dict[str, Any] | str | None = None
    tags: Tag | list[Tag] | None = None
    queue: QueueChoice | ShortText | None = None
    concurrencyKey: Text | Number | None = None
    machine: Machine | None = None
    version: ShortText | None = None
    region: ShortText | None = None
    delay: Text | None = None
    ttl: Ttl | None = None
    idempotencyKey: Text | None = None
    idempotencyKeyTTL: Text | None = None
    maxAttempts: int | None = Field(default=None, ge=1, strict=True)
    maxDuration: Number | None = None
    priority: Number | None = None


async def replay_run(call: Call) -> Response:
    """Create a run with the task, payload, tags and first metadata of another."""
    runs, body = call.services.runs, call.body
    run = await runs.read_run(call.environment_id, call.path["run"])
    if run is None:
        raise NotFound(NO_RUN)
    seed = await runs.read_seed_metadata(call.environment_id, run.id)
    (triggered,) = await runs.create_runs([_copy(call, run, seed, body)])
    new_id = triggered.run.id
    handed = await hand_out_token(call, [f"read:runs:{new_id}", f"write:inputStreams:{new_id}"])
    return json_response({"id": new_id}, headers=handed.headers)


def _copy(call: Call, run: Run, seed: str, body: Replay) -> NewRun:
    changed = body.model_dump(exclude_unset=True, exclude_none=True)
    changed.pop("payload", None)
    changed.pop("payloadType", None)
    if "version" in changed:
        changed["lockToVersion"] = changed.pop("version")
    try:
        options = TriggerOptions.model_validate(_options_of(run, seed) | changed)
    except ValidationError as error:
        raise InvalidBody(problems_in_words(error)) from None
    copy = new_run(
        environment_id=call.environment_id,
        task=run.task,
        payload=None,
        options=options,
        limits=call.services.limits,
        now=call.now,
        headers={REQUEST_KEY: call.request.headers.get(REQUEST_KEY, "")},
    )
    if body.payloadType == SUPER_JSON and not isinstance(body.payload, str):
        raise InvalidBody("payload is the text of super JSON when payloadType says so.")
    if "payload" in body.model_fields_set:
        text, kind = packet_from_trigger(body.payload, body.payloadType)
    else:
        text, kind = run.payload, run.payload_type
    return replace(copy, payload=text, payload_type=kind)


def _options_of(run: Run, seed: str) -> dict[str, Any]:
    """What the older run was triggered with, as far as it concerns any run of its kind."""
    kept = {
        name: value for name, value in orjson.loads(run.options).items() if name not in _ITS_OWN
    }
    columns = {
        "metadata": orjson.loads(seed),
        "tags": list(run.tags),
        "queue": kept.pop("queue", None) or run.queue,
        "concurrencyKey": run.concurrency_key,
        "priority": run.priority_ms / 1000,
        "machine": run.machine,
        "region": run.region,
        "maxAttempts": run.max_attempts,
        "maxDuration": run.max_duration_seconds,
        "test": run.is_test,
    }
    return kept | {name: value for name, value in columns.items() if value is not None}


OPERATIONS = (
    Operation(
        method="POST",
        path="/api/v1/runs/{run}/replay",
        name="replayRun",
        summary="Run once more what a run was",
        description="The new run has the task, payload, tags, options and first metadata of the "
        "older one, not its keys, delay, time to live, version or parent.",
        handler=replay_run,
        access=Access.SECRET_KEY,
        tag="Runs",
        path_parameters={"run": "The id of the older run."},
        headers={REQUEST_KEY: IDEMPOTENCY_HEADERS[REQUEST_KEY]},
        body=Replay,
        body_optional=True,
        answers={200: Answer("The new run.", RunId, headers=TOKEN_HEADERS)},
        errors=(404, 422),
    ),
)
