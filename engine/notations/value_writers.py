"""Write grammars for values in JSON, and in notations that resemble it: the base of Gemma's and of Python's. Pure."""

import json
from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar

from engine.grammar import Rules, pattern, string_literal
from engine.json_schema import ENFORCED, JSON, Schema
from engine.notations.argument_schema import (
    DEFINITIONS,
    Parameter,
    bounds_of,
    choices,
    length_of,
    parameters,
    types_of_value,
)


def items_of(schema: Schema, item: Callable[[Parameter], str | None]) -> list[tuple[str, bool]] | None:
    """Return pairs of a parameter's expression and "is required"; None if a parameter can't be written."""
    found = parameters(schema)
    items = [(item(each), each.required) for each in found or ()]
    written = [(text, required) for text, required in items if text is not None]
    return None if found is None or len(written) < len(items) else written


def text_of(schema: Schema) -> str | None:
    """Return a terminal for a text; None if the schema constrains more than its length."""
    return pattern(f".{repeated(*length)}") if (length := length_of(schema)) is not None else None


def repeated(least: int, most: int | None) -> str:
    """Return the repetition of a regex or an expression."""
    return f"{{{least},{'' if most is None else most}}}"


def one_of(*alternatives: str | None) -> str | None:
    """Return an expression for the alternatives that are not None; None if there are none."""
    found = [each for each in alternatives if each is not None]
    return f"({' | '.join(found)})" if found else None


def json_value(schema: Schema, whole: Schema, rules: Rules) -> str | None:
    """Return a rule for a JSON value with the definitions of `whole`; None if a reference leads elsewhere."""
    if not all(target.startswith(("#/$defs/", "#/definitions/")) for target in _references(whole)):
        return None
    return rules.json({**{key: whole[key] for key in DEFINITIONS if key in whole}, **schema})


def _references(value: JSON) -> Iterator[str]:
    pending = [value]
    while pending:
        match pending.pop():
            case dict() as inner:
                if isinstance(target := inner.get("$ref"), str):
                    yield target
                pending += inner.values()
            case list() as inner:
                pending += inner


class ValueWriter:
    """Writes the values of one schema; None for a value that the notation can't express."""

    name = ""
    """Name of the grammar's rule for any value."""
    comma = '","'
    words: ClassVar = {True: "true", False: "false", None: "null"}

    def __init__(self, whole: Schema, rules: Rules) -> None:
        self._whole = whole
        self._rules = rules
        self._definitions: dict[str, str | None] = {}
        """Grammar by reference; None while it is being written, and if it can't be written."""

    def key(self, name: str) -> str:
        """Return an expression for a key and the sign after it."""
        raise NotImplementedError

    def text(self, schema: Schema) -> str | None:
        """Return an expression for a text of the schema; None if it cannot be written."""
        raise NotImplementedError

    def constant_text(self, value: str) -> str | None:
        """Return an expression for one text; None if it cannot be written."""
        raise NotImplementedError

    def number(self, type_: str, schema: Schema) -> str | None:
        """Return an expression for a number of the schema; None if it cannot be written."""
        raise NotImplementedError

    def any_key(self) -> str:
        """Return an expression for any key and the sign after it."""
        raise NotImplementedError

    def anything(self) -> str:
        """Return the grammar of any value."""
        constants = " | ".join(f'"{word}"' for word in self.words.values())
        items = f'"[" ({self.name} ({self.comma} {self.name})*)? "]"'
        atoms = f"{constants} | {self.number('number', {})} | {self.text({})}"
        return self._rules.named(self.name, f"{atoms} | {items} | {self._any_object()}")

    def _any_object(self) -> str:
        pair = f"{self.any_key()} {self.name}"
        return f'"{{" ({pair} ({self.comma} {pair})*)? "}}"'

    def object(self, schema: Schema) -> str | None:
        """Return an expression for an object of the schema; None if it cannot be written."""
        items = items_of(schema, self._item)
        if items is None:
            more = schema.get("additionalProperties", True)
            is_free = more in (True, {}) and schema.keys() & ENFORCED <= {"type", "additionalProperties"}
            return self._any_object() if is_free and self.anything() else None
        return f'"{{" {self._rules.in_order(self._ordered(items), self.comma)} "}}"'

    def _ordered(self, items: list[tuple[str, bool]]) -> list[tuple[str, bool]]:
        return items

    def _item(self, each: Parameter) -> str | None:
        value = self.value(each.schema)
        return value and f"{self.key(each.name)} {value}"

    def value(self, schema: JSON) -> str | None:
        """Return an expression for a value of the schema; None if it cannot be written."""
        if not isinstance(schema, dict):
            return None
        if isinstance(target := schema.get("$ref"), str):
            return self._reference(target) if not schema.keys() & ENFORCED - {"$ref"} else None
        if isinstance(options := schema.get("anyOf"), list):
            return (
                self._one_of([self.value(option) for option in options])
                if not schema.keys() & ENFORCED - {"anyOf"}
                else None
            )
        if not schema.keys() & ENFORCED:
            return self.anything()
        named = schema.get("type")
        if isinstance(named, list):
            return self._one_of([self._of_type(name, schema) for name in named])
        return self._of_type(named, schema)

    def _reference(self, target: str) -> str | None:
        if target not in self._definitions:
            self._definitions[target] = None
            place, _, name = target.removeprefix("#/").partition("/")
            definitions = self._whole.get(place) if place in DEFINITIONS else None
            value = self.value(definitions.get(name)) if isinstance(definitions, dict) else None
            self._definitions[target] = value and self._rules.rule(value)
        return self._definitions[target]

    def _one_of(self, options: Sequence[str | None]) -> str | None:
        found = [option for option in options if option is not None]
        return self._rules.rule(" | ".join(found)) if found and len(found) == len(options) else None

    def _of_type(self, name: JSON, schema: Schema) -> str | None:
        if (chosen := choices(schema)) is not None:
            return self._one_of(
                [self._constant(value) for value in chosen if name is None or name in types_of_value(value)]
            )
        match name:
            case "string":
                return self.text(schema)
            case "number" | "integer":
                return self.number(name, schema)
            case "array":
                return self._list(schema)
            case "object":
                return self.object(schema)
            case "boolean" | "null" if not schema.keys() & ENFORCED - {"type"}:
                return self._word(name)
        return None

    def _word(self, name: str) -> str:
        return f'"{self.words[None]}"' if name == "null" else f'("{self.words[True]}" | "{self.words[False]}")'

    def _constant(self, value: JSON) -> str | None:
        match value:
            case str():
                return self.constant_text(value)
            case dict() | list():
                return None
            case bool() | None:
                return string_literal(self.words[value])
        return string_literal(json.dumps(value))

    def _list(self, schema: Schema) -> str | None:
        bounds = bounds_of(schema)
        value = self.value(schema.get("items", {}))
        if value is None or bounds is None:
            return None
        least, most = bounds
        if most == 0:
            return '"[]"'
        more = f"({self.comma} {value}){repeated(max(least - 1, 0), most and most - 1)}"
        items = value if most == 1 else f"{value} {more}"
        return f'"[" {items} "]"' if least else f'"[" ({items})? "]"'
