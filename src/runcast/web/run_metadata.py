"""The metadata of a run: reading it, replacing it, and operations that also reach above."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import BaseModel, Field, WithJsonSchema
from starlette.responses import Response

from runcast.core.lifecycle import changes_for_metadata
from runcast.core.metadata import (
    MAX_KEY_LENGTH,
    Operation as MetadataOperation,
    check_storable,
    parse_operations,
)
from runcast.core.packet import json_fragment
from runcast.core.run import Run
from runcast.errors import NotFound
from runcast.web.operation import Access, Answer, Call, Operation
from runcast.web.request_key import REQUEST_KEY_HEADER, request_digest
from runcast.web.responses import json_response
from runcast.web.run_access import NO_RUN
from runcast.web.run_models import Metadata

_OPERATION = {
    "type": "object",
    "required": ["type"],
    "properties": {
        "type": {
            "enum": ["set", "delete", "append", "remove", "increment", "decrement", "replace"]
        },
        "key": {
            "type": "string",
            "maxLength": MAX_KEY_LENGTH,
            "description": "A literal key; one that starts with $. is a path.",
        },
        "value": {"description": "What to set, append, remove, add, or replace everything with."},
    },
}
# What a repetition would add once more.
_ACCUMULATING = ("append", "increment")
Operations = list[Annotated[Any, WithJsonSchema(_OPERATION)]]


class MetadataChange(BaseModel):
    """What to change; operations go before ``metadata``, which replaces everything."""

    metadata: dict[str, Any] | None = None
    operations: Operations | None = Field(
        default=None,
        description='Such as {"type": "set", "key": "progress", "value": 0.5}; also delete, '
        "append, remove, increment, decrement, replace. A key that starts with $. is a path.",
    )
    parentOperations: Operations | None = Field(
        default=None, description="Operations on the parent run; on this run if it has none."
    )
    rootOperations: Operations | None = Field(
        default=None, description="Operations on the topmost run; on this run if it has none."
    )


async def read_metadata(call: Call) -> Response:
    """Give the metadata of a run."""
    run = await call.services.runs.read_run(call.environment_id, call.path["run"])
    if run is None:
        raise NotFound(NO_RUN)
    return json_response({"metadata": json_fragment(run.metadata)})


async def change_metadata(call: Call) -> Response:
    """Change the metadata of a run, its parent and its root, all or nothing."""
    body: MetadataChange = call.body
    own = _own_changes(body)
    parents = parse_operations(body.parentOperations or [])
    roots = parse_operations(body.rootOperations or [])
    runs, run_id = call.services.runs, call.path["run"]
    parent_id = root_id = run_id
    if parents or roots:
        run = await runs.read_run(call.environment_id, run_id)
        if run is None:
            raise NotFound(NO_RUN)
        # Which runs these are never changes, so they can be looked up before the lock.
        parent_id, root_id = run.parent_id or run_id, run.root_id or run_id
    wanted = [run_id]
    wanted += [parent_id] if parents else []
    wanted += [root_id] if roots else []
    # Most flushes only set values, again and again: to do so twice harms nobody.
    accumulates = any(each.kind in _ACCUMULATING for each in (*own, *parents, *roots))
    request = request_digest(call.request.headers, f"metadata {run_id}") if accumulates else None

    def decide(locked: Sequence[Run]) -> Mapping[str, Mapping[str, Any]]:
        by_id = {each.id: each for each in locked}
        operations: dict[str, list[MetadataOperation]] = {run_id: [*own]}
        for target, more in ((parent_id, parents), (root_id, roots)):
            # One that was deleted is none.
            operations.setdefault(target if target in by_id else run_id, []).extend(more)
        return {
            each.id: changes_for_metadata(
                each,
                operations.get(each.id, []),
                call.services.limits.max_metadata_bytes,
                call.time,
            )
            for each in locked
        }

    updated = await runs.update_runs(
        call.environment_id, list(dict.fromkeys(wanted)), decide, request=request
    )
    for each in updated:
        if each.id == run_id:
            return json_response({"metadata": json_fragment(each.metadata)})
    raise NotFound(NO_RUN)


def _own_changes(body: MetadataChange) -> tuple[MetadataOperation, ...]:
    if body.operations is not None:
        return parse_operations(body.operations)
    if body.metadata is None:
        return ()
    check_storable(body.metadata)
    return (MetadataOperation("replace", (), body.metadata),)


_RUN = {"run": "The id of the run."}

OPERATIONS = (
    Operation(
        method="GET",
        path="/api/v1/runs/{run}/metadata",
        name="readMetadata",
        summary="Read the metadata of a run",
        handler=read_metadata,
        access=Access.SECRET_KEY,
        tag="Runs",
        path_parameters=_RUN,
        answers={200: Answer("All of it.", Metadata)},
        errors=(404,),
    ),
    Operation(
        method="PUT",
        path="/api/v1/runs/{run}/metadata",
        name="changeMetadata",
        summary="Change the metadata of a run, its parent and its root",
        description="Atomic against everybody else who changes it; all or nothing.",
        handler=change_metadata,
        access=Access.SECRET_KEY,
        tag="Runs",
        path_parameters=_RUN,
        headers=REQUEST_KEY_HEADER,
        body=MetadataChange,
        answers={200: Answer("What the run has now.", Metadata)},
        errors=(404, 422),
    ),
)
