"""Read calls whose arguments stand between tags. Pure.

Readers emit the arguments as JSON. Arguments that begin like JSON are read as JSON. A parameter that is declared as a
text streams. The type of any other value is not written, so it is inferred once the value is complete.
"""

from contextlib import suppress
from typing import Any

import msgspec
from msgspec import Struct

from engine.notations.argument_schema import UNDECLARED, ArgumentSchema, types_of_value
from engine.notations.json_objects import Offered, Read
from engine.notations.json_values import (
    ObjectEmitter,
    discard,
    emit_arguments,
    emit_text,
    emit_value,
    in_json,
    infer_value,
)
from engine.notations.parsed import ToolCallEnd, ToolCallStart
from engine.notations.scanner import Emit, ReaderSteps, Scanner, cleaned

MAX_NESTING = 64
"""Levels of nested values; deeper ones are text."""


class Tags(Struct, frozen=True):
    """Markers of a call's parts. A quotation mark after a name or a key begins further attributes."""

    begin: str
    """Marker before the name; empty if the call begins with the name."""
    name_ends: tuple[str, ...]
    """Markers after the name."""
    end: tuple[str, ...]
    """Markers after the call."""
    key: str
    """Marker before a key."""
    key_ends: str
    """Marker after a key."""
    value: str
    """Marker before the value; empty if the value follows `key_ends` directly."""
    value_ends: str
    """Marker after the value."""
    padded: bool = False
    """True if a line break encloses each value."""

    @property
    def ends(self) -> tuple[str, ...]:
        """Return the markers that end a value."""
        return (self.value_ends, self.key, *self.end)


def tagged(tags: Tags) -> Read:
    """Return a reader of calls whose arguments stand between tags."""

    def read(scanner: Scanner, offered: Offered) -> ReaderSteps[None]:
        while True:
            yield from scanner.skip_space()
            if tags.begin and not (yield from scanner.skip_literal(tags.begin)):
                return
            head, marker = yield from scanner.collect((*tags.name_ends, *tags.end, tags.key))
            if scanner.is_cut_before(marker):
                return
            if marker not in tags.name_ends:
                scanner.unread(marker)
            name = head.split('"')[0].strip()
            if not name:
                return
            scanner.output.append(ToolCallStart(name))
            yield from _tagged_arguments(scanner, tags, offered.get(name, UNDECLARED))
            scanner.output.append(ToolCallEnd())
            if not tags.begin:
                return

    return read


def _tagged_arguments(scanner: Scanner, tags: Tags, declared: ArgumentSchema) -> ReaderSteps[None]:
    emit = emit_arguments(scanner)
    yield from scanner.skip_space()
    if (yield from scanner.peek()) == "{":
        yield from emit_value(scanner, emit)
        yield from scanner.until(tags.end, discard)
        return
    arguments = ObjectEmitter(emit)
    while (marker := (yield from scanner.until((tags.key, *tags.end), discard))) == tags.key:
        head, marker = yield from scanner.collect((tags.key_ends,))
        if scanner.is_cut_before(marker):
            break
        if tags.value:
            marker = yield from scanner.until((tags.value, *tags.end), discard)
        key, _, attributes = head.partition('"')
        key = key.strip()
        emit_once = emit if arguments.begin(key) else discard
        if scanner.is_cut_before(marker):
            break
        is_text = 'string="true"' in attributes or 'type="string"' in attributes
        yield from tagged_value(scanner, tags, emit_once, declared.parameter(key), is_text)
    if not scanner.is_cut_before(marker):
        arguments.end()


def tagged_value(
    scanner: Scanner, tags: Tags, emit: Emit, declared: ArgumentSchema, is_text: bool = False
) -> ReaderSteps[None]:
    """Read a value up to its end tag. If the model omits the tag, the next key or the call's end ends the value.

    `is_text` is True if the model declared the value as a text.
    """
    following = tuple(filter(None, (tags.key, *tags.end)))
    closing = [tags.value_ends]
    if tags.padded:
        yield from scanner.skip_literal("\n")
        following = (*following, *(f"\n{end}" for end in following))
        closing.append(f"\n{tags.value_ends}")
    plain = yield from scanner.skip_literal(_CDATA)
    if not plain and scanner.ends_within(_CDATA):
        return
    if plain:
        closing.append(f"]]>{tags.value_ends}")
    ends = (*closing, *following)
    if is_text or plain or declared.type == "string":
        marker = yield from emit_text(scanner, emit, ends)
    else:
        marker = yield from _emit_inferred(scanner, emit, ends, declared)
    if marker in following:
        scanner.unread(marker)


def _emit_inferred(scanner: Scanner, emit: Emit, ends: tuple[str, ...], declared: ArgumentSchema) -> ReaderSteps[str]:
    """Emit a value whose type is inferred. Consume and return the marker that ends it."""
    optional = declared.optional is not None
    text, marker = yield from _collect_value(scanner, ends, '"' if optional else '{["')
    if not scanner.is_cut_before(marker):  # the type of an incomplete value is unknown
        emit(in_json(_optional(text) if optional else _permitted(text, declared)))
    return marker


def _collect_value(scanner: Scanner, ends: tuple[str, ...], json: str) -> ReaderSteps[tuple[str, str]]:
    """Return a value and the marker that ends it. A value that begins with a character of `json` may be JSON, whose
    texts may contain such a marker."""
    place = scanner.mark()
    chars: list[str] = []
    yield from scanner.skip_space()
    if (yield from scanner.peek()) in tuple(json):
        yield from emit_value(scanner, chars.append)
        yield from scanner.skip_space()
        for end in ends:
            if (yield from scanner.skip_literal(end)):
                scanner.text_since(place)
                return "".join(chars), end
        if scanner.cut and not (yield from scanner.collect(ends))[1]:
            scanner.text_since(place)
            return "", ""
    scanner.rewind(place)
    return (yield from scanner.collect(ends))


_CDATA = "<![CDATA["
"""Opening of a text that may contain closing tags."""
NULLS = ("null", "None")
"""Null in JSON, and as the templates of Qwen3-Coder and Seed write it for past calls."""


def _optional(text: str) -> str | None:
    """Return a text or None, by the rule of `ArgumentSchema.optional`."""
    text = cleaned(text)
    with suppress(msgspec.DecodeError):
        if text.lstrip().startswith('"'):
            return msgspec.json.decode(text.strip(), type=str)
    return None if text.strip() in NULLS else text


def _permitted(text: str, declared: ArgumentSchema) -> Any:  # a JSON value
    """Return the inferred value, or the text itself if it may be a text and the value's type is not permitted."""
    value, types = infer_value(text), declared.types
    if types is None or "string" not in types:
        return value
    decoded = msgspec.json.decode(value) if isinstance(value, msgspec.Raw) else value
    return value if types.intersection(types_of_value(decoded)) else cleaned(text)
