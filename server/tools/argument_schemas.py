"""JSON schema of a function's arguments, as the server enforces it. Pure."""

from typing import Any

import msgspec

from engine.constraint import GrammarError
from engine.json_schema import JSON
from server.tools.tool_spec import GrammarInput, ToolSpec

ANY_OBJECT: JSON = {"type": "object"}


def arguments_schema(spec: ToolSpec) -> JSON:
    """Return the schema that the arguments of the function must match. Raises GrammarError."""
    schema = decode_schema(spec.tool.parameters)
    assert isinstance(schema, dict), "the tool reader has checked it"
    if isinstance(spec.input, GrammarInput) and spec.input.syntax == "regex":
        schema["properties"] = {"input": {"type": "string", "pattern": f"^({spec.input.definition})$"}}
    if schema.setdefault("type", "object") != "object":
        raise GrammarError("a function takes an object", "type")
    schema = {key: value for key, value in schema.items() if value is not None or key not in ("properties", "required")}
    if _names_all_required(schema) and not schema.keys() & _OPEN_PROPERTY_KEYWORDS:
        schema["additionalProperties"] = False
    return schema


def _names_all_required(schema: dict[str, Any]) -> bool:
    properties, required = schema.get("properties") or {}, schema.get("required") or []
    return isinstance(properties, dict) and isinstance(required, list) and set(properties) >= set(map(str, required))


_OPEN_PROPERTY_KEYWORDS = frozenset(
    (
        *("additionalProperties", "patternProperties", "propertyNames", "minProperties", "unevaluatedProperties"),
        *("$ref", "$dynamicRef", "$recursiveRef", "anyOf", "oneOf", "allOf", "not", "if", "then", "else"),
        *("dependencies", "dependentRequired", "dependentSchemas"),
    )
)
"""Keywords that let a schema describe properties beyond `properties`. A schema without them allows only the properties
that it names: others would be valid JSON Schema, but models invent them without end."""


def decode_schema(schema: str) -> JSON:
    """Return the decoded schema. Raises GrammarError if it is nested too deeply, or has a number out of range."""
    try:
        decoded: JSON = msgspec.json.decode(schema)
    except RecursionError as error:
        raise GrammarError("it is nested too deeply") from error
    except msgspec.DecodeError as error:
        raise GrammarError(f"it cannot be read ({str(error).partition(' - at ')[0]})") from error
    return decoded
