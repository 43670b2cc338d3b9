"""The OpenAPI document: FastAPI's, with errors, keys and examples on every operation.

`python -m search_api.openapi` prints it; `make openapi` keeps it in docs/openapi.json.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from search_api.access import Level, needed
from search_api.examples import PARAMETERS, PROBLEMS, SCHEMAS
from search_api.schemas import ProblemResponse

_PROBLEM = "Problem"
_MEANING = {
    401: "API keys are set, and the request has none that is known.",
    403: "The key may only read.",
    408: "The body stopped or is too slow.",
    413: "The picture or the request is too large.",
}
_SECURITY = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "`Authorization: Bearer KEY`"},
    "apiKey": {"type": "apiKey", "in": "header", "name": "api-key"},
}


def install(app: FastAPI) -> None:
    """Make ``app`` serve this document at /openapi.json."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = describe(app)
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]


def describe(app: FastAPI) -> dict[str, Any]:
    """The document of ``app``."""
    document = get_openapi(
        title=app.title,
        version=app.version,
        summary=app.summary,
        description=app.description,
        routes=app.routes,
    )
    schemas = document["components"]["schemas"]
    for name in ("HTTPValidationError", "ValidationError", ProblemResponse.__name__):
        schemas.pop(name, None)
    schemas[_PROBLEM] = ProblemResponse.model_json_schema() | {"title": _PROBLEM}
    for name, example in SCHEMAS.items():
        if name in schemas:
            schemas[name]["examples"] = [example]
    _require_file(schemas["Body_search"], "image")
    for body in schemas.values():
        for field in body.get("properties", {}).values():
            _mark_file(field)
    document["components"]["securitySchemes"] = _SECURITY
    for path, method, operation in operations(document):
        _complete(path, method, operation)
    return document


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(path, METHOD, operation) of every operation of an OpenAPI document."""
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield path, method.upper(), operation


def _complete(path: str, method: str, operation: dict[str, Any]) -> None:
    responses = operation["responses"]
    statuses = {int(status) for status in responses if status.isdigit() and int(status) >= 400}
    level = needed(method, path)
    if level is not Level.OPEN:
        operation["security"] = [{name: []} for name in _SECURITY]
        statuses.add(401)
    if level is Level.WRITE:
        statuses.add(403)
    if "requestBody" in operation:
        statuses |= {408, 413}
    for status in statuses:
        said = responses.get(str(status), {}).get("description")
        responses[str(status)] = _problem(status, said or _MEANING[status])
    # Whatever else goes wrong, on the way or in the server, has this form too.
    responses["default"] = _problem(503, "Any other error.")
    operation["responses"] = dict(sorted(responses.items()))
    for parameter in operation.get("parameters", []):
        if parameter["name"] in PARAMETERS:
            parameter["example"] = PARAMETERS[parameter["name"]]


def _problem(status: int, description: str) -> dict[str, Any]:
    kind, detail = PROBLEMS[status]
    example = {
        "type": f"urn:lookalike:problem:{kind}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "instance": "/v1/search",
        "request_id": "3f2b8c1e9a4d4b0f8e6a7c5d2b1a0f9e",
    }
    schema = {"$ref": f"#/components/schemas/{_PROBLEM}"}
    content = {"application/problem+json": {"schema": schema, "example": example}}
    return {"description": description, "content": content}


def _require_file(body: dict[str, Any], name: str) -> None:
    """Say that a form needs its file, which may be left out only where it is the whole body."""
    field = body["properties"][name]
    field.update(next(kind for kind in field.pop("anyOf") if kind.get("type") == "string"))
    body["required"] = [name]


def _mark_file(field: dict[str, Any]) -> None:
    """Say "a file" also in the older words, which generators of clients look for."""
    for part in (field, field.get("items", {})):
        if part.get("contentMediaType") == "application/octet-stream":
            part["format"] = "binary"


def main() -> None:
    """Print the document."""
    from search_api.app import bare_app

    print(json.dumps(bare_app().openapi(), indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
