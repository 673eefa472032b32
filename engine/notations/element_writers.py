"""Write grammars for arguments that are elements, which `elements` reads. Pure.

An element has JSON as its content if its schema can't be enforced otherwise. Every grammar ends with the mark of the
next tag, since a text ends there.
"""

from engine.grammar import Rules, string_literal
from engine.json_schema import Schema
from engine.notations.argument_schema import ArgumentSchema, Parameter, argument_schema, bounds_of
from engine.notations.call_format import Function, Write, json_arguments
from engine.notations.elements import ITEM
from engine.notations.tagged_writers import tagged_text, texts_of_other_types, word_of
from engine.notations.value_writers import items_of, json_value, one_of


def element_arguments(mark: str) -> Write:
    """Return a writer of arguments that are nested elements. `mark` precedes each tag."""

    def write(function: Function, rules: Rules) -> str:
        written = _ElementGrammar(function, rules, mark).object(argument_schema(function.schema))
        return written or f"{json_arguments(function, rules)} {rules.literal(mark)}"

    return write


class _ElementGrammar:
    """Writes the elements of one function."""

    def __init__(self, function: Function, rules: Rules, mark: str) -> None:
        self._function = function
        self._rules = rules
        self._mark, self._closing = mark, rules.literal(mark)
        self._definitions: dict[str, str | None] = {}
        """Grammar by reference; None while it is being written, and if it can't be written."""

    def object(self, declared: ArgumentSchema) -> str | None:
        def item(each: Parameter) -> str | None:
            return self._element(each.name, ArgumentSchema(each.schema, declared.whole))

        items = items_of(declared.schema, item)
        return None if items is None else f"{self._rules.in_any_order(items, '')} {self._closing}"

    def _element(self, tag: str, declared: ArgumentSchema) -> str | None:
        value = self._value(declared)
        return value and f"{self._closing} {string_literal(f'<{tag}>')} {value} {string_literal(f'</{tag}>')}"

    def _value(self, declared: ArgumentSchema) -> str | None:
        if self._function.lark:
            return f"{self._rules.lark(self._function.lark)} {self._closing}"
        if (target := declared.target) is None:
            return self._written(declared)
        if target not in self._definitions:
            self._definitions[target] = None
            value = self._written(declared.resolved)
            self._definitions[target] = value and self._rules.rule(value)
        return self._definitions[target]

    def _written(self, declared: ArgumentSchema) -> str | None:
        match declared.type:
            case "string":
                return tagged_text(declared.schema, self._mark, (self._mark,), self._rules)
            case "object" if written := self.object(declared):
                return written
            case "array" if written := self._list(declared):
                return written
        text = declared.text
        no_text = texts_of_other_types(declared)
        bare = text and tagged_text(text.schema, self._mark, (self._mark,), self._rules, no_text=no_text)
        if text is None or not bare:
            return self._quoted(declared.schema)
        other = self._quoted(text.schema if declared.optional is not None else declared.schema)
        return one_of(bare, other, word_of(declared, self._mark, self._rules))

    def _quoted(self, schema: Schema) -> str | None:
        value = json_value(schema, self._function.schema, self._rules)
        return value and f"{value} {self._closing}"

    def _list(self, declared: ArgumentSchema) -> str | None:
        bounds, items = bounds_of(declared.schema), declared.schema.get("items")
        element = self._element(ITEM, declared.item) if bounds and isinstance(items, dict) else None
        if element is None or bounds is None:
            return None
        least, most = bounds
        return f"({element}){{{least},{'' if most is None else most}}} {self._closing}"
