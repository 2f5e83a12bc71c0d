"""The OpenAPI 3.1 document, made from the same table of operations as the routes."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from runcast.web.operation import Access, Answer, Operation
from runcast.web.responses import ErrorBody, RateLimitBody

_REFERENCE = "#/components/schemas/{model}"
_PARAMETER = re.compile(r"{(\w+)}")

_SECURITY: dict[Access, list[dict[str, list[str]]]] = {
    Access.OPEN: [],
    Access.ANY_TOKEN: [{"secretKey": []}, {"publicToken": []}],
    Access.SECRET_KEY: [{"secretKey": []}],
}
_SECURITY_SCHEMES = {
    "secretKey": {
        "type": "http",
        "scheme": "bearer",
        "description": "A secret key of an environment; for backends only.",
    },
    "publicToken": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": "A public access token; its scopes say what it opens.",
    },
    "publicTokenInQuery": {
        "type": "apiKey",
        "in": "query",
        "name": "token",
        "description": "For clients that cannot send headers, such as a plain EventSource.",
    },
}
_ERRORS = {
    400: "A parameter or the body is not as described here.",
    401: "No token, or not a good one.",
    403: "The token does not allow this.",
    404: "There is no such thing in the environment of the caller.",
    405: "This address takes other methods.",
    408: "The body did not arrive in time.",
    410: "What is asked for was there once.",
    413: "The body, or what it would store, is too large.",
    415: "The body is compressed, or of a content type that is not read here.",
    422: "The state of things forbids it.",
    429: "Something bounded is full; ask again later.",
    500: "The gateway failed; nothing is wrong with the request.",
    503: "A database did not answer, or the gateway is going away; ask again.",
}
_RATE_LIMIT_HEADERS = {
    "x-ratelimit-limit": "Requests that may be made at once after a rest.",
    "x-ratelimit-remaining": "Requests that may be made now.",
    "x-ratelimit-reset": "When there will be one more; Unix time in milliseconds.",
}
_RATE_LIMIT_REFERENCES = {
    name: {"$ref": f"#/components/headers/{name}"} for name in _RATE_LIMIT_HEADERS
}


def build_document(operations: Iterable[Operation], *, version: str) -> dict[str, Any]:
    """Describe the operations."""
    operations = tuple(operations)
    schemas, definitions = _schemas(operations)
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        methods = paths.setdefault(operation.path, {})
        methods[operation.method.lower()] = _describe(operation, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "runcast",
            "version": version,
            "summary": "Trigger background runs, change them, and follow them live.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": definitions,
            "securitySchemes": _SECURITY_SCHEMES,
            "responses": {
                f"Error{status}": {
                    "description": description,
                    "content": {"application/json": {"schema": schemas[ErrorBody]}},
                }
                for status, description in _ERRORS.items()
            }
            | {
                "RateLimited": {
                    "description": "All requests are used up; come again after `retry-after`.",
                    "headers": _RATE_LIMIT_REFERENCES,
                    "content": {"application/problem+json": {"schema": schemas[RateLimitBody]}},
                }
            },
            "headers": {
                name: {"description": meaning, "schema": {"type": "integer"}}
                for name, meaning in _RATE_LIMIT_HEADERS.items()
            },
        },
    }


Schemas = Mapping[type[BaseModel], dict[str, Any]]


def _schemas(operations: Iterable[Operation]) -> tuple[Schemas, dict[str, Any]]:
    """Give the reference to each model, and the definitions they refer to."""
    bodies: set[type[BaseModel]] = set()
    answers: set[type[BaseModel]] = {ErrorBody, RateLimitBody}
    for operation in operations:
        if operation.body is not None:
            bodies.add(operation.body)
        answers |= {each.model for each in operation.answers.values() if each.model is not None}
    ordered = sorted(bodies | answers, key=lambda model: model.__name__)
    _, top = models_json_schema(
        [(model, "validation") for model in ordered], ref_template=_REFERENCE
    )
    definitions: dict[str, Any] = top["$defs"]
    missing = [model for model in ordered if model.__name__ not in definitions]
    assert not missing, f"models of one name get other names in OpenAPI: {missing}"
    return {model: _reference(model) for model in ordered}, definitions


def _reference(model: type[BaseModel]) -> dict[str, Any]:
    return {"$ref": _REFERENCE.format(model=model.__name__)}


def _describe(operation: Operation, schemas: Schemas) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "tags": [operation.tag],
        "security": list(_SECURITY[operation.access]),
        "parameters": [
            *_path_parameters(operation),
            *_query_parameters(operation.query),
            *_header_parameters(operation.headers),
        ],
        "responses": _responses(operation, schemas),
    }
    if operation.description:
        described["description"] = operation.description
    if operation.token_in_query:
        described["security"].append({"publicTokenInQuery": []})
    if operation.body is not None:
        described["requestBody"] = {
            "required": not operation.body_optional,
            "content": {"application/json": {"schema": schemas[operation.body]}},
        }
    return described


def _path_parameters(operation: Operation) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "in": "path",
            "required": True,
            "description": operation.path_parameters[name],
            "schema": {"type": "string", "minLength": 1, "maxLength": 512},
        }
        for name in _PARAMETER.findall(operation.path)
    ]


def _query_parameters(model: type[BaseModel] | None) -> list[dict[str, Any]]:
    if model is None:
        return []
    schema = model.model_json_schema()
    definitions = schema.get("$defs", {})
    parameters = []
    for name, described in schema["properties"].items():
        plain = _without_null(_resolved(described, definitions))
        parameter: dict[str, Any] = {"name": name, "in": "query"}
        if name in schema.get("required", ()):
            parameter["required"] = True
        if description := plain.pop("description", None):
            parameter["description"] = description
        if plain.get("type") == "array":
            parameter |= {"style": "form", "explode": False}
        parameters.append({**parameter, "schema": plain})
    return parameters


def _header_parameters(headers: Mapping[str, str]) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "header", "description": description, "schema": {"type": "string"}}
        for name, description in headers.items()
    ]


def _resolved(schema: Any, definitions: Mapping[str, Any]) -> Any:
    """Put definitions in the place of references: parameters have no room for definitions."""
    if isinstance(schema, list):
        return [_resolved(each, definitions) for each in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return _resolved(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    return {key: _resolved(value, definitions) for key, value in schema.items() if key != "title"}


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """A parameter that is left out has no value; there is no null in a query."""
    options = [each for each in schema.get("anyOf", ()) if each != {"type": "null"}]
    kept = {key: value for key, value in schema.items() if key not in ("anyOf", "default")}
    if len(options) == 1:
        return {**options[0], **kept}
    return {**kept, "anyOf": options} if options else kept


def _responses(operation: Operation, schemas: Schemas) -> dict[str, Any]:
    responses = {
        str(status): _answer(answer, schemas) for status, answer in operation.answers.items()
    }
    for status in sorted(_error_statuses(operation)):
        reference = {"$ref": f"#/components/responses/Error{status}"}
        responses.setdefault(str(status), reference)
    if operation.is_rate_limited:
        for status in operation.answers:
            responses[str(status)].setdefault("headers", {}).update(_RATE_LIMIT_REFERENCES)
        responses["429"] = {"$ref": "#/components/responses/RateLimited"}
    return responses


def _answer(answer: Answer, schemas: Schemas) -> dict[str, Any]:
    described: dict[str, Any] = {"description": answer.description}
    if answer.model is not None:
        described["content"] = {answer.media_type: {"schema": schemas[answer.model]}}
    elif answer.media_type != "application/json":
        described["content"] = {answer.media_type: {"schema": {"type": "string"}}}
    if answer.json_schema:
        described.setdefault("content", {})["application/json"] = {"schema": answer.json_schema}
    if answer.headers:
        described["headers"] = {
            name: {"description": description, "schema": {"type": "string"}}
            for name, description in answer.headers.items()
        }
    return described


def _error_statuses(operation: Operation) -> set[int]:
    statuses = {405, 500, *operation.errors}
    if operation.access is not Access.OPEN:
        statuses |= {401, 503}
    if operation.access is Access.ANY_TOKEN:
        statuses.add(403)
    if operation.is_stream:
        statuses.add(429)
    if operation.body is not None:
        statuses |= {400, 408, 413, 415}
    if operation.query is not None or _PARAMETER.search(operation.path):
        statuses.add(400)
    return statuses
