"""Look up the declared schema of an argument. Readers and writers infer unwritten types from it. Pure."""

import re

from msgspec import Struct

from engine.json_schema import ENFORCED, JSON, Schema, bounds, listed_values, type_of

DEFINITIONS = ("$defs", "definitions")
"""Keywords of definitions."""
_OPTIONAL = frozenset(("null", "string"))
"""Types of an optional text."""
MAX_REF_CHAIN = 16
"""References that are followed one after the other."""


class ArgumentSchema(Struct, frozen=True):
    """A value's schema, and the whole schema that its references refer to."""

    schema: Schema
    whole: Schema

    @property
    def type(self) -> str:
        """Return the only `type` that the schema permits; empty if it permits several."""
        schema = self.resolved.schema
        named, listed = schema.get("type"), listed_values(schema)
        if named is None and listed and all(isinstance(each, str) for each in listed):
            return "string"
        return named if isinstance(named, str) else ""

    @property
    def types(self) -> frozenset[str] | None:
        """Return the types that the schema permits; None if any type is."""
        schema = self.resolved.schema
        if isinstance(options := schema.get("anyOf", schema.get("oneOf")), list):
            return self._types_of_any(options)
        named, listed = schema.get("type"), schema.get("enum")
        if named is None and isinstance(listed, list):
            return frozenset(name for value in listed for name in types_of_value(value))
        return None if named is None else frozenset(map(str, named if isinstance(named, list) else [named]))

    def _types_of_any(self, options: list[JSON]) -> frozenset[str] | None:
        found = [ArgumentSchema(_schema(option), self.whole).types for option in options]
        return None if None in found else frozenset[str]().union(*filter(None, found))

    @property
    def text(self) -> "ArgumentSchema | None":
        """Return the text's schema if the value is a text or another type; None if it is always one or never one.

        Tags enclose such a text verbatim if it reads as no other permitted type; else it is a JSON string. A bare
        `null` of an optional text is null.
        """
        schema = self.resolved.schema
        named = schema.get("type")
        if isinstance(named, list):
            return ArgumentSchema(_of_texts(schema), self.whole) if "string" in named and len(named) > 1 else None
        options = schema.get("anyOf")
        if not schema.keys() & ENFORCED:
            return ArgumentSchema({**schema, "type": "string"}, self.whole)
        if not isinstance(options, list) or schema.keys() & ENFORCED - {"anyOf"}:
            return None
        return self._text_of_any(options)

    def _text_of_any(self, options: list[JSON]) -> "ArgumentSchema | None":
        """Return the only text among several options if no `true`, `false` or `null` is constrained."""
        found = [ArgumentSchema(_schema(option), self.whole).resolved for option in options]
        texts = [each for each in found if each.type == "string"]
        words = [each for each in found if each.types is None or each.types & {"boolean", "null"}]
        is_clear = len(texts) == 1 < len(found) and all(each.schema.keys() & ENFORCED == {"type"} for each in words)
        return texts[0] if is_clear else None

    @property
    def optional(self) -> "ArgumentSchema | None":
        """Return the text's schema if the value is a text or null: `["string", "null"]`, or an `anyOf` of both.

        A text that looks like null, or begins with a quotation mark, is written as a JSON string: `"null"`.
        """
        return self.text if self.types == _OPTIONAL else None

    @property
    def may_be_null(self) -> bool:
        """True if an optional text may be null: an `enum` may exclude null."""
        schema = self.resolved.schema
        listed = schema.get("enum", [None])
        return "const" not in schema and isinstance(listed, list) and None in listed

    @property
    def target(self) -> str | None:
        """Return the definition that the schema refers to if it has no other keyword; None otherwise."""
        target = self.schema.get("$ref")
        return target if isinstance(target, str) and not self.schema.keys() & ENFORCED - {"$ref"} else None

    @property
    def resolved(self) -> "ArgumentSchema":
        """Return the schema at the end of a chain of references."""
        found = self
        for _ in range(MAX_REF_CHAIN):
            place, _, name = (found.target or "").removeprefix("#/").partition("/")
            definitions = self.whole.get(place) if place in DEFINITIONS else None
            if not isinstance(definitions, dict) or name not in definitions:
                break
            found = ArgumentSchema(_schema(definitions[name]), self.whole)
        return found

    def parameter(self, name: str) -> "ArgumentSchema":
        """Return the schema of an object's property."""
        schema = self.resolved.schema
        properties = _schema(schema.get("properties"))
        return ArgumentSchema(_schema(properties.get(name, schema.get("additionalProperties"))), self.whole)

    @property
    def item(self) -> "ArgumentSchema":
        """Return the schema of a list's items."""
        return ArgumentSchema(_schema(self.resolved.schema.get("items")), self.whole)


