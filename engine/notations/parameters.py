"""Calls that are no JSON: each argument by itself, between tags or as in a programming language. Pure.

Where arguments begin like JSON all the same, that is read.
What comes out is JSON all the same. A parameter that is declared as a text streams; any other value is looked at when
it is whole, for its kind is not written.
"""

import ast
import math
import warnings
from contextlib import suppress
from typing import Any

import msgspec
from msgspec import Struct

from engine.notations.argument_schema import UNDECLARED, ArgumentSchema
from engine.notations.json_objects import NOTHING, Offered, Read, emit_arguments, value
from engine.notations.parsed import TextDelta, ToolCallEnd, ToolCallStart
from engine.notations.scanner import Emit, ReaderSteps, Scanner, cleaned

MOST_NESTED = 64
"""Levels of its values; what is deeper is text."""


class Tags(Struct, frozen=True):
    """How a call's parts are marked. A name or a key may have attributes behind it, after a quotation mark."""

    begin: str
    """Before the name; empty where it comes at once."""
    name_ends: tuple[str, ...]
    end: tuple[str, ...]
    """Of the call."""
    key: str
    key_ends: str
    value: str
    """Before the value; empty where it follows the key at once."""
    value_ends: str
    padded: bool = False
    """Whether values stand on lines of their own."""


def tagged(tags: Tags) -> Read:
    def read(scanner: Scanner, offered: Offered) -> ReaderSteps[None]:
        while True:
            yield from scanner.space()
            if tags.begin and not (yield from scanner.passes(tags.begin)):
                return
            head, marker = yield from scanner.collect((*tags.name_ends, *tags.end, tags.key))
            if not marker and scanner.cut:
                return
            if marker not in tags.name_ends:
                scanner.back(marker)
            name = head.split('"')[0].strip()
            if not name:
                return
            scanner.found.append(ToolCallStart(name))
            yield from _tagged_arguments(scanner, tags, offered.get(name, UNDECLARED))
            scanner.found.append(ToolCallEnd())
            if not tags.begin:
                return

    return read


def _tagged_arguments(scanner: Scanner, tags: Tags, declared: ArgumentSchema) -> ReaderSteps[None]:
    tell = emit_arguments(scanner)
    yield from scanner.space()
    if (yield from scanner.peek()) == "{":
        yield from value(scanner, tell)
        yield from scanner.until(tags.end, discard)
        return
    opening = "{"
    while (marker := (yield from scanner.until((tags.key, *tags.end), discard))) == tags.key:
        head, marker = yield from scanner.collect((tags.key_ends,))
        if not marker and scanner.cut:
            break
        if tags.value:
            marker = yield from scanner.until((tags.value, *tags.end), discard)
        key, _, attributes = head.partition('"')
        key = key.strip()
        tell(f"{opening}{in_json(key)}: ")
        opening = ", "
        if not marker and scanner.cut:
            break
        is_text = 'string="true"' in attributes or 'type="string"' in attributes
        yield from tagged_value(scanner, tags, tell, declared.parameter(key), is_text)
    if marker or not scanner.cut:
        tell("}" if opening == ", " else NOTHING)


def tagged_value(
    scanner: Scanner, tags: Tags, tell: Emit, declared: ArgumentSchema, is_text: bool = False
) -> ReaderSteps[None]:
    """Read a value up to its end tag, or to the next key or the call's end where a model left the tag out. `is_text`:
    True if the model wrote that it is a text."""
    left = tuple(filter(None, (tags.key, *tags.end)))
    closing = [tags.value_ends]
    if tags.padded:
        yield from scanner.passes("\n")
        left = (*left, *(f"\n{end}" for end in left))
        closing.append(f"\n{tags.value_ends}")
    plain = yield from scanner.passes("<![CDATA[")
    if plain:
        closing.append(f"]]>{tags.value_ends}")
    ends = (*closing, *left)
    if is_text or plain or declared.kind == "string":
        tell('"')
        marker = yield from scanner.until(ends, lambda text: tell(in_json(text)[1:-1]))
        if marker or not scanner.cut:
            tell('"')
    else:
        optional = declared.optional is not None
        text, marker = yield from _undeclared(scanner, ends, '"' if optional else '{["')
        if marker or not scanner.cut:  # of a part, nobody knows the kind
            tell(in_json(_optional(text) if optional else infer_value(text)))
    if marker in left:
        scanner.back(marker)


def _undeclared(scanner: Scanner, ends: tuple[str, ...], json: str) -> ReaderSteps[tuple[str, str]]:
    """A value, and what ends it. If it is JSON, a text in that may have such an end in it; `json`: characters by which
    that begins."""
    place = scanner.mark()
    chars: list[str] = []
    yield from scanner.space()
    if (yield from scanner.peek()) in tuple(json):
        yield from value(scanner, chars.append)
        yield from scanner.space()
        for end in ends:
            if (yield from scanner.passes(end)):
                scanner.since(place)
                return "".join(chars), end
        if scanner.cut and not (yield from scanner.collect(ends))[1]:
            scanner.since(place)
            return "", ""
    scanner.rewind(place)
    return (yield from scanner.collect(ends))


