"""Read JSON values as a model writes them: verbatim, while they arrive, even if they are cut off. Pure."""

from contextlib import suppress

import msgspec

from engine.notations.parsed import ToolCallArguments
from engine.notations.scanner import Emit, ReaderSteps, Scanner, cleaned

EMPTY_OBJECT = "{}"
MAX_ESCAPE = 12
"""Characters of the longest escape in JSON, a pair of surrogates."""


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


def raw_value(scanner: Scanner) -> ReaderSteps[list[str]]:
    """Return the parts of a JSON value as it is written."""
    raw: list[str] = []
    yield from emit_value(scanner, raw.append)
    return raw


def emit_call_arguments(scanner: Scanner, emit: Emit) -> ReaderSteps[None]:
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
