"""Write grammars for arguments in Gemma's notation, which `gemma` reads. Pure."""

import json
from collections.abc import Sequence

from engine.grammar import Rules, string_literal
from engine.json_schema import JSON
from engine.notations.argument_schema import DEFINITIONS, ENFORCED, Schema
from engine.notations.call_format import Function, Write, json_arguments
from engine.notations.parameter_writers import Parameter, bounds_of, choices, items_of, text_of


def gemma_arguments(quote: str) -> Write:
    """Return a writer of `{key:<|"|>text<|"|>,other:3}`. `quote` is the token for a quotation mark."""

    def write(function: Function, rules: Rules) -> str:
        own = None if function.lark else _Gemma(function.schema, rules, quote).object(function.schema)
        return own or json_arguments(function, rules)

    return write


class _Gemma:
    """Writes the values of one function in Gemma's notation."""

    def __init__(self, whole: Schema, rules: Rules, quote: str) -> None:
        self._whole = whole
        self._rules = rules
        self._mark = quote
        self._quote = rules.literal(quote)
        self._definitions: dict[str, str | None] = {}
        """Grammar by reference; None while it is being written, and if it can't be written."""

    def object(self, schema: Schema) -> str | None:
        """Write the parameters in the order of their names, as the template does."""
        items = items_of(schema, self._item)
        return None if items is None else f'"{{" {self._rules.in_order(sorted(items, key=_folded), _COMMA)} "}}"'

    def _item(self, each: Parameter) -> str | None:
        value = self._value(each.schema)
        return value and f"{string_literal(each.name + ':')} {value}"

    def _value(self, schema: JSON) -> str | None:
        if not isinstance(schema, dict):
            return None
        if isinstance(target := schema.get("$ref"), str):
            return self._reference(target) if not schema.keys() & ENFORCED - {"$ref"} else None
        if isinstance(options := schema.get("anyOf"), list):
            return (
                self._one_of([self._value(option) for option in options])
                if not schema.keys() & ENFORCED - {"anyOf"}
                else None
            )
        kinds = schema.get("type")
        if isinstance(kinds, list):
            return self._one_of([self._kind(kind, schema) for kind in kinds])
        return self._kind(kinds, schema)

    def _reference(self, target: str) -> str | None:
        if target not in self._definitions:
            self._definitions[target] = None
            place, _, name = target.removeprefix("#/").partition("/")
            definitions = self._whole.get(place) if place in DEFINITIONS else None
            value = self._value(definitions.get(name)) if isinstance(definitions, dict) else None
            self._definitions[target] = value and self._rules.rule(value)
        return self._definitions[target]

    def _one_of(self, options: Sequence[str | None]) -> str | None:
        found = [option for option in options if option is not None]
        return self._rules.rule(" | ".join(found)) if found and len(found) == len(options) else None

    def _kind(self, kind: JSON, schema: Schema) -> str | None:
        if (chosen := choices(schema)) is not None:
            return self._one_of([self._constant(value) for value in chosen if kind in (None, *_kinds(value))])
        keywords = schema.keys() & ENFORCED - {"type"}
        match kind:
            case "string":
                text = text_of(schema)
                return text and f"{self._quote} {self._rules.until(self._mark, text)}"
            case "number" | "integer":
                return (
                    self._rules.json({key: schema[key] for key in keywords} | {"type": kind})
                    if keywords <= _NUMBERS
                    else None
                )
            case "boolean":
                return '("true" | "false")' if not keywords else None
            case "null":
                return '"null"' if not keywords else None
            case "array":
                return self._list(schema)
            case "object":
                return self.object(schema)
        return None

    def _constant(self, value: JSON) -> str | None:
        match value:
            case str():
                return f"{self._quote} {string_literal(value)} {self._quote}" if self._mark not in value else None
            case dict() | list():
                return None
        return string_literal(json.dumps(value))

    def _list(self, schema: Schema) -> str | None:
        bounds = bounds_of(schema)
        value = self._value(schema.get("items"))
        if value is None or bounds is None:
            return None
        least, most = bounds
        if most == 0:
            return '"[]"'
        items = f'{value} ("," {value}){{{max(least - 1, 0)},{"" if most is None else most - 1}}}'
        return f'"[" {items} "]"' if least else f'"[" ({items})? "]"'


_COMMA = '","'


def _folded(item: tuple[str, bool]) -> str:
    return item[0].lower()


_NUMBERS = frozenset(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "format"))


def _kinds(value: JSON) -> tuple[str, ...]:
    match value:
        case bool():
            return ("boolean",)
        case int():
            return ("integer", "number")
        case float():
            return ("number",)
        case str():
            return ("string",)
        case None:
            return ("null",)
        case list():
            return ("array",)
    return ("object",)
