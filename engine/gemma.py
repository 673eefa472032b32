"""Gemma's calls: almost JSON, with a token of its own for quotation marks. Pure."""

from engine.objects import Offered, telling, value
from engine.parameters import MOST_NESTED, guessed, in_json
from engine.scanner import Reading, Scanner, Tell
from engine.utterance import CallBegun, CallEnded, Said

QUOTE = '<|"|>'
"""Gemma's token for a quotation mark."""


def gemma(scanner: Scanner, offered: Offered) -> Reading[None]:
    """`call:name{key:<|"|>text<|"|>,other:3}`."""
    yield from scanner.space()
    yield from scanner.passes("call:")
    name, marker = yield from scanner.collect(("{",))
    if not marker:
        if not scanner.cut:
            scanner.found.append(Said(name))
        return
    scanner.back(marker)
    scanner.found.append(CallBegun(name.strip()))
    place = scanner.mark()
    yield from scanner.take()
    yield from scanner.space()
    read = value if (yield from scanner.peek()) == '"' else _gemma_value
    scanner.rewind(place)
    yield from read(scanner, telling(scanner))
    scanner.found.append(CallEnded())


def _gemma_value(scanner: Scanner, tell: Tell, depth: int = 0) -> Reading[None]:
    yield from scanner.space()
    if (yield from scanner.passes(QUOTE)):
        tell('"')
        marker = yield from scanner.until((QUOTE,), lambda text: tell(in_json(text)[1:-1]))
        if marker or not scanner.cut:
            tell('"')
    elif depth < MOST_NESTED and (yield from scanner.passes("{")):
        yield from _gemma_row(scanner, tell, "{", "}", depth)
    elif depth < MOST_NESTED and (yield from scanner.passes("[")):
        yield from _gemma_row(scanner, tell, "[", "]", depth)
    else:
        chars: list[str] = []
        while (char := (yield from scanner.peek())) and char not in ",}]":
            chars.append((yield from scanner.take()))
        if char or not scanner.cut:
            tell(in_json(guessed("".join(chars))))


def _gemma_row(scanner: Scanner, tell: Tell, opening: str, closing: str, depth: int) -> Reading[None]:
    tell(opening)
    first = True
    while True:
        yield from scanner.space()
        char = yield from scanner.peek()
        if not char and scanner.cut:
            return
        if not char or char in "]}":
            yield from scanner.take()
            tell(closing)
            return
        if char == ",":
            yield from scanner.take()
            continue
        separator, first = "" if first else ", ", False
        if opening == "{":
            key, marker = yield from scanner.collect((":", "}"))
            if not marker and scanner.cut:
                return
            separator = f"{separator}{in_json(key.replace(QUOTE, '').strip())}: "
        tell(separator)
        yield from _gemma_value(scanner, tell, depth + 1)
