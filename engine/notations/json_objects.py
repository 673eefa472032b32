"""Calls that are JSON: an object that names the function, or arguments behind a name. Read while they come. Pure."""

from collections.abc import Callable, Container, Mapping, Sequence
from contextlib import suppress
from typing import TypeAlias

import msgspec

from engine.notations.argument_schema import ArgumentSchema
from engine.notations.parsed import TextDelta, ToolCallArguments, ToolCallEnd, ToolCallStart
from engine.notations.scanner import Emit, ReaderSteps, Scanner, cleaned

Offered: TypeAlias = Mapping[str, ArgumentSchema]
"""The functions that may be called, and what their arguments are declared to be."""
Read: TypeAlias = Callable[[Scanner, Offered], ReaderSteps[None]]
"""Reads calls from where they begin."""

NAMES = ("name", "tool_name", "function")
ARGUMENTS = ("arguments", "parameters")
BEFORE_NAMES = ("type", "id")
"""What may stand before the name where nothing marks a call."""
BETWEEN = ";,"
"""What may stand between such calls."""
NOTHING = "{}"


def objects(scanner: Scanner, offered: Offered) -> ReaderSteps[None]:
    """`{"name": ..., "arguments": {...}}`, one or several, in a list or not."""
    while (yield from _another(scanner)):
        yield from _object(scanner, NAMES, bool)


def bare_objects(scanner: Scanner, offered: Container[str], again: bool = False) -> ReaderSteps[bool]:
    """The same where nothing else marks a call: what doesn't begin like one of a function on offer is text. `naming`
    goes along, to hold a call as soon as it is seen here. Return True if there was a call. `again`: True if one came
    before: no list begins."""
    place = scanner.mark()
    listed = not again and (yield from scanner.passes("["))
    yield from scanner.space()
    lead, called = scanner.since(place), False
    while (yield from scanner.peek()) == "{":
        if not (yield from _object(scanner, NAMES, offered.__contains__, (*NAMES, *BEFORE_NAMES))):
            written = scanner.found.pop()
            assert isinstance(written, TextDelta), "it is no call"
            scanner.found.append(TextDelta(written.text if called else lead + written.text))
            return called
        called = True
        yield from scanner.pass_over(BETWEEN)
    if listed:
        yield from scanner.passes("]")
    return called


def begins_bare(scanner: Scanner) -> ReaderSteps[bool]:
    """True if an object comes next, or a list of them. Nothing is passed over."""
    place = scanner.mark()
    yield from scanner.space()
    if (yield from scanner.passes("[")):
        yield from scanner.space()
    begins = (yield from scanner.peek()) == "{"
    scanner.rewind(place)
    return begins


def keyed_objects(scanner: Scanner, offered: Offered) -> ReaderSteps[None]:
    """`[{"the name": {...}}]`."""
    while (yield from _another(scanner)):
        yield from _object(scanner, (), bool)


def named(separators: Sequence[str], name_of: Callable[[Sequence[str]], str], closing: Sequence[str] = ()) -> Read:
    """`name<separator>{...}`. `name_of` picks it from what stands between the separators."""

    def read(scanner: Scanner, offered: Offered) -> ReaderSteps[None]:
        head: list[str] = []
        while True:
            text, marker = yield from scanner.collect((*separators, *closing, "{"))
            head.append(text)
            if marker not in separators:
                break
        if not marker and scanner.cut:
            return  # perhaps within the name
        name = name_of(head)
        if marker == "{":
            scanner.back(marker)
        if not name:
            scanner.found.append(TextDelta("".join(head).strip()))
            return
        scanner.found.append(ToolCallStart(name))
        if marker == "{":
            yield from value(scanner, emit_arguments(scanner))
        else:
            scanner.found.append(ToolCallArguments(NOTHING))
        scanner.found.append(ToolCallEnd())

    return read


def emit_arguments(scanner: Scanner) -> Emit:
    """What tells a call's arguments."""

    def tell(text: str) -> None:
        if text := cleaned(text):
            scanner.found.append(ToolCallArguments(text))

    return tell


