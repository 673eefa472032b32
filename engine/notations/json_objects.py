"""Read calls in JSON: an object that names the function, or arguments after a name. Pure."""

from collections.abc import Callable, Container, Mapping, Sequence
from typing import TypeAlias

from engine.notations.argument_schema import ArgumentSchema
from engine.notations.call_object import BEFORE_NAMES, NAMES, CallObject
from engine.notations.json_values import EMPTY_OBJECT, emit_arguments, emit_value
from engine.notations.parsed import TextDelta, ToolCallArguments, ToolCallEnd, ToolCallStart
from engine.notations.scanner import ReaderSteps, Scanner

Offered: TypeAlias = Mapping[str, ArgumentSchema]
"""Functions that the model may call, with the schemas of their arguments."""
Read: TypeAlias = Callable[[Scanner, Offered], ReaderSteps[None]]
"""Reads calls, from their beginning on."""

SEPARATORS = ";,"
"""Characters that may separate calls without a marker."""


def objects(scanner: Scanner, offered: Offered) -> ReaderSteps[None]:
    """Read `{"name": ..., "arguments": {...}}`, once or several times, in a list or not."""
    yield from objects_but("")(scanner, offered)


def objects_but(no_call: str) -> Read:
    """Return a reader of the same objects that drops those with the name `no_call`, unless a function has it."""

    def read(scanner: Scanner, offered: Offered) -> ReaderSteps[None]:
        while (yield from _another(scanner)):
            yield from CallObject(scanner, NAMES, bool, no_call="" if no_call in offered else no_call).read()

    return read


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
        if not (yield from CallObject(scanner, NAMES, offered.__contains__, (*NAMES, *BEFORE_NAMES)).read()):
            written = scanner.output.pop()
            assert isinstance(written, TextDelta), "an object that is not a call is text"
            scanner.output.append(TextDelta(written.text if called else lead + written.text))
            return called
        called = True
        yield from scanner.skip(SEPARATORS)
    if is_list:
        yield from scanner.skip_literal("]")
    return called


def begins_bare(scanner: Scanner) -> ReaderSteps[bool]:
    """True if an object or a list of objects follows. Consume nothing."""
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
        yield from CallObject(scanner, (), bool).read()


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
        if scanner.is_cut_before(marker):
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


def _another(scanner: Scanner) -> ReaderSteps[bool]:
    """Skip separators and return True if an object begins."""
    yield from scanner.skip("[],;")
    return (yield from scanner.peek()) == "{"
