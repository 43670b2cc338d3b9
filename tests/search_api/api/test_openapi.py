"""The OpenAPI document: complete, valid, and the one that is committed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from openapi_spec_validator import validate
from pydantic import BaseModel

from search_api import schemas
from search_api.api import openapi_examples as examples
from search_api.api.access import needed
from search_api.api.app import bare_app
from search_api.api.openapi import operations
from search_api.keys import Level

COMMITTED = Path(__file__).parents[3] / "docs" / "openapi.json"


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return bare_app().openapi()


def resolved(document: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    # An optional body is the schema or null.
    (schema,) = [s for s in schema.get("anyOf", [schema]) if s.get("type") != "null"]
    name = schema.get("$ref", "").rpartition("/")[2]
    return document["components"]["schemas"][name] if name else schema


def test_the_committed_document_is_current(document: dict[str, Any]) -> None:
    assert json.loads(COMMITTED.read_text("utf-8")) == document, "run `make openapi`"


def test_it_is_valid(document: dict[str, Any]) -> None:
    validate(document)


def test_every_operation_is_documented(document: dict[str, Any]) -> None:
    ids = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(ids) >= 15
    assert len(set(ids)) == len(ids)
    for path, method, operation in operations(document):
        where = f"{method} {path}"
        assert operation["summary"], where
        assert operation["tags"], where
        assert "Example: `curl " in operation["description"], where
        for parameter in operation.get("parameters", []):
            named = (
                f"{where} {parameter['name']}: add an example to search_api/api/openapi_examples.py"
            )
            assert "example" in parameter, named
            assert parameter["schema"].get("description") or parameter.get("description"), named


def test_every_error_has_the_schema_and_an_example(document: dict[str, Any]) -> None:
    for path, method, operation in operations(document):
        where = f"{method} {path}"
        errors = {s: r for s, r in operation["responses"].items() if s == "default" or s >= "400"}
        assert "default" in errors, where
        for status, response in errors.items():
            assert list(response["content"]) == ["application/problem+json"], (where, status)
            content = response["content"]["application/problem+json"]
            assert content["schema"] == {"$ref": "#/components/schemas/Problem"}
            schemas.ProblemResponse.model_validate(content["example"])
            if status != "default":
                assert content["example"]["status"] == int(status)


def test_every_json_response_has_a_schema_with_an_example(document: dict[str, Any]) -> None:
    for path, method, operation in operations(document):
        bodies = [r for s, r in operation["responses"].items() if s.startswith("2")]
        bodies += [operation["requestBody"]] if "requestBody" in operation else []
        for body in bodies:
            # 204 has no content.
            content = body.get("content", {}).get("application/json")
            if content is not None:
                schema = resolved(document, content["schema"])
                words = f"{method} {path}: add {schema['title']} to search_api/examples.py"
                assert schema.get("examples"), words


# Jobs and health do not come from an index; each result of a batch names its own.
OF_NO_INDEX = {"Health", "Job", "Jobs", "JobLog", "BatchResponse"}


def test_every_response_names_its_generation_and_model(document: dict[str, Any]) -> None:
    seen = set()
    for path, method, operation in operations(document):
        for status, body in operation["responses"].items():
            content = body.get("content", {}).get("application/json")
            if status.startswith("2") and content is not None:
                schema = resolved(document, content["schema"])
                if schema["title"] not in OF_NO_INDEX:
                    assert {"generation", "model"} <= schema["properties"].keys() or (
                        {"generation", "serving"} <= schema["properties"].keys()
                    ), (method, path)
                    seen.add(schema["title"])
    assert {"StoredImage", "Images", "SnapshotMade", "Snapshots", "Points"} <= seen


def test_examples_match_the_schemas() -> None:
    for name, example in examples.SCHEMAS.items():
        model = getattr(schemas, name)
        assert issubclass(model, BaseModel)
        model.model_validate(example)


def test_keys_are_documented_as_they_are_required(document: dict[str, Any]) -> None:
    for path, method, operation in operations(document):
        level = needed(method, path)
        assert ("security" in operation) == (level is not Level.OPEN), path
        assert ("401" in operation["responses"]) == (level is not Level.OPEN), path
        assert ("403" in operation["responses"]) == (level is Level.WRITE), path


def test_pictures_are_files_for_generators(document: dict[str, Any]) -> None:
    image = document["components"]["schemas"]["Body_search"]["properties"]["image"]
    assert image["format"] == "binary"


def test_every_response_names_its_index_and_model(client: TestClient) -> None:
    document = client.get("/openapi.json").json()

    def fields(schema: dict) -> set[str]:
        if "$ref" in schema:
            schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
        return set(schema.get("properties", {}))

    silent = {
        (path, method)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        for status in ("200", "201")
        for content in operation["responses"].get(status, {}).get("content", {}).items()
        if content[0] == "application/json"
        and not {"model", "generation"} <= fields(content[1]["schema"])
    }
    assert silent == {
        ("/v1/search/batch", "post"),  # each of its results does
        ("/v1/models", "get"),  # calls it `serving`
        ("/v1/jobs", "get"),
        ("/v1/jobs/{job_id}", "get"),
        ("/v1/jobs/{job_id}/log", "get"),
        ("/livez", "get"),
        ("/readyz", "get"),
        ("/healthz", "get"),
    }


def test_openapi_documents_every_operation(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    operations = [
        (path, method, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    assert len(operations) == 39
    ids = [operation["operationId"] for _, _, operation in operations]
    assert len(set(ids)) == len(ids)
    for path, method, operation in operations:
        assert operation["summary"], (path, method)
        assert "Example: `curl " in operation["description"], (path, method)
        if path.startswith("/v1"):
            errors = [status for status in operation["responses"] if status >= "400"]
            assert errors, (path, method)
