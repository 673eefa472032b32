"""Rewrite the keywords of a schema into equivalent ones that llguidance enforces. Pure.

Keywords that forbid nothing, which schema generators often write, are removed. Keywords of older drafts become those
of 2020-12.
"""

import itertools
import re
from collections.abc import Mapping

from engine.json_schema.formats import with_exact_format
from engine.json_schema.unions import Follow, exclusive, without_one_of
from engine.json_schema.values import JSON, TYPES, Schema, listed_values, same_value, type_of, types_of

NO_OP_VALUES: Mapping[str, tuple[JSON, ...]] = {
    "uniqueItems": (False,),
    "additionalItems": (True, {}),
    "unevaluatedItems": (True, {}),
    "unevaluatedProperties": (True, {}),
    "propertyNames": (True, {}),
    "dependencies": ({},),
    "dependentRequired": ({},),
    "dependentSchemas": ({},),
    "not": (False,),
    "minContains": (0,),
    "minProperties": (0,),
    "$recursiveAnchor": (False,),
}
"""Values with which a keyword forbids nothing."""

MAX_DEPENDENTS = 5
"""Properties of one object that others depend on: each doubles the number of alternatives."""
MAX_UNIQUE = 4
"""Values in a list without repetition: the grammar has every permutation."""
_ANNOTATIONS = ("title", "description", "examples", "default", "$comment", "$schema", "deprecated")


def rewritten(schema: Schema, follow: Follow) -> Schema:
    """Return an equivalent schema. Keywords that it can't rewrite stay."""
    schema = _without_no_ops(schema)
    for rewrite in (_tuple, _dependencies, _dependents, _nots, _names, _unique, _constants):
        schema = rewrite(schema)
    schema = _one_of(schema, follow)
    if "string" in types_of(schema):
        return with_exact_format(schema)
    return {key: value for key, value in schema.items() if key != "format"}


def _without_no_ops(schema: Schema) -> Schema:
    rest = {key: value for key, value in schema.items() if not _is_no_op(key, value)}
    if not {"then", "else"} & rest.keys():
        rest.pop("if", None)
    if "if" not in rest:
        rest = {key: value for key, value in rest.items() if key not in ("then", "else")}
    if "contains" not in rest:
        rest = {key: value for key, value in rest.items() if key not in ("minContains", "maxContains")}
    if not isinstance(rest.get("items"), list):
        rest.pop("additionalItems", None)
    if isinstance(most := rest.get("maxItems"), int) and most <= 1:
        rest.pop("uniqueItems", None)
    if "array" not in types_of(rest):
        rest = {key: value for key, value in rest.items() if key not in ("uniqueItems", "contains", "unevaluatedItems")}
    return rest


def _is_no_op(key: str, value: JSON) -> bool:
    if key == "propertyNames" and isinstance(value, dict):
        value = {inner: each for inner, each in value.items() if (inner, each) != ("type", "string")}
    if isinstance(value, dict):
        value = {inner: each for inner, each in value.items() if inner not in _ANNOTATIONS}
    if key in ("dependentRequired", "dependencies", "dependentSchemas") and isinstance(value, dict):
        value = {name: each for name, each in value.items() if each not in ([], {}) and each is not True}
    return any(type(value) is type(each) and value == each for each in NO_OP_VALUES.get(key, ()))


def _tuple(schema: Schema) -> Schema:
    """Rewrite `items` with a list, as in drafts before 2020-12, into `prefixItems`."""
    items = schema.get("items")
    if not isinstance(items, list) or "prefixItems" in schema:
        return schema
    rest = {key: value for key, value in schema.items() if key not in ("items", "additionalItems")}
    return {**rest, "prefixItems": items, "items": schema.get("additionalItems", True)}


def _dependencies(schema: Schema) -> Schema:
    """Rewrite `dependencies`, as in drafts before 2019-09, into the keywords that replaced it."""
    found = schema.get("dependencies")
    if not isinstance(found, dict):
        return schema
    rest = {key: value for key, value in schema.items() if key != "dependencies"}
    lists: Schema = {name: each for name, each in found.items() if isinstance(each, list)}
    texts: Schema = {name: [each] for name, each in found.items() if isinstance(each, str)}
    schemas: Schema = {name: each for name, each in found.items() if isinstance(each, dict | bool)}
    for key, added in (("dependentRequired", {**lists, **texts}), ("dependentSchemas", schemas)):
        others = rest.get(key, {})
        if added and isinstance(others, dict):
            rest[key] = {**added, **others}
    return rest


def _dependents(schema: Schema) -> Schema:
    required, schemas = schema.get("dependentRequired", {}), schema.get("dependentSchemas", {})
    if not (isinstance(required, dict) and isinstance(schemas, dict)) or not {**required, **schemas}:
        return schema
    if len(required) + len(schemas) > MAX_DEPENDENTS:
        return schema
    added: list[JSON] = []
    for name, names in required.items():
        if not isinstance(names, list):
            return schema
        added.append(_if_there(name, {"required": [name, *(each for each in names if each != name)]}))
    added += [_if_there(name, {"required": [name], "allOf": [inner]}) for name, inner in schemas.items()]
    rest = {key: value for key, value in schema.items() if key not in ("dependentRequired", "dependentSchemas")}
    return _with_all(rest, added)


def _if_there(name: str, then: Schema) -> JSON:
    return {"anyOf": [{"properties": {name: False}}, {"properties": {name: True}, **then}]}


def _with_all(schema: Schema, added: list[JSON]) -> Schema:
    others = schema.get("allOf", [])
    return {**schema, "allOf": [*others, *added]} if isinstance(others, list) else schema


