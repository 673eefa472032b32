"""Read a call that is one JSON object. Pure."""

from collections.abc import Callable, Sequence

from engine.notations.json_values import (
    EMPTY_OBJECT,
    decode_string,
    discard,
    emit_arguments,
    emit_call_arguments,
    raw_value,
    read_string,
)
from engine.notations.parsed import TextDelta, ToolCallEnd, ToolCallStart
from engine.notations.scanner import ReaderSteps, Scanner

NAMES = ("name", "tool_name", "function")
"""Keys of the function's name."""
ARGUMENTS = ("arguments", "parameters")
"""Keys of the arguments."""
BEFORE_NAMES = ("type", "id")
"""Keys that may precede the name in a call without a marker."""


class CallObject:
    """Reads one object that may be a call. A call is emitted once its name is complete.

    Without `names`, each key is a function's name. With `keys`, only these keys may precede the name, which must be a
    string. `fits` returns True for acceptable names. An object with the name `no_call` is dropped.
    """

    def __init__(
        self,
        scanner: Scanner,
        names: Sequence[str],
        fits: Callable[[str], bool],
        keys: Sequence[str] = (),
        no_call: str = "",
    ) -> None:
        self._scanner, self._names, self._fits, self._keys, self._no_call = scanner, names, fits, keys, no_call
        self._name = ""
        self._early_arguments: list[str] = []
        """Arguments that precede the name."""
        self._has_arguments = False

    def read(self) -> ReaderSteps[bool]:
        """Emit the call and return True, or emit the object as text and return False."""
        scanner = self._scanner
        place = scanner.mark()
        yield from scanner.take()
        while (yield from _another_key(scanner)):
            if not (yield from self._member()):
                break
        if self._name:
            self._end()
            return True
        written = scanner.text_since(place)
        if self._keys or not scanner.cut:
            scanner.output.append(TextDelta(written))
        return False

    def _member(self) -> ReaderSteps[bool]:
        """Read a key with its value. Return False if the object cannot be a call."""
        scanner = self._scanner
        key = decode_string((yield from read_string(scanner)))
        if self._keys and not self._name and key not in self._keys:
            return False
        yield from scanner.skip_space()
        yield from scanner.skip_literal(":")
        yield from scanner.skip_space()
        if not self._names:
            self._start(key)
            yield from self._arguments()
        elif key in ARGUMENTS and self._name:
            yield from self._arguments()
        elif key in self._names:
            return (yield from self._read_name())
        else:
            raw = yield from raw_value(scanner)
            if key in ARGUMENTS:
                self._early_arguments = raw
        return True

    def _read_name(self) -> ReaderSteps[bool]:
        """Read the value of a name's key; the first one is the name. Return False if it is none."""
        scanner = self._scanner
        if self._keys and (yield from scanner.peek()) != '"':
            return False
        scanner.in_name = True
        raw = "".join((yield from raw_value(scanner)))
        scanner.in_name = False
        if self._name:
            return True
        name = decode_string(raw)
        is_incomplete = scanner.cut and name == raw
        if is_incomplete or not self._fits(name):
            return False
        self._start(name)
        return True

    def _start(self, name: str) -> None:
        self._name = name
        if name != self._no_call:
            self._scanner.output.append(ToolCallStart(name))

    def _arguments(self) -> ReaderSteps[None]:
        is_call = self._name != self._no_call
        yield from emit_call_arguments(self._scanner, emit_arguments(self._scanner) if is_call else discard)
        self._has_arguments = True

    def _end(self) -> None:
        if self._name == self._no_call:
            return
        if not self._has_arguments:
            early = "".join(self._early_arguments)
            if early.startswith('"'):
                early = decode_string(early)
            emit_arguments(self._scanner)(early or ("" if self._scanner.cut else EMPTY_OBJECT))
        self._scanner.output.append(ToolCallEnd())


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
