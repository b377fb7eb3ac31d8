"""openapi.json from the structs that the resources really parse and answer with."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import version
from typing import Any

import msgspec
from msgspec import Struct

from media.errors import ErrorBody


class Operation(Struct, frozen=True):
    """One method of one path."""

    method: str
    path: str
    summary: str
    body: type[Struct] | None = None
    answer: type[Struct] | None = None
    consumes: str = "application/json"
    produces: tuple[str, ...] = ("application/json",)
    tags: tuple[str, ...] = ()


def document(operations: Iterable[Operation]) -> dict[str, Any]:
    """An OpenAPI 3.1 document (JSON Schema 2020-12, which msgspec writes)."""
    operations = list(operations)
    structs = {struct for operation in operations for struct in (operation.body, operation.answer) if struct}
    ordered = sorted(structs | {ErrorBody}, key=lambda struct: struct.__name__)
    schemas, components = msgspec.json.schema_components(ordered, ref_template="#/components/schemas/{name}")
    references = dict(zip(ordered, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method] = _describe(operation, references)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Sonoreel", "version": version("sonoreel")},
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"key": []}],
    }


def _describe(operation: Operation, references: dict[type[Struct], dict[str, Any]]) -> dict[str, Any]:
    answer: dict[str, Any] = {} if operation.answer is None else {"schema": references[operation.answer]}
    error = {"description": "An error", "content": {"application/json": {"schema": references[ErrorBody]}}}
    described: dict[str, Any] = {
        "summary": operation.summary,
        "responses": {
            "200": {"description": "Success", "content": dict.fromkeys(operation.produces, answer)},
            "default": error,
        },
    }
    names = [part[1:-1] for part in operation.path.split("/") if part.startswith("{")]
    if names:
        described["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names
        ]
    if operation.body is not None:
        content = {operation.consumes: {"schema": references[operation.body]}}
        described["requestBody"] = {"required": True, "content": content}
    return described