def pythonic(end: str = "") -> Read:
    """Read `[name(key='text', other=3)]`. `end`: a marker up to which calls may follow each other without a comma."""

    def read(scanner: Scanner, offered: Offered) -> ReaderSteps[None]:
        while True:
            yield from scanner.pass_over("[],;")
            name, marker = yield from scanner.collect(("(", "]", "\n", end))
            if marker != "(":
                if name.strip() and (marker or not scanner.cut):
                    scanner.found.append(TextDelta(name.strip()))
                if marker == end:
                    scanner.back(end)
                return
            scanner.found.append(ToolCallStart(name.strip()))
            yield from _pythonic_arguments(scanner)
            scanner.found.append(ToolCallEnd())
            yield from scanner.space()
            if not end and (yield from scanner.peek()) not in (",", ";"):
                yield from scanner.passes("]")
                return

    return read


def _pythonic_arguments(scanner: Scanner) -> ReaderSteps[None]:
    tell = emit_arguments(scanner)
    yield from scanner.space()
    if (yield from scanner.peek()) == "{":
        yield from value(scanner, tell)
        yield from scanner.until((")",), discard)
        return
    opening = "{"
    while True:
        yield from scanner.pass_over(",")
        key, marker = yield from scanner.collect(("=", ")"))
        if marker != "=":
            break
        tell(f"{opening}{in_json(key.strip())}: ")
        opening = ", "
        literal = yield from _literal(scanner)
        if scanner.cut and not (yield from scanner.peek()):
            tell(_begun(literal))
            return
        tell(in_json(infer_value(literal)))
    if marker or not scanner.cut:
        tell("}" if opening == ", " else NOTHING)


def _literal(scanner: Scanner) -> ReaderSteps[str]:
    """Up to the comma or the bracket that is not within it."""
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


def _begun(literal: str) -> str:
    """A text that was cut, as the beginning of one in JSON; nothing of any other value."""
    literal = cleaned(literal).lstrip()
    if literal[:1] not in ("'", '"'):
        return ""
    for end in range(len(literal), max(len(literal) - _LONGEST_ESCAPE, 0), -1):
        text = infer_value(f"{literal[:end]}{literal[0]}")
        if isinstance(text, msgspec.Raw):
            text = msgspec.json.decode(text)
        if isinstance(text, str) and text[:1] != literal[0]:
            return in_json(text)[:-1]
    return ""


_LONGEST_ESCAPE = 10
"""Characters that a cut may leave of one, as in `\\U0001f600`."""


NULLS = ("null", "None")
"""Null as JSON has it, and as the templates of Qwen3-Coder and Seed write it for past calls."""


def _optional(text: str) -> str | None:
    """A text or null, by the rule of `ArgumentSchema.optional`."""
    text = cleaned(text)
    with suppress(msgspec.DecodeError):
        if text.lstrip().startswith('"'):
            return msgspec.json.decode(text.strip(), type=str)
    return None if text.strip() in NULLS else text


def infer_value(text: str) -> Any:  # what JSON has
    """The value that was meant: of JSON, else of Python, else the text itself."""
    text = cleaned(text)
    with suppress(msgspec.DecodeError, RecursionError):
        msgspec.json.decode(text, type=msgspec.Raw)  # not as a value: JSON has numbers that Python has not
        return msgspec.Raw(text.strip().encode())
    if text.strip().startswith(_LITERAL):
        for attempt in (text, text.translate(_LINE_ENDS)):  # quotes of Python's end with the line
            with suppress(ValueError, SyntaxError, RecursionError, MemoryError, TypeError), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about escapes that Python doesn't know
                return _checked(ast.literal_eval(attempt.strip()))
    return text


_LINE_ENDS = str.maketrans({"\n": "\\n", "\r": "\\r", "\0": "\\x00"})
_LITERAL = tuple("\"'[{(-+.0123456789TFN")


def _checked(value: object) -> Any:  # the same
    """Raises ValueError for what JSON has not."""
    match value:
        case dict():
            return {str(key): _checked(inner) for key, inner in value.items()}
        case list() | tuple():
            return [_checked(inner) for inner in value]
        case None | bool() | str():
            return value
        case int() if -(2**63) <= value < 2**64:
            return value
        case float() if math.isfinite(value):
            return value
    raise ValueError


def in_json(value: Any) -> str:  # what JSON has
    return msgspec.json.encode(value).decode()


def discard(text: str) -> None:
    """What stands between arguments is left out."""
