"""Read calls as in Python, and write grammars for their arguments. Pure.

The type of a value is not written, so the reader infers it once the value is complete.
"""

from collections.abc import Sequence
from typing import ClassVar

import msgspec

from engine.grammar import Rules, excluding, pattern, string_literal
from engine.json_schema import ENFORCED, Schema
from engine.notations.argument_schema import Parameter, length_of
from engine.notations.call_format import Function, json_arguments, json_text
from engine.notations.json_objects import Offered, Read
from engine.notations.json_values import ObjectEmitter, discard, emit_arguments, emit_value, in_json, infer_value
from engine.notations.parsed import TextDelta, ToolCallEnd, ToolCallStart
from engine.notations.scanner import ReaderSteps, Scanner, cleaned
from engine.notations.value_writers import ValueWriter, items_of, json_value, one_of, repeated


def pythonic(end: str = "") -> Read:
    """Return a reader of `[name(key='text', other=3)]`. Before the marker `end`, commas between calls are optional."""

    def read(scanner: Scanner, offered: Offered) -> ReaderSteps[None]:
        while True:
            yield from scanner.skip("[],;")
            name, marker = yield from scanner.collect(("(", "]", "\n", end))
            if marker != "(":
                if name.strip() and not scanner.is_cut_before(marker):
                    scanner.output.append(TextDelta(name.strip()))
                if marker == end:
                    scanner.unread(end)
                return
            scanner.output.append(ToolCallStart(name.strip()))
            yield from _pythonic_arguments(scanner)
            scanner.output.append(ToolCallEnd())
            yield from scanner.skip_space()
            if not end and (yield from scanner.peek()) not in (",", ";"):
                yield from scanner.skip_literal("]")
                return

    return read


def _pythonic_arguments(scanner: Scanner) -> ReaderSteps[None]:
    emit = emit_arguments(scanner)
    yield from scanner.skip_space()
    if (yield from scanner.peek()) == "{":
        yield from emit_value(scanner, emit)
        yield from scanner.until((")",), discard)
        return
    arguments = ObjectEmitter(emit)
    while True:
        yield from scanner.skip(",")
        key, marker = yield from scanner.collect(("=", ")"))
        if marker != "=":
            break
        emit_once = emit if arguments.begin(key.strip()) else discard
        literal = yield from _literal(scanner)
        if scanner.cut and not (yield from scanner.peek()):
            emit_once(_decoded_start(literal))
            return
        emit_once(in_json(infer_value(literal)))
    if not scanner.is_cut_before(marker):
        arguments.end()


def _literal(scanner: Scanner) -> ReaderSteps[str]:
    """Return a literal, up to the comma or bracket that follows it."""
    chars: list[str] = []
    depth, quote = 0, ""
    while char := (yield from scanner.peek()):
        if not quote and depth == 0 and char in ",)":
            break
        chars.append((yield from scanner.take()))
        if quote:
            if char == "\\":
                chars.append((yield from scanner.take()))
            elif char == quote:
                quote = ""
        elif char in "\"'":
            quote = char
        else:
            depth += (char in "([{") - (char in ")]}")
    return "".join(chars)


def _decoded_start(literal: str) -> str:
    """Return an incomplete text as the start of a JSON string. Return nothing for other values."""
    literal = cleaned(literal).lstrip()
    if literal[:1] not in ("'", '"'):
        return ""
    for end in range(len(literal), max(len(literal) - _MAX_ESCAPE, 0), -1):
        text = infer_value(f"{literal[:end]}{literal[0]}")
        if isinstance(text, msgspec.Raw):
            text = msgspec.json.decode(text)
        if isinstance(text, str) and text[:1] != literal[0]:
            return in_json(text)[:-1]
    return ""


_MAX_ESCAPE = 10
"""Characters of the longest escape in Python, as in `\\U0001f600`."""


def pythonic_arguments(function: Function, rules: Rules) -> str:
    """Write `key="text", other=3`: each value in JSON or in Python."""

    def item(each: Parameter) -> str | None:
        value = json_text(function, rules) if function.lark else json_value(each.schema, function.schema, rules)
        if value and not function.lark:
            value = one_of(value, python_value(each.schema, function.schema, rules, texts=True))
        return value and f"{string_literal(each.name + '=')} {value}"

    items = items_of(function.schema, item)
    return json_arguments(function, rules) if items is None else rules.in_any_order(items, f'"," {rules.space()}')


def python_value(
    schema: Schema, whole: Schema, rules: Rules, forbidden: Sequence[str] = (), texts: bool = False
) -> str | None:
    """Return an expression for a value as Python writes it, without the texts `forbidden`; None if there is none.

    Without `texts`, the value itself is not a text.
    """
    named = schema.get("type")
    if texts or named is None:
        return _Python(whole, rules, forbidden).value(schema)
    others = [name for name in (named if isinstance(named, list) else [named]) if name != "string"]
    return _Python(whole, rules, forbidden).value({**schema, "type": others}) if others else None


class _Python(ValueWriter):
    """Writes what `repr` writes."""

    name = "python_value"
    comma = '", "'
    words: ClassVar = {True: "True", False: "False", None: "None"}

    def __init__(self, whole: Schema, rules: Rules, forbidden: Sequence[str]) -> None:
        super().__init__(whole, rules)
        self._forbidden = forbidden

    def key(self, name: str) -> str:
        return f'{string_literal(repr(name))} ": "'

    def any_key(self) -> str:
        return f'{self._text()} ": "'

    def text(self, schema: Schema) -> str | None:
        return self._text(repeated(*length)) if (length := length_of(schema)) is not None else None

    def constant_text(self, value: str) -> str | None:
        written = repr(value)
        return string_literal(written) if not any(each in written for each in self._forbidden) else None

    def number(self, type_: str, schema: Schema) -> str | None:
        return pattern(_PYTHON_NUMBERS[type_]) if not schema.keys() & ENFORCED - {"type"} else None

    def _text(self, length: str = "*") -> str:
        single, double = (
            excluding(self._forbidden, pattern(rf"{quote}([^{quote}\\]|{_PYTHON_ESCAPE}){length}{quote}"))
            for quote in "'\""
        )
        return f"({self._rules.terminal(single)} | {self._rules.terminal(double)})"


_PYTHON_NUMBERS = {
    "integer": "-?(0|[1-9][0-9]{0,17})",
    "number": r"-?(0|[1-9][0-9]{0,15})(\.[0-9]{1,17})?([eE][+-]?[0-9]{1,2})?",
}
"""Numbers that Python reads without loss."""
_PYTHON_ESCAPE = r"""\\([\\'"nrt]|x[0-9a-f]{2}|u([0-9a-ce-f][0-9a-f]{3}|d[0-7][0-9a-f]{2}))"""
