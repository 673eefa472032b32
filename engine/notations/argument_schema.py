"""What a function's arguments are declared to be: where no kind is written, readers and writers agree by that. Pure."""

from typing import TypeAlias

from msgspec import Struct

from engine.json_schema import JSON, SUPPORTED, UNSUPPORTED

Schema: TypeAlias = dict[str, JSON]

DEFINITIONS = ("$defs", "definitions")
ENFORCED = SUPPORTED | UNSUPPORTED
_LONGEST_WAY = 16
"""References that lead to the next."""


class ArgumentSchema(Struct, frozen=True):
    """A value's schema, and the whole to which its references belong."""

    schema: Schema
    whole: Schema

    @property
    def kind(self) -> str:
        """Its `type`, where that is one: `string` is a text and nothing else."""
        kind = self.resolved.schema.get("type")
        return kind if isinstance(kind, str) else ""

    @property
    def optional(self) -> "ArgumentSchema | None":
        """The text alone, where the value is a text or null: `["string", "null"]`, or one of both in `anyOf`.

        Between tags such a text stands as it is, and a bare `null` is null; a text that looks like null, or begins with
        a quotation mark, is written as a string of JSON: `"null"`.
        """
        schema = self.resolved.schema
        kinds = schema.get("type")
        if isinstance(kinds, list) and len(kinds) == 2 and "string" in kinds and "null" in kinds:
            listed = schema.get("enum")
            texts: Schema = {"enum": [each for each in listed if each is not None]} if isinstance(listed, list) else {}
            return ArgumentSchema({**schema, **texts, "type": "string"}, self.whole)
        ways = schema.get("anyOf")
        if not isinstance(ways, list) or len(ways) != 2 or schema.keys() & ENFORCED - {"anyOf"}:
            return None
        followed = [ArgumentSchema(_schema(way), self.whole).resolved for way in ways]
        texts_only = [each for each in followed if each.kind == "string"]
        nulls = [each for each in followed if each.schema.keys() & ENFORCED == {"type"} and each.kind == "null"]
        return texts_only[0] if texts_only and nulls else None

    @property
    def may_be_null(self) -> bool:
        """True if an optional text may be null: lists of values leave it out at times."""
        schema = self.resolved.schema
        listed = schema.get("enum", [None])
        return "const" not in schema and isinstance(listed, list) and None in listed

    @property
    def target(self) -> str | None:
        """To which definition it refers, where it does nothing else."""
        target = self.schema.get("$ref")
        return target if isinstance(target, str) and not self.schema.keys() & ENFORCED - {"$ref"} else None

    @property
    def resolved(self) -> "ArgumentSchema":
        found = self
        for _ in range(_LONGEST_WAY):
            place, _, name = (found.target or "").removeprefix("#/").partition("/")
            definitions = self.whole.get(place) if place in DEFINITIONS else None
            if not isinstance(definitions, dict) or name not in definitions:
                break
            found = ArgumentSchema(_schema(definitions[name]), self.whole)
        return found

    def parameter(self, name: str) -> "ArgumentSchema":
        """Of an object."""
        schema = self.resolved.schema
        properties = _schema(schema.get("properties"))
        return ArgumentSchema(_schema(properties.get(name, schema.get("additionalProperties"))), self.whole)

    @property
    def item(self) -> "ArgumentSchema":
        """Of a list, any."""
        return ArgumentSchema(_schema(self.resolved.schema.get("items")), self.whole)


def argument_schema(whole: JSON) -> ArgumentSchema:
    """A function's arguments."""
    return ArgumentSchema(_schema(whole), _schema(whole))


def _schema(value: JSON) -> Schema:
    """Whatever is no schema declares nothing."""
    return value if isinstance(value, dict) else {}


UNDECLARED = argument_schema({})
