"""Rewrite `propertyNames` into `properties` and `patternProperties`, which llguidance enforces. Pure."""

import re

from engine.json_schema.values import ANNOTATIONS, JSON, Schema, bounds, listed_values, without


def without_property_names(schema: Schema) -> Schema:
    """Rewrite `propertyNames` into names, or into a pattern for the properties that no other keyword names."""
    rule = schema.get("propertyNames")
    properties, others = schema.get("properties", {}), schema.get("additionalProperties", True)
    if not isinstance(properties, dict) or not isinstance(rule, dict) or schema.get("patternProperties"):
        return schema
    rule = name_rule(rule)
    if rule.keys() <= {"enum", "const"} and (names := listed_values(rule)) is not None:
        exact: Schema | None = _listed(names, properties, others)
    else:
        exact = _matching(_pattern(rule), properties, others)
    return schema if exact is None else {**without(schema, "propertyNames"), **exact}


def name_rule(schema: Schema) -> Schema:
    """Return the keywords of a `propertyNames` that forbid some name: every name is a string."""
    return {key: value for key, value in without(schema, *ANNOTATIONS).items() if (key, value) != ("type", "string")}


def _listed(names: list[JSON], properties: Schema, others: JSON) -> Schema:
    allowed: Schema = {name: others for name in names if isinstance(name, str)}
    named: Schema = {name: inner if name in allowed else False for name, inner in properties.items()}
    return {"properties": {**allowed, **named}, "additionalProperties": False}


def _pattern(rule: Schema) -> str | None:
    """Return the regex of the permitted names; None if the rule is more than a pattern or a length."""
    if rule.keys() == {"pattern"}:
        return rule["pattern"] if isinstance(rule["pattern"], str) else None
    limits = bounds(rule, "minLength", "maxLength")
    if limits is None or rule.keys() - {"minLength", "maxLength"}:
        return None
    least, most = limits
    return rf"^[\s\S]{{{least},{'' if most is None else most}}}$"


def _matching(pattern: str | None, properties: Schema, others: JSON) -> Schema | None:
    if pattern is None or not all(map(str.isascii, properties)):
        return None  # the character classes of Python and llguidance differ beyond ASCII
    try:
        matches = re.compile(pattern.replace(r"\p", "p")).search
    except (re.error, OverflowError):
        return None
    if others not in (True, {}) and any(map(matches, properties)):
        return None  # the pattern would apply to the named properties too
    named: Schema = {name: inner if matches(name) else False for name, inner in properties.items()}
    return {"properties": named, "patternProperties": {pattern: others}, "additionalProperties": False}
