"""Rewrite `oneOf` into an `anyOf` of schemas that exclude one another. Pure."""

from engine.json_schema.negations import complement
from engine.json_schema.references import Document
from engine.json_schema.values import JSON, TYPES, Schema, any_of, is_listed, listed_values, required_names, types_of

MAX_ALTERNATIVES = 64
"""Alternatives of one `oneOf` that are compared with one another, or into which each of them is split."""


def exclusive(options: list[JSON], whole: Schema, document: Document) -> list[JSON] | None:
    """Return alternatives that no two values share; None if that cannot be proved.

    `whole` is the schema beside `oneOf`.
    """
    options = [option for option in options if option is not False]
    if len(options) > MAX_ALTERNATIVES:
        return None
    followed = [(option, document.follow(option)) for option in options]
    exact: list[JSON] = []
    for n, (option, target) in enumerate(followed):
        excluded = _exclusions(target, followed[:n] + followed[n + 1 :], whole, document)
        if excluded is None:
            return None
        if False not in excluded:
            exact.append({"allOf": [option, *excluded]} if excluded else option)
    return exact


def _exclusions(one: Schema, others: list[tuple[JSON, Schema]], whole: Schema, document: Document) -> list[JSON] | None:
    """Return a schema for each of the others that shares a value with `one`: the values that the other forbids.

    `others` are given as written, and with their references followed. None if there is a schema that cannot be written,
    or if there are too many alternatives.
    """
    beside = _both(one, whole)
    found: list[JSON] = []
    product = 1
    for option, other in others:
        if disjoint(one, other, whole, document):
            continue
        negated = complement(option, beside, document)
        if negated is None or product * len(negated) > MAX_ALTERNATIVES:
            negated = _without_undeclared(one, other, whole)
        if negated is None:
            return None
        product *= max(len(negated), 1)
        found.append(any_of(negated))
    return found


def _both(one: Schema, whole: Schema) -> Schema:
    """Return the types and properties that both schemas permit, or more."""
    types = types_of(one) & types_of(whole)
    closed = one if one.get("additionalProperties") is False else whole
    both = {**whole, **one} if closed is one else {**one, **whole}
    return {**both, "type": [name for name in TYPES if name in types]}


def _without_undeclared(one: Schema, other: Schema, whole: Schema) -> list[JSON] | None:
    """Return the objects without a property that `other` requires and that is unknown to `one`; None if all are known.

    They are fewer than `other` forbids: the property could have another type.
    """
    if types_of(one) & types_of(whole) != {"object"}:
        return None
    known = [properties for each in (one, whole) if isinstance(properties := each.get("properties"), dict)]
    names = [name for name in required_names(other) if not any(name in properties for properties in known)]
    return [{"type": "object", "properties": {name: False}} for name in names] or None


def disjoint(one: Schema, other: Schema, whole: Schema, document: Document) -> bool:
    """True if no value can match both schemas. False if some value may."""
    types = types_of(one) & types_of(other) & types_of(whole)
    if not types:
        return True
    if (ours := listed_values(one)) is not None and (theirs := listed_values(other)) is not None:
        return not any(is_listed(value, theirs) for value in ours)
    if types <= {"number", "integer"}:
        return _above(one, other) or _above(other, one)
    if types != {"object"}:
        return False
    required = {*required_names(one), *required_names(other), *required_names(whole)}
    return any(_disjoint_property(name, one, other, document) for name in required)


def _disjoint_property(name: str, one: Schema, other: Schema, document: Document) -> bool:
    ours, theirs = _property(one, name), _property(other, name)
    if ours is False or theirs is False:
        return True
    if ours is None or theirs is None:
        return False
    return disjoint(document.follow(ours), document.follow(theirs), {}, document)


def _property(schema: Schema, name: str) -> JSON:
    """Return the schema of a property; None if the property is not constrained by name."""
    properties = schema.get("properties")
    if isinstance(properties, dict) and name in properties:
        return properties[name]
    return False if schema.get("additionalProperties") is False and not schema.get("patternProperties") else None


def _above(one: Schema, other: Schema) -> bool:
    """True if every number of `one` lies above every number of `other`."""
    least, open_least = _number(one, "minimum"), _number(one, "exclusiveMinimum")
    most, open_most = _number(other, "maximum"), _number(other, "exclusiveMaximum")
    if least is not None and most is not None and least > most:
        return True
    if open_least is not None and any(each is not None and open_least >= each for each in (most, open_most)):
        return True
    return least is not None and open_most is not None and least >= open_most


def _number(schema: Schema, key: str) -> int | float | None:
    value = schema.get(key)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None
