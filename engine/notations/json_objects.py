"""Read calls in JSON: an object that names the function, or arguments after a name. Pure."""

from collections.abc import Callable, Container, Mapping, Sequence
from contextlib import suppress
from typing import TypeAlias

import msgspec

from engine.notations.argument_schema import ArgumentSchema
from engine.notations.parsed import TextDelta, ToolCallArguments, ToolCallEnd, ToolCallStart
from engine.notations.scanner import Emit, ReaderSteps, Scanner, cleaned

Offered: TypeAlias = Mapping[str, ArgumentSchema]
"""Functions that the model may call, with the schemas of their arguments."""
Read: TypeAlias = Callable[[Scanner, Offered], ReaderSteps[None]]
"""Reads calls, from their beginning on."""

NAMES = ("name", "tool_name", "function")
ARGUMENTS = ("arguments", "parameters")
BEFORE_NAMES = ("type", "id")
"""Keys that may precede the name in a call without a marker."""
SEPARATORS = ";,"
"""Characters that may separate calls without a marker."""
EMPTY_OBJECT = "{}"


def objects(scanner: Scanner, offered: Offered) -> ReaderSteps[None]:
    """Read `{"name": ..., "arguments": {...}}`, once or several times, in a list or not."""
    while (yield from _another(scanner)):
        yield from _object(scanner, NAMES, bool)


def bare_objects(scanner: Scanner, offered: Container[str], after_call: bool = False) -> ReaderSteps[bool]:
    """Read calls without a marker and return True if there was one. An object that names no offered function is text.

    `after_call` is True if a call precedes, so that no list may begin. `BareCallDetector` uses this reader too, to
    constrain a call as soon as it is recognized here.
    """
    place = scanner.mark()
    is_list = not after_call and (yield from scanner.skip_literal("["))
    yield from scanner.skip_space()
    lead, called = scanner.text_since(place), False
    while (yield from scanner.peek()) == "{":
        if not (yield from _object(scanner, NAMES, offered.__contains__, (*NAMES, *BEFORE_NAMES))):
            written = scanner.output.pop()
            assert isinstance(written, TextDelta), "an object that is no call is text"
            scanner.output.append(TextDelta(written.text if called else lead + written.text))
            return called
        called = True
        yield from scanner.skip(SEPARATORS)
    if is_list:
        yield from scanner.skip_literal("]")
    return called


def begins_bare(scanner: Scanner) -> ReaderSteps[bool]:
    """Return True if an object or a list of objects follows. Consume nothing."""
    place = scanner.mark()
    yield from scanner.skip_space()
    if (yield from scanner.skip_literal("[")):
        yield from scanner.skip_space()
    begins = (yield from scanner.peek()) == "{"
    scanner.rewind(place)
    return begins


def keyed_objects(scanner: Scanner, offered: Offered) -> ReaderSteps[None]:
    """Read `[{"the name": {...}}]`."""
    while (yield from _another(scanner)):
        yield from _object(scanner, (), bool)


def named_arguments(
    separators: Sequence[str], name_of: Callable[[Sequence[str]], str], closing: Sequence[str] = ()
) -> Read:
    """Return a reader of `name<separator>{...}`. `name_of` picks the name from the texts between the separators."""

    def read(scanner: Scanner, offered: Offered) -> ReaderSteps[None]:
        head: list[str] = []
        while True:
            text, marker = yield from scanner.collect((*separators, *closing, "{"))
            head.append(text)
            if marker not in separators:
                break
        if not marker and scanner.cut:
            return  # the name may be incomplete
        name = name_of(head)
        if marker == "{":
            scanner.unread(marker)
        if not name:
            scanner.output.append(TextDelta("".join(head).strip()))
            return
        scanner.output.append(ToolCallStart(name))
        if marker == "{":
            yield from emit_value(scanner, emit_arguments(scanner))
        else:
            scanner.output.append(ToolCallArguments(EMPTY_OBJECT))
        scanner.output.append(ToolCallEnd())

    return read


def emit_arguments(scanner: Scanner) -> Emit:
    """Return a function that emits text of a call's arguments."""

    def emit(text: str) -> None:
        if text := cleaned(text):
            scanner.output.append(ToolCallArguments(text))

    return emit


