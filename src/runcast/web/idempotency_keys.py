"""Idempotency keys: making one good for a new run."""

from pydantic import BaseModel
from starlette.responses import Response

from runcast.core.scope import Resource
from runcast.errors import NotFound
from runcast.web.bearer import require
from runcast.web.operation import Access, Answer, Call, Operation
from runcast.web.responses import json_response
from runcast.web.text_field import ShortText


class KeyReset(BaseModel):
    """Which task the key was given for."""

    taskIdentifier: ShortText


class ResetKey(BaseModel):
    """The key that is good for a new run."""

    id: str


async def reset_key(call: Call) -> Response:
    """Let a key stand for no run any more."""
    require(call.grant, "write", Resource("runs"))
    body: KeyReset = call.body
    key = call.path["key"]
    stood = await call.services.runs.reset_idempotency_key(
        call.environment_id, body.taskIdentifier, key
    )
    if not stood:
        raise NotFound("No run of this task has this idempotency key; send the key's hash.")
    return json_response({"id": key})


OPERATIONS = (
    Operation(
        method="POST",
        path="/api/v1/idempotencyKeys/{key}/reset",
        name="resetIdempotencyKey",
        summary="Make an idempotency key good for a new run",
        description="The run that it stood for goes on. Public tokens need write:runs.",
        handler=reset_key,
        access=Access.ANY_TOKEN,
        tag="Runs",
        path_parameters={"key": "The key as it was sent with the trigger: its hash."},
        body=KeyReset,
        answers={200: Answer("The next trigger with the key makes a run.", ResetKey)},
        errors=(404,),
    ),
)
