"""The OpenAPI document: valid, and about exactly the routes that there are."""

import re
from typing import Any

import jsonschema_rs
import orjson
import pytest
from schemathesis.specs.openapi.definitions import OPENAPI_31_VALIDATOR
from starlette.routing import Route

from runcast.web.asgi import create_asgi
from runcast.web.operation import Access, Operation
from runcast.web.routes import OPERATIONS, openapi_json
from tests.support.gateway import RunningGateway

DOCUMENT: Any = orjson.loads(openapi_json())


async def test_the_document_is_served_as_it_is_made(gateway: RunningGateway) -> None:
    answer = await gateway.anybody.get("/openapi.json")
    assert answer.status_code == 200
    assert answer.json() == DOCUMENT


def test_it_is_valid_openapi_3_1() -> None:
    assert DOCUMENT["openapi"].startswith("3.1")
    OPENAPI_31_VALIDATOR.validate(DOCUMENT)
    for schema in DOCUMENT["components"]["schemas"].values():
        jsonschema_rs.meta.validate(schema)


def test_every_reference_leads_somewhere() -> None:
    references = set(re.findall(r'"\$ref":"#/([^"]+)"', openapi_json().decode()))
    assert references
    for reference in references:
        found = DOCUMENT
        for name in reference.split("/"):
            found = found[name]


async def test_it_describes_the_routes_that_there_are_and_no_others(
    gateway: RunningGateway,
) -> None:
    app: Any = create_asgi(gateway.services)
    routes: list[Route] = app._app.routes
    endpoints: list[tuple[str, Any]] = [(route.path, route.endpoint) for route in routes]
    routed = {(method, path) for path, endpoint in endpoints for method in endpoint._operations}
    described = {
        (method.upper(), path) for path, methods in DOCUMENT["paths"].items() for method in methods
    }
    assert routed == described == {(each.method, each.path) for each in OPERATIONS}


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda each: each.name)
def test_each_operation_is_described_in_full(operation: Operation) -> None:
    described = DOCUMENT["paths"][operation.path][operation.method.lower()]
    assert described["operationId"] == operation.name
    assert described["summary"]
    assert bool(described["security"]) == (operation.access is not Access.OPEN)
    # An open address may carry its own credential.
    refuses = operation.access is not Access.OPEN or 401 in operation.errors
    assert ("401" in described["responses"]) == refuses
    in_path = {each["name"] for each in described["parameters"] if each["in"] == "path"}
    assert in_path == set(re.findall(r"{(\w+)}", operation.path))
    assert set(operation.path_parameters) == in_path
    assert ("requestBody" in described) == (operation.body is not None)


def test_names_are_unique() -> None:
    assert len({operation.name for operation in OPERATIONS}) == len(OPERATIONS)