def emit_value(scanner: Scanner, emit: Emit) -> ReaderSteps[None]:
    """Emit one JSON value verbatim, or the text that is read in place of one."""
    yield from scanner.skip_space()
    first = yield from scanner.peek()
    if first == '"':
        yield from _text(scanner, emit)
    elif first and first in "{[":
        depth = 0
        while char := (yield from scanner.peek()):
            if char == '"':
                yield from _text(scanner, emit)
                continue
            emit((yield from scanner.take()))
            depth += (char in "{[") - (char in "}]")
            if depth == 0:
                return
    else:
        while (char := (yield from scanner.peek())) and char not in ",}]" and not char.isspace():
            emit((yield from scanner.take()))


def read_string(scanner: Scanner) -> ReaderSteps[str]:
    """Return a JSON string with its quotes."""
    chars: list[str] = []
    yield from _text(scanner, chars.append)
    return "".join(chars)


def _text(scanner: Scanner, emit: Emit) -> ReaderSteps[None]:
    emit((yield from scanner.take()))
    while char := (yield from scanner.take()):
        emit(char)
        if char == '"':
            return
        if char == "\\":
            emit((yield from scanner.take()))


def decode_string(json: str) -> str:
    """Return the text of a JSON string. Return anything else unchanged."""
    json = cleaned(json)
    try:
        return msgspec.json.decode(json, type=str)
    except msgspec.DecodeError:
        return json


def _another(scanner: Scanner) -> ReaderSteps[bool]:
    """Skip separators and return True if an object begins."""
    yield from scanner.skip("[],;")
    return (yield from scanner.peek()) == "{"


def _object(
    scanner: Scanner, names: Sequence[str], fits: Callable[[str], bool], keys: Sequence[str] = ()
) -> ReaderSteps[bool]:
    """Read a call and return True, or emit the text and return False. A call is emitted once its name is complete.

    Without `names`, each key is a function's name. With `keys`, only these keys may precede the name, which must be a
    string. `fits` returns True for acceptable names.
    """
    place = scanner.mark()
    yield from scanner.take()
    name = ""
    early: list[str] = []
    """Arguments that precede the name."""
    has_arguments = False
    emit = emit_arguments(scanner)
    while (yield from _another_key(scanner)):
        key = decode_string((yield from read_string(scanner)))
        if keys and not name and key not in keys:
            break
        yield from scanner.skip_space()
        yield from scanner.skip_literal(":")
        yield from scanner.skip_space()
        if not names or (key in ARGUMENTS and name):
            if not names:
                name = key
                scanner.output.append(ToolCallStart(name))
            yield from _arguments(scanner, emit)
            has_arguments = True
        else:
            raw: list[str] = []
            if keys and key in names and (yield from scanner.peek()) != '"':
                break
            scanner.in_name = key in names
            yield from emit_value(scanner, raw.append)
            scanner.in_name = False
            if key in ARGUMENTS:
                early = raw
            elif key in names and not name:
                if not fits(decode_string("".join(raw))):
                    break
                name = decode_string("".join(raw))
                if scanner.cut and name == "".join(raw):
                    name = ""  # the name is incomplete
                    break
                scanner.output.append(ToolCallStart(name))
    written = scanner.text_since(place)
    if not name:
        if keys or not scanner.cut:
            scanner.output.append(TextDelta(written))
        return False
    if not has_arguments:
        emit(_plain("".join(early)) or ("" if scanner.cut else EMPTY_OBJECT))
    scanner.output.append(ToolCallEnd())
    return True


def _another_key(scanner: Scanner) -> ReaderSteps[bool]:
    """Skip separators and return True if a key begins. Consume the end of the object."""
    while True:
        yield from scanner.skip_space()
        char = yield from scanner.peek()
        if char == '"':
            return True
        if char == "}":
            yield from scanner.take()
        if char != ",":
            return False
        yield from scanner.take()


def _arguments(scanner: Scanner, emit: Emit) -> ReaderSteps[None]:
    """Emit arguments. Some models write them as a string that contains the JSON."""
    if (yield from scanner.peek()) == '"':
        written = yield from read_string(scanner)
        emit(_decoded_start(written) if scanner.cut else decode_string(written) or EMPTY_OBJECT)
    else:
        yield from emit_value(scanner, emit)


def _decoded_start(json: str) -> str:
    """Return the text of a JSON string, or of the start of one."""
    for end in range(len(json), max(len(json) - MAX_ESCAPE, 0), -1):
        for closing in ("", '"'):
            with suppress(msgspec.DecodeError):
                return msgspec.json.decode(f"{cleaned(json[:end])}{closing}", type=str)
    return ""


MAX_ESCAPE = 12
"""Characters of the longest escape in JSON, a pair of surrogates."""


def _plain(json: str) -> str:
    return decode_string(json) if json.startswith('"') else json