def _nots(schema: Schema) -> Schema:
    """Rewrite `not` of a type, of listed values, or of properties that are required together."""
    inner = schema.get("not")
    if inner is True or (isinstance(inner, dict) and not inner.keys() - {*_ANNOTATIONS}):
        return _with_all({key: value for key, value in schema.items() if key != "not"}, [False])
    if not isinstance(inner, dict):
        return schema
    rest = {key: value for key, value in schema.items() if key != "not"}
    keys = inner.keys() - {*_ANNOTATIONS}
    if keys == {"type"} and (types := types_of(schema)):
        left = types - types_of(inner)
        if "number" in left and "integer" not in left:
            return schema  # a fraction has no type of its own
        return {**rest, "type": [name for name in TYPES if name in left and not _covered(name, left)]}
    if keys <= {"const", "enum"} and (values := listed_values(inner)) is not None:
        ours = listed_values(schema)
        if ours is not None:
            left_values = [value for value in ours if not any(same_value(value, each) for each in values)]
            return {**{key: value for key, value in rest.items() if key not in ("const", "enum")}, "enum": left_values}
        others = types_of(schema) - {type_of(value) for value in values}
        if others == types_of(schema) and not {type_of(value) for value in values} & {"integer", "number"}:
            return rest
    names = inner.get("required")
    demands = keys <= {"required", "type"} and inner.get("type", "object") == "object"
    if demands and types_of(schema) == {"object"} and isinstance(names, list) and names:
        return _with_all(rest, [without_one_of([str(name) for name in names])])
    return schema


def _covered(name: str, names: frozenset[str]) -> bool:
    return name == "integer" and "number" in names


def _names(schema: Schema) -> Schema:
    """Rewrite `propertyNames` into a pattern for the properties that no other keyword names."""
    rule = schema.get("propertyNames")
    properties, others = schema.get("properties", {}), schema.get("additionalProperties", True)
    if not isinstance(properties, dict) or not isinstance(rule, dict) or schema.get("patternProperties"):
        return schema
    rest = {key: value for key, value in schema.items() if key != "propertyNames"}
    rule = {key: value for key, value in rule.items() if key not in _ANNOTATIONS and (key, value) != ("type", "string")}
    if rule.keys() <= {"enum", "const"} and (listed := listed_values(rule)) is not None:
        allowed: dict[str, JSON] = {name: others for name in listed if isinstance(name, str)}
        named: Schema = {name: inner if name in allowed else False for name, inner in properties.items()}
        return {**rest, "properties": {**allowed, **named}, "additionalProperties": False}
    if rule.keys() <= {"minLength", "maxLength"}:
        least, most = rule.get("minLength", 0), rule.get("maxLength")
        if not isinstance(least, int) or not isinstance(most, int | None):
            return schema
        pattern = f"^[\\s\\S]{{{least},{'' if most is None else most}}}$"
    elif rule.keys() == {"pattern"} and isinstance(rule["pattern"], str):
        pattern = rule["pattern"]
    else:
        return schema
    try:
        matches = re.compile(pattern.replace(r"\p", "p")).search
    except re.error:
        return schema
    if any(ord(char) > 127 for name in properties for char in name):
        return schema  # the character classes of Python and llguidance differ beyond ASCII
    if others not in (True, {}) and any(map(matches, properties)):
        return schema  # the pattern would apply to the named properties too
    checked: Schema = {name: inner if matches(name) else False for name, inner in properties.items()}
    return {**rest, "properties": checked, "patternProperties": {pattern: others}, "additionalProperties": False}


def _unique(schema: Schema) -> Schema:
    """Rewrite `uniqueItems` of few values into a list of all permutations."""
    items = schema.get("items")
    if schema.get("uniqueItems") is not True or not isinstance(items, dict) or "prefixItems" in schema:
        return schema
    values = listed_values(items)
    if values is None and items.get("type") in ("boolean", "null"):
        values = [True, False] if items["type"] == "boolean" else [None]
    least, most = schema.get("minItems", 0), schema.get("maxItems")
    if values is None or not isinstance(least, int) or not isinstance(most, int | None):
        return schema
    values = [value for n, value in enumerate(values) if not any(same_value(value, each) for each in values[:n])]
    most = len(values) if most is None else min(most, len(values))
    if len(values) > MAX_UNIQUE and (most > 2 or len(values) > 16):
        return schema
    rest = {key: value for key, value in schema.items() if key not in ("uniqueItems", "items", "minItems", "maxItems")}
    tuples: list[JSON] = [
        {"prefixItems": [{**items, "enum": [value]} for value in order], "items": False, "minItems": n, "maxItems": n}
        for n in range(least, most + 1)
        for order in itertools.permutations(values, n)
    ]
    if types_of(schema) != {"array"}:
        tuples.append({"type": [name for name in TYPES if name not in ("array", "integer")]})
    return _with_all(rest, [{"anyOf": tuples}])


def _constants(schema: Schema) -> Schema:
    """Write integral floats of `const` and `enum` as integers: `1` and `1.0` are equal."""
    listed = listed_values(schema)
    if listed is None:
        return schema
    plain = [int(value) if isinstance(value, float) and type_of(value) == "integer" else value for value in listed]
    rest = {key: value for key, value in schema.items() if key != "const"}
    return {**rest, "const": plain[0]} if "const" in schema else {**rest, "enum": plain}


def _one_of(schema: Schema, follow: Follow) -> Schema:
    options = schema.get("oneOf")
    if not isinstance(options, list):
        return schema
    whole = {key: value for key, value in schema.items() if key != "oneOf"}
    found = exclusive(options, whole, follow)
    if found is None:
        return schema
    return {**whole, "anyOf": found} if "anyOf" not in whole else _with_all(whole, [{"anyOf": found}])
