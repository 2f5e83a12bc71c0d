"""Triggering a task: a run comes into being, and with it a token to follow it."""

from typing import Any

from pydantic import BaseModel, Field
from starlette.responses import Response

from runcast.core.packet import MISSING
from runcast.core.scope import Resource
from runcast.web.bearer import require
from runcast.web.handed_tokens import TOKEN_HEADERS, hand_out_token
from runcast.web.operation import Access, Answer, Call, Operation
from runcast.web.request_key import REQUEST_KEY
from runcast.web.responses import json_response
from runcast.web.trigger_options import TriggerOptions, new_run

IDEMPOTENCY_HEADERS = {
    "idempotency-key": "Wins over the key in the body.",
    "idempotency-key-ttl": "How long that key holds, such as 60s or 7d.",
    REQUEST_KEY: "Names the request: sent again within 24 hours, it gets its first answer again.",
}


class Trigger(BaseModel):
    """What to run a task with."""

    payload: Any = None
    context: Any = Field(default=None, description="Of older clients; ignored.")
    options: TriggerOptions | None = None


class RunHandle(BaseModel):
    """A run that was triggered, or found by its idempotency key."""

    id: str
    isCached: bool = Field(description="Whether the run was there before.")
    publicAccessToken: str = Field(description="Reads this run, for an hour.")


async def trigger_task(call: Call) -> Response:
    """Create a run of a task."""
    task, body = call.path["task"], call.body
    require(call.grant, "trigger", Resource("tasks", task))
    options = body.options or TriggerOptions()
    await check_parent(call, options.parentRunId)
    run = new_run(
        environment_id=call.environment_id,
        task=task,
        payload=body.payload if "payload" in body.model_fields_set else MISSING,
        options=options,
        limits=call.services.limits,
        now=call.now,
        headers=call.request.headers,
        one_time_token=call.grant.token_hash if call.grant.one_time else None,
    )
    (triggered,) = await call.services.runs.create_runs([run])
    run_id = triggered.run.id
    handed = await hand_out_token(call, [f"read:runs:{run_id}", f"write:inputStreams:{run_id}"])
    body = {"id": run_id, "isCached": triggered.cached, "publicAccessToken": handed.token}
    return json_response(body, headers=handed.headers)


async def check_parent(call: Call, parent_id: str | None) -> None:
    """
    Go on only if the caller may give its runs this parent.

    Raises:
        InsufficientScope: A public token that may not write to the parent.
    """
    if parent_id is None or call.grant.is_secret_key:
        return
    resources = [Resource("runs", parent_id)]
    parent = await call.services.runs.read_run(call.environment_id, parent_id)
    if parent is not None:
        resources.append(Resource("tasks", parent.task))
    require(call.grant, "write", *resources)


OPERATIONS = (
    Operation(
        method="POST",
        path="/api/v1/tasks/{task}/trigger",
        name="triggerTask",
        summary="Trigger a task",
        description="Creates a run. Public tokens need the scope trigger:tasks:{task}, and "
        "write:runs:{run} where the run is given a parent.",
        handler=trigger_task,
        access=Access.ANY_TOKEN,
        tag="Runs",
        path_parameters={"task": "The id of the task; write a slash in it as %2F."},
        headers=IDEMPOTENCY_HEADERS,
        body=Trigger,
        answers={200: Answer("The run.", RunHandle, headers=TOKEN_HEADERS)},
        errors=(404, 422),
    ),
)
