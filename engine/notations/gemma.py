"""Gemma's calls: almost JSON, with a token of its own for quotation marks. Pure."""

from engine.notations.json_objects import Offered, Read, emit_arguments, value
from engine.notations.parameters import MOST_NESTED, in_json, infer_value
from engine.notations.parsed import TextDelta, ToolCallEnd, ToolCallStart
from engine.notations.scanner import Emit, ReaderSteps, Scanner

GEMMA_4, FUNCTION_GEMMA = '<|"|>', "<escape>"
"""Tokens for a quotation mark."""


def gemma(quote: str) -> Read:
    """Read `call:name{key:<|"|>text<|"|>,other:3}`. `quote`: the model's token for a quotation mark."""

    def read(scanner: Scanner, offered: Offered) -> ReaderSteps[None]:
        yield from scanner.space()
        yield from scanner.passes("call:")
        name, marker = yield from scanner.collect(("{",))
        if not marker:
            if not scanner.cut:
                scanner.found.append(TextDelta(name))
            return
        scanner.back(marker)
        scanner.found.append(ToolCallStart(name.strip()))
        place = scanner.mark()
        yield from scanner.take()
        yield from scanner.space()
        is_json = (yield from scanner.peek()) == '"'
        scanner.rewind(place)
        tell = emit_arguments(scanner)
        yield from value(scanner, tell) if is_json else _value(scanner, tell, quote)
        scanner.found.append(ToolCallEnd())

    return read


def _value(scanner: Scanner, tell: Emit, quote: str, depth: int = 0) -> ReaderSteps[None]:
    yield from scanner.space()
    if (yield from scanner.passes(quote)):
        tell('"')
        marker = yield from scanner.until((quote,), lambda text: tell(in_json(text)[1:-1]))
        if marker or not scanner.cut:
            tell('"')
    elif depth < MOST_NESTED and (yield from scanner.passes("{")):
        yield from _row(scanner, tell, quote, "{", depth)
    elif depth < MOST_NESTED and (yield from scanner.passes("[")):
        yield from _row(scanner, tell, quote, "[", depth)
    else:
        chars: list[str] = []
        while (char := (yield from scanner.peek())) and char not in ",}]":
            chars.append((yield from scanner.take()))
        if char or not scanner.cut:
            tell(in_json(infer_value("".join(chars))))


def _row(scanner: Scanner, tell: Emit, quote: str, opening: str, depth: int) -> ReaderSteps[None]:
    tell(opening)
    first = True
    while True:
        yield from scanner.space()
        char = yield from scanner.peek()
        if not char and scanner.cut:
            return
        if not char or char in "]}":
            yield from scanner.take()
            tell("}" if opening == "{" else "]")
            return
        if char == ",":
            yield from scanner.take()
            continue
        separator, first = "" if first else ", ", False
        if opening == "{":
            key, marker = yield from scanner.collect((":", "}"))
            if not marker and scanner.cut:
                return
            separator = f"{separator}{in_json(key.replace(quote, '').strip())}: "
        tell(separator)
        yield from _value(scanner, tell, quote, depth + 1)
