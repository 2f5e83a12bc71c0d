"""One run: retrieving it, its result, cancelling it, when it begins, its progress, its tags."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, Field
from starlette.responses import Response

from runcast.core.lifecycle import (
    changes_for_cancel,
    changes_for_patch,
    changes_for_reschedule,
    changes_for_tags_added,
)
from runcast.core.run import Run
from runcast.core.run_json import retrieve_object
from runcast.core.run_result import result_object
from runcast.core.scope import Resource
from runcast.core.tags import parse_tags
from runcast.errors import InvalidBody, NotFound, Unprocessable
from runcast.ports import Decide
from runcast.web.bearer import require
from runcast.web.etag import is_known, runs_etag
from runcast.web.operation import Access, Answer, Call, Operation
from runcast.web.presigning import packet_urls
from runcast.web.request_key import REQUEST_KEY_HEADER, request_digest
from runcast.web.responses import json_response
from runcast.web.run_access import NO_RUN, readable_run
from runcast.web.run_models import Message, RetrievedRun, RunId, RunResult
from runcast.web.run_patch_body import RunPatch
from runcast.web.text_field import Tag, Text
from runcast.web.trigger_options import delay_until

_MAX_CHILDREN = 100
# Each finds runs that came into being during the one before; a cancelled run gets no more of them.
_CANCEL_ROUNDS = 20


class NewTags(BaseModel):
    """Tags to be added to a run."""

    tags: Tag | list[Tag] = Field(description="Texts of up to 128 characters.")


class NewDelay(BaseModel):
    """When a delayed run is to begin."""

    delay: Text = Field(description='A duration such as "1h30m", or an ISO 8601 time to come.')


async def retrieve_run(call: Call) -> Response:
    """Give one run with what is related to it, as far as the caller may read that."""
    runs = call.services.runs
    run = await readable_run(call.services, call.grant, call.path["run"])
    above = [each for each in dict.fromkeys((run.root_id, run.parent_id)) if each]
    related = await runs.read_runs(call.environment_id, above) if above else []
    children = await runs.read_children(call.environment_id, run.id, limit=_MAX_CHILDREN)
    seen = {each.id: each for each in related if call.grant.permissions.may_read(each)}
    children = [each for each in children if call.grant.permissions.may_read(each)]
    payload_url, output_url = await packet_urls(call, run)
    etag = runs_etag(call, [run, *seen.values(), *children], payload_url, output_url)
    headers = {
        "etag": etag,
        "cache-control": "private, no-cache",
        "vary": "authorization, x-trigger-api-version",
    }
    if is_known(call, etag):
        return Response(status_code=304, headers=headers)
    answer = retrieve_object(
        run,
        call.api,
        root=seen.get(run.root_id or ""),
        parent=seen.get(run.parent_id or ""),
        children=children,
        payload_url=payload_url,
        output_url=output_url,
        withhold=call.withheld,
    )
    return json_response(answer, headers=headers)


async def cancel_run(call: Call) -> Response:
    """Cancel a run and all below it; what is finished stays as it is."""
    runs, run_id = call.services.runs, call.path["run"]
    run = await runs.read_run(call.environment_id, run_id)
    resources = [Resource("runs", run_id)]
    if run is not None:
        resources.append(Resource("tasks", run.task))
    require(call.grant, "write", *resources)
    if run is None:
        raise NotFound(NO_RUN)
    below = await runs.read_descendant_ids(call.environment_id, run_id)

    def decide(locked: Sequence[Run]) -> Mapping[str, Mapping[str, Any]]:
        return {each.id: changes_for_cancel(each, call.time) for each in locked}

    await runs.update_runs(call.environment_id, [run_id, *below], decide)
    for _ in range(_CANCEL_ROUNDS):
        if not (below := await runs.read_descendant_ids(call.environment_id, run_id)):
            break
        await runs.update_runs(call.environment_id, below, decide)
    return json_response({"id": run_id})


async def reschedule_run(call: Call) -> Response:
    """Give a delayed run another time to begin at."""
    body: NewDelay = call.body
    try:
        until = delay_until(body.delay, call.now)
    except Unprocessable as error:
        raise InvalidBody(error.message) from None
    if until is None:
        raise InvalidBody("The delay is over already; name a time to come.")

    def decide(locked: Sequence[Run]) -> Mapping[str, Mapping[str, Any]]:
        return {run.id: changes_for_reschedule(run, until) for run in locked}

    request = request_digest(call.request.headers, f"reschedule {call.path['run']}")
    return json_response(retrieve_object(await _update(call, decide, request), call.api))


async def read_result(call: Call) -> Response:
    """Tell how a finished run ended."""
    run = await call.services.runs.read_run(call.environment_id, call.path["run"])
    if run is None:
        raise NotFound(NO_RUN)
    if not run.finished:
        raise NotFound("The run is not finished; ask again later, or subscribe to it.")
    return json_response(result_object(run))


async def patch_run(call: Call) -> Response:
    """Change what a worker may change."""
    body: RunPatch = call.body
    limit = call.services.limits.max_metadata_bytes

    def decide(locked: Sequence[Run]) -> Mapping[str, Mapping[str, Any]]:
        return {
            run.id: changes_for_patch(run, body.root, call.time, metadata_limit_bytes=limit)
            for run in locked
        }

    return json_response(retrieve_object(await _update(call, decide), call.api))


async def add_tags(call: Call) -> Response:
    """Add tags to a run; those that it has are no error."""
    body: NewTags = call.body
    tags = parse_tags(body.tags)

    def decide(locked: Sequence[Run]) -> Mapping[str, Mapping[str, Any]]:
        return {run.id: changes_for_tags_added(run, tags) for run in locked}

    run = await _update(call, decide)
    return json_response({"message": f"The run has {len(run.tags)} tags now."})


async def _update(call: Call, decide: Decide, request: str | None = None) -> Run:
    updated = await call.services.runs.update_runs(
        call.environment_id, [call.path["run"]], decide, request=request
    )
    if not updated:
        raise NotFound(NO_RUN)
    return updated[0]


_RUN = {"run": "The id of the run."}
_RETRIEVED = {
    200: Answer("The run.", RetrievedRun, headers={"etag": "For If-None-Match."}),
    304: Answer("Nothing changed since."),
}
_IF_NONE_MATCH = {"if-none-match": "The etag of an earlier answer."}

OPERATIONS = (
    Operation(
        method="GET",
        path="/api/v3/runs/{run}",
        name="retrieveRun",
        summary="Retrieve a run",
        handler=retrieve_run,
        access=Access.ANY_TOKEN,
        tag="Runs",
        path_parameters=_RUN,
        headers=_IF_NONE_MATCH,
        answers=_RETRIEVED,
        errors=(404,),
    ),
    Operation(
        method="GET",
        path="/api/v1/runs/{run}",
        name="retrieveRunV1",
        summary="Retrieve a run",
        handler=retrieve_run,
        access=Access.ANY_TOKEN,
        tag="Runs",
        path_parameters=_RUN,
        headers=_IF_NONE_MATCH,
        answers=_RETRIEVED,
        errors=(404,),
    ),
    Operation(
        method="PATCH",
        path="/api/v1/runs/{run}",
        name="patchRun",
        summary="Change the state of a run",
        description="For workers in any language. Atomic; a finished run is never revived.",
        handler=patch_run,
        access=Access.SECRET_KEY,
        tag="Runs",
        path_parameters=_RUN,
        body=RunPatch,
        answers={200: Answer("The run as it is then.", RetrievedRun)},
        errors=(404, 422),
    ),
    Operation(
        method="POST",
        path="/api/v2/runs/{run}/cancel",
        name="cancelRun",
        summary="Cancel a run and the runs below it",
        description="Public tokens need write:runs:{run} or write:tasks:{task}. A body is ignored.",
        handler=cancel_run,
        access=Access.ANY_TOKEN,
        tag="Runs",
        path_parameters=_RUN,
        answers={200: Answer("The run is not running any more.", RunId)},
        errors=(404,),
    ),
    Operation(
        method="POST",
        path="/api/v1/runs/{run}/reschedule",
        name="rescheduleRun",
        summary="Let a delayed run begin at another time",
        handler=reschedule_run,
        access=Access.SECRET_KEY,
        tag="Runs",
        path_parameters=_RUN,
        headers=REQUEST_KEY_HEADER,
        body=NewDelay,
        answers={200: Answer("The run as it is then.", RetrievedRun)},
        errors=(404,),
    ),
    Operation(
        method="GET",
        path="/api/v1/runs/{run}/result",
        name="readResult",
        summary="Read how a finished run ended",
        handler=read_result,
        access=Access.SECRET_KEY,
        tag="Runs",
        path_parameters=_RUN,
        answers={200: Answer("Its output or its error.", RunResult)},
        errors=(404,),
    ),
    Operation(
        method="POST",
        path="/api/v1/runs/{run}/tags",
        name="addTags",
        summary="Add tags to a run",
        handler=add_tags,
        access=Access.SECRET_KEY,
        tag="Runs",
        path_parameters=_RUN,
        body=NewTags,
        answers={200: Answer("The run has the tags.", Message)},
        errors=(404, 422),
    ),
)