def argument_schema(whole: JSON) -> ArgumentSchema:
    """Return the schema of a function's arguments."""
    return ArgumentSchema(_schema(whole), _schema(whole))


def _of_texts(schema: Schema) -> Schema:
    """Return the schema of a text or another type, for the text alone."""
    listed = schema.get("enum")
    texts: Schema = {"enum": [each for each in listed if isinstance(each, str)]} if isinstance(listed, list) else {}
    return {**schema, **texts, "type": "string"}


def _schema(value: JSON) -> Schema:
    """Return a schema that is an object, or the empty schema for anything else."""
    return value if isinstance(value, dict) else {}


UNDECLARED = argument_schema({})
"""Schema of the arguments of a function that is not offered."""


def is_plain(name: str) -> bool:
    """True if the name has no character that a notation gives a meaning."""
    return re.fullmatch(r"[\w.-]+", name) is not None


def types_of_value(value: JSON) -> tuple[str, ...]:
    """Return the schema types of a JSON value."""
    name = type_of(value)
    return ("integer", "number") if name == "integer" else (name,)


class Parameter(Struct, frozen=True):
    """A property of a function's arguments."""

    name: str
    schema: Schema
    required: bool


_WHOLE = frozenset(("type", "properties", "required", "additionalProperties", *DEFINITIONS))
"""Keywords of objects whose parameters can be written one by one."""


def parameters(schema: Schema) -> list[Parameter] | None:
    """Return the parameters in the order of the schema; None if the schema has keywords beyond its parameters."""
    properties, required = schema.get("properties"), schema.get("required", [])
    if not isinstance(properties, dict) or not isinstance(required, list) or schema.keys() & ENFORCED - _WHOLE:
        return None
    if not all(name in properties for name in required) or not all(map(is_plain, properties)):
        return None
    return _parameters(properties, required)


def _parameters(properties: Schema, required: list[JSON]) -> list[Parameter] | None:
    """Return the parameters; None if the schema of one is malformed, or forbids it."""
    schemas = [(name, {} if inner is True else inner) for name, inner in properties.items()]
    found = [Parameter(name, inner, name in required) for name, inner in schemas if isinstance(inner, dict)]
    return found if len(found) == len(schemas) else None


def choices(schema: Schema) -> list[JSON] | None:
    """Return the values of `const` or `enum`; None if the schema has neither, or further keywords."""
    return None if schema.keys() & ENFORCED - {"type", "enum", "const"} else listed_values(schema)


_MAX_LENGTH = 4096
"""Characters of a text whose length is enforced."""


def length_of(schema: Schema) -> tuple[int, int | None] | None:
    """Return the bounds of a text's length; None if the schema constrains more than that."""
    limits = bounds(schema, "minLength", "maxLength")
    if limits is None or schema.keys() & ENFORCED - {"type", "minLength", "maxLength"}:
        return None
    return limits if max(limits[0], limits[1] or 0) <= _MAX_LENGTH else None


def bounds_of(schema: Schema) -> tuple[int, int | None] | None:
    """Return the bounds of a list's length; None if the schema constrains more than that and the items."""
    if schema.keys() & ENFORCED - {"type", "items", "minItems", "maxItems"}:
        return None
    return bounds(schema, "minItems", "maxItems")
