"""The OpenAPI document: FastAPI's, with errors, keys and examples on every operation.

`python -m search_api.api` prints it; `make openapi` writes it to docs/openapi.json.
"""

from __future__ import annotations

from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from search_api.api.access import needed
from search_api.api.openapi_examples import PARAMETERS, PROBLEMS, SCHEMAS
from search_api.keys import Level
from search_api.schemas import ProblemResponse

_PROBLEM = "Problem"
_MEANING = {
    400: "The request cannot be read.",
    401: "API keys are set, and the request has none or an unknown one.",
    403: "The key may only read or, without keys, a page of another site sent the request.",
    404: "There is no such id or name.",
    408: "The body stopped or was too slow.",
    409: "Not possible now; `detail` says why, and `job` names the job that prevents it.",
    413: "The picture or the request is too large.",
    415: "Not a picture in a supported format, or not the kind of body that is expected.",
    422: "Part of the request cannot be used; `detail` says which and why.",
    429: "Too many pictures are waiting; `Retry-After` says when to try again.",
    501: "The engine of the index does not support this; see docs/milvus.md.",
    503: "The index is not available now.",
    507: "A quota or the disk's free space does not allow it; nothing was stored.",
}
_PICTURE = {"type": "string", "format": "binary", "description": "The picture."}
_SECURITY = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "`Authorization: Bearer KEY`"},
    "apiKey": {"type": "apiKey", "in": "header", "name": "api-key"},
}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The ``responses`` of a route that may report these errors; `describe` adds common ones."""
    return {status: {"description": _MEANING[status]} for status in statuses}


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
    for body in schemas.values():
        for field in body.get("properties", {}).values():
            _mark_file(field)
    document["components"]["securitySchemes"] = _SECURITY
    for path, method, operation in operations(document):
        _add_picture(operation, schemas)
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
    statuses.add(422)  # what is not declared is refused
    level = needed(method, path)
    if level is not Level.OPEN:
        operation["security"] = [{name: []} for name in _SECURITY]
        statuses.add(401)
    if level is Level.WRITE:
        statuses.add(403)
    if "requestBody" in operation:
        statuses |= {408, 413, 415}
    for status in statuses:
        responses[str(status)] = _problem(status, _MEANING[status])
    # Errors from a proxy or from a bug in the server also have this form.
    responses["default"] = _problem(503, "Any other error.")
    operation["responses"] = dict(sorted(responses.items()))
    for parameter in operation.get("parameters", []):
        if parameter["name"] in PARAMETERS:
            parameter["example"] = PARAMETERS[parameter["name"]]


def _add_picture(operation: dict[str, Any], schemas: dict[str, Any]) -> None:
    """A picture may be the body where the form has one field for files (`intake.strict`)."""
    content = operation.get("requestBody", {}).get("content", {})
    if "multipart/form-data" not in content:
        return
    name = content["multipart/form-data"]["schema"]["$ref"].rpartition("/")[2]
    fields = schemas[name]["properties"].values()
    if sum("binary" in (f.get("format"), f.get("items", {}).get("format")) for f in fields) == 1:
        content["image/*"] = {"schema": _PICTURE}


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


def _mark_file(field: dict[str, Any]) -> None:
    """Mark a file in the older notation too, which client generators look for."""
    for part in (field, field.get("items", {})):
        if part.get("contentMediaType") == "application/octet-stream":
            part["format"] = "binary"
