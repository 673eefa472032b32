"""The schema of a function's arguments, as it is enforced. Pure."""

import msgspec

from engine.constraint import GrammarError
from engine.json_schema import JSON
from server.tools.tool_reader import GrammarInput, ToolSpec

ANY_OBJECT: JSON = {"type": "object"}


def arguments_of(offer: ToolSpec) -> JSON:
    """Return the schema that its arguments have to match. Raises GrammarError."""
    schema = decoded(offer.tool.parameters)
    assert isinstance(schema, dict), "they were read"
    if isinstance(offer.input, GrammarInput) and offer.input.syntax == "regex":
        schema["properties"] = {"input": {"type": "string", "pattern": f"^({offer.input.definition})$"}}
    if schema.setdefault("type", "object") != "object":
        raise GrammarError("the arguments of a function are an object", "type")
    schema = {key: value for key, value in schema.items() if value is not None or key not in ("properties", "required")}
    properties, required = schema.get("properties") or {}, schema.get("required") or []
    named = isinstance(properties, dict) and isinstance(required, list) and set(properties) >= set(map(str, required))
    if named and not schema.keys() & _SPEAKS_OF_OTHERS:
        schema["additionalProperties"] = False
    return schema


_SPEAKS_OF_OTHERS = frozenset(
    (
        *("additionalProperties", "patternProperties", "propertyNames", "minProperties", "unevaluatedProperties"),
        *("$ref", "$dynamicRef", "$recursiveRef", "anyOf", "oneOf", "allOf", "not", "if", "then", "else"),
        *("dependencies", "dependentRequired", "dependentSchemas"),
    )
)
"""Keywords beside which a schema may mean properties that it doesn't name. Where none of them stands, arguments have
those of the schema and no others: others would be valid too, but models make them up without end."""


def decoded(schema: str) -> JSON:
    """Raises GrammarError."""
    try:
        decoded: JSON = msgspec.json.decode(schema)
    except RecursionError as error:
        raise GrammarError("it is nested too deeply") from error
    return decoded
