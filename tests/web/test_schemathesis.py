"""Requests that fit the OpenAPI document, and such that do not, against the running gateway."""

from typing import Any

import anyio.to_thread
import hypothesis
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi import checks

from runcast.web.operation import Operation
from runcast.web.routes import OPERATIONS
from tests.support.gateway import API_VERSION, RunningGateway, Tenant, bearing

pytestmark = pytest.mark.slow

_EXAMPLES = 25
# These succeed only with values that stand for something, which no schema can say.
_GUESSED_BY_NOBODY = {
    "rescheduleRun",
    "waitForTime",
    "resetIdempotencyKey",
    "downloadRunPacket",
    "putObject",
    "getObject",
    "callBackWaitToken",
    "renewConnectionToken",
}
# A wrong request is one that leaves out the key too, which is sent nevertheless.
_NEVER_WRONG = {"listWaitTokens"}
_CHECKS = [
    schemathesis.checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
    checks.negative_data_rejection,
    checks.unsupported_method,
    checks.allow_header_conformance,
    checks.ignored_auth,
]


def takes_something(operation: Operation) -> bool:
    """Tell whether there is anything that a request could get wrong."""
    takes = operation.path_parameters or operation.query or operation.body
    return bool(takes) and operation.name not in _NEVER_WRONG


CASES = [
    pytest.param(operation, mode, id=f"{operation.name}-{mode.value}")
    for operation in OPERATIONS
    for mode in GenerationMode
    # Streams go on; they have tests of their own.
    if not operation.is_stream and (mode is GenerationMode.POSITIVE or takes_something(operation))
]


@pytest.mark.parametrize(("operation", "mode"), CASES)
async def test_answers_are_as_described(
    gateway: RunningGateway, tenant: Tenant, operation: Operation, mode: GenerationMode
) -> None:
    run_id = await tenant.trigger(tags=["a"], metadata={"n": 1})
    batch = await tenant.client.post("/api/v2/tasks/batch", json={"items": [{"task": "t"}]})
    known = {"run": run_id, "batch": batch.json()["id"], "task": "t"}
    known |= {"target": "self", "key": "log"}
    waits = await tenant.client.post("/api/v1/waitpoints/tokens", json={})
    known |= {"token": waits.json()["id"], "hash": "0"}
    revoked = await tenant.client.post("/api/v1/tokens/revocations", json={"tokenId": "t"})
    known |= {"revocation": revoked.json()["id"]}
    known |= {"connection": f"{gateway.services.hub.id}-none"}
    known |= {"environment": tenant.environment_id, "name": "a.json", "packet": "payload"}
    if operation.name == "readResult":
        await tenant.patch(run_id, status="COMPLETED")
    statuses = await anyio.to_thread.run_sync(
        _examine, gateway.url, tenant.key, operation, mode, known
    )
    # A test in which nothing ever succeeds, or nothing is ever refused, would show little.
    if mode is GenerationMode.NEGATIVE:
        assert statuses & {400, 404, 422}, statuses
    elif operation.name not in _GUESSED_BY_NOBODY:
        assert statuses & operation.answers.keys(), statuses


def _examine(
    url: str, key: str, operation: Operation, mode: GenerationMode, known: dict[str, str]
) -> set[int]:
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    described = schema[operation.path][operation.method]
    headers = bearing(key) | API_VERSION
    statuses: set[int] = set()

    def send(case: Any) -> None:
        response = case.call(headers=headers)
        statuses.add(response.status_code)
        case.validate_response(response, checks=_CHECKS, headers=headers)

    # The edges of every schema, one after the other.
    edges = schema.iter_coverage_cases(
        described,
        generation_modes=[mode],
        generation_config=schema.config.generation_for(operation=described),
    )
    for case in edges:
        send(case)

    @hypothesis.settings(
        max_examples=_EXAMPLES,
        deadline=None,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=described.as_strategy(generation_mode=mode))
    def examine(case: Any) -> None:
        if mode is GenerationMode.POSITIVE:
            # Of things that exist, so that more than 404 is met.
            case.path_parameters = {name: known[name] for name in case.path_parameters}
        send(case)

    examine()
    return statuses
