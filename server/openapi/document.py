"""Document of the description: the operations by their paths, and the components."""

import re
from collections.abc import Iterator, Sequence

import msgspec

from server.openapi.operation import Operation
from server.openapi.schemas import CLIENT_MESSAGE, JSON, SERVER_MESSAGE, ref, schemas
from server.stream.completions import Failed

TEXT_TYPES = {"/": "text/html", "/openapi.json": "application/json"}
"""Path of an answer without a component -> its media type, other than plain text."""


def document(operations: Sequence[Operation], version: str) -> bytes:
    """Return the description of these operations as JSON. `version`: of the server."""
    return msgspec.json.encode(
        {
            "openapi": "3.1.1",
            "info": {"title": "responsed", "version": version, "description": "OpenAI Responses API of a GGUF model."},
            "servers": [{"url": "/"}],
            "security": [{}, {"key": []}],
            "paths": _paths(operations),
            "components": {
                "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
                "schemas": schemas(operations),
            },
        }
    )


def _paths(operations: Sequence[Operation]) -> JSON:
    paths: dict[str, JSON] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method] = _operation(operation)
    return paths


def _operation(operation: Operation) -> JSON:
    described: JSON = {
        "operationId": operation.id,
        "summary": operation.summary,
        "parameters": list(_parameters(operation)),
        "responses": {
            "101" if operation.switches else "200": _answer(operation),
            "default": {"description": "Error", "content": {"application/json": {"schema": ref(Failed)}}},
        },
    }
    if operation.switches:
        described["x-websocket"] = {"client": ref(CLIENT_MESSAGE), "server": ref(SERVER_MESSAGE)}
    if operation.body is not None:
        content = {"application/json": {"schema": ref(operation.body)}}
        described["requestBody"] = {"required": True, "content": content}
    return described


def _answer(operation: Operation) -> JSON:
    described: JSON = {"description": operation.summary}
    return described if operation.switches else {**described, "content": _content(operation)}


def _content(operation: Operation) -> JSON:
    if operation.answer is None:
        kind = TEXT_TYPES.get(operation.path, "text/plain")
        return {kind: {"schema": {"type": "object" if kind == "application/json" else "string"}}}
    content = {"application/json": {"schema": ref(operation.answer)}}
    if operation.events is not None:
        content["text/event-stream"] = {"schema": ref(operation.events)}
    return content


def _parameters(operation: Operation) -> Iterator[JSON]:
    for name in re.findall(r"\{(\w+)\}", operation.path):
        yield {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
    if operation.query is not None:
        schema = msgspec.json.schema(operation.query)["$defs"][operation.query.__name__]
        for name, kind in schema["properties"].items():
            yield {"name": name, "in": "query", "required": False, "schema": kind}
