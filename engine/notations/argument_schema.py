"""Look up the declared schema of an argument. Readers and writers infer unwritten types from it. Pure."""

from typing import TypeAlias

from msgspec import Struct

from engine.json_schema import JSON, SUPPORTED, UNSUPPORTED

Schema: TypeAlias = dict[str, JSON]

DEFINITIONS = ("$defs", "definitions")
ENFORCED = SUPPORTED | UNSUPPORTED
_OPTIONAL = ["null", "string"]
"""Types of an optional text, sorted."""
MAX_REF_CHAIN = 16
"""References that are followed one after the other."""


class ArgumentSchema(Struct, frozen=True):
    """A value's schema, and the whole schema that its references refer to."""

    schema: Schema
    whole: Schema

    @property
    def kind(self) -> str:
        """Return the only `type` that the schema permits; empty if it permits several."""
        kind = self.resolved.schema.get("type")
        return kind if isinstance(kind, str) else ""

    @property
    def optional(self) -> "ArgumentSchema | None":
        """Return the text's schema if the value is a text or null: `["string", "null"]`, or an `anyOf` of both.

        Tags enclose such a text verbatim, and a bare `null` is null. A text that looks like null, or begins with a
        quotation mark, is written as a JSON string: `"null"`.
        """
        schema = self.resolved.schema
        kinds = schema.get("type")
        if isinstance(kinds, list):
            return ArgumentSchema(_without_null(schema), self.whole) if sorted(map(str, kinds)) == _OPTIONAL else None
        options = schema.get("anyOf")
        if not isinstance(options, list) or len(options) != 2 or schema.keys() & ENFORCED - {"anyOf"}:
            return None
        by_kind = {
            each.kind: each for each in (ArgumentSchema(_schema(option), self.whole).resolved for option in options)
        }
        null = by_kind.get("null")
        return by_kind.get("string") if null is not None and null.schema.keys() & ENFORCED == {"type"} else None

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


def _without_null(schema: Schema) -> Schema:
    """Return the schema of a text or null without the null."""
    listed = schema.get("enum")
    texts: Schema = {"enum": [each for each in listed if each is not None]} if isinstance(listed, list) else {}
    return {**schema, **texts, "type": "string"}


def _schema(value: JSON) -> Schema:
    """Return a schema that is an object, or the empty schema for anything else."""
    return value if isinstance(value, dict) else {}


UNDECLARED = argument_schema({})
