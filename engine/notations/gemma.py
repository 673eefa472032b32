"""Read and write Gemma's calls: a relaxed JSON with a special token for quotation marks. Pure."""

from engine.grammar import Rules, pattern, string_literal
from engine.json_schema import ENFORCED, Schema
from engine.notations.call_format import Function, Write, json_arguments
from engine.notations.json_objects import Offered, Read
from engine.notations.json_values import emit_arguments, emit_text, emit_value, in_json, infer_value
from engine.notations.parsed import TextDelta, ToolCallEnd, ToolCallStart
from engine.notations.scanner import Emit, ReaderSteps, Scanner
from engine.notations.tagged_calls import MAX_NESTING
from engine.notations.value_writers import ValueWriter, text_of

GEMMA_4, FUNCTION_GEMMA = '<|"|>', "<escape>"
"""Tokens that Gemma 4 and FunctionGemma write for a quotation mark."""


def gemma(quote: str) -> Read:
    """Return a reader of `call:name{key:<|"|>text<|"|>,other:3}`. `quote` is the token for a quotation mark."""

    def read(scanner: Scanner, offered: Offered) -> ReaderSteps[None]:
        yield from scanner.skip_space()
        yield from scanner.skip_literal("call:")
        name, marker = yield from scanner.collect(("{",))
        if not marker:
            if not scanner.cut:
                scanner.output.append(TextDelta(name))
            return
        scanner.unread(marker)
        scanner.output.append(ToolCallStart(name.strip()))
        place = scanner.mark()
        yield from scanner.take()
        yield from scanner.skip_space()
        is_json = (yield from scanner.peek()) == '"'
        scanner.rewind(place)
        emit = emit_arguments(scanner)
        yield from emit_value(scanner, emit) if is_json else _value(scanner, emit, quote)
        scanner.output.append(ToolCallEnd())

    return read


def _value(scanner: Scanner, emit: Emit, quote: str, depth: int = 0) -> ReaderSteps[None]:
    yield from scanner.skip_space()
    if (yield from scanner.skip_literal(quote)):
        yield from emit_text(scanner, emit, (quote,))
    elif depth < MAX_NESTING and (yield from scanner.peek()) in ("{", "["):
        yield from _items(scanner, emit, quote, depth)
    else:
        yield from _word(scanner, emit)


def _word(scanner: Scanner, emit: Emit) -> ReaderSteps[None]:
    """Read a value without quotation marks."""
    chars: list[str] = []
    while (char := (yield from scanner.peek())) and char not in ",}]":
        chars.append((yield from scanner.take()))
    if not scanner.is_cut_before(char):
        emit(in_json(infer_value("".join(chars))))


def _items(scanner: Scanner, emit: Emit, quote: str, depth: int) -> ReaderSteps[None]:
    """Read an object or a list."""
    opening = yield from scanner.take()
    emit(opening)
    before = ""
    while True:
        yield from scanner.skip(",")
        char = yield from scanner.peek()
        if scanner.is_cut_before(char):
            return
        if char in ("", "]", "}"):
            yield from scanner.take()
            emit("}" if opening == "{" else "]")
            return
        if opening == "{":
            key, marker = yield from scanner.collect((":", "}"))
            if scanner.is_cut_before(marker):
                return
            before = f"{before}{in_json(key.replace(quote, '').strip())}: "
        emit(before)
        before = ", "
        yield from _value(scanner, emit, quote, depth + 1)


def gemma_arguments(quote: str) -> Write:
    """Return a writer of `{key:<|"|>text<|"|>,other:3}`. `quote` is the token for a quotation mark."""

    def write(function: Function, rules: Rules) -> str:
        own = None if function.lark else _Gemma(function.schema, rules, quote).object(function.schema)
        return own or json_arguments(function, rules)

    return write


class _Gemma(ValueWriter):
    name = "gemma_value"

    def __init__(self, whole: Schema, rules: Rules, quote: str) -> None:
        super().__init__(whole, rules)
        self._mark = quote
        self._quote = rules.literal(quote)

    def _ordered(self, items: list[tuple[str, bool]]) -> list[tuple[str, bool]]:
        """Order parameters by their names, as the template does."""
        return sorted(items, key=lambda item: item[0].lower())

    def key(self, name: str) -> str:
        return string_literal(f"{name}:")

    def any_key(self) -> str:
        return f'{pattern("[A-Za-z0-9_.-]+")} ":"'

    def text(self, schema: Schema) -> str | None:
        text = text_of(schema)
        return text and f"{self._quote} {self._rules.until(self._mark, text)}"

    def constant_text(self, value: str) -> str | None:
        return f"{self._quote} {string_literal(value)} {self._quote}" if self._mark not in value else None

    def number(self, type_: str, schema: Schema) -> str | None:
        keywords = schema.keys() & ENFORCED - {"type"}
        return (
            self._rules.json({key: schema[key] for key in keywords} | {"type": type_}) if keywords <= _NUMBERS else None
        )


_NUMBERS = frozenset(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "format"))