def value(scanner: Scanner, tell: Emit) -> ReaderSteps[None]:
    """One value of JSON, to the letter; what is no JSON as far as it could be."""
    yield from scanner.space()
    first = yield from scanner.peek()
    if first == '"':
        yield from _text(scanner, tell)
    elif first and first in "{[":
        depth = 0
        while char := (yield from scanner.peek()):
            if char == '"':
                yield from _text(scanner, tell)
                continue
            tell((yield from scanner.take()))
            depth += (char in "{[") - (char in "}]")
            if depth == 0:
                return
    else:
        while (char := (yield from scanner.peek())) and char not in ",}]" and not char.isspace():
            tell((yield from scanner.take()))


def text(scanner: Scanner) -> ReaderSteps[str]:
    """A string of JSON with its quotes."""
    chars: list[str] = []
    yield from _text(scanner, chars.append)
    return "".join(chars)


def _text(scanner: Scanner, tell: Emit) -> ReaderSteps[None]:
    tell((yield from scanner.take()))
    while char := (yield from scanner.take()):
        tell(char)
        if char == '"':
            return
        if char == "\\":
            tell((yield from scanner.take()))


def decoded(json: str) -> str:
    """The text that a string of JSON stands for; of anything else, itself."""
    json = cleaned(json)
    try:
        return msgspec.json.decode(json, type=str)
    except msgspec.DecodeError:
        return json


def _another(scanner: Scanner) -> ReaderSteps[bool]:
    """Whether an object begins here, behind what may stand between objects."""
    yield from scanner.pass_over("[],;")
    return (yield from scanner.peek()) == "{"


def _object(
    scanner: Scanner, names: Sequence[str], fits: Callable[[str], bool], keys: Sequence[str] = ()
) -> ReaderSteps[bool]:
    """A call, told as soon as its name is known; what is none becomes text. Without `names` each key is one; with
    `keys` no others stand before the name, and that is a string. Whether it was one.
    """
    place = scanner.mark()
    yield from scanner.take()
    name = ""
    early: list[str] = []
    """Arguments that came before the name."""
    told = False
    tell = emit_arguments(scanner)
    while (yield from _another_key(scanner)):
        key = decoded((yield from text(scanner)))
        if keys and not name and key not in keys:
            break
        yield from scanner.space()
        yield from scanner.passes(":")
        yield from scanner.space()
        if not names or (key in ARGUMENTS and name):
            if not names:
                name = key
                scanner.found.append(ToolCallStart(name))
            yield from _arguments(scanner, tell)
            told = True
        else:
            raw: list[str] = []
            if keys and key in names and (yield from scanner.peek()) != '"':
                break
            scanner.naming = key in names
            yield from value(scanner, raw.append)
            scanner.naming = False
            if key in ARGUMENTS:
                early = raw
            elif key in names and not name:
                if not fits(decoded("".join(raw))):
                    break
                name = decoded("".join(raw))
                if scanner.cut and name == "".join(raw):
                    name = ""  # cut within it
                    break
                scanner.found.append(ToolCallStart(name))
    written = scanner.since(place)
    if not name:
        if keys or not scanner.cut:
            scanner.found.append(TextDelta(written))
        return False
    if not told:
        tell(_plain("".join(early)) or ("" if scanner.cut else NOTHING))
    scanner.found.append(ToolCallEnd())
    return True


def _another_key(scanner: Scanner) -> ReaderSteps[bool]:
    """Whether a key begins here; the object's end is passed over."""
    while True:
        yield from scanner.space()
        char = yield from scanner.peek()
        if char == '"':
            return True
        if char == "}":
            yield from scanner.take()
        if char != ",":
            return False
        yield from scanner.take()


def _arguments(scanner: Scanner, tell: Emit) -> ReaderSteps[None]:
    """Some models write them as a text that has the JSON in it."""
    if (yield from scanner.peek()) == '"':
        written = yield from text(scanner)
        tell(_begun(written) if scanner.cut else decoded(written) or NOTHING)
    else:
        yield from value(scanner, tell)


def _begun(json: str) -> str:
    """The text that a string of JSON stands for, or the beginning of one."""
    for end in range(len(json), max(len(json) - LONGEST_ESCAPE, 0), -1):
        for closing in ("", '"'):
            with suppress(msgspec.DecodeError):
                return msgspec.json.decode(f"{cleaned(json[:end])}{closing}", type=str)
    return ""


LONGEST_ESCAPE = 12
"""Characters of an escape in JSON: a pair of surrogates."""


def _plain(json: str) -> str:
    return decoded(json) if json.startswith('"') else json
