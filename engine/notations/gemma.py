"""Read Gemma's calls: a relaxed JSON with a special token for quotation marks. Pure."""

from engine.notations.json_objects import Offered, Read
from engine.notations.json_values import emit_arguments, emit_text, emit_value, in_json, infer_value
from engine.notations.parameters import MAX_NESTING
from engine.notations.parsed import TextDelta, ToolCallEnd, ToolCallStart
from engine.notations.scanner import Emit, ReaderSteps, Scanner

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
