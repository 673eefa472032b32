"""Read JSON values as a model writes them: verbatim, while they arrive, even if they are cut off. Pure."""

import ast
import math
import re
import warnings
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

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


class ObjectEmitter:
    """Emitter of an object in JSON. An object has each key once."""

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self._keys: set[str] = set()

    def begin(self, key: str) -> bool:
        """Emit a key, before its value; return False if the object has it already."""
        if key in self._keys:
            return False
        self._emit(f"{', ' if self._keys else '{'}{in_json(key)}: ")
        self._keys.add(key)
        return True

    def end(self) -> None:
        """Emit the end of the object."""
        self._emit("}" if self._keys else EMPTY_OBJECT)


class ListEmitter:
    """Emitter of a list in JSON."""

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self._before = "["

    def begin(self, _: str) -> bool:
        """Emit the text before an item, which has no key."""
        self._emit(self._before)
        self._before = ", "
        return True

    def end(self) -> None:
        """Emit the end of the list."""
        self._emit("[]" if self._before == "[" else "]")


def emit_text(scanner: Scanner, emit: Emit, ends: Sequence[str]) -> ReaderSteps[str]:
    """Emit a verbatim text as a JSON string. Consume and return the marker that ends it."""
    emit('"')
    marker = yield from scanner.until(ends, lambda text: emit(in_json(text)[1:-1]))
    if not scanner.is_cut_before(marker):
        emit('"')
    return marker


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


def infer_value(text: str) -> Any:  # a JSON value
    """Return the value of JSON, else of a Python literal, else the text itself."""
    text = cleaned(text)
    with suppress(msgspec.DecodeError, RecursionError):
        msgspec.json.decode(text, type=msgspec.Raw)  # Raw preserves numbers that Python cannot represent
        return msgspec.Raw(text.strip().encode())
    if text.strip() in WORDS:
        return WORDS[text.strip()]
    if text.strip().startswith(_LITERAL):
        # A Python string must not contain a line break.
        for attempt in (text, _QUOTED.sub(lambda quoted: quoted[0].translate(_LINE_ENDS), text)):
            with suppress(ValueError, SyntaxError, RecursionError, MemoryError, TypeError), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Python warns of unknown escapes
                return _as_json(ast.literal_eval(attempt.strip()))
    return text


_QUOTED = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\"""", re.DOTALL)
_LINE_ENDS = str.maketrans({"\n": "\\n", "\r": "\\r", "\0": "\\x00"})
_LITERAL = tuple("\"'[{(-+.0123456789")
WORDS = {"True": True, "False": False, "None": None}
"""Python's words for JSON's."""


def _as_json(value: object) -> Any:  # a JSON value
    """Return a Python value as JSON. Raises ValueError for values that JSON lacks."""
    match value:
        case dict():
            return {str(key): _as_json(inner) for key, inner in value.items()}
        case list() | tuple():
            return [_as_json(inner) for inner in value]
        case None | bool():
            return value
        case str():
            value.encode()  # an escape may stand for half of a surrogate pair, which JSON's texts lack
            return value
        case int():
            return msgspec.Raw(str(value).encode())  # msgspec encodes no more than 64 bits
        case float() if math.isfinite(value):
            return value
    raise ValueError


def in_json(value: Any) -> str:  # a JSON value
    return msgspec.json.encode(value).decode()


def discard(text: str) -> None:
    """Return a value in JSON."""
    """Ignore a text that means nothing."""
